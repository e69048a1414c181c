//! What comes out of it.

use super::identity::Member;
use crate::mesh::id::{Boot, NodeId};

/// What the caller has to do or to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send this; it may get lost, and there may be no connection to send it by.
    Send {
        /// To whom.
        to: NodeId,
        /// At most [`MAX_PACKET_BYTES`](super::MAX_PACKET_BYTES).
        packet: Vec<u8>,
    },
    /// A member is alive. If an earlier run of its node was, that one has ended.
    Up(Member),
    /// A member has left, was removed, or doesn't answer.
    Down(Member),
    /// This node has a new boot, because others declared it down in the last one, or knew of a later one. Its state
    /// has to be signed anew with it.
    Boot(Boot),
}
