//! Processes that are not ours, as `/proc` shows them.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

/// A process, told apart from a later one of the same number by when it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    id: Pid,
    started: u64,
}

/// What is read of `/proc/N/stat`.
struct Stat {
    state: char,
    parent: i32,
    started: u64,
}

fn stat(id: Pid) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{}/stat", id.as_raw_nonzero())).ok()?;
    // The name, in parentheses, may contain anything.
    let (_, rest) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

impl Known {
    /// The process of this number, if there is one.
    pub fn new(id: Pid) -> Option<Self> {
        let started = stat(id)?.started;
        Some(Self { id, started })
    }

    /// Whether it still runs; one that only waits to be reaped does not.
    pub fn runs(self) -> bool {
        stat(self.id).is_some_and(|stat| stat.started == self.started && !matches!(stat.state, 'Z' | 'X'))
    }

    /// Sends it a signal.
    pub fn signal(self, signal: Signal) {
        kill_process(self.id, signal).unwrap();
    }
}

/// The children of a process, dead ones that it has not reaped included.
pub fn children(parent: Pid) -> Vec<Known> {
    let numbers = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let of_parent = |id: &Pid| stat(*id).is_some_and(|stat| stat.parent == parent.as_raw_nonzero().get());
    numbers
        .filter_map(Pid::from_raw)
        .filter(of_parent)
        .filter_map(Known::new)
        .collect()
}
