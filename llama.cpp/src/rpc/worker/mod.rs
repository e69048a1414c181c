//! A worker: this machine's devices, offered to hosts.
//!
//! `listen` lets hosts in, `session` takes what one of them sends, a `queue` for each of its devices
//! executes that in order. Hosts are not trusted: `check` decides what ggml may see. A host drives its
//! own devices by the same code, without sockets.

mod account;
pub mod check;
mod device;
mod gpu;
mod item;
mod ledger;
mod list;
mod listen;
mod memory;
mod prepare;
mod queue;
mod run;
mod session;
mod turn;
mod watch;
mod weights;

pub use device::{Device, Most, open_devices};
pub use list::list;
pub use listen::{Worker, WorkerParams};
pub use run::{ServeError, ServeOptions, serve};
pub use session::{ModelSource, Session};

use thiserror::Error;

use crate::rpc::wire::NodeId;

/// Why a session ends before its host wants it to.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Fault {
    /// The host sent what the protocol does not allow.
    #[error("the host sent {0}")]
    Protocol(String),
    /// A graph that ggml must not see.
    #[error("a graph is refused: {0}")]
    Graph(String),
    /// No memory.
    #[error("{needed} bytes are more than the {left} that are left of what the session reserved")]
    Memory {
        /// Bytes asked for.
        needed: u64,
        /// Bytes left.
        left: u64,
    },
    /// The device refuses.
    #[error("device {device} {what}")]
    Device {
        /// Its name.
        device: String,
        /// What it did.
        what: String,
    },
    /// The model's file.
    #[error("the model's file: {0}")]
    File(String),
    /// Another node of the split.
    #[error("node {} of the split is gone: {cause}", node.0)]
    Peer {
        /// Which.
        node: NodeId,
        /// How that was found out.
        cause: String,
    },
    /// A device computes, and does not come to an end.
    #[error("a device has computed the same graph for {0} s and seems to hang")]
    Hang(u64),
    /// Something in this program that should not have happened.
    #[error("the worker has made a mistake; its log says more")]
    Mistake,
    /// The session is over; nobody needs to be told.
    #[error("the session is over")]
    Over,
}

impl Fault {
    fn protocol(what: impl Into<String>) -> Self {
        Self::Protocol(what.into())
    }
}
