//! Who is a member, and which of two runs of a node wins.

use crate::mesh::id::{Boot, NodeId};
use foca::Identity;
use serde::{Deserialize, Serialize};

/// A run of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    /// The node.
    pub node: NodeId,
    /// The run.
    pub boot: Boot,
}

/// The last boot that is believed when others say it: in the year 10889. Else a member could say of another one that
/// it is down in the last run that there can be, and it could never come back.
pub(super) const LAST_RUMOURED_BOOT: u64 = 1 << 48;

/// A member as packets name it. Whether its key is one isn't looked at: that takes as long as all the rest of a packet,
/// and is needed only once for each node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Claim {
    pub node: [u8; 32],
    pub boot: u64,
}

impl From<Member> for Claim {
    fn from(member: Member) -> Self {
        Self {
            node: *member.node.as_bytes(),
            boot: member.boot.0,
        }
    }
}

impl Identity for Claim {
    type Addr = [u8; 32];

    fn renew(&self) -> Option<Self> {
        let boot = self.boot.checked_add(1)?;
        Some(Self { boot, ..*self })
    }

    fn addr(&self) -> [u8; 32] {
        self.node
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.boot > adversary.boot
    }
}
