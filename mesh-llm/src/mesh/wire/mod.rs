//! What nodes say to each other: messages, their limits, and the frames that they travel in.
//!
//! Pure. A frame is a length (4 bytes, little-endian) and a message in postcard's encoding; DESIGN.md has the
//! table. A new variant is appended, a new field of a message comes with a new version of the protocol: variants
//! and fields are told apart by their place alone.

mod frame;
#[cfg(test)]
mod tests;

pub use frame::{Frame, FrameError, Reader, encode};

use super::core::Part;
use super::gossip;
use super::id::{Boot, Contact, MeshId, NodeId};
use super::roster::{ActId, Digest, SignedAct};
use super::state::{MAX_WORKERS, SignedState, bounded};
use super::token::Sealed;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The protocol's name, which TLS negotiates: another one is another protocol.
pub const ALPN: &[u8] = b"mesh-llm/mesh/1";

/// The versions of the messages that this program speaks.
pub const VERSIONS: Versions = Versions { oldest: 1, newest: 1 };

/// A range of versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// The oldest that is still spoken.
    pub oldest: u16,
    /// The newest that is known.
    pub newest: u16,
}

impl Versions {
    /// The newest that both speak.
    pub fn common(self, other: Versions) -> Option<u16> {
        let newest = self.newest.min(other.newest);
        (newest >= self.oldest && newest >= other.oldest).then_some(newest)
    }
}

/// The first message on a connection, by whoever dialled: why to be let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// What the dialler speaks.
    pub versions: Versions,
    /// The mesh that it wants.
    pub mesh: MeshId,
    /// This run of its program.
    pub boot: Boot,
    /// What it wants to do there.
    pub part: Part,
    /// What it shows.
    pub credential: Credential,
}

/// What somebody shows to be let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Credential {
    /// Nothing: it is a member whom others know.
    Member,
    /// The act that admitted it, which others need not have.
    Certificate(Box<SignedAct>),
    /// A token, for itself alone.
    Token(Box<Sealed>),
}

/// The answer to [`Hello`], and the last message where it is a refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Come in.
    Welcome(Box<Welcome>),
    /// Stay out.
    Refused(Refused),
}

/// What a newcomer, or one that is back, has to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The version that both speak from here on.
    pub version: u16,
    /// This run of the answering program.
    pub boot: Boot,
    /// The act that admitted it just now, or before.
    pub certificate: Option<Box<SignedAct>>,
    /// Who else belongs to the mesh; empty for clients.
    pub acts: Vec<SignedAct>,
    /// Where some of them may be reached: whoever answers may be gone before the newcomer has heard of the others.
    #[serde(deserialize_with = "bounded::list::<_, _, MOST_CONTACTS>")]
    pub contacts: Vec<Contact>,
}

/// The most contacts of a [`Welcome`].
pub const MOST_CONTACTS: usize = 256;

/// Why somebody is not let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// The kind.
    pub kind: RefusedKind,
    /// In words, with the remedy.
    pub message: String,
}

/// Kinds of refusals, by what the refused can do about them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefusedKind {
    /// What was shown does not let in: another token is needed.
    Credential,
    /// It was removed from the mesh, or is out with whoever let it in.
    Removed,
    /// The programs' versions have nothing in common.
    Version,
    /// Not now: another try later may succeed.
    Busy,
}

/// What goes both ways on the stream that each side opens for as long as they are connected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Control {
    /// States of nodes, and how they are reconciled; among those that serve.
    Gossip(gossip::Message),
    /// All acts that the sender knows, in short.
    Roster(Digest),
    /// All acts that the sender knows, by name: the other one's differ.
    ActIds(Vec<ActId>),
    /// Acts that the receiver may not know.
    Acts(Vec<SignedAct>),
    /// Who serves what, to clients.
    Table(Table),
    /// The sender ends: it is gone at once, and nobody has to find out.
    Leaving,
}

/// What changed of the nodes that a client can use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// All that are there; who is not named is gone.
    pub alive: Vec<NodeId>,
    /// States that the client does not have yet.
    pub states: Vec<SignedState>,
}

/// The first message on a stream with a task of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Open {
    /// One HTTP/1.1 exchange with the engine that serves this model.
    Http {
        /// Its name.
        model: String,
    },
    /// The receiver's memory and devices, for as long as the stream is open. It is answered by [`Lending`]s.
    Lend(Box<Lend>),
    /// Bytes of a split, to the receiver's part in this group.
    Channel {
        /// Which.
        group: GroupId,
    },
    /// A model's file on the receiver's disk, before it is to compute with it. It is answered by [`Fetching`]s.
    Fetch(Box<Fetch>),
}

/// A group of machines that serve a model together: chosen at random by its host.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GroupId(pub [u8; 16]);

impl fmt::Debug for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GroupId({:032x})", u128::from_be_bytes(self.0))
    }
}

/// What a host wants to be lent.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lend {
    /// For which group.
    pub group: GroupId,
    /// The model's name in the API.
    pub model: String,
    /// Which group of this model it is: a worker obeys the greatest that it has heard of.
    pub epoch: u64,
    /// The most bytes that it takes; 0: whatever is left.
    pub bytes: u64,
    /// What all processes of the group show each other.
    pub secret: [u8; 32],
    /// Who may open channels to the worker's part, beside the host: the group's workers.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_WORKERS>")]
    pub workers: Vec<NodeId>,
}

/// Without the secret: it must not get into logs.
impl fmt::Debug for Lend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lend")
            .field("group", &self.group)
            .field("model", &self.model)
            .field("epoch", &self.epoch)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// What becomes of a [`Lend`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lending {
    /// It is lent from now on.
    Granted {
        /// So many bytes.
        bytes: u64,
    },
    /// Another host has a group of this model that is newer.
    Stale {
        /// Its epoch.
        newest: u64,
    },
    /// It is not lent, or not any more.
    Ended {
        /// Why, in words.
        message: String,
    },
}

/// A model that a machine should have a copy of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetch {
    /// Its name in the API.
    pub model: String,
    /// Where the sender's copy came from: `org/repo@revision/folder/file.gguf` of Hugging Face.
    pub source: String,
    /// Bytes of its files.
    pub bytes: u64,
}

/// What becomes of a [`Fetch`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fetching {
    /// It is there.
    Here,
    /// It is being downloaded.
    UnderWay {
        /// 0 to 100, once that is known.
        percent: Option<u8>,
    },
    /// It cannot be had.
    Failed {
        /// Why, in words.
        message: String,
    },
}

/// The most bytes of a message of each kind.
pub trait Bounded {
    /// So many, its length not counted.
    const MOST_BYTES: usize;
}

impl Bounded for Hello {
    const MOST_BYTES: usize = 4 << 10;
}

impl Bounded for Answer {
    /// As many acts as a roster can have.
    const MOST_BYTES: usize = 4 << 20;
}

impl Bounded for Control {
    const MOST_BYTES: usize = 4 << 20;
}

impl Bounded for Open {
    const MOST_BYTES: usize = 1 << 10;
}

impl Bounded for Lending {
    const MOST_BYTES: usize = 1 << 10;
}

impl Bounded for Fetching {
    const MOST_BYTES: usize = 1 << 10;
}
