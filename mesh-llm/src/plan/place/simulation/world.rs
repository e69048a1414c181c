//! The machines, and what goes between them.

use super::super::*;
use super::Tally;
use crate::plan::lease::{Epoch, LeaseId, Ledger};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeSet;

/// Ticks after which something that was told has arrived.
const LATEST: u64 = 3;
/// Ticks after which a machine that is not heard is taken for gone.
pub(super) const GONE: u64 = 6;

/// A mesh and its time.
pub(super) struct World {
    pub(super) rng: SmallRng,
    pub(super) now: u64,
    models: Vec<(String, Work, u64)>,
    round_trips: BTreeMap<(MachineId, MachineId), Duration>,
    pub(super) nodes: Vec<Option<Node>>,
    cut: BTreeSet<(usize, usize)>,
    pub(super) version: u64,
    pub(super) tally: Tally,
}

/// What a machine says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    machine: Machine,
    wants: Vec<Want>,
    pub(super) running: Vec<Running>,
}

pub(super) struct Heard {
    pub(super) facts: Facts,
    pub(super) version: u64,
    pub(super) at: u64,
}

/// A machine while it runs.
pub(super) struct Node {
    pub(super) heard: BTreeMap<usize, Heard>,
    /// Of which facts the plan was made.
    pub(super) planned_of: Vec<(usize, u64)>,
    pub(super) plan: BTreeMap<String, Placement>,
    pub(super) copies: BTreeSet<String>,
    pub(super) hosting: BTreeMap<String, Hosting>,
    pub(super) epochs: BTreeMap<String, Epoch>,
    pub(super) ledger: Ledger,
    pub(super) lent: BTreeMap<LeaseId, (String, usize)>,
}

/// A group that a machine is the host of, or tries to be.
pub(super) struct Hosting {
    pub(super) group: Group,
    pub(super) epoch: Epoch,
    pub(super) leases: BTreeMap<MachineId, LeaseId>,
}

pub(super) fn id(node: usize) -> MachineId {
    MachineId([node as u8; 32])
}

pub(super) fn number(id: MachineId) -> usize {
    usize::from(id.0[0])
}

impl World {
    /// Some machines, of which most run.
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(!seed);
        let count = rng.random_range(2..7);
        let mut round_trips = BTreeMap::new();
        for b in 0..count {
            for a in 0..b {
                let way = Duration::from_millis(rng.random_range(1..23));
                if rng.random_bool(0.9) {
                    round_trips.insert((id(a), id(b)), way);
                }
            }
        }
        let models = ["a", "b", "c"].map(|name| {
            let layers = vec![rng.random_range(4..12); rng.random_range(4..9)];
            let head = rng.random_range(0..8);
            (
                name.to_owned(),
                Work {
                    layers,
                    head,
                    logits: 100,
                },
                rng.random_range(0..12),
            )
        });
        let mut world = Self {
            rng,
            now: 0,
            models: models.to_vec(),
            round_trips,
            nodes: (0..count).map(|_| None).collect(),
            cut: BTreeSet::new(),
            version: 0,
            tally: Tally::default(),
        };
        (1..count).for_each(|node| world.start(node));
        world
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(super) fn tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// A machine starts, with nothing of what it knew, and told to serve anything.
    pub(super) fn start(&mut self, node: usize) {
        if self.nodes[node].is_some() {
            return;
        }
        let rng = &mut self.rng;
        let machine = Machine {
            id: id(node),
            memory: rng.random_range(5..90),
            bandwidth: [0, 500, 1000, 1000, 3000][rng.random_range(0..5)],
            gpus: match rng.random_range(0..3) {
                0 => Gpus {
                    bytes: rng.random_range(5..50),
                    bandwidth: [0, 9000, 30_000][rng.random_range(0..3)],
                },
                _ => Gpus::default(),
            },
            split: rng.random_bool(0.95).then(|| "1".to_owned()),
        };
        let mut wants = Vec::new();
        for (model, work, beside) in &self.models {
            if rng.random_bool(0.4) {
                wants.push(Want {
                    model: model.clone(),
                    by: id(node),
                    work: work.clone(),
                    beside: *beside,
                    wish: if rng.random_bool(0.1) {
                        Wish::Split
                    } else {
                        Wish::Whole
                    },
                    alone: true,
                });
            }
        }
        let ledger = Ledger::new(machine.memory);
        let running = Vec::new();
        self.version += 1;
        let itself = Heard {
            facts: Facts {
                machine,
                wants,
                running,
            },
            version: self.version,
            at: self.now,
        };
        self.nodes[node] = Some(Node {
            heard: BTreeMap::from([(node, itself)]),
            planned_of: Vec::new(),
            plan: BTreeMap::new(),
            copies: BTreeSet::new(),
            hosting: BTreeMap::new(),
            epochs: BTreeMap::new(),
            ledger,
            lent: BTreeMap::new(),
        });
    }

    pub(super) fn kill(&mut self, node: usize) {
        self.nodes[node] = None;
    }

    /// Two machines cannot reach each other any more.
    pub(super) fn cut(&mut self, a: usize, b: usize) {
        self.cut.insert((a.min(b), a.max(b)));
    }

    pub(super) fn mend_all(&mut self) {
        self.cut.clear();
    }

    /// Machines hear of each other, and each does what its plan says.
    pub(super) fn tick(&mut self) {
        self.now += 1;
        for to in 0..self.len() {
            (0..self.len()).for_each(|from| self.tell(from, to));
        }
        for node in 0..self.len() {
            if self.nodes[node].is_some() {
                self.notice(node);
                self.plan(node);
                self.follow(node);
                self.ask(node);
                self.say(node);
            }
        }
    }

    pub(super) fn reaches(&self, a: usize, b: usize) -> bool {
        let both = self.nodes[a].is_some() && self.nodes[b].is_some();
        both && !self.cut.contains(&(a.min(b), a.max(b)))
    }

    pub(super) fn node(&mut self, node: usize) -> &mut Node {
        self.nodes[node].as_mut().expect("it runs")
    }

    fn tell(&mut self, from: usize, to: usize) {
        if from == to || !self.reaches(from, to) {
            return;
        }
        let (now, at_once) = (self.now, self.rng.random_bool(0.5));
        let itself = &self.node(from).heard[&from];
        let (facts, version) = (itself.facts.clone(), itself.version);
        let before = self.node(to).heard.get(&from);
        if at_once || before.is_none_or(|before| before.at + LATEST <= now) {
            let heard = Heard {
                facts,
                version,
                at: now,
            };
            self.node(to).heard.insert(from, heard);
        }
    }

    /// What a machine knows.
    pub(super) fn view_of(&self, node: &Node) -> View {
        let facts = || node.heard.values().map(|heard| &heard.facts);
        View {
            machines: facts().map(|facts| facts.machine.clone()).collect(),
            wants: facts().flat_map(|facts| facts.wants.clone()).collect(),
            running: facts().flat_map(|facts| facts.running.clone()).collect(),
            round_trips: self.round_trips.clone(),
            most_round_trip: Duration::from_millis(20),
            beside_worker: 6,
        }
    }

    /// What all that run say of themselves.
    pub(super) fn facts(&self) -> Vec<Facts> {
        let nodes = self.nodes.iter().enumerate();
        nodes
            .filter_map(|(number, node)| Some(node.as_ref()?.heard[&number].facts.clone()))
            .collect()
    }

    /// The plans of all that run.
    pub(super) fn plans(&self) -> Vec<BTreeMap<String, Placement>> {
        self.nodes
            .iter()
            .flatten()
            .map(|node| node.plan.clone())
            .collect()
    }

    /// What the first that runs knows, if any does.
    pub(super) fn view(&self) -> View {
        let first = self.nodes.iter().flatten().next();
        first.map(|node| self.view_of(node)).unwrap_or_default()
    }

    /// Who serves what, and with whom, by what workers have lent.
    pub(super) fn does(&self) -> BTreeSet<(String, MachineId, Vec<MachineId>)> {
        let mut done = BTreeSet::new();
        let mut leases = 0;
        for (number, node) in self.nodes.iter().enumerate() {
            let Some(node) = node else { continue };
            done.extend(
                node.copies
                    .iter()
                    .map(|model| (model.clone(), id(number), Vec::new())),
            );
            for (model, hosting) in &node.hosting {
                leases += hosting.leases.len();
                if hosting.leases.len() == hosting.group.workers.len() {
                    done.insert((model.clone(), id(number), hosting.group.workers.clone()));
                }
            }
        }
        let lent: usize = self.nodes.iter().flatten().map(|node| node.lent.len()).sum();
        assert_eq!(lent, leases, "what is lent is used");
        done
    }
}
