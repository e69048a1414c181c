//! What a machine lends to the hosts of groups.
//!
//! Plans are made from what is known, and machines do not know the same at the same time; so two may take themselves
//! for the host of one model. A worker lends to one host a model: that of the greater epoch, and of the greater
//! id where these are equal. Whoever comes with less is told the newest epoch, and takes a greater one if it is the
//! host by its plan still.

use super::place::MachineId;
use std::collections::BTreeMap;

/// Models of which the newest epoch is remembered. Those with a lease are never forgotten, so there are no more leases.
const MOST_MODELS: usize = 1024;

/// How often a model has been given a host. Each host takes a greater one than any that it has heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch after this one.
    pub fn after(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

/// A lease, by its number: no two of one ledger have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub u64);

/// What a host asks of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Who asks.
    pub host: MachineId,
    /// The model that is to be split.
    pub model: String,
    /// Its epoch.
    pub epoch: Epoch,
    /// Bytes that it will take at most; all of them are set aside. 0: all that is left.
    pub bytes: u64,
}

/// What a worker answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It lends.
    Granted {
        /// The new lease.
        lease: LeaseId,
        /// Bytes that the host may take.
        bytes: u64,
        /// Older leases of that model, which are over: whoever uses them is to be stopped.
        ends: Vec<LeaseId>,
    },
    /// Somebody came with as great an epoch, or a greater one.
    Stale {
        /// That epoch.
        newest: Epoch,
    },
    /// It has not so much to lend. What was lent before is not touched.
    NoRoom {
        /// Bytes that the host could have.
        left: u64,
    },
}

/// Who came last for a model.
#[derive(Debug, Clone, Copy)]
struct Newest {
    epoch: Epoch,
    host: MachineId,
    /// The lease that it was given, which may be over.
    lease: LeaseId,
}

/// Less memory than this is not worth a process: it takes as much for itself. In bytes.
pub const LEAST_LENT: u64 = 192 << 20;

/// What a machine has lent, and to whom it would lend.
#[derive(Debug, Clone)]
pub struct Ledger {
    memory: u64,
    /// Bytes of each lease: their sum is at most the memory.
    leases: BTreeMap<LeaseId, u64>,
    newest: BTreeMap<String, Newest>,
    next: LeaseId,
}

impl Ledger {
    /// Of a machine that lends so many bytes.
    pub fn new(memory: u64) -> Self {
        Self {
            memory,
            leases: BTreeMap::new(),
            newest: BTreeMap::new(),
            next: LeaseId(0),
        }
    }

    /// Lends what is asked, if the rules allow it. A refusal changes nothing.
    pub fn ask(&mut self, asked: &Asked) -> Verdict {
        let before = self.newest.get(&asked.model).copied();
        if let Some(newest) = before
            && (asked.epoch, asked.host) <= (newest.epoch, newest.host)
        {
            return Verdict::Stale { newest: newest.epoch };
        }
        let lease = before.map(|newest| newest.lease);
        let over = lease.filter(|lease| self.leases.contains_key(lease));
        let left = self.left() + over.map_or(0, |lease| self.leases[&lease]);
        let bytes = if asked.bytes == 0 { left } else { asked.bytes };
        if bytes == 0 || bytes > left || (before.is_none() && !self.make_room()) {
            return Verdict::NoRoom { left };
        }
        if let Some(lease) = over {
            self.leases.remove(&lease);
        }
        let lease = self.next;
        self.next = LeaseId(lease.0 + 1);
        let (epoch, host) = (asked.epoch, asked.host);
        self.newest
            .insert(asked.model.clone(), Newest { epoch, host, lease });
        self.leases.insert(lease, bytes);
        Verdict::Granted {
            lease,
            bytes,
            ends: over.into_iter().collect(),
        }
    }

    /// Forgets an epoch where as many are remembered as can be: that whose lease was given first, of those that are
    /// over. False if there is none.
    fn make_room(&mut self) -> bool {
        if self.newest.len() < MOST_MODELS {
            return true;
        }
        let over = self
            .newest
            .iter()
            .filter(|(_, newest)| !self.leases.contains_key(&newest.lease));
        let oldest = over
            .min_by_key(|(_, newest)| newest.lease)
            .map(|(model, _)| model.clone());
        oldest.is_some_and(|model| self.newest.remove(&model).is_some())
    }

    /// A lease is over: its host let go of it, or is gone. Its epoch is remembered.
    pub fn ended(&mut self, lease: LeaseId) {
        self.leases.remove(&lease);
    }

    /// Bytes that are not lent.
    pub fn left(&self) -> u64 {
        self.memory - self.leases.values().sum::<u64>()
    }

    /// The greatest epoch that somebody was lent something for, as far as it is remembered.
    pub fn newest(&self, model: &str) -> Option<Epoch> {
        self.newest.get(model).map(|newest| newest.epoch)
    }
}

#[cfg(test)]
mod tests;
