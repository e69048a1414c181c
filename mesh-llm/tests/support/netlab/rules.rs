//! What becomes of a packet. Pure: packets and the time come as arguments.

use std::ops::{AddAssign, Sub};
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

/// What waits longer than this for a host's turn to send is lost, as in a router whose queue is full.
const LONGEST_QUEUE: Duration = Duration::from_millis(200);

/// Of the choice of what is lost.
const SEED: u64 = 77;

/// What was sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets, those that only acknowledge included.
    pub packets: u64,
    /// Bytes with the heads of IP and TCP.
    pub bytes: u64,
    /// Bytes that programs sent over TCP, what was sent again included.
    pub payload: u64,
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, more: Self) {
        self.packets += more.packets;
        self.bytes += more.bytes;
        self.payload += more.payload;
    }
}

impl Sub for Traffic {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            packets: self.packets - before.packets,
            bytes: self.bytes - before.bytes,
            payload: self.payload - before.payload,
        }
    }
}

/// From one host to another.
#[derive(Debug, Clone, Copy, Default)]
struct Way {
    delay: Duration,
    apart: bool,
    traffic: Traffic,
}

#[derive(Debug, Clone, Copy)]
struct Sender {
    cut: bool,
    /// When all that it sent so far has left it.
    free_at: Option<Instant>,
}

/// The network's properties, and what it has carried.
#[derive(Debug)]
pub struct Rules {
    senders: Vec<Sender>,
    ways: Vec<Way>,
    loss: f64,
    bits_per_second: Option<f64>,
    random: Xoshiro256PlusPlus,
}

impl Rules {
    /// Between so many hosts, without delay or loss.
    pub fn new(hosts: usize) -> Self {
        let sender = Sender {
            cut: false,
            free_at: None,
        };
        Self {
            senders: vec![sender; hosts],
            ways: vec![Way::default(); hosts * hosts],
            loss: 0.0,
            bits_per_second: None,
            random: Xoshiro256PlusPlus::seed_from_u64(SEED),
        }
    }

    fn way(&mut self, from: usize, to: usize) -> &mut Way {
        let hosts = self.senders.len();
        assert!(from < hosts && to < hosts, "there are {hosts} hosts");
        &mut self.ways[from * hosts + to]
    }

    pub fn set_rtt(&mut self, rtt: Duration) {
        for way in &mut self.ways {
            way.delay = rtt / 2;
        }
    }

    pub fn set_rtt_between(&mut self, one: usize, other: usize, rtt: Duration) {
        self.way(one, other).delay = rtt / 2;
        self.way(other, one).delay = rtt / 2;
    }

    pub fn set_loss(&mut self, share: f64) {
        self.loss = share;
    }

    pub fn set_rate(&mut self, bits_per_second: Option<f64>) {
        self.bits_per_second = bits_per_second;
    }

    pub fn set_cut(&mut self, host: usize, cut: bool) {
        self.senders[host].cut = cut;
    }

    pub fn set_apart(&mut self, one: usize, other: usize, apart: bool) {
        self.way(one, other).apart = apart;
        self.way(other, one).apart = apart;
    }

    pub fn traffic(&mut self, from: usize, to: usize) -> Traffic {
        self.way(from, to).traffic
    }

    /// When a packet that was sent `now` is to arrive; never, where it is lost.
    pub fn arrival(&mut self, packet: &Packet<'_>, from: usize, now: Instant) -> Option<Instant> {
        let to = packet.destination(self.senders.len())?;
        self.way(from, to).traffic += packet.traffic();
        if !self.passes(from, to) || self.random.random::<f64>() < self.loss {
            return None;
        }
        let start = self.senders[from].free_at.map_or(now, |free_at| free_at.max(now));
        if start.saturating_duration_since(now) > LONGEST_QUEUE {
            return None;
        }
        let sending = self.bits_per_second.map_or(Duration::ZERO, |rate| {
            Duration::from_secs_f64(packet.bytes.len() as f64 * 8.0 / rate)
        });
        self.senders[from].free_at = Some(start + sending);
        Some(start + sending + self.way(from, to).delay)
    }

    /// Whether nothing is cut between two hosts.
    pub fn passes(&mut self, from: usize, to: usize) -> bool {
        !self.senders[from].cut && !self.senders[to].cut && !self.way(from, to).apart
    }
}

/// The last byte of a host's address.
pub fn last_byte(host: usize) -> u8 {
    u8::try_from(host + 1).expect("a lab has fewer hosts")
}

/// A packet of IPv4.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    bytes: &'a [u8],
}

/// Bytes of IPv4's head without options.
const IP_HEAD: usize = 20;

/// Its number in IP.
const TCP: u8 = 6;

impl<'a> Packet<'a> {
    /// These bytes, if they are one.
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        (bytes.len() >= IP_HEAD && bytes[0] >> 4 == 4).then_some(Self { bytes })
    }

    /// The host that it is for, of so many.
    pub fn destination(&self, hosts: usize) -> Option<usize> {
        if self.bytes[16..19] != [10, 77, 0] {
            return None;
        }
        let host = usize::from(self.bytes[19]).checked_sub(1)?;
        (host < hosts).then_some(host)
    }

    fn traffic(&self) -> Traffic {
        Traffic {
            packets: 1,
            bytes: self.bytes.len() as u64,
            payload: self.payload().unwrap_or(0) as u64,
        }
    }

    /// Bytes that TCP carries.
    fn payload(&self) -> Option<usize> {
        if self.bytes[9] != TCP {
            return None;
        }
        let ip_head = usize::from(self.bytes[0] & 0xf) * 4;
        let tcp_head = usize::from(self.bytes.get(ip_head + 12)? >> 4) * 4;
        self.bytes.len().checked_sub(ip_head + tcp_head)
    }
}
