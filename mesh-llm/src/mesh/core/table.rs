//! What clients are told: who serves what. They do not gossip, and cost nothing while nothing changes.

use super::super::id::{NodeId, Role};
use super::super::state::{SignedState, Stamp};
use super::super::wire::{Control, Table};
use super::{Core, Output};
use std::collections::BTreeMap;
use std::sync::Arc;

/// States of nodes, by their newest version.
type Versions = BTreeMap<NodeId, Stamp>;

/// What each client of this node knows.
#[derive(Debug, Default)]
pub(super) struct Tables {
    known: BTreeMap<NodeId, Arc<Versions>>,
    /// The newest: thousands of clients know the same.
    newest: Arc<Versions>,
    urgent: bool,
}

impl Tables {
    /// Clients are to be told without delay.
    pub(super) fn urgent(&mut self) {
        self.urgent = true;
    }

    pub(super) fn is_urgent(&self) -> bool {
        self.urgent
    }

    /// A client is gone, or begins anew.
    pub(super) fn forget(&mut self, client: NodeId) {
        self.known.remove(&client);
    }

    /// Takes what there is now.
    fn renew(&mut self, now: Versions) {
        if *self.newest != now {
            self.newest = Arc::new(now);
        }
    }

    /// Whether a client knows the newest.
    fn is_told(&self, client: NodeId) -> bool {
        let known = self.known.get(&client);
        known.is_some_and(|known| Arc::ptr_eq(known, &self.newest))
    }

    /// The nodes of which a client lacks the newest; it is told now.
    fn tell(&mut self, client: NodeId) -> Vec<NodeId> {
        let now = Arc::clone(&self.newest);
        let known = self.known.insert(client, Arc::clone(&now)).unwrap_or_default();
        let is_new = |node: &NodeId| known.get(node) != now.get(node);
        now.keys().copied().filter(is_new).collect()
    }
}

impl Core {
    /// Tells each client what has changed for it.
    pub(super) fn tell_clients(&mut self) {
        self.tables.urgent = false;
        let clients = self.links.iter().filter(|(_, link)| link.role == Role::Client);
        let clients: Vec<_> = clients.map(|(node, link)| (node, link.id)).collect();
        if clients.is_empty() {
            return;
        }
        let claims = self.states().filter_map(|signed| signed.claim().ok());
        let now: Versions = claims.collect();
        self.tables.renew(now);
        let untold: Vec<_> = clients
            .into_iter()
            .filter(|(client, _)| !self.tables.is_told(*client))
            .collect();
        if untold.is_empty() {
            return;
        }
        let claimed = |signed: &SignedState| Some((signed.claim().ok()?.0, signed.clone()));
        let states: BTreeMap<NodeId, SignedState> = self.states().filter_map(claimed).collect();
        for (client, link) in untold {
            let lacking = self.tables.tell(client);
            let table = Table {
                alive: states.keys().copied().collect(),
                states: lacking.iter().map(|node| states[node].clone()).collect(),
            };
            self.outputs.push_back(Output::Send(link, Control::Table(table)));
        }
    }

    /// What all that are alive say of themselves, this node included.
    fn states(&self) -> impl Iterator<Item = &SignedState> {
        let others = self.others_alive().filter_map(|node| self.gossip.signed(node));
        self.own.iter().chain(others)
    }
}
