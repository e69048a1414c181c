//! The thread that carries packets from one host to another.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::routers::Routers;
use super::rules::{Packet, Rules};

/// The longest packet that a device gives.
const PACKET_BYTES: usize = 1 << 16;

/// Packets that are taken of one host before the others have their turn.
const TURN: usize = 256;

/// Its thread; it ends when this is dropped.
#[derive(Debug)]
pub struct Switch {
    ends: Arc<AtomicBool>,
    wake: Arc<File>,
    thread: Option<JoinHandle<()>>,
}

/// A packet on its way. The order is that of arrival, then that of sending.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct OnItsWay {
    arrives: Instant,
    number: u64,
    from: usize,
    to: usize,
    bytes: Vec<u8>,
}

impl Switch {
    /// Joins these devices, that of host 0 first.
    ///
    /// # Errors
    /// Where there is no thread or file descriptor left.
    pub fn start(
        devices: Vec<Arc<File>>,
        rules: Arc<Mutex<Rules>>,
        routers: Arc<Mutex<Routers>>,
    ) -> anyhow::Result<Self> {
        let ends = Arc::new(AtomicBool::new(false));
        let wake = Arc::new(File::from(eventfd(
            0,
            EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC,
        )?));
        let forwarding = Forwarding {
            devices,
            rules,
            routers,
            queue: BinaryHeap::new(),
            sent: 0,
            buffer: vec![0; PACKET_BYTES].into_boxed_slice(),
        };
        let (its_ends, its_wake) = (ends.clone(), wake.clone());
        let thread = thread::Builder::new()
            .name("netlab switch".to_owned())
            .spawn(move || {
                go_first();
                forwarding.run(&its_ends, &its_wake);
            })?;
        Ok(Self {
            ends,
            wake,
            thread: Some(thread),
        })
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
        // An event descriptor takes eight bytes, and more than a few only ever wait in it.
        let woken = self.wake.as_ref().write(&1u64.to_ne_bytes());
        if let (Ok(_), Some(thread)) = (woken, self.thread.take()) {
            // It has nothing to tell, and a drop must not panic.
            let _ = thread.join();
        }
    }
}

/// A real network does not wait for the hosts' programs to leave it a core. Where the kernel refuses, the
/// delays are longer than they should be while all cores compute.
fn go_first() {
    let parameters = libc::sched_param { sched_priority: 1 };
    // SAFETY: the kernel reads a struct that lives through the call; 0 is the calling thread.
    let done = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) };
    if done != 0 {
        eprintln!(
            "netlab: the switch waits for a core as others do: {}",
            io::Error::last_os_error()
        );
    }
}

#[derive(Debug)]
struct Forwarding {
    devices: Vec<Arc<File>>,
    rules: Arc<Mutex<Rules>>,
    routers: Arc<Mutex<Routers>>,
    queue: BinaryHeap<Reverse<OnItsWay>>,
    /// Packets so far.
    sent: u64,
    buffer: Box<[u8]>,
}

impl Forwarding {
    fn run(mut self, ends: &AtomicBool, wake: &File) {
        while !ends.load(Ordering::Acquire) {
            self.deliver();
            let ready = self.wait(wake);
            for from in ready {
                self.take(from);
            }
        }
    }

    /// Hands over what has arrived by now.
    fn deliver(&mut self) {
        let now = Instant::now();
        while self
            .queue
            .peek()
            .is_some_and(|Reverse(first)| first.arrives <= now)
        {
            let Some(Reverse(packet)) = self.queue.pop() else {
                return;
            };
            if lock(&self.rules).passes(packet.from, packet.to) {
                // A host whose queue is full loses packets, as in any network.
                let _ = self.devices[packet.to].as_ref().write(&packet.bytes);
            }
        }
    }

    /// Waits until a host has sent something, or something arrives; which hosts have.
    fn wait(&self, wake: &File) -> Vec<usize> {
        let timeout = self.queue.peek().map(|Reverse(first)| {
            let left = first.arrives.saturating_duration_since(Instant::now());
            Timespec {
                tv_sec: left.as_secs() as i64,
                tv_nsec: left.subsec_nanos().into(),
            }
        });
        let files = self.devices.iter().map(|device| device.as_fd());
        let mut polled: Vec<PollFd<'_>> = files
            .chain([wake.as_fd()])
            .map(|file| PollFd::from_borrowed_fd(file, PollFlags::IN))
            .collect();
        if poll(&mut polled, timeout.as_ref()).is_err() {
            // Interrupted: the loop comes back.
            return Vec::new();
        }
        let hosts = polled.iter().take(self.devices.len()).enumerate();
        hosts
            .filter(|(_, polled)| polled.revents().contains(PollFlags::IN))
            .map(|(host, _)| host)
            .collect()
    }

    /// Takes what a host has sent.
    fn take(&mut self, from: usize) {
        let now = Instant::now();
        let mut rules = lock(&self.rules);
        let mut routers = lock(&self.routers);
        for _ in 0..TURN {
            let Ok(length) = self.devices[from].as_ref().read(&mut self.buffer) else {
                return;
            };
            let bytes = &mut self.buffer[..length];
            if !routers.carry(bytes, from) {
                continue;
            }
            let Some(packet) = Packet::new(bytes) else {
                continue;
            };
            let arrives = rules.arrival(&packet, from, now);
            if let Some((arrives, to)) = arrives.zip(packet.destination(self.devices.len())) {
                self.sent += 1;
                self.queue.push(Reverse(OnItsWay {
                    arrives,
                    number: self.sent,
                    from,
                    to,
                    bytes: bytes.to_vec(),
                }));
            }
        }
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is one assignment: no panic leaves it half made.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
