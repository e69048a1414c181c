//! What a worker lends, and to whom.
use super::place::MachineId;
use std::collections::BTreeMap;

/// Epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u64);
/// Lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub u64);
/// Asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// h
    pub host: MachineId,
    /// m
    pub model: String,
    /// e
    pub epoch: Epoch,
    /// b
    pub bytes: u64,
}
/// Verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// g
    Granted {
        /// l
        lease: LeaseId,
        /// b
        bytes: u64,
        /// e
        ends: Vec<LeaseId>,
    },
    /// s
    Stale {
        /// n
        newest: Epoch,
    },
    /// n
    NoRoom {
        /// l
        left: u64,
    },
}
/// Ledger.
#[derive(Debug)]
pub struct Ledger {
    memory: u64,
    next: u64,
    leases: BTreeMap<LeaseId, Asked>,
    newest: BTreeMap<String, (Epoch, MachineId)>,
}
impl Ledger {
    /// n
    pub fn new(memory: u64) -> Self {
        Self {
            memory,
            next: 0,
            leases: BTreeMap::new(),
            newest: BTreeMap::new(),
        }
    }
    /// l
    pub fn left(&self) -> u64 {
        self.memory
            .saturating_sub(self.leases.values().map(|l| l.bytes).sum())
    }
    /// e
    pub fn ended(&mut self, lease: LeaseId) {
        self.leases.remove(&lease);
    }
    /// a
    pub fn ask(&mut self, asked: &Asked) -> Verdict {
        if let Some((newest, host)) = self.newest.get(&asked.model)
            && (asked.epoch, asked.host) <= (*newest, *host)
        {
            return Verdict::Stale { newest: *newest };
        }
        let ends: Vec<LeaseId> = self
            .leases
            .iter()
            .filter(|(_, l)| l.model == asked.model)
            .map(|(id, _)| *id)
            .collect();
        for id in &ends {
            self.leases.remove(id);
        }
        let left = self.left();
        if asked.bytes > left {
            return Verdict::NoRoom { left };
        }
        self.newest.insert(asked.model.clone(), (asked.epoch, asked.host));
        let lease = LeaseId(self.next);
        self.next += 1;
        self.leases.insert(lease, asked.clone());
        Verdict::Granted {
            lease,
            bytes: asked.bytes,
            ends,
        }
    }
}
