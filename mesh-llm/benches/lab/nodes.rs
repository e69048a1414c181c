//! The machines of a split: hosts of a netlab, each with a core of its own as far as there are cores.

use std::net::SocketAddr;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::netlab::{NetLab, Traffic};

/// The node that clients talk to and that has the first layers. The others are workers.
pub const HOST: usize = 0;

/// So many machines.
#[derive(Debug)]
pub struct Nodes {
    lab: NetLab,
    count: usize,
    /// The cores that this process may use.
    cores: Vec<usize>,
}

impl Nodes {
    /// Starts them.
    ///
    /// # Errors
    /// Where this machine permits no netlab.
    pub fn start(count: usize) -> anyhow::Result<Self> {
        let allowed = sched_getaffinity(None)?;
        let cores = (0..CpuSet::MAX_CPU)
            .filter(|core| allowed.is_set(*core))
            .collect();
        Ok(Self {
            lab: NetLab::start(count)?,
            count,
            cores,
        })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Those that are no host.
    pub fn workers(&self) -> impl Iterator<Item = usize> + use<> {
        HOST + 1..self.count
    }

    /// Where another node reaches a port of this one.
    pub fn address(&self, node: usize, port: u16) -> SocketAddr {
        SocketAddr::new(self.lab.address(node), port)
    }

    /// Runs something on a node and its core: what computes is started here, and stays.
    pub fn on<T: Send>(&self, node: usize, run: impl FnOnce() -> T + Send) -> T {
        // Where there are fewer cores than nodes, workers share the last.
        let core = self.cores.get(node).or(self.cores.last()).copied();
        self.lab.within(node, || {
            let mut only = CpuSet::new();
            if let Some(core) = core {
                only.set(core);
                // Without a core of its own it is measured all the same, if less steadily.
                if let Err(error) = sched_setaffinity(None, &only) {
                    eprintln!("node {node} has no core of its own: {error}");
                }
            }
            run()
        })
    }

    /// Runs a client on the host, on whatever core is free.
    pub fn as_client<T: Send>(&self, run: impl FnOnce() -> T + Send) -> T {
        self.lab.within(HOST, run)
    }

    /// Sets the round-trip time between all of them.
    pub fn set_rtt(&self, milliseconds: u64) {
        self.lab.set_rtt(Duration::from_millis(milliseconds));
    }

    /// All that crossed the network so far, between any two.
    pub fn traffic(&self) -> Traffic {
        let mut all = Traffic::default();
        for from in 0..self.count {
            for to in 0..self.count {
                all += self.lab.traffic(from, to);
            }
        }
        all
    }
}
