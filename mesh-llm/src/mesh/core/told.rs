//! What a client was told, and by whom: it may be connected to several servers, each of which knows what it knows.

use super::super::id::NodeId;
use super::super::state::NodeState;
use std::collections::BTreeMap;

/// States of nodes, by the server that told of them.
#[derive(Debug, Default)]
pub(super) struct Told {
    by: BTreeMap<NodeId, BTreeMap<NodeId, NodeState>>,
}

impl Told {
    /// Takes what a server says has changed. What others said that are not connected any more is forgotten.
    pub(super) fn table(
        &mut self,
        by: NodeId,
        alive: &[NodeId],
        states: Vec<NodeState>,
        is_linked: impl Fn(NodeId) -> bool,
    ) {
        self.by.retain(|server, _| is_linked(*server));
        let told = self.by.entry(by).or_default();
        told.extend(states.into_iter().map(|state| (state.node, state)));
        told.retain(|node, _| alive.contains(node));
    }

    /// A server is gone. What it said is forgotten, unless nobody else has said anything yet.
    pub(super) fn unlinked(&mut self, server: NodeId) {
        if self.by.len() > 1 {
            self.by.remove(&server);
        }
    }

    /// A node has said itself that it goes.
    pub(super) fn gone(&mut self, node: NodeId) {
        for told in self.by.values_mut() {
            told.remove(&node);
        }
    }

    /// The newest of a node.
    pub(super) fn state(&self, node: NodeId) -> Option<&NodeState> {
        let told = self.by.values().filter_map(|told| told.get(&node));
        told.max_by_key(|state| state.stamp())
    }

    /// The newest of each node.
    pub(super) fn states(&self) -> impl Iterator<Item = &NodeState> {
        let mut newest: BTreeMap<NodeId, &NodeState> = BTreeMap::new();
        for state in self.by.values().flat_map(BTreeMap::values) {
            let known = newest.entry(state.node).or_insert(state);
            if known.stamp() < state.stamp() {
                *known = state;
            }
        }
        newest.into_values()
    }
}
