//! Sending and receiving frames over sockets, and between a host and its own devices.

mod outlet;
mod socket;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use outlet::SocketOutlet;
pub use socket::Socket;

use super::wire::frame;

/// A peer that is silent for so long is taken for dead; both sides see to it that a living one is not.
pub const SILENCE: Duration = Duration::from_millis(1600);

/// Payloads up to this length travel in one piece with their message.
const SMALL: usize = 16 << 10;

/// Locks, where no holder panics while the state is half changed.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
            Self::Socket(outlet) => outlet.is_closed(),
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
