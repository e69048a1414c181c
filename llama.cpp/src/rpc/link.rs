//! Sending and receiving frames over sockets, and between a host and its own devices.

use std::collections::VecDeque;
use std::io;
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send, shutdown, sockopt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::wire::frame::{self, HEAD, Limits};

/// A peer that is silent for so long is taken for dead; both sides see to it that a living one is not.
pub const SILENCE: Duration = Duration::from_millis(1600);

/// A frame that has begun brings at least so many bytes in the time that a silent peer is given: with a
/// broken length, a few bytes now and then would never end it.
const LEAST_BYTES: usize = 64 << 10;

/// Bytes that may wait to be sent before the sender must.
const MOST_WAITING: usize = 64 << 20;

/// Bytes that are asked of a socket at once.
const READ_AT_ONCE: usize = 64 << 10;

/// Payloads up to this length travel in one piece with their message.
const SMALL: usize = 16 << 10;

/// Locks, where no holder panics while the state is half changed.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One end of an ordered byte stream.
#[derive(Debug)]
pub struct Socket {
    stream: OwnedFd,
    pace: Pace,
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
        if slow || self.deadline.is_some_and(|deadline| now >= deadline) {
            return Err(silent());
        }
        Ok(count)
    }
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
        let message = self.read_vec(lengths.message)?;
        let message = frame::message(&message).map_err(invalid)?;
        let payload = self.read_vec(lengths.payload)?;
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

    /// Reads so many bytes; memory grows with what came, not with what was announced.
    fn read_vec(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        while bytes.len() < length {
            let from = bytes.len();
            let more = (length - from).min(from.max(READ_AT_ONCE));
            bytes.resize(from + more, 0);
            self.read_full(&mut bytes[from..])?;
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

fn send_all(stream: &impl AsFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match send(stream, bytes, SendFlags::NOSIGNAL) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Takes messages of a peer in the same process.
pub trait Receive<M>: Send + Sync {
    /// Takes one, in order.
    fn receive(&self, message: M, payload: Bytes);
    /// The peer has gone.
    fn closed(&self);
}

/// The sending end of a link.
pub enum Outlet<M> {
    /// To another process.
    Socket(Arc<SocketOutlet>),
    /// To this one.
    Local(Arc<dyn Receive<M>>),
}

impl<M> Clone for Outlet<M> {
    fn clone(&self) -> Self {
        match self {
            Self::Socket(outlet) => Self::Socket(outlet.clone()),
            Self::Local(receiver) => Self::Local(receiver.clone()),
        }
    }
}

impl<M> std::fmt::Debug for Outlet<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Socket(_) => "Outlet::Socket",
            Self::Local(_) => "Outlet::Local",
        })
    }
}

/// What a sender does where too much waits already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Full {
    Wait,
    Skip,
    Exceed,
}

impl<M: Serialize + DeserializeOwned> Outlet<M> {
    /// Sends a message. Where the peer is gone nothing happens: whoever receives from it knows.
    pub fn send(&self, message: M, payload: Bytes) {
        self.send_or(Full::Wait, message, payload);
    }

    /// Sends a message, but not where much waits already: for those that must not wait themselves.
    pub fn send_if_idle(&self, message: M) {
        self.send_or(Full::Skip, message, Bytes::new());
    }

    /// Sends a message without waiting, however much waits already: for what is limited otherwise.
    pub fn send_at_once(&self, message: M, payload: Bytes) {
        self.send_or(Full::Exceed, message, payload);
    }

    /// Whether nothing can be sent any more.
    pub fn is_closed(&self) -> bool {
        match self {
            Self::Socket(outlet) => lock(&outlet.waiting).closed,
            Self::Local(_) => false,
        }
    }

    fn send_or(&self, full: Full, message: M, payload: Bytes) {
        match self {
            Self::Local(receiver) => receiver.receive(message, payload),
            Self::Socket(outlet) => {
                let mut bytes = Vec::with_capacity(64 + payload.len().min(SMALL));
                if payload.len() <= SMALL {
                    frame::append(&mut bytes, &message, &payload);
                    outlet.send(vec![bytes.into()], full);
                } else {
                    frame::append(&mut bytes, &message, &[]);
                    frame::announce_payload(&mut bytes, payload.len());
                    outlet.send(vec![bytes.into(), payload], full);
                }
            }
        }
    }

    /// Sends frames, in one write.
    pub fn send_frames(&self, frames: Vec<u8>) {
        match self {
            Self::Socket(outlet) => outlet.send(vec![frames.into()], Full::Wait),
            Self::Local(receiver) => {
                let mut rest: Bytes = frames.into();
                while let Some((message, payload)) = frame::split_first(&mut rest) {
                    receiver.receive(message, payload);
                }
            }
        }
    }

    /// Ends the link, for both directions.
    pub fn close(&self) {
        match self {
            Self::Socket(outlet) => outlet.close(),
            Self::Local(receiver) => receiver.closed(),
        }
    }
}

/// Sends at once what the system takes, and the rest on a thread of its own.
#[derive(Debug)]
pub struct SocketOutlet {
    stream: OwnedFd,
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    pieces: VecDeque<Bytes>,
    bytes: usize,
    /// The thread is sending a piece.
    sending: bool,
    closed: bool,
}

impl SocketOutlet {
    fn start(stream: OwnedFd) -> io::Result<Arc<Self>> {
        let outlet = Arc::new(Self {
            stream,
            waiting: Mutex::default(),
            changed: Condvar::new(),
        });
        let own = outlet.clone();
        thread::Builder::new()
            .name("split send".into())
            .spawn(move || own.send_waiting())?;
        Ok(outlet)
    }

    fn send(&self, pieces: Vec<Bytes>, full: Full) {
        let mut waiting = lock(&self.waiting);
        while waiting.bytes > MOST_WAITING && !waiting.closed && full != Full::Exceed {
            if full == Full::Skip {
                return;
            }
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        if waiting.closed {
            return;
        }
        let mut idle = waiting.pieces.is_empty() && !waiting.sending;
        for mut piece in pieces {
            while idle && !piece.is_empty() {
                match send(&self.stream, &piece, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                    Ok(count) => drop(piece.split_to(count)),
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => idle = false,
                    Err(_) => return self.close_locked(&mut waiting),
                }
            }
            if !piece.is_empty() {
                waiting.bytes += piece.len();
                waiting.pieces.push_back(piece);
            }
        }
        if !waiting.pieces.is_empty() {
            self.changed.notify_all();
        }
    }

    fn send_waiting(&self) {
        let mut waiting = lock(&self.waiting);
        while !waiting.closed {
            let Some(piece) = waiting.pieces.pop_front() else {
                waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            waiting.sending = true;
            drop(waiting);
            let sent = send_all(&self.stream, &piece);
            waiting = lock(&self.waiting);
            waiting.sending = false;
            // Nothing waits any more where it was closed meanwhile.
            waiting.bytes = waiting.bytes.saturating_sub(piece.len());
            if sent.is_err() {
                self.close_locked(&mut waiting);
            }
            self.changed.notify_all();
        }
    }

    fn close(&self) {
        self.close_locked(&mut lock(&self.waiting));
    }

    fn close_locked(&self, waiting: &mut Waiting) {
        if !std::mem::replace(&mut waiting.closed, true) {
            // One that the peer has closed already needs no closing.
            let _ = shutdown(&self.stream, rustix::net::Shutdown::Both);
            waiting.pieces.clear();
            waiting.bytes = 0;
            self.changed.notify_all();
        }
    }
}
