//! What host and worker say to each other: messages, limits, versions. Pure.
//!
//! The table of messages is in DESIGN.md, "The split on the wire". A stream carries frames (see
//! [`frame`]); a frame is one message and the bytes that belong to it. Any ordered byte stream will do.

pub mod difference;
pub mod frame;
pub mod handshake;
#[cfg(test)]
mod tests;
pub mod uploads;

use serde::{Deserialize, Serialize};

use super::files::Identity;
use super::graph::{BufferId, Graph, Place};

/// The version of this protocol. Host and worker must have the same one, and the same llama.cpp.
pub const PROTOCOL: u16 = 4;

/// Most queues of a session.
pub const MOST_QUEUES: usize = 16;
/// Most uploads that a worker remembers for each queue, so that only differences need to come.
pub const MOST_KEPT: usize = 64;
/// Longest upload that is remembered, in bytes.
pub const LONGEST_KEPT: usize = 8 << 20;
/// Most graphs that a worker keeps for each queue.
pub const MOST_GRAPHS: usize = 32;
/// Bytes of all uploads that a worker remembers for a queue.
pub const MOST_KEPT_BYTES: usize = 64 << 20;
/// Tensors of all graphs that a worker keeps for a queue.
pub const MOST_KEPT_TENSORS: usize = 1 << 18;
/// Longest name of a weight.
pub const LONGEST_NAME: usize = 256;
/// Most weights of one [`Command::Load`].
pub const MOST_LOADED: usize = 1024;

/// One host's use of one worker. Who knows it may push hidden states into it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SessionId(pub [u8; 16]);

impl std::fmt::Debug for SessionId {
    /// Not the id itself, which is a capability.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SessionId({:02x}{:02x}..)", self.0[0], self.0[1])
    }
}

/// A call of `llama_decode`: what was queued by it, on every device, belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Step(pub u64);

/// A node of a split: 0 is the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeId(pub u16);

/// The host itself.
pub const HOST: NodeId = NodeId(0);

/// The host's queue for what follows the last layer; its first layers have queue 0.
pub const HEAD: u8 = 1;

/// A hidden state on its way from one queue to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Transfer {
    /// The node that waits for it.
    pub to: NodeId,
    /// Its number; the host counts.
    pub number: u64,
}

/// The number of a read, by which its answer is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ReadId(pub u64);

/// A device that a worker offers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceOffer {
    /// ggml's name.
    pub name: String,
    /// What the vendor calls it.
    pub description: String,
    /// Bytes that a session may still reserve.
    pub free: u64,
    /// Bytes that it offers in all.
    pub total: u64,
    /// Bytes a second that it reads from its memory, as measured.
    pub bandwidth: u64,
}

/// A queue that a host asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenQueue {
    /// The device, by its place in the offer.
    pub device: u8,
    /// Bytes of it that the queue may take in all.
    pub reserve: u64,
}

/// What a host asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// The session, chosen by the host at random.
    pub session: SessionId,
    /// Which node of the split the worker is.
    pub node: NodeId,
    /// Its queues.
    pub queues: Vec<OpenQueue>,
    /// The model, if weights are loaded by name.
    pub model: Option<Identity>,
}

/// From host to worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToWorker {
    /// Begins the session.
    Open(Open),
    /// Dial another worker of the split.
    Connect {
        /// Who it is.
        node: NodeId,
        /// Where it listens, as the host reaches it.
        address: String,
        /// Its session of this split.
        session: SessionId,
    },
    /// Appended to a queue.
    Queue {
        /// Which.
        queue: u8,
        /// The step that it belongs to.
        step: Step,
        /// What to do.
        command: Command,
    },
    /// Bytes that a queue of this worker waits for; the payload.
    Deliver(Transfer),
    /// Steps from `first` to `last` need not be computed. Overtakes what is queued.
    Cancel {
        /// First step.
        first: Step,
        /// Last step.
        last: Step,
    },
    /// Answer me.
    Ping(u64),
}

/// A weight to load.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Its name in the file.
    pub name: String,
    /// Bytes from the start of the weights buffer, by which graphs will name it.
    pub offset: u64,
    /// ggml's number of the operation that uses it, for the choice of its layout; 0 if unknown.
    pub op: u32,
}

/// How the bytes of a [`Command::Write`] are coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Coding {
    /// As they are.
    Plain,
    /// As an LZ4 block.
    Lz4,
    /// As differences (see [`difference`]) from what is kept under this number.
    Changed(u8),
}

/// What is done in the order of a queue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// A zeroed piece of the device's memory.
    Allocate {
        /// Its number, not in use.
        buffer: BufferId,
        /// Its size.
        bytes: u64,
    },
    /// A buffer for weights, which take memory as they come.
    AllocateWeights {
        /// Its number, not in use.
        buffer: BufferId,
        /// How far offsets go.
        bytes: u64,
    },
    /// Frees a buffer.
    Free(BufferId),
    /// Fills a piece of a buffer with one byte.
    Fill {
        /// Where.
        place: Place,
        /// How many.
        bytes: u64,
        /// With what.
        value: u8,
    },
    /// Loads weights from the worker's own file.
    Load {
        /// Their buffer.
        buffer: BufferId,
        /// Which.
        weights: Vec<Load>,
    },
    /// A weight for a worker without the file: what it is. Its bytes follow as writes.
    Weight {
        /// Its buffer.
        buffer: BufferId,
        /// Name, place and use.
        weight: Load,
        /// ggml's number of its element type.
        element: u32,
        /// Its shape.
        shape: [u64; 4],
    },
    /// Tell when all before this is done.
    Barrier(u64),
    /// Writes the payload.
    Write {
        /// Where.
        place: Place,
        /// How many bytes it is, decoded.
        bytes: u64,
        /// How it is coded.
        coding: Coding,
        /// Keep it under this number for later differences.
        keep: Option<u8>,
    },
    /// Waits for a hidden state.
    Receive {
        /// Which.
        transfer: Transfer,
        /// Where it belongs.
        place: Place,
        /// How many bytes it must be.
        bytes: u64,
    },
    /// Keeps a graph under a number, in place of another.
    Define {
        /// The number.
        graph: u8,
        /// The graph.
        content: Graph,
    },
    /// Computes the graph kept under this number.
    Run(u8),
    /// Sends bytes to another queue, of another node, of this one or of the host.
    Push {
        /// Which and where to.
        transfer: Transfer,
        /// From where.
        place: Place,
        /// How many.
        bytes: u64,
        /// By way of the host, where nodes cannot reach each other.
        through_host: bool,
    },
    /// Sends bytes to the host.
    Read {
        /// The number of the answer.
        read: ReadId,
        /// From where.
        place: Place,
        /// How many.
        bytes: u64,
    },
    /// Copies inside a device.
    Copy {
        /// From where.
        from: Place,
        /// Where to.
        to: Place,
        /// How many bytes.
        bytes: u64,
    },
}

/// When a queue computed a step, in microseconds of the worker's own clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ran {
    /// The queue.
    pub queue: u8,
    /// The step.
    pub step: Step,
    /// Begin.
    pub begin: u64,
    /// End.
    pub end: u64,
    /// How long all was there that the step needs, and the queue, or its device, was at work on others.
    pub waited: u64,
}

/// What the queues of a session do, taken together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Standing {
    /// Nothing: they have done what came.
    #[default]
    Idle,
    /// They wait for hidden states.
    Waits,
    /// They work, and [`Doing::progress`] grows with every small part of it.
    Works,
    /// They do what tells nothing before its end: a graph on a GPU, a weight from a disk.
    Absorbed,
}

/// What a worker says of a session again and again, unasked: one that lives may hang all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Doing {
    /// What its queues do.
    pub standing: Standing,
    /// Commands that they have done.
    pub done: u64,
    /// Another number than the last time where something was done meanwhile: a part of a graph computed,
    /// a part of a payload received.
    pub progress: u64,
}

/// From worker to host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToHost {
    /// What there is; the first message.
    Offer(Vec<DeviceOffer>),
    /// The session has begun.
    Opened {
        /// Whether the model's file is here.
        has_model: bool,
    },
    /// The answer to [`ToWorker::Connect`].
    Connected {
        /// Who was dialled.
        node: NodeId,
        /// Nothing, or why it cannot be reached.
        fault: Option<String>,
        /// The round trip, in microseconds.
        round_trip: u64,
    },
    /// Bytes of weights that were loaded since the last of these.
    Loading(u64),
    /// All before a [`Command::Barrier`] is done.
    Reached(u64),
    /// A hidden state for another node, by way of the host; the payload.
    Deliver(Transfer),
    /// The answer to a read; the payload. Without payload where the step was cancelled.
    Data(ReadId),
    /// The answer to a ping, with what was computed since the last one.
    Pong {
        /// The ping's number.
        number: u64,
        /// The worker's clock, in microseconds.
        now: u64,
        /// What was computed.
        ran: Vec<Ran>,
    },
    /// The session is over; why.
    Failed(String),
    /// The session is over, for another worker does not send or take any more.
    Unheard {
        /// Which.
        node: NodeId,
        /// How that was found out.
        cause: String,
    },
    /// The worker lives, and this is what it does.
    Doing(Doing),
}

/// Who dials to push into a session: once there is a [`PeerReply`], only [`ToWorker::Deliver`] and pings
/// follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// The session that it pushes into.
    pub session: SessionId,
    /// Which node of the split it is itself.
    pub node: NodeId,
}

/// The answer to [`Peer`]; nothing else comes from that side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerReply {
    /// The session is here and takes what comes.
    Joined,
    /// It is not; why.
    Refused(String),
}
