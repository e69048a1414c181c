//! Home routers: a host behind one has an address of its own network, and shows another to the others. Pure.
//!
//! They do as most do: a port outside stands for one inside, whoever is spoken to, and lets in only whom that one spoke
//! to from there ("endpoint-independent mapping, address and port-dependent filtering" of RFC 4787).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};

use super::rules::last_byte;

/// The first port outside: others than inside, so that nobody can guess them.
const FIRST_PORT: u16 = 20_000;

/// The numbers of TCP and UDP in IP, and where their checksums are.
const TCP: (u8, usize) = (6, 16);
const UDP: (u8, usize) = (17, 6);

/// Bytes of an IP head without options.
const IP_HEAD: usize = 20;

/// All of a lab.
#[derive(Debug, Default)]
pub struct Routers(BTreeMap<usize, Router>);

/// A router.
#[derive(Debug, Default)]
struct Router {
    /// The ports outside, by protocol and port inside.
    outside: BTreeMap<(u8, u16), u16>,
    /// Who may speak to which port outside.
    may_enter: BTreeSet<(u8, u16, SocketAddrV4)>,
}

impl Router {
    /// The port outside for one inside, which may now be spoken to by `other`.
    fn leave(&mut self, protocol: u8, inside: u16, other: SocketAddrV4) -> u16 {
        let next = FIRST_PORT + self.outside.len() as u16;
        let outside = *self.outside.entry((protocol, inside)).or_insert(next);
        self.may_enter.insert((protocol, outside, other));
        outside
    }

    /// The port inside for one outside, if `other` may speak to it.
    fn enter(&self, protocol: u8, outside: u16, other: SocketAddrV4) -> Option<u16> {
        if !self.may_enter.contains(&(protocol, outside, other)) {
            return None;
        }
        let mut ports = self.outside.iter();
        let ((_, inside), _) = ports.find(|((its, _), port)| (*its, **port) == (protocol, outside))?;
        Some(*inside)
    }
}

impl Routers {
    /// Puts a host behind a router.
    pub fn add(&mut self, host: usize) {
        self.0.entry(host).or_default();
    }

    /// Takes a packet of IPv4 through the routers on its way, which change it; whether it gets through.
    pub fn carry(&mut self, bytes: &mut [u8], from: usize) -> bool {
        self.0.is_empty() || self.translate(bytes, from).is_some()
    }

    fn translate(&mut self, bytes: &mut [u8], from: usize) -> Option<()> {
        let mut segment = Segment::new(bytes)?;
        let protocol = segment.protocol.0;
        let to = segment.destination();
        if let Some(router) = self.0.get_mut(&from) {
            let port = router.leave(protocol, segment.source().port(), to);
            segment.set_source(SocketAddrV4::new(public(from), port));
        }
        let host = usize::from(to.ip().octets()[3]).checked_sub(1)?;
        match (*to.ip() == public(host), self.0.get(&host)) {
            (true, Some(router)) if host != from => {
                let port = router.enter(protocol, to.port(), segment.source())?;
                segment.set_destination(SocketAddrV4::new(super::ipv4(host), port));
            }
            (false, None) => {}
            // What is behind a router has no address outside.
            _ => return None,
        }
        segment.sum();
        Some(())
    }
}

/// What a host behind a router is to others.
pub fn public(host: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 1, last_byte(host))
}

/// A packet of TCP or UDP in IPv4.
struct Segment<'a> {
    bytes: &'a mut [u8],
    head: usize,
    protocol: (u8, usize),
}

impl<'a> Segment<'a> {
    /// These bytes, if they are one.
    fn new(bytes: &'a mut [u8]) -> Option<Self> {
        let number = *bytes.get(9)?;
        let protocol = [TCP, UDP].into_iter().find(|(known, _)| *known == number)?;
        let head = usize::from(bytes[0] & 0xf) * 4;
        let is_whole = head >= IP_HEAD && bytes.len() >= head + protocol.1 + 2;
        is_whole.then_some(Self {
            bytes,
            head,
            protocol,
        })
    }

    fn address(&self, ip: usize, port: usize) -> SocketAddrV4 {
        let byte = |at: usize| self.bytes[at];
        let ip = Ipv4Addr::new(byte(ip), byte(ip + 1), byte(ip + 2), byte(ip + 3));
        let port = self.head + port;
        SocketAddrV4::new(ip, u16::from_be_bytes([byte(port), byte(port + 1)]))
    }

    fn set(&mut self, ip: usize, port: usize, address: SocketAddrV4) {
        self.bytes[ip..ip + 4].copy_from_slice(&address.ip().octets());
        let port = self.head + port;
        self.bytes[port..port + 2].copy_from_slice(&address.port().to_be_bytes());
    }

    fn source(&self) -> SocketAddrV4 {
        self.address(12, 0)
    }

    fn destination(&self) -> SocketAddrV4 {
        self.address(16, 2)
    }

    fn set_source(&mut self, address: SocketAddrV4) {
        self.set(12, 0, address);
    }

    fn set_destination(&mut self, address: SocketAddrV4) {
        self.set(16, 2, address);
    }

    /// Writes the checksums that belong to it: IP's, and that of what is in it (RFC 1071).
    fn sum(&mut self) {
        self.bytes[10..12].fill(0);
        let ip = checksum(words(&self.bytes[..self.head]));
        self.bytes[10..12].copy_from_slice(&ip.to_be_bytes());
        let at = self.head + self.protocol.1;
        self.bytes[at..at + 2].fill(0);
        let length = (self.bytes.len() - self.head) as u64;
        let pseudo = words(&self.bytes[12..20]) + u64::from(self.protocol.0) + length;
        let sum = checksum(pseudo + words(&self.bytes[self.head..]));
        // Of UDP, 0 would say that there is none.
        let sum = if sum == 0 { u16::MAX } else { sum };
        self.bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
}

/// The sum of the 16-bit words, the last filled up with a zero.
fn words(bytes: &[u8]) -> u64 {
    let word = |pair: &[u8]| u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]);
    bytes.chunks(2).map(|pair| u64::from(word(pair))).sum()
}

fn checksum(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
