//! What a node says of itself.
//!
//! It signs what it says, for one mesh. So whoever passes a state on can hold it back, but can't change it, and
//! nobody can speak for another: a node is alive on its own word only. How a state lies in bytes is known to
//! `wire` alone; this file says what it means and what fits into one.

pub(crate) mod bounded;
mod groups;
mod wire;

#[cfg(test)]
mod tests;

pub use groups::{
    GroupState, GroupWorker, MAX_GROUPS, MAX_ROUND_TRIPS, MAX_WANTS, MAX_WORKERS, RoundTrip, SplitPart,
    WantState,
};

use crate::mesh::id::{Address, Boot, MeshId, NodeId, Role};
use iroh_base::{SecretKey, Signature};
use serde::{Deserialize, Serialize};

/// Models in a state.
pub const MAX_MODELS: usize = 64;

/// Devices in a state.
pub const MAX_DEVICES: usize = 16;

/// Models on disk in a state.
pub const MAX_ON_DISK: usize = 32;

/// Addresses in a state.
pub const MAX_ADDRESSES: usize = 16;

/// Bytes of each text in a state.
pub const MAX_TEXT_BYTES: usize = 128;

/// Bytes of a state, without its signature.
pub const MAX_STATE_BYTES: usize = 16 * 1024;

/// What is signed begins with this, so that no other signature of a node's key can pass for one of a state.
const CONTEXT: &[u8] = b"mesh-llm node state 1";

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeState {
    /// Who says so.
    pub node: NodeId,
    /// In which run.
    pub boot: Boot,
    /// Counts what was said in this run.
    pub version: u64,
    /// The host's name.
    pub name: String,
    /// The program's version, such as `0.1.0`.
    pub program: String,
    /// What it is for.
    pub role: Role,
    /// Where it may be reached, the most likely first.
    pub addresses: Vec<Address>,
    /// Of all devices together.
    pub memory: Memory,
    /// What it computes with.
    pub devices: Vec<Device>,
    /// What it serves, or is about to.
    pub models: Vec<ModelState>,
    /// Its part in models that are split over machines; none: it takes none.
    pub split: Option<SplitPart>,
    /// The models that its user wants it to serve.
    pub wants: Vec<WantState>,
    /// The models that it serves with other machines.
    pub groups: Vec<GroupState>,
    /// How far others are, the nearest first.
    pub round_trips: Vec<RoundTrip>,
    /// The models that it has on disk.
    pub on_disk: Vec<OnDisk>,
    /// What of its memory is on GPUs.
    pub gpus: Gpus,
}

/// What of a node's memory is on GPUs, all of them together. Models take that first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpus {
    /// What of it the mesh may use, in bytes.
    pub offered_bytes: u64,
    /// Bytes a second that one of them reads; 0 if that is not known.
    pub bandwidth: u64,
}

/// How much memory a node has for models.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// All of it, in bytes.
    pub total_bytes: u64,
    /// What the mesh may use, in bytes.
    pub offered_bytes: u64,
}

/// A device that a node computes with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// As its driver calls it.
    pub name: String,
    /// All that it has, in bytes.
    pub memory_bytes: u64,
}

/// A model on a node's disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnDisk {
    /// Its name in the API.
    pub name: String,
    /// Bytes of its files.
    pub bytes: u64,
}

/// A model at a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelState {
    /// Its name in the API.
    pub name: String,
    /// How far it is.
    pub stage: Stage,
    /// The longest conversation, in tokens.
    pub context: u32,
    /// Requests that it answers at a time.
    pub slots: u32,
    /// Slots that answer one.
    pub busy: u32,
    /// Requests that wait for a slot.
    pub waiting: u32,
}

/// How far a model is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Its files are being fetched.
    Downloading {
        /// 0 to 100, once the size is known.
        percent: Option<u8>,
    },
    /// Its weights are being read.
    Loading {
        /// 0 to 100.
        percent: u8,
    },
    /// It answers requests.
    Ready,
    /// It will not be tried again.
    Failed,
    /// It needs machines that are not there.
    Waiting,
}

/// Which of a node's states it is. The later run is newer, and in a run the greater version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stamp {
    /// The run.
    pub boot: Boot,
    /// Which in the run.
    pub version: u64,
}

impl Stamp {
    /// After everything that a run can say.
    pub fn end_of(boot: Boot) -> Self {
        Self {
            boot,
            version: u64::MAX,
        }
    }
}

/// A state as it travels: its bytes, and the signature of the node it is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedState {
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_STATE_BYTES>")]
    body: Vec<u8>,
    signature: Signature,
}

/// Why a state is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// It is longer than any that is read.
    #[error(
        "a node's state has {bytes} bytes, and at most {MAX_STATE_BYTES} are read: its node runs a program of another kind"
    )]
    TooLong {
        /// How long.
        bytes: usize,
    },
    /// Its bytes are no state.
    #[error(
        "a node's state cannot be read: it was damaged, or its node runs a release too new for this one; update this node"
    )]
    Malformed,
    /// It lists too much.
    #[error(
        "a node's state lists {count} {things}, and at most {limit} are read: its node runs a program of another kind"
    )]
    TooMany {
        /// Of what.
        things: &'static str,
        /// How many it claims.
        count: u32,
        /// How many are read.
        limit: usize,
    },
    /// A text in it is too long, or has control characters.
    #[error(
        "a node's state has a text that is longer than {MAX_TEXT_BYTES} bytes or has control characters: its node runs a program of another kind"
    )]
    Text,
    /// Its node did not sign it, or signed it for another mesh.
    #[error("a state of {} is not signed by it for this mesh: a member passes on what it made up, and `mesh-llm kick` removes it", node.fmt_short())]
    Signature {
        /// Of whom it claims to be.
        node: NodeId,
    },
}

#[cfg(test)]
impl NodeState {
    /// Of a node that offers nothing, for tests to add what they are about.
    pub(crate) fn bare(node: NodeId, boot: Boot, version: u64) -> Self {
        Self {
            node,
            boot,
            version,
            name: String::new(),
            program: "0.1.0".to_owned(),
            role: Role::Node,
            addresses: Vec::new(),
            memory: Memory::default(),
            devices: Vec::new(),
            models: Vec::new(),
            split: None,
            wants: Vec::new(),
            groups: Vec::new(),
            round_trips: Vec::new(),
            on_disk: Vec::new(),
            gpus: Gpus::default(),
        }
    }
}

impl NodeState {
    /// Which of the node's states this is.
    pub fn stamp(&self) -> Stamp {
        Stamp {
            boot: self.boot,
            version: self.version,
        }
    }

    /// Signs it for `mesh`. What exceeds the limits is left out, so that a node with a strange driver or very
    /// many models is still heard.
    pub fn sign(&self, mesh: MeshId, key: &SecretKey) -> SignedState {
        let body = wire::encode(&self.fitted());
        let signature = key.sign(&signed_bytes(mesh, &body));
        SignedState { body, signature }
    }

    /// As much of it as may be sent. Names of hosts and devices are cut; a model or an address with a part of its
    /// name would be another one, so these go as a whole, the last ones first.
    fn fitted(&self) -> NodeState {
        let mut state = self.clone();
        for text in [&mut state.name, &mut state.program] {
            *text = cut(text);
        }
        state
            .addresses
            .retain(|address| address.text().is_none_or(is_text));
        state.addresses.truncate(MAX_ADDRESSES);
        state.devices.truncate(MAX_DEVICES);
        for device in &mut state.devices {
            device.name = cut(&device.name);
        }
        state.models.retain(|model| is_text(&model.name));
        state.models.truncate(MAX_MODELS);
        groups::fit(&mut state);
        state.on_disk.retain(|model| is_text(&model.name));
        state.on_disk.truncate(MAX_ON_DISK);
        // Without any models, all the rest with the longest texts is about 13 KiB: this ends in time.
        while wire::encode(&state).len() > MAX_STATE_BYTES {
            if state.on_disk.pop().is_none() && state.models.pop().is_none() {
                break;
            }
        }
        state
    }
}

impl SignedState {
    /// What it says, once it is clear that its node said so in `mesh`.
    ///
    /// # Errors
    /// It isn't signed by the node it is about, for this mesh, or it keeps to no limits.
    pub fn open(&self, mesh: MeshId) -> Result<NodeState, Rejected> {
        let (node, _) = self.claim()?;
        let signed = node.verify(&signed_bytes(mesh, &self.body), &self.signature);
        signed.map_err(|_| Rejected::Signature { node })?;
        wire::decode(&self.body)
    }

    /// Whose state it claims to be, and which: enough to see that it is old news before its signature costs time.
    ///
    /// # Errors
    /// Its bytes are no state.
    pub fn claim(&self) -> Result<(NodeId, Stamp), Rejected> {
        wire::decode_claim(&self.body)
    }
}

fn signed_bytes(mesh: MeshId, body: &[u8]) -> Vec<u8> {
    [CONTEXT, mesh.founder().as_bytes(), body].concat()
}

/// Whether a text may be in a state.
fn is_text(text: &str) -> bool {
    text.len() <= MAX_TEXT_BYTES && !text.chars().any(char::is_control)
}

/// As much of a text as may be in a state.
fn cut(text: &str) -> String {
    let mut kept: String = text.chars().filter(|c| !c.is_control()).collect();
    kept.truncate(kept.floor_char_boundary(MAX_TEXT_BYTES));
    kept
}

impl Address {
    /// The text in it.
    fn text(&self) -> Option<&str> {
        match self {
            Address::Ip(_) => None,
            Address::Relay(url) => Some(url),
        }
    }
}
