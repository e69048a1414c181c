//! What a member of a mesh is for, and so what it may do.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What a member is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Only uses what others serve.
    Client,
    /// Only serves.
    Worker,
    /// Serves and uses, invites and removes.
    Node,
}

impl Role {
    /// All of them.
    pub const ALL: [Role; 3] = [Role::Node, Role::Client, Role::Worker];

    /// Its word on the command line and in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Role::Node => "node",
            Role::Client => "client",
            Role::Worker => "worker",
        }
    }

    /// Whether it may ask others to answer requests.
    pub fn uses(self) -> bool {
        matches!(self, Role::Node | Role::Client)
    }

    /// Whether it takes part in gossip, and may serve.
    pub fn serves(self) -> bool {
        matches!(self, Role::Node | Role::Worker)
    }

    /// Whether it may invite, remove and revoke.
    pub fn governs(self) -> bool {
        self == Role::Node
    }

    /// Whether someone with this role may hand `other` on: a restriction never widens.
    pub fn covers(self, other: Role) -> bool {
        self == Role::Node || self == other
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A word that is no [`Role`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no role: there are node, client and worker")]
pub struct BadRole(String);

impl FromStr for Role {
    type Err = BadRole;

    fn from_str(word: &str) -> Result<Self, BadRole> {
        let found = Role::ALL.into_iter().find(|role| role.word() == word);
        found.ok_or_else(|| BadRole(word.to_owned()))
    }
}
