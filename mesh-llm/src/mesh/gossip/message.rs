//! What nodes tell each other of states: postcard, the variant first.

use crate::mesh::id::NodeId;
use crate::mesh::state::{SignedState, Stamp, bounded};
use serde::{Deserialize, Serialize};

/// States in a message.
pub const MAX_STATES: usize = 64;

/// Nodes that a message names, and that states are kept of.
pub const MAX_NODES: usize = 1_024;

/// A message between two nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// News, or what the receiver lacked; at most [`MAX_STATES`].
    States(#[serde(deserialize_with = "bounded::list::<_, _, MAX_STATES>")] Vec<SignedState>),
    /// Of everything that the sender knows. If the receiver's differs, it answers with its versions.
    Digest(Digest32),
    /// Everything that the sender knows, by name; at most [`MAX_NODES`].
    Versions(#[serde(deserialize_with = "bounded::list::<_, _, MAX_NODES>")] Vec<Heard>),
    /// Nodes of which the receiver has newer states than the sender, who asks for them; at most [`MAX_NODES`].
    Wanted(#[serde(deserialize_with = "bounded::list::<_, _, MAX_NODES>")] Vec<NodeId>),
}

/// SHA-256 over (node, boot, version) of every state that is known, in the order of the nodes' ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest32(pub [u8; 32]);

/// That a node's state was heard, and which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// Whose.
    pub node: NodeId,
    /// Which.
    pub stamp: Stamp,
}

/// Bytes that are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a message about nodes' states cannot be read: it was damaged, exceeds its limits, or its sender runs a release too new for this one; update this node"
)]
pub struct Malformed;

impl Message {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_allocvec(self).expect("lists of known length always have bytes")
    }

    /// The message in `bytes`. What comes after it was added by a later release, and is left unread.
    ///
    /// # Errors
    /// They are no message, or one that exceeds its limits; memory is taken for no more than the limits.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let (message, _later_fields) = postcard::take_from_bytes(bytes).map_err(|_| Malformed)?;
        Ok(message)
    }
}
