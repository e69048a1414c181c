//! What all devices of a split share: the links to its nodes, answers that are awaited, and whether a
//! node was lost.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use thiserror::Error;

use super::timeline::Timeline;
use super::vigil::{Patience, Seen, Vigil};
use crate::rpc::cancelled::Cancelled;
use crate::rpc::link::{Outlet, lock};
use crate::rpc::wire::{Doing, HOST, NodeId, ReadId, Step, ToWorker, Transfer};

/// Pings that may be unanswered at once.
const MOST_PINGS: usize = 1024;

/// A node of a split is gone, and the split with it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{node} is lost: {cause}")]
pub struct Lost {
    /// Which: the address of a worker, or `this machine`.
    pub node: String,
    /// What happened.
    pub cause: String,
}

/// A node of the split.
#[derive(Debug)]
pub struct Node {
    /// What users call it.
    pub name: String,
    outlet: OnceLock<Outlet<ToWorker>>,
    /// Commands that were sent to it.
    sent: AtomicU64,
    /// Bytes of payloads that came from it.
    pub(super) brought: Arc<AtomicU64>,
    /// It is not used, so it cannot be lost.
    released: AtomicBool,
}

impl Node {
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            outlet: OnceLock::new(),
            sent: AtomicU64::new(0),
            brought: Arc::default(),
            released: AtomicBool::new(false),
        }
    }
}

/// Whether two workers reach each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// Directly; with the round trip.
    Direct(Duration),
    /// Only by way of the host; why.
    ThroughHost(String),
}

/// A read whose answer is awaited.
#[derive(Debug, Clone, Copy)]
pub(super) struct Awaited {
    pub(super) node: NodeId,
    pub(super) step: Step,
    pub(super) bytes: usize,
}

/// A hidden state that passes the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Passing {
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    pub(super) bytes: u64,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) lost: Option<Lost>,
    /// Someone is about to say which node is lost.
    is_losing: bool,
    pub(super) awaited: HashMap<ReadId, Awaited>,
    pub(super) answers: HashMap<ReadId, Bytes>,
    pub(super) passing: HashMap<u64, Passing>,
    pub(super) cancelled: Cancelled,
    /// Nodes that were asked to begin their session.
    pub(super) opening: HashSet<NodeId>,
    pub(super) opened: HashMap<NodeId, bool>,
    /// Barriers that were not passed yet.
    pub(super) barriers: HashSet<(NodeId, u64)>,
    pub(super) loaded_bytes: u64,
    /// Which workers were told to dial which.
    pub(super) dialling: HashSet<(NodeId, NodeId)>,
    pub(super) reach: HashMap<(NodeId, NodeId), Reach>,
    pub(super) pings: HashMap<u64, (NodeId, Instant)>,
    pub(super) timeline: Timeline,
    /// What each node said last that it does.
    pub(super) doing: HashMap<NodeId, Doing>,
}

impl State {
    /// Whether the host waits for anything.
    fn awaits(&self) -> bool {
        !(self.awaited.is_empty()
            && self.barriers.is_empty()
            && self.opening.is_empty()
            && self.dialling.is_empty())
    }

    /// Whether a node was asked for something that is not done by its queues.
    fn owes(&self, node: NodeId) -> bool {
        self.opening.contains(&node) || self.dialling.iter().any(|(from, _)| *from == node)
    }
}

/// Who wants to know of a loss.
struct Watcher(Box<dyn FnOnce(&Lost) + Send>);

impl std::fmt::Debug for Watcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watcher")
    }
}

/// Who wants to know of every answer.
struct Listener(Box<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Listener")
    }
}

/// See the module.
#[derive(Debug)]
pub struct Shared {
    nodes: Vec<Node>,
    pub(super) state: Mutex<State>,
    pub(super) changed: Condvar,
    watcher: Mutex<Option<Watcher>>,
    listener: OnceLock<Listener>,
    vigil: Mutex<Vigil>,
    /// The same as `state.lost.is_some()`, for those that must not wait.
    failed: AtomicBool,
    /// The step that is being queued; 0 between two.
    step: AtomicU64,
    last_step: AtomicU64,
    numbers: AtomicU64,
}

impl Shared {
    /// For a split of these nodes, the host first.
    pub(super) fn new(nodes: Vec<Node>, patience: Patience) -> Arc<Self> {
        Arc::new(Self {
            nodes,
            state: Mutex::default(),
            changed: Condvar::new(),
            watcher: Mutex::default(),
            listener: OnceLock::new(),
            vigil: Mutex::new(Vigil::new(patience)),
            failed: AtomicBool::new(false),
            step: AtomicU64::new(0),
            last_step: AtomicU64::new(0),
            numbers: AtomicU64::new(1),
        })
    }

    /// All nodes, the host first.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        (0..).map(NodeId).zip(&self.nodes)
    }

    pub(super) fn node(&self, node: NodeId) -> Option<&Node> {
        self.nodes.get(usize::from(node.0))
    }

    /// The link to a node is there from now on.
    pub(super) fn link(&self, node: NodeId, outlet: Outlet<ToWorker>) {
        if let Some(node) = self.node(node) {
            // A node is linked once.
            let _ = node.outlet.set(outlet);
        }
    }

    pub(super) fn outlet(&self, node: NodeId) -> Option<&Outlet<ToWorker>> {
        let node = self.node(node)?;
        let outlet = node.outlet.get();
        outlet.filter(|_| !node.released.load(Ordering::Acquire))
    }

    /// A node is not needed.
    pub(super) fn release(&self, node: NodeId) {
        if let Some(node) = self.node(node) {
            node.released.store(true, Ordering::Release);
            if let Some(outlet) = node.outlet.get() {
                outlet.close();
            }
        }
    }

    /// Takes note of commands that are sent to a node.
    pub(super) fn note_sent(&self, node: NodeId, commands: u64) {
        if let Some(node) = self.node(node) {
            node.sent.fetch_add(commands, Ordering::Relaxed);
        }
    }

    /// The step that what is queued now belongs to: 0, which is never cancelled, for what is part of none.
    pub(super) fn step(&self) -> Step {
        Step(self.step.load(Ordering::Relaxed))
    }

    /// The next step begins.
    pub(super) fn begin_step(&self) -> Step {
        let step = self.last_step.fetch_add(1, Ordering::Relaxed) + 1;
        self.step.store(step, Ordering::Relaxed);
        Step(step)
    }

    /// What is queued from now on is part of no step.
    pub(super) fn end_step(&self) {
        self.step.store(0, Ordering::Relaxed);
    }

    /// A number that was not used before.
    pub(super) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether a node was lost.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Which node was lost.
    pub fn lost(&self) -> Option<Lost> {
        lock(&self.state).lost.clone()
    }

    /// A node is lost: everything that is awaited ends, and all links are closed.
    pub(in crate::rpc) fn lose(&self, node: NodeId, cause: impl Into<String>) {
        let known = self.node(node);
        if known.is_some_and(|node| node.released.load(Ordering::Acquire)) {
            return;
        }
        let name = known.map_or("a node", |node| &node.name);
        let mut state = lock(&self.state);
        if std::mem::replace(&mut state.is_losing, true) {
            return;
        }
        drop(state);
        let worker = if node == HOST { "" } else { "worker " };
        let lost = Lost {
            node: format!("{worker}{name}"),
            cause: cause.into(),
        };
        tracing::error!(node = lost.node, cause = lost.cause, "the split has lost a node");
        // Whoever watches knows it before anything ends for it.
        if let Some(Watcher(tell)) = lock(&self.watcher).take() {
            tell(&lost);
        }
        lock(&self.state).lost = Some(lost);
        self.failed.store(true, Ordering::Release);
        self.close();
        self.changed.notify_all();
        self.answered();
    }

    /// Calls `tell` when a node is lost, or at once if one is. One call is remembered.
    pub(super) fn when_lost(&self, tell: impl FnOnce(&Lost) + Send + 'static) {
        *lock(&self.watcher) = Some(Watcher(Box::new(tell)));
        if let Some(lost) = self.lost()
            && let Some(Watcher(tell)) = lock(&self.watcher).take()
        {
            tell(&lost);
        }
    }

    /// Calls `tell` after every answer to a read. The first one who asks is told.
    pub(super) fn when_answered(&self, tell: impl Fn() + Send + Sync + 'static) {
        let _ = self.listener.set(Listener(Box::new(tell)));
    }

    /// An answer came.
    pub(super) fn answered(&self) {
        if let Some(Listener(tell)) = self.listener.get() {
            tell();
        }
    }

    /// Whether all of these reads are answered, or never will be.
    pub(super) fn are_answered(&self, reads: &[ReadId]) -> bool {
        let state = lock(&self.state);
        state.lost.is_some() || reads.iter().all(|read| state.answers.contains_key(read))
    }

    /// Ends all links.
    pub(super) fn close(&self) {
        for (_, node) in self.nodes() {
            if let Some(outlet) = node.outlet.get() {
                outlet.close();
            }
        }
    }

    /// Takes note that an answer of so many bytes to a read is awaited.
    pub(super) fn expect(&self, read: ReadId, node: NodeId, bytes: usize) {
        let step = self.step();
        let awaited = Awaited { node, step, bytes };
        lock(&self.state).awaited.insert(read, awaited);
    }

    /// Takes note that a hidden state will pass the host.
    pub(super) fn expect_passing(&self, transfer: Transfer, from: NodeId, bytes: u64) {
        let to = transfer.to;
        let passing = Passing { from, to, bytes };
        lock(&self.state).passing.insert(transfer.number, passing);
    }

    /// Takes note that `from` was told to dial `to`.
    pub(super) fn expect_reach(&self, from: NodeId, to: NodeId) {
        lock(&self.state).dialling.insert((from, to));
    }

    /// Reads of these steps may be answered with nothing.
    pub(super) fn cancelled(&self, first: Step, last: Step) {
        lock(&self.state).cancelled.add(first, last);
    }

    /// Waits until `ready` gives something.
    ///
    /// # Errors
    /// Where a node is lost.
    fn wait<T>(&self, mut ready: impl FnMut(&mut State) -> Option<T>) -> Result<T, Lost> {
        let mut state = lock(&self.state);
        loop {
            if let Some(lost) = &state.lost {
                return Err(lost.clone());
            }
            if let Some(value) = ready(&mut state) {
                return Ok(value);
            }
            state = self.pause(state);
        }
    }

    fn pause<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the answer to a read.
    ///
    /// # Errors
    /// Where a node is lost.
    pub(super) fn answer(&self, read: ReadId) -> Result<Bytes, Lost> {
        self.wait(|state| state.answers.remove(&read))
    }

    /// Nobody wants the answer to a read any more.
    pub(super) fn forget(&self, read: ReadId) {
        let mut state = lock(&self.state);
        state.awaited.remove(&read);
        state.answers.remove(&read);
    }

    /// Takes note that a node was asked to begin its session.
    pub(super) fn expect_opened(&self, node: NodeId) {
        lock(&self.state).opening.insert(node);
    }

    /// Waits until a node has begun its session: whether it has the model's file.
    ///
    /// # Errors
    /// Where a node is lost.
    pub(super) fn opened(&self, node: NodeId) -> Result<bool, Lost> {
        self.wait(|state| state.opened.get(&node).copied())
    }

    /// Waits until it is known how two workers reach each other.
    ///
    /// # Errors
    /// Where a node is lost.
    pub(super) fn reach(&self, from: NodeId, to: NodeId) -> Result<Reach, Lost> {
        self.wait(|state| state.reach.get(&(from, to)).cloned())
    }

    /// The number of a barrier that a node will tell of.
    pub(super) fn expect_barrier(&self, node: NodeId) -> u64 {
        let number = self.number();
        lock(&self.state).barriers.insert((node, number));
        number
    }

    /// Waits until all barriers are passed, telling `progress` how many bytes of weights were loaded so
    /// far.
    ///
    /// # Errors
    /// Where a node is lost.
    pub(super) fn barrier(&self, mut progress: impl FnMut(u64)) -> Result<(), Lost> {
        let mut told = None;
        loop {
            let (loaded, done) = self.wait(|state| {
                let done = state.barriers.is_empty();
                (done || told != Some(state.loaded_bytes)).then_some((state.loaded_bytes, done))
            })?;
            progress(loaded);
            told = Some(loaded);
            if done {
                return Ok(());
            }
        }
    }

    /// What was computed when, since the last call, on this machine's clock.
    pub fn take_timeline(&self) -> Vec<super::timeline::Span> {
        lock(&self.state).timeline.take()
    }

    /// A look at whether the split gets on; a node that keeps it from that is lost.
    pub(super) fn watch(&self) {
        let state = lock(&self.state);
        let awaits = state.awaits();
        let used = self.nodes().filter(|(node, _)| self.outlet(*node).is_some());
        let seen = used.map(|(number, node)| Seen {
            node: number,
            doing: state.doing.get(&number).copied().unwrap_or_default(),
            sent: node.sent.load(Ordering::Relaxed),
            brought: node.brought.load(Ordering::Relaxed),
            owes: state.owes(number),
        });
        let seen = seen.collect();
        drop(state);
        let hangs = lock(&self.vigil).look(Instant::now(), awaits, seen);
        if let Some((node, still)) = hangs {
            let cause = format!("it has made no progress for {:.0} s", still.as_secs_f64());
            self.lose(node, cause);
        }
    }

    /// Pings every linked worker.
    pub(super) fn ping(&self) {
        for (node, _) in self.nodes().filter(|(node, _)| *node != HOST) {
            if let Some(outlet) = self.outlet(node) {
                let number = self.number();
                let mut state = lock(&self.state);
                if state.pings.len() >= MOST_PINGS {
                    state.pings.clear();
                }
                state.pings.insert(number, (node, Instant::now()));
                drop(state);
                outlet.send_if_idle(ToWorker::Ping(number));
            }
        }
        if let Some(outlet) = self.outlet(HOST) {
            // For what it computed.
            outlet.send(ToWorker::Ping(0), Bytes::new());
        }
    }
}
