//! Who is connected: one link a pair of nodes.

use super::super::id::{Boot, NodeId, Role};
use super::super::roster::SignedAct;
use super::view::Path;
use std::collections::BTreeMap;
use std::time::Duration;

/// A connection of this process: each has another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// Who dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// This node.
    Ours,
    /// The other one.
    Theirs,
}

/// A connection to a member.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Link {
    pub(super) id: LinkId,
    pub(super) boot: Boot,
    pub(super) role: Role,
    pub(super) side: Side,
    pub(super) shown: Option<SignedAct>,
    pub(super) path: Option<Path>,
}

/// All connections of a node.
#[derive(Debug)]
pub(super) struct Links {
    me: NodeId,
    by_node: BTreeMap<NodeId, Link>,
    by_id: BTreeMap<LinkId, NodeId>,
}

/// What becomes of a new connection.
#[derive(Debug, PartialEq)]
pub(super) enum Joined {
    /// It is the only one.
    Only,
    /// It takes the place of this one.
    Instead(LinkId),
    /// There is a better one: it is to be closed.
    Superfluous,
}

impl Links {
    pub(super) fn new(me: NodeId) -> Self {
        Self {
            me,
            by_node: BTreeMap::new(),
            by_id: BTreeMap::new(),
        }
    }

    /// Adds a connection. Where two nodes dial each other at once, both keep the one that the lesser of them dialled;
    /// of two that the same one dialled, the newer, as whoever dials again has lost the older.
    pub(super) fn add(&mut self, node: NodeId, link: Link) -> Joined {
        let joined = match self.by_node.get(&node) {
            None => Joined::Only,
            Some(old) if old.boot > link.boot => return Joined::Superfluous,
            Some(old)
                if old.boot == link.boot && old.side != link.side && !self.is_preferred(node, link.side) =>
            {
                return Joined::Superfluous;
            }
            Some(old) => Joined::Instead(old.id),
        };
        if let Joined::Instead(old) = joined {
            self.by_id.remove(&old);
        }
        self.by_id.insert(link.id, node);
        self.by_node.insert(node, link);
        joined
    }

    fn is_preferred(&self, other: NodeId, side: Side) -> bool {
        let dialler = if self.me < other { Side::Ours } else { Side::Theirs };
        side == dialler
    }

    /// Forgets a connection that has ended; none: it was forgotten before.
    pub(super) fn remove(&mut self, id: LinkId) -> Option<NodeId> {
        let node = self.by_id.remove(&id)?;
        self.by_node.remove(&node);
        Some(node)
    }

    /// The connection to a node, with what is known of it.
    pub(super) fn get(&self, node: NodeId) -> Option<&Link> {
        self.by_node.get(&node)
    }

    /// The connection to a node.
    pub(super) fn of(&self, node: NodeId) -> Option<LinkId> {
        self.get(node).map(|link| link.id)
    }

    /// Whose connection it is.
    pub(super) fn node(&self, id: LinkId) -> Option<NodeId> {
        self.by_id.get(&id).copied()
    }

    /// Whose connection it is, if that one takes part in gossip.
    pub(super) fn server(&self, id: LinkId) -> Option<NodeId> {
        self.node(id).filter(|node| self.by_node[node].role.serves())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_node.is_empty()
    }

    pub(super) fn all(&self) -> Vec<LinkId> {
        self.by_id.keys().copied().collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (NodeId, &Link)> {
        self.by_node.iter().map(|(node, link)| (*node, link))
    }

    /// Those that take part in gossip.
    pub(super) fn servers(&self) -> impl Iterator<Item = (NodeId, LinkId)> {
        self.iter()
            .filter(|(_, link)| link.role.serves())
            .map(|(node, link)| (node, link.id))
    }

    /// One of those, in turn.
    pub(super) fn nth_server(&self, number: u64) -> Option<LinkId> {
        let count = self.servers().count() as u64;
        let nth = number.checked_rem(count)?;
        self.servers().nth(nth as usize).map(|(_, link)| link)
    }

    /// Takes how a connection goes, as was measured; whether that is news.
    pub(super) fn measured(&mut self, id: LinkId, path: Path) -> bool {
        let link = self.by_id.get(&id).and_then(|node| self.by_node.get_mut(node));
        let Some(link) = link.filter(|link| link.path.is_none_or(|old| old.differs_from(&path))) else {
            return false;
        };
        link.path = Some(path);
        true
    }

    /// The longest round trip to one that takes part in gossip.
    pub(super) fn slowest_rtt(&self) -> Option<Duration> {
        let paths = self.by_node.values().filter(|link| link.role.serves());
        paths.filter_map(|link| link.path).map(|path| path.rtt).max()
    }
}
