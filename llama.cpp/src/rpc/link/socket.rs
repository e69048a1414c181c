//! One end of an ordered byte stream: reads frames, and judges how slowly they may come.

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send, sockopt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Outlet;
use super::outlet::SocketOutlet;
use crate::rpc::wire::frame::{self, HEAD, Limits};

/// A frame that has begun brings at least so many bytes in the time that a silent peer is given: with a
/// broken length, a few bytes now and then would never end it.
const LEAST_BYTES: usize = 64 << 10;

/// Bytes that are asked of a socket at once.
const READ_AT_ONCE: usize = 64 << 10;

/// Bytes of a payload between two words about them.
const MOST_AT_ONCE: usize = 1 << 20;

/// One end of an ordered byte stream.
#[derive(Debug)]
pub struct Socket {
    stream: OwnedFd,
    pace: Pace,
    /// Grows with the bytes of payloads.
    brought: Option<Arc<AtomicU64>>,
    /// Bytes that were read and not used.
    ahead: Vec<u8>,
    used: usize,
}

/// How long reads may take.
#[derive(Debug, Default)]
struct Pace {
    patience: Option<Duration>,
    deadline: Option<Instant>,
    /// Since when the frame has brought how many bytes.
    window: Option<(Instant, usize)>,
}

impl Pace {
    fn read(&mut self, stream: &impl AsFd, into: &mut [u8]) -> io::Result<usize> {
        if let Some(deadline) = self.deadline {
            set_patience(stream, deadline.saturating_duration_since(Instant::now()))?;
        }
        let count = read_some(stream, into)?;
        let now = Instant::now();
        let (since, bytes) = self.window.get_or_insert((now, 0));
        *bytes += count;
        if *bytes >= LEAST_BYTES {
            (*since, *bytes) = (now, 0);
        }
        let slow = self.patience.is_some_and(|patience| now - *since > patience);
        // Where more is there already, this thread came late, and not the bytes.
        if slow && !has_more(stream) || self.deadline.is_some_and(|deadline| now >= deadline) {
            return Err(silent());
        }
        Ok(count)
    }
}

fn has_more(stream: &impl AsFd) -> bool {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    recv(stream, &mut [0; 1], flags).is_ok_and(|(_, count)| count > 0)
}

fn set_patience(stream: &impl AsFd, patience: Duration) -> io::Result<()> {
    let patience = Some(patience.max(Duration::from_millis(1)));
    Ok(sockopt::set_socket_timeout(
        stream,
        sockopt::Timeout::Recv,
        patience,
    )?)
}

fn silent() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "it has been silent for too long")
}

impl Socket {
    /// A socket over a TCP connection, whose small packets leave at once.
    ///
    /// # Errors
    /// Where the system refuses the option.
    pub fn tcp(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(false)?;
        Ok(Self::new(stream.into()))
    }

    /// A socket over any stream of the system.
    pub fn new(stream: OwnedFd) -> Self {
        Self {
            stream,
            pace: Pace::default(),
            brought: None,
            ahead: Vec::new(),
            used: 0,
        }
    }

    /// The other half, for sending.
    ///
    /// # Errors
    /// Where the system has no more descriptors or threads.
    pub fn outlet<M>(&self) -> io::Result<Outlet<M>> {
        Ok(Outlet::Socket(SocketOutlet::start(self.stream.try_clone()?)?))
    }

    /// Reads fail where nothing comes for so long, or next to nothing of a frame.
    ///
    /// # Errors
    /// Where the system refuses.
    pub fn set_patience(&mut self, patience: Duration) -> io::Result<()> {
        self.pace.patience = Some(patience);
        set_patience(&self.stream, patience)
    }

    /// Sending fails where the peer takes nothing for so long.
    ///
    /// # Errors
    /// Where the system refuses.
    pub fn set_send_patience(&self, patience: Duration) -> io::Result<()> {
        Ok(sockopt::set_socket_timeout(
            &self.stream,
            sockopt::Timeout::Send,
            Some(patience),
        )?)
    }

    /// Sending fails where the peer's system has confirmed nothing for so long: for streams that nothing
    /// comes back on.
    ///
    /// # Errors
    /// Where the system refuses.
    pub fn give_up_unanswered(&self, patience: Duration) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        sockopt::set_tcp_user_timeout(
            &self.stream,
            u32::try_from(patience.as_millis()).unwrap_or(u32::MAX),
        )?;
        Ok(())
    }

    /// Adds to `brought` the bytes of payloads, as they come: what shows that a long one is on its way.
    pub fn count_payloads(&mut self, brought: Arc<AtomicU64>) {
        self.brought = Some(brought);
    }

    /// Reads a frame; its message must be an `M`.
    ///
    /// # Errors
    /// Where the stream ends or fails, the peer is silent for too long, or the frame is none.
    pub fn receive<M: DeserializeOwned>(&mut self, limits: Limits) -> io::Result<(M, Bytes)> {
        let mut head = [0; HEAD];
        self.pace.window = None;
        self.read_full(&mut head)?;
        let invalid = |fault| io::Error::new(io::ErrorKind::InvalidData, fault);
        let lengths = frame::lengths(head, limits).map_err(invalid)?;
        let message = self.read_vec(lengths.message, |_| {})?;
        let message = frame::message(&message).map_err(invalid)?;
        let payload = self.read_payload(lengths.payload)?;
        Ok((message, payload.into()))
    }

    /// As [`Self::receive`], but all of it by `deadline`.
    ///
    /// # Errors
    /// The same.
    pub fn receive_by<M: DeserializeOwned>(&mut self, limits: Limits, deadline: Instant) -> io::Result<M> {
        self.pace.deadline = Some(deadline);
        let received = self.receive(limits);
        self.pace.deadline = None;
        Ok(received?.0)
    }

    /// Sends a frame, waiting until it is out.
    ///
    /// # Errors
    /// Where the stream fails.
    pub fn send(&self, message: &impl Serialize) -> io::Result<()> {
        let mut bytes = Vec::new();
        frame::append(&mut bytes, message, &[]);
        send_all(&self.stream, &bytes)
    }

    fn read_payload(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let brought = self.brought.clone();
        self.read_vec(length, |count| {
            if let Some(brought) = &brought {
                brought.fetch_add(count as u64, Ordering::Relaxed);
            }
        })
    }

    /// Reads so many bytes, and says when some have come; memory grows with what came, not with what was
    /// announced.
    fn read_vec(&mut self, length: usize, came: impl Fn(usize)) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while bytes.len() < length {
            let from = bytes.len();
            let more = (length - from).min(from.clamp(READ_AT_ONCE, MOST_AT_ONCE));
            bytes.resize(from + more, 0);
            self.read_full(&mut bytes[from..])?;
            came(more);
        }
        Ok(bytes)
    }

    fn read_full(&mut self, mut into: &mut [u8]) -> io::Result<()> {
        while !into.is_empty() {
            if self.used == self.ahead.len() {
                if into.len() >= READ_AT_ONCE {
                    let count = self.pace.read(&self.stream, into)?;
                    into = &mut into[count..];
                    continue;
                }
                self.ahead.resize(READ_AT_ONCE, 0);
                let count = self.pace.read(&self.stream, &mut self.ahead)?;
                self.ahead.truncate(count);
                self.used = 0;
            }
            let count = into.len().min(self.ahead.len() - self.used);
            into[..count].copy_from_slice(&self.ahead[self.used..self.used + count]);
            self.used += count;
            into = &mut into[count..];
        }
        Ok(())
    }
}

fn read_some(stream: &impl AsFd, into: &mut [u8]) -> io::Result<usize> {
    loop {
        match recv(stream, &mut *into, RecvFlags::empty()) {
            Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((count, _)) => return Ok(count.min(into.len())),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Err(silent()),
            Err(error) => return Err(error.into()),
        }
    }
}

pub(super) fn send_all(stream: &impl AsFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match send(stream, bytes, SendFlags::NOSIGNAL) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_reads_late_does_not_take_the_sender_for_slow() {
        let (near, far) = rustix::net::socketpair(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::STREAM,
            rustix::net::SocketFlags::empty(),
            None,
        )
        .unwrap();
        let patience = Duration::from_secs(1);
        let long_ago = Instant::now().checked_sub(4 * patience).unwrap();
        let mut pace = Pace {
            patience: Some(patience),
            deadline: None,
            window: Some((long_ago, 0)),
        };
        send_all(&far, &[7; 100]).unwrap();
        assert_eq!(pace.read(&near, &mut [0; 60]).unwrap(), 60, "the rest was there");
        let error = pace.read(&near, &mut [0; 60]).unwrap_err();
        assert_eq!(
            error.kind(),
            io::ErrorKind::TimedOut,
            "it is for the rest that it waits"
        );
    }
}
