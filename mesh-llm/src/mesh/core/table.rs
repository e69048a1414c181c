//! What clients are told: who serves what. They do not gossip, and cost nothing while nothing changes.

use super::super::id::{NodeId, Role};
use super::super::state::{SignedState, Stamp};
use super::super::wire::{Control, Table};
use super::{Core, Output};
use std::collections::BTreeMap;

/// States of nodes, by their newest version.
type Versions = BTreeMap<NodeId, Stamp>;

/// What each client of this node knows.
#[derive(Debug, Default)]
pub(super) struct Tables {
    known: BTreeMap<NodeId, Versions>,
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

    /// What a client lacks; none: nothing has changed for it.
    fn news(&mut self, client: NodeId, now: &Versions) -> Option<Vec<NodeId>> {
        let known = self.known.get(&client);
        if known == Some(now) {
            return None;
        }
        let is_new = |node: &NodeId| known.and_then(|known| known.get(node)) != now.get(node);
        let lacking = now.keys().copied().filter(is_new).collect();
        self.known.insert(client, now.clone());
        Some(lacking)
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
        let claimed = |signed: &SignedState| Some((signed.claim().ok()?, signed.clone()));
        let states: Vec<((NodeId, Stamp), SignedState)> = self.states().filter_map(claimed).collect();
        let now: Versions = states.iter().map(|(claim, _)| *claim).collect();
        let states: BTreeMap<NodeId, SignedState> = states
            .into_iter()
            .map(|((node, _), state)| (node, state))
            .collect();
        for (client, link) in clients {
            if let Some(lacking) = self.tables.news(client, &now) {
                let table = Table {
                    alive: now.keys().copied().collect(),
                    states: lacking.iter().map(|node| states[node].clone()).collect(),
                };
                self.outputs.push_back(Output::Send(link, Control::Table(table)));
            }
        }
    }

    /// What all that are alive say of themselves, this node included.
    fn states(&self) -> impl Iterator<Item = &SignedState> {
        let others = self.others_alive().filter_map(|node| self.gossip.signed(node));
        self.own.iter().chain(others)
    }
}
