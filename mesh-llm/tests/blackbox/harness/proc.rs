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
    /// Time on a processor, in hundredths of a second.
    ticks: u64,
    started: u64,
}

fn stat(id: Pid) -> Option<Stat> {
    read_stat(&format!("/proc/{}/stat", id.as_raw_nonzero()))
}

fn read_stat(path: &str) -> Option<Stat> {
    let text = fs::read_to_string(path).ok()?;
    // The name, in parentheses, may contain anything.
    let (_, rest) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent: fields.get(1)?.parse().ok()?,
        ticks: fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?,
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

    /// The words that it was started with.
    pub fn command_line(self) -> Vec<String> {
        let line = fs::read_to_string(format!("/proc/{}/cmdline", self.id.as_raw_nonzero())).unwrap();
        line.split_terminator('\0').map(str::to_owned).collect()
    }

    /// Time on a processor, in hundredths of a second, of its threads but those of this name.
    pub fn ticks_besides(self, name: &str) -> u64 {
        let threads = fs::read_dir(format!("/proc/{}/task", self.id.as_raw_nonzero())).unwrap();
        let threads = threads.map(|thread| thread.unwrap().path().display().to_string());
        let others =
            threads.filter(|thread| fs::read_to_string(format!("{thread}/comm")).unwrap().trim() != name);
        others
            .map(|thread| read_stat(&format!("{thread}/stat")).unwrap().ticks)
            .sum()
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

/// How many pipes a process has open.
pub fn pipes(id: Pid) -> usize {
    let files = fs::read_dir(format!("/proc/{}/fd", id.as_raw_nonzero())).unwrap();
    let targets = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
    targets
        .filter(|target| target.to_string_lossy().starts_with("pipe:"))
        .count()
}
