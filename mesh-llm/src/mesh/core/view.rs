//! What is shown of the mesh.

use super::super::id::{MeshId, NodeId, Role};
use super::super::state::NodeState;
use super::{Core, Part, serves};
use std::time::Duration;

/// How a connection goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    /// There and back, as QUIC measures it.
    pub rtt: Duration,
    /// Whether through a relay.
    pub relayed: bool,
}

impl Path {
    /// Whether this is worth a word: no measurement is like the one before.
    pub(super) fn differs_from(&self, other: &Path) -> bool {
        let apart = self.rtt.abs_diff(other.rtt);
        self.relayed != other.relayed || (apart > Duration::from_millis(1) && apart > self.rtt / 5)
    }
}

/// A node that is alive.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// What it says of itself.
    pub state: NodeState,
    /// How it is reached, if it is connected.
    pub path: Option<Path>,
}

/// A client that is connected to this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientSeen {
    /// Who.
    pub node: NodeId,
    /// How it is reached.
    pub path: Option<Path>,
}

/// The mesh as this node sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// Which.
    pub mesh: MeshId,
    /// This node.
    pub me: NodeId,
    /// What this node is to it; none: it was not let in yet.
    pub role: Option<Role>,
    /// The others that are alive, in the order of their ids.
    pub nodes: Vec<Seen>,
    /// Clients of this node, in the order of their ids.
    pub clients: Vec<ClientSeen>,
}

impl Core {
    /// The mesh as it is seen now.
    pub fn view(&self) -> View {
        let seen = |state: &NodeState| Seen {
            state: state.clone(),
            path: self.links.get(state.node).and_then(|link| link.path),
        };
        let mut nodes: Vec<Seen> = match self.part {
            Part::Server => self
                .others_alive()
                .filter_map(|node| self.gossip.state(node))
                .map(seen)
                .collect(),
            Part::Client => self.told.states().map(seen).collect(),
        };
        nodes.sort_by_key(|seen| seen.state.node);
        let clients = self
            .links
            .iter()
            .filter(|(_, link)| link.role == Role::Client && self.part == Part::Server);
        View {
            mesh: self.mesh(),
            me: self.me,
            role: self.role(),
            nodes,
            clients: clients
                .map(|(node, link)| ClientSeen {
                    node,
                    path: link.path,
                })
                .collect(),
        }
    }

    /// Members that are alive, but for this one.
    pub(super) fn others_alive(&self) -> impl Iterator<Item = NodeId> {
        let alive = self.membership.alive().map(|member| member.node);
        alive.filter(|node| *node != self.me && serves(&self.roster, *node))
    }
}
