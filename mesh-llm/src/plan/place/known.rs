//! Machines and ways between them, as a plan looks at them.

use super::{Machine, MachineId, View};
use llama_engine::rpc::plan::{Gpus, Node};
use std::collections::BTreeMap;
use std::time::Duration;

/// Bytes that a plan reckons with at most (64 PiB): more of a machine counts as that, and a larger model is never placed.
/// So no sum over machines or layers overflows.
pub(super) const MOST_BYTES: u64 = 1 << 56;
/// Bytes a second that a machine reads where nobody's rate is known: it decides nothing but whether a way counts.
const USUAL_BANDWIDTH: u64 = 50_000_000_000;
/// A longer way is as good as none; so times can be added.
const LONGEST_HOP: Duration = Duration::from_secs(3600);

/// The machines of a view, each once.
pub(super) struct Known<'a> {
    machines: BTreeMap<MachineId, &'a Machine>,
    view: &'a View,
    /// What a machine reads a second if that is unknown: as much as the slowest that is known.
    usual: u64,
}

impl<'a> Known<'a> {
    pub(super) fn new(view: &'a View) -> Self {
        let mut machines: BTreeMap<MachineId, &'a Machine> = BTreeMap::new();
        for machine in &view.machines {
            let known = machines.entry(machine.id).or_insert(machine);
            *known = (*known).min(machine);
        }
        let rates = machines.values().map(|machine| machine.bandwidth);
        let usual = rates.filter(|rate| *rate > 0).min();
        Self {
            machines,
            view,
            usual: usual.unwrap_or(USUAL_BANDWIDTH),
        }
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = MachineId> {
        self.machines.keys().copied()
    }

    pub(super) fn has(&self, id: MachineId) -> bool {
        self.machines.contains_key(&id)
    }

    /// Bytes that a machine offers for all models; one that is not there offers none.
    pub(super) fn memory(&self, id: MachineId) -> u64 {
        self.machines
            .get(&id)
            .map_or(0, |machine| machine.memory.min(MOST_BYTES))
    }

    /// Bytes that a worker takes beside its layers.
    pub(super) fn beside_worker(&self) -> u64 {
        self.view.beside_worker
    }

    /// Bytes that a machine has for layers of another which has so many left.
    pub(super) fn for_layers(&self, left: u64) -> u64 {
        left.saturating_sub(self.view.beside_worker)
    }

    /// Whether a machine that has so many bytes left has room for a worker of such layers.
    pub(super) fn has_room(&self, left: u64, layer: u64) -> bool {
        self.for_layers(left) >= layer
    }

    /// Whether both speak the same in a split.
    pub(super) fn understand(&self, a: MachineId, b: MachineId) -> bool {
        let word = |id| self.machines.get(&id).and_then(|machine| machine.split.as_ref());
        word(a).is_some() && word(a) == word(b)
    }

    /// What a machine has on GPUs that has so many bytes left: what is taken was taken of these first.
    fn gpus(&self, id: MachineId, left: u64) -> Gpus {
        let gpus = self
            .machines
            .get(&id)
            .map_or(Gpus::default(), |machine| machine.gpus);
        let taken = self.memory(id).saturating_sub(left);
        Gpus {
            bytes: gpus.bytes.min(self.memory(id)).saturating_sub(taken),
            ..gpus
        }
    }

    /// The machine as a node of `host`'s group that has so many bytes left.
    pub(super) fn node(&self, host: MachineId, id: MachineId, left: u64) -> Node {
        let bandwidth = self.machines.get(&id).map_or(0, |machine| machine.bandwidth);
        let hop = if host == id {
            Duration::ZERO
        } else {
            let way = self.round_trip(host, id).unwrap_or(self.view.most_round_trip);
            (way / 2).min(LONGEST_HOP)
        };
        Node {
            bytes: if host == id { left } else { self.for_layers(left) },
            bandwidth: if bandwidth > 0 { bandwidth } else { self.usual },
            gpus: self.gpus(id, left),
            hop,
        }
    }

    /// Whether `worker` may come into a group of `host`: the way must be known.
    pub(super) fn reaches(&self, host: MachineId, worker: MachineId) -> bool {
        let way = self.round_trip(host, worker);
        host != worker
            && self.understand(host, worker)
            && way.is_some_and(|way| way <= self.view.most_round_trip)
    }

    /// Whether two workers of `host` are near each other. An unknown way is at most that by the host.
    pub(super) fn near(&self, host: MachineId, a: MachineId, b: MachineId) -> bool {
        let by_host = || {
            let (to, from) = (self.round_trip(host, a)?, self.round_trip(host, b)?);
            Some(to.saturating_add(from))
        };
        let way = self.round_trip(a, b).or_else(by_host);
        way.is_some_and(|way| way <= self.view.most_round_trip)
    }

    /// Whether a way in a group that runs has become too long: by more than a quarter, as such times waver. What is not known
    /// ends nothing.
    pub(super) fn too_far(&self, a: MachineId, b: MachineId) -> bool {
        let most = self.view.most_round_trip;
        let most = most.saturating_add(most / 4);
        self.round_trip(a, b).is_some_and(|way| way > most)
    }

    fn round_trip(&self, a: MachineId, b: MachineId) -> Option<Duration> {
        self.view.round_trips.get(&(a.min(b), a.max(b))).copied()
    }
}
