//! What a machine does in a tick, by what it knows.

use super::super::*;
use super::world::{GONE, Hosting, World, id, number};
use crate::plan::lease::{Asked, LeaseId, Verdict};
use rand::RngExt;

impl World {
    /// Forgets who is gone, what was lent to them, and groups that lost somebody.
    pub(super) fn notice(&mut self, node: usize) {
        let now = self.now;
        self.node(node)
            .heard
            .retain(|of, heard| *of == node || heard.at + GONE > now);
        let reached: Vec<bool> = (0..self.len()).map(|other| self.reaches(node, other)).collect();
        let itself = self.node(node);
        let ended: Vec<LeaseId> = itself
            .lent
            .iter()
            .filter(|(_, (_, host))| !reached[*host])
            .map(|(lease, _)| *lease)
            .collect();
        for lease in ended {
            itself.lent.remove(&lease);
            itself.ledger.ended(lease);
        }
        let hosting = self.nodes[node].iter().flat_map(|itself| &itself.hosting);
        let holds = |(worker, lease): (&MachineId, &LeaseId)| {
            let there = self.nodes[number(*worker)].as_ref();
            let lent = there.and_then(|worker| worker.lent.get(lease));
            reached[number(*worker)] && lent.is_some_and(|(_, host)| *host == node)
        };
        let lost: Vec<String> = hosting
            .filter(|(_, hosting)| !hosting.leases.iter().all(holds))
            .map(|(model, _)| model.clone())
            .collect();
        lost.iter().for_each(|model| self.let_go(node, model));
    }

    /// Ends a group, and tells its workers where they are reached; the others notice.
    fn let_go(&mut self, node: usize, model: &str) {
        let hosting = self.node(node).hosting.remove(model);
        for (worker, lease) in hosting.into_iter().flat_map(|hosting| hosting.leases) {
            if self.reaches(node, number(worker)) {
                let worker = self.node(number(worker));
                // The number may be that of another lease, if the worker started anew.
                if worker
                    .lent
                    .get(&lease)
                    .is_some_and(|lent| *lent == (model.to_owned(), node))
                {
                    worker.lent.remove(&lease);
                    worker.ledger.ended(lease);
                }
            }
        }
    }

    pub(super) fn plan(&mut self, node: usize) {
        let itself = self.nodes[node].as_ref().expect("it runs");
        let heard = itself.heard.iter();
        let of: Vec<(usize, u64)> = heard.map(|(of, heard)| (*of, heard.version)).collect();
        if of != itself.planned_of {
            let plan = plan(&self.view_of(itself));
            let itself = self.node(node);
            itself.plan = plan;
            itself.planned_of = of;
        }
    }

    pub(super) fn follow(&mut self, node: usize) {
        let itself = self.node(node);
        let alone = |(model, placement): (&String, &Placement)| {
            matches!(placement, Placement::Alone(ids) if ids.contains(&id(node))).then(|| model.clone())
        };
        itself.copies = itself.plan.iter().filter_map(alone).collect();
        let plan = itself.plan.clone();
        let own = |model: &str| match plan.get(model) {
            Some(Placement::Split(group)) if group.host == id(node) => Some(group),
            _ => None,
        };
        let hosting = itself.hosting.iter();
        let other = hosting.filter(|(model, hosting)| own(model) != Some(&hosting.group));
        let over: Vec<String> = other.map(|(model, _)| model.clone()).collect();
        over.iter().for_each(|model| self.let_go(node, model));
        let itself = self.node(node);
        for model in plan.keys() {
            if let Some(group) = own(model)
                && !itself.hosting.contains_key(model)
            {
                let newest = itself.epochs.entry(model.clone()).or_default();
                *newest = newest.after();
                let hosting = Hosting {
                    group: group.clone(),
                    epoch: *newest,
                    leases: BTreeMap::new(),
                };
                itself.hosting.insert(model.clone(), hosting);
            }
        }
    }

    /// Asks workers for what their host has not yet; not all at once.
    pub(super) fn ask(&mut self, node: usize) {
        let hosting = self.node(node).hosting.iter();
        let asks: Vec<(MachineId, Asked)> = hosting
            .flat_map(|(model, hosting)| {
                let asked = Asked {
                    host: id(node),
                    model: model.clone(),
                    epoch: hosting.epoch,
                    bytes: 1,
                };
                let missing = hosting
                    .group
                    .workers
                    .iter()
                    .filter(|worker| !hosting.leases.contains_key(worker));
                missing
                    .map(move |worker| (*worker, asked.clone()))
                    .collect::<Vec<_>>()
            })
            .collect();
        for (worker, asked) in asks {
            let arrives = self.rng.random_bool(0.6) && self.reaches(node, number(worker));
            let model = &asked.model;
            if !arrives || !self.node(node).hosting.contains_key(model) {
                continue;
            }
            match self.node(number(worker)).ledger.ask(&asked) {
                Verdict::Granted { lease, ends, .. } => {
                    self.lend(number(worker), lease, &ends, (model.clone(), node));
                    if let Some(hosting) = self.node(node).hosting.get_mut(model) {
                        hosting.leases.insert(worker, lease);
                    }
                }
                Verdict::Stale { newest } => {
                    self.tally.stale += 1;
                    self.node(node).epochs.insert(model.clone(), newest);
                    self.let_go(node, model);
                }
                Verdict::NoRoom { .. } => self.let_go(node, model),
            }
        }
    }

    fn lend(&mut self, worker: usize, lease: LeaseId, ends: &[LeaseId], to: (String, usize)) {
        self.tally.taken_over += ends.len();
        let worker = self.node(worker);
        for over in ends {
            let (model, _) = worker.lent.remove(over).expect("what ends was lent");
            assert_eq!(model, to.0, "only leases of the same model end");
        }
        assert!(
            worker.lent.values().all(|(model, _)| *model != to.0),
            "{} is lent twice",
            to.0
        );
        worker.lent.insert(lease, to);
    }

    pub(super) fn say(&mut self, node: usize) {
        let itself = self.node(node);
        let copies = itself
            .copies
            .iter()
            .map(|model| (model, Placement::Alone(vec![id(node)])));
        let whole = |hosting: &Hosting| hosting.leases.len() == hosting.group.workers.len();
        let groups = itself.hosting.iter().filter(|(_, hosting)| whole(hosting));
        let groups = groups.map(|(model, hosting)| (model, Placement::Split(hosting.group.clone())));
        let running = copies.chain(groups).map(|(model, placement)| Running {
            model: model.clone(),
            placement,
        });
        let running: Vec<Running> = running.collect();
        let next = self.version + 1;
        let own = self.node(node).heard.get_mut(&node).expect("it knows itself");
        if own.facts.running != running {
            own.facts.running = running;
            own.version = next;
            self.version = next;
        }
    }
}
