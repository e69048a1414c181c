//! What is known of each node, and what is news.

use super::message::{Digest32, Heard, MAX_NODES};
use crate::mesh::id::{Boot, NodeId};
use crate::mesh::state::{NodeState, SignedState, Stamp};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Departed nodes that are remembered. After that many, the one that departed first could come back by a rumour.
pub(super) const MAX_FORGOTTEN: usize = 4_096;

/// A state, as it can be passed on and as it can be read.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub signed: SignedState,
    pub state: NodeState,
}

/// The newest state of each node, and how far each departed one had got.
///
/// A node is never in both: what is known is newer than what was forgotten, or isn't kept.
#[derive(Debug, Default)]
pub(super) struct Store {
    known: BTreeMap<NodeId, Known>,
    forgotten: BTreeMap<NodeId, Forgotten>,
    departures: u64,
}

#[derive(Debug, Clone, Copy)]
struct Forgotten {
    /// Nothing up to this is news.
    until: Stamp,
    /// Counts departures, so that the first can be found.
    order: u64,
}

impl Store {
    /// Which state of a node is known.
    pub fn stamp(&self, node: NodeId) -> Option<Stamp> {
        self.state(node).map(NodeState::stamp)
    }

    /// The state of a node that is known.
    pub fn state(&self, node: NodeId) -> Option<&NodeState> {
        self.known.get(&node).map(|known| &known.state)
    }

    /// The same, as it travels.
    pub fn signed(&self, node: NodeId) -> Option<&SignedState> {
        self.known.get(&node).map(|known| &known.signed)
    }

    /// All that are known.
    pub fn states(&self) -> impl Iterator<Item = &NodeState> {
        self.known.values().map(|known| &known.state)
    }

    /// Whether such a state would be newer than what is known, and than what was forgotten. When the store is full,
    /// nothing is news of nodes that aren't in it.
    pub fn is_news(&self, node: NodeId, stamp: Stamp) -> bool {
        match (self.stamp(node), self.forgotten.get(&node)) {
            (Some(known), _) => stamp > known,
            (None, Some(forgotten)) => stamp > forgotten.until && self.known.len() < MAX_NODES,
            (None, None) => self.known.len() < MAX_NODES,
        }
    }

    /// Keeps what is news.
    pub fn put(&mut self, known: Known) {
        let node = known.state.node;
        self.forgotten.remove(&node);
        self.known.insert(node, known);
    }

    /// A node's run has ended; says whether something was known of it. In a later run the node is another one.
    pub fn forget(&mut self, node: NodeId, boot: Boot) -> bool {
        if self.stamp(node).is_some_and(|known| known.boot > boot) {
            return false;
        }
        let end = Stamp::end_of(boot);
        let until = self
            .forgotten
            .get(&node)
            .map_or(end, |before| before.until.max(end));
        self.departures += 1;
        self.forgotten.insert(
            node,
            Forgotten {
                until,
                order: self.departures,
            },
        );
        if self.forgotten.len() > MAX_FORGOTTEN {
            let first = self.forgotten.iter().min_by_key(|(_, forgotten)| forgotten.order);
            let first = first.map(|(&node, _)| node);
            first.map(|node| self.forgotten.remove(&node));
        }
        self.known.remove(&node).is_some()
    }

    /// Of all that is known.
    pub fn digest(&self) -> Digest32 {
        let mut hash = Sha256::new();
        for state in self.states() {
            hash.update(state.node.as_bytes());
            hash.update(state.boot.0.to_le_bytes());
            hash.update(state.version.to_le_bytes());
        }
        Digest32(hash.finalize().into())
    }

    /// All that is known, by name; as many as a message names.
    pub fn versions(&self) -> Vec<Heard> {
        let heard = |state: &NodeState| Heard {
            node: state.node,
            stamp: state.stamp(),
        };
        self.states().map(heard).take(MAX_NODES).collect()
    }

    /// What someone lacks who has heard `theirs`.
    pub fn newer_than(&self, theirs: &[Heard]) -> Vec<SignedState> {
        let theirs: BTreeMap<NodeId, Stamp> = theirs.iter().map(|heard| (heard.node, heard.stamp)).collect();
        let lacks = |known: &&Known| theirs.get(&known.state.node) < Some(&known.state.stamp());
        self.known
            .values()
            .filter(lacks)
            .map(|known| known.signed.clone())
            .collect()
    }
}

#[cfg(test)]
impl Store {
    pub fn forgotten_count(&self) -> usize {
        self.forgotten.len()
    }
}
