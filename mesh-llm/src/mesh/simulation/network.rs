//! A network that is made up: how long packets take, and which get lost.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeSet;
use std::time::Duration;

/// How much longer than the least a packet may take.
const JITTER: f64 = 0.2;

/// The paths between all nodes.
pub struct Network {
    rng: SmallRng,
    /// Of most paths, at best.
    rtt: Duration,
    /// A node all of whose paths have another RTT.
    slow: Option<(usize, Duration)>,
    /// The part of all packets that get lost.
    loss: f64,
    /// Nodes that are cut off from the others, but not from each other.
    island: BTreeSet<usize>,
}

impl Network {
    /// Without loss.
    pub fn new(seed: u64, rtt: Duration) -> Self {
        Self {
            rng: SmallRng::seed_from_u64(seed),
            rtt,
            slow: None,
            loss: 0.0,
            island: BTreeSet::new(),
        }
    }

    /// Loses packets from now on.
    pub fn with_loss(self, loss: f64) -> Self {
        Self { loss, ..self }
    }

    /// All paths of one node have another RTT.
    pub fn with_slow(self, node: usize, rtt: Duration) -> Self {
        Self {
            slow: Some((node, rtt)),
            ..self
        }
    }

    /// Cuts some nodes off from the others.
    pub fn cut_off(&mut self, island: impl IntoIterator<Item = usize>) {
        self.island = island.into_iter().collect();
    }

    /// All paths are whole again.
    pub fn heal(&mut self) {
        self.island.clear();
    }

    /// Whether there is a path.
    pub fn connects(&self, from: usize, to: usize) -> bool {
        self.island.contains(&from) == self.island.contains(&to)
    }

    /// How long a packet takes; none if it gets lost.
    pub fn carry(&mut self, from: usize, to: usize) -> Option<Duration> {
        let lost = self.rng.random_bool(self.loss);
        let jitter = self.rng.random_range(1.0..1.0 + JITTER);
        let rtt = match self.slow {
            Some((node, rtt)) if node == from || node == to => rtt,
            _ => self.rtt,
        };
        (!lost && self.connects(from, to)).then(|| rtt.mul_f64(jitter / 2.0))
    }
}
