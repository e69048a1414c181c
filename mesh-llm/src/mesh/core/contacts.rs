//! Whom to call, and when again.

use super::super::id::{Address, Contact, NodeId};
use super::super::state::MAX_TEXT_BYTES;
use std::collections::BTreeMap;
use std::time::Duration;

/// The pause after a first call that came to nothing.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause: a machine that is switched on again is found within it.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How long a call may take before the next one to the same node.
const CALL: Duration = Duration::from_secs(10);

/// Nodes that are remembered at most; a mesh has fewer.
const MOST: usize = 4096;

/// Addresses of a node that are remembered at most.
const MOST_ADDRESSES: usize = 16;

#[derive(Debug, Clone, Default)]
struct Known {
    addresses: Vec<Address>,
    not_before: Duration,
    pause: Duration,
}

/// Where members are, as far as is known.
#[derive(Debug)]
pub(super) struct Contacts {
    me: NodeId,
    known: BTreeMap<NodeId, Known>,
}

impl Contacts {
    pub(super) fn new(me: NodeId, contacts: Vec<Contact>) -> Self {
        let mut all = Self {
            me,
            known: BTreeMap::new(),
        };
        for contact in contacts {
            all.learn(contact.node, &contact.addresses);
        }
        all
    }

    /// Takes addresses that a node says it has; whether they are others than before.
    pub(super) fn learn(&mut self, node: NodeId, addresses: &[Address]) -> bool {
        let is_new = !self.known.contains_key(&node);
        // One without addresses may still be found by its name. What is known is better than none.
        let says_nothing = addresses.is_empty() && !is_new;
        if node == self.me || says_nothing || (is_new && self.known.len() >= MOST) {
            return false;
        }
        let fits = |address: &&Address| !matches!(address, Address::Relay(url) if url.len() > MAX_TEXT_BYTES);
        let addresses = addresses.iter().filter(fits).take(MOST_ADDRESSES);
        let addresses: Vec<Address> = addresses.cloned().collect();
        let known = self.known.entry(node).or_default();
        if known.addresses == addresses && !is_new {
            return false;
        }
        known.addresses = addresses;
        // It may be where it was not before.
        known.not_before = Duration::ZERO;
        known.pause = Duration::ZERO;
        true
    }

    /// Where a node is.
    pub(super) fn get(&self, node: NodeId) -> Option<Contact> {
        let known = self.known.get(&node)?;
        Some(Contact {
            node,
            addresses: known.addresses.clone(),
        })
    }

    /// All, for the next start.
    pub(super) fn kept(&self) -> Vec<Contact> {
        self.known.keys().filter_map(|node| self.get(*node)).collect()
    }

    /// Forgets all others, unless that would be all; whether there were any.
    pub(super) fn keep(&mut self, is_kept: impl Fn(NodeId) -> bool) -> bool {
        let before = self.known.len();
        if self.known.keys().any(|node| is_kept(*node)) {
            self.known.retain(|node, _| is_kept(*node));
        }
        self.known.len() != before
    }

    /// Forgets a node.
    pub(super) fn forget(&mut self, node: NodeId) {
        self.known.remove(&node);
    }

    /// A node that is said to be there is called without a further pause.
    pub(super) fn wanted(&mut self, node: NodeId) {
        if let Some(known) = self.known.get_mut(&node) {
            known.pause = known.pause.min(FIRST_PAUSE);
        }
    }

    /// Those that are to be called now, of those that are `wanted`, at most so many. The next after this node in the
    /// order of ids is the first, so that not all call the same one.
    pub(super) fn due(
        &mut self,
        now: Duration,
        most: usize,
        wanted: impl Fn(NodeId) -> bool,
    ) -> Vec<Contact> {
        let is_due = |(node, known): &(&NodeId, &Known)| known.not_before <= now && wanted(**node);
        let after = self.known.range(self.me..).chain(self.known.range(..self.me));
        let due: Vec<NodeId> = after.filter(is_due).map(|(node, _)| *node).take(most).collect();
        for node in &due {
            if let Some(known) = self.known.get_mut(node) {
                known.not_before = now + CALL;
            }
        }
        due.into_iter().filter_map(|node| self.get(node)).collect()
    }

    /// A call came to nothing.
    pub(super) fn failed(&mut self, now: Duration, node: NodeId) {
        if let Some(known) = self.known.get_mut(&node) {
            known.pause = (known.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
            known.not_before = now + known.pause;
        }
    }

    /// It is connected. Should the connection end at once, it is not called again in the same second.
    pub(super) fn reached(&mut self, now: Duration, node: NodeId) {
        if let Some(known) = self.known.get_mut(&node) {
            known.pause = Duration::ZERO;
            known.not_before = now + FIRST_PAUSE;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iroh_base::SecretKey;

    #[test]
    fn who_is_not_in_the_mesh_any_more_is_not_called_by_clients() {
        let [me, server, kicked] = [1, 2, 3].map(|seed| SecretKey::from_bytes(&[seed; 32]).public());
        let contact = |node| Contact {
            node,
            addresses: vec![Address::Ip(([10, 0, 0, 1], 1).into())],
        };
        let mut contacts = Contacts::new(me, vec![contact(server), contact(kicked)]);
        assert!(contacts.keep(|node| node == server));
        assert_eq!(contacts.kept(), [contact(server)]);
        // Nobody to call at all would be worse.
        assert!(!contacts.keep(|_| false));
        assert_eq!(contacts.kept(), [contact(server)]);
    }
}
