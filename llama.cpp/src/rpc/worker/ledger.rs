//! What the queues of a session do, for those who ask by the clock: without a lock, which a queue may hold
//! while it waits for a core.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use super::device::Device;
use crate::rpc::wire::{Doing, Standing};

/// What one queue does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// It has done what came.
    Nothing,
    /// It waits for a hidden state.
    Receives,
    /// It does something short.
    Does,
    /// It loads weights.
    Loads,
    /// It computes a graph, or waits for its turn to.
    Computes,
}

impl Work {
    const ALL: [Self; 5] = [
        Self::Nothing,
        Self::Receives,
        Self::Does,
        Self::Loads,
        Self::Computes,
    ];

    fn of(number: u8) -> Self {
        Self::ALL
            .get(usize::from(number))
            .copied()
            .unwrap_or(Self::Nothing)
    }
}

#[derive(Debug)]
struct Entry {
    device: Arc<Device>,
    /// A [`Work`].
    work: AtomicU8,
    /// Commands that it has done.
    done: AtomicU64,
    /// Weights that it has loaded.
    loaded: AtomicU64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    queues: Vec<Entry>,
    /// Bytes of payloads.
    brought: Arc<AtomicU64>,
}

impl Ledger {
    /// For queues on these devices.
    pub(super) fn new(devices: impl IntoIterator<Item = Arc<Device>>) -> Self {
        let queues = devices.into_iter().map(|device| Entry {
            device,
            work: AtomicU8::new(Work::Nothing as u8),
            done: AtomicU64::new(0),
            loaded: AtomicU64::new(0),
        });
        Self {
            queues: queues.collect(),
            brought: Arc::default(),
        }
    }

    /// Takes note of what a queue does now.
    pub(super) fn note(&self, queue: u8, work: Work) {
        if let Some(entry) = self.queues.get(usize::from(queue)) {
            entry.work.store(work as u8, Ordering::Relaxed);
        }
    }

    /// Takes note of a command that a queue has done.
    pub(super) fn note_done(&self, queue: u8) {
        if let Some(entry) = self.queues.get(usize::from(queue)) {
            entry.done.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes note of a weight that a queue has loaded.
    pub(super) fn note_loaded(&self, queue: u8) {
        if let Some(entry) = self.queues.get(usize::from(queue)) {
            entry.loaded.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What counts the bytes of payloads that come.
    pub(super) fn brought(&self) -> &Arc<AtomicU64> {
        &self.brought
    }

    /// The devices, one for each queue.
    pub(super) fn devices(&self) -> impl Iterator<Item = &Arc<Device>> {
        self.queues.iter().map(|entry| &entry.device)
    }

    /// How long a graph is being computed at most that one of the queues computes or waits behind.
    pub(super) fn longest_graph(&self) -> Duration {
        let computing = self.queues.iter().filter(|entry| entry.work() == Work::Computes);
        let held = computing.filter_map(|entry| entry.device.turn.held_for());
        held.max().unwrap_or_default()
    }

    /// All of it taken together.
    pub(super) fn doing(&self) -> Doing {
        let mut doing = Doing {
            progress: self.brought.load(Ordering::Relaxed),
            ..Doing::default()
        };
        for entry in &self.queues {
            let done = entry.done.load(Ordering::Relaxed);
            doing.done += done;
            let loaded = entry.loaded.load(Ordering::Relaxed);
            doing.progress = doing.progress.wrapping_add(done).wrapping_add(loaded);
            let standing = match entry.work() {
                Work::Nothing => Standing::Idle,
                Work::Receives => Standing::Waits,
                Work::Does => Standing::Works,
                Work::Loads => Standing::Absorbed,
                Work::Computes => {
                    // Of whoever has the turn: who waits for it waits for that.
                    doing.progress = doing.progress.wrapping_add(entry.device.computed());
                    if entry.device.is_cpu() {
                        Standing::Works
                    } else {
                        Standing::Absorbed
                    }
                }
            };
            doing.standing = more_telling(doing.standing, standing);
        }
        doing
    }
}

impl Entry {
    fn work(&self) -> Work {
        Work::of(self.work.load(Ordering::Relaxed))
    }
}

/// Which of two queues' standings is the session's.
fn more_telling(one: Standing, other: Standing) -> Standing {
    let rank = |standing| match standing {
        Standing::Idle => 0,
        Standing::Waits => 1,
        Standing::Works => 2,
        Standing::Absorbed => 3,
    };
    if rank(other) > rank(one) { other } else { one }
}
