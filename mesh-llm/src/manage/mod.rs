//! The management API: what this machine and its mesh do at the moment, and orders to the daemon.
//!
//! There are two ways in. The daemon's socket lies in a folder that only its user can enter: whoever
//! comes by it may see and change everything. The console's port is open to every user of the machine
//! and to every web page that one of them looks at: it changes nothing and shows no secret. What each
//! path is for, and by which way, is in `assets/openapi.json`.
//!
//! This room knows HTTP. It knows nothing of the mesh: what it shows comes through a `watch`, what it is
//! told goes through an `mpsc`, and both lead to whoever owns the state.

mod client;
mod command;
mod events;
#[cfg(test)]
pub(crate) mod example;
mod exchange;
mod routes;
mod server;
mod status;
#[cfg(all(test, unix))]
mod tests;

pub use client::{Client, ClientError};
pub use command::{
    Command, CreatedToken, DroppedModel, LoadedModel, Members, ModelRequest, Refusal, Reply, RevokedToken,
    Stopping, TokenRequest,
};
pub use server::{BindError, Console, DEFAULT_CONSOLE_PORT, Manage, Running};
pub use status::{
    ClientStatus, DeviceStatus, GroupMachine, GroupStatus, Member, MemoryStatus, MeshStatus, ModelStatus,
    NodeStatus, PathKind, Role, ServedModel, Stage, Status, StoredModel, Viewer,
};

/// The name of the socket in a daemon's folder.
pub const SOCKET: &str = "manage.sock";
