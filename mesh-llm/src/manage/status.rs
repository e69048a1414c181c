//! What is shown. The names of the fields are those of the JSON.

use serde::{Deserialize, Serialize};
use std::fmt;

pub use crate::plan::role::Role;

/// Everything that this daemon knows of itself and of its mesh.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The version of the program.
    pub version: String,
    /// The state directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<String>,
    /// This machine.
    pub this: NodeStatus,
    /// The mesh that it is in; none: it is alone.
    pub mesh: Option<MeshStatus>,
    /// The other nodes and workers of the mesh.
    pub nodes: Vec<NodeStatus>,
    /// The clients that are connected to this machine.
    pub clients: Vec<ClientStatus>,
    /// The models that can be asked for, and where each is served.
    pub models: Vec<ModelStatus>,
    /// The models that several machines serve together.
    pub groups: Vec<GroupStatus>,
    /// Why this machine does not serve its own model, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<String>,
}

/// Who looks at a [`Status`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Viewer {
    /// The user whose daemon it is, by the socket.
    Owner,
    /// Anybody on this machine, by the console's port.
    Anybody,
}

impl Status {
    /// What may be shown: nobody but the owner sees what lets others in.
    pub fn shown_to(&self, viewer: Viewer) -> Status {
        let mut shown = self.clone();
        if let (Viewer::Anybody, Some(mesh)) = (viewer, &mut shown.mesh) {
            mesh.invite = None;
        }
        shown
    }
}

/// A mesh.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeshStatus {
    /// Its id, 64 hexadecimal digits.
    pub id: String,
    /// A token that others join by: a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invite: Option<String>,
    /// What this machine is in it.
    pub role: Role,
}

/// Without the invite: it must not get into logs.
impl fmt::Debug for MeshStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeshStatus")
            .field("id", &self.id)
            .field("invite", &self.invite.as_ref().map(|_| "…"))
            .field("role", &self.role)
            .finish()
    }
}

/// A machine that serves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its id, 64 hexadecimal digits.
    pub id: String,
    /// The first 10 of them.
    pub short: String,
    /// What its user calls it, mostly its host's name.
    pub name: String,
    /// What it is in the mesh.
    pub role: Role,
    /// The version of its program.
    pub version: String,
    /// Milliseconds to it and back; none where they were not measured yet, and of this machine.
    pub rtt_ms: Option<f64>,
    /// How its packets come; none where there is no connection, and of this machine.
    pub path: Option<PathKind>,
    /// Its memory.
    pub memory: MemoryStatus,
    /// What it computes on.
    pub devices: Vec<DeviceStatus>,
    /// What it serves, or is about to.
    pub models: Vec<ServedModel>,
    /// Where it may be reached, the likeliest first.
    pub addresses: Vec<String>,
    /// The models that it has on disk.
    pub on_disk: Vec<StoredModel>,
}

/// A model on a machine's disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredModel {
    /// What it is called.
    pub name: String,
    /// Bytes of its files.
    pub bytes: u64,
}

/// How packets come from another machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathKind {
    /// From it to here.
    Direct,
    /// Through a relay.
    Relay,
}

impl fmt::Display for PathKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PathKind::Direct => "direct",
            PathKind::Relay => "relay",
        })
    }
}

/// Memory of a machine, its devices' included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryStatus {
    /// What is built in, in bytes.
    pub total_bytes: u64,
    /// What models may take, in bytes.
    pub offered_bytes: u64,
}

/// What a machine computes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceStatus {
    /// Its name, as `CUDA0`.
    pub name: String,
    /// Its own memory, in bytes.
    pub memory_bytes: u64,
}

/// A model on the machine that serves it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServedModel {
    /// The model's id at the API.
    pub name: String,
    /// How far it is.
    pub stage: Stage,
    /// How much of that stage is done, from 0 to 100, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u8>,
    /// Tokens that all its slots share; 0 before it is ready.
    pub context: u32,
    /// Requests that it answers at once; 0 before it is ready.
    pub slots: u32,
    /// Those that it answers now.
    pub busy: u32,
    /// Requests that wait for a slot.
    pub waiting: u32,
}

/// How far a model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Its file is fetched.
    Downloading,
    /// Its engine is started.
    Starting,
    /// It is read into memory.
    Loading,
    /// It answers.
    Ready,
    /// Its engine crashed, or lost a node, and is started again.
    Restarting,
    /// It needs machines that are not there.
    Waiting,
    /// It was given up.
    Failed,
    /// It answers what it has begun with, and ends.
    Stopping,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Downloading => "downloading",
            Stage::Starting => "starting",
            Stage::Loading => "loading",
            Stage::Ready => "ready",
            Stage::Restarting => "restarting",
            Stage::Waiting => "waiting",
            Stage::Failed => "failed",
            Stage::Stopping => "stopping",
        })
    }
}

/// A machine that only uses the mesh, connected to this one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClientStatus {
    /// Its id, 64 hexadecimal digits.
    pub id: String,
    /// The first 10 of them.
    pub short: String,
    /// What its user calls it, if it says so.
    pub name: Option<String>,
    /// The version of its program.
    pub version: String,
    /// Milliseconds to it and back, once they were measured.
    pub rtt_ms: Option<f64>,
    /// How its packets come.
    pub path: Option<PathKind>,
}

/// A model that can be asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelStatus {
    /// Its id at the API.
    pub name: String,
    /// The ids of the nodes that serve it.
    pub nodes: Vec<String>,
}

/// Machines that serve a model together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupStatus {
    /// The model's id at the API.
    pub model: String,
    /// Which group of this model it is: later ones have greater numbers.
    pub epoch: u64,
    /// The machines, the host first, then the workers in the order of the layers.
    pub machines: Vec<GroupMachine>,
}

/// A machine of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupMachine {
    /// The node's id.
    pub node: String,
    /// What its user calls it, where that is known.
    pub name: String,
    /// Layers that it computes; 0 before that is known.
    pub layers: u32,
}

/// Who may take part in the mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its id, 64 hexadecimal digits.
    pub id: String,
    /// What its user calls it, where that is known.
    pub name: Option<String>,
    /// What it is for.
    pub role: Role,
    /// The id of the member that let it in; the founder let itself in.
    pub admitted_by: String,
    /// When, in seconds since 1970 by that member's clock.
    pub since: u64,
    /// Whether it is reachable now.
    pub alive: bool,
}
