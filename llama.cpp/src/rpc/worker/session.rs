//! A session: what one host sends, sorted to its queues.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Fault;
use super::device::Device;
use super::queue::Queue;
use crate::rpc::dial::{self, PING_EVERY, Secret};
use crate::rpc::files::WeightFile;
use crate::rpc::link::{Outlet, Receive, lock};
use crate::rpc::wire::{
    Command, MOST_QUEUES, NodeId, Open, Ran, SessionId, Step, ToHost, ToWorker, Transfer,
};

/// Bytes that may wait in a session's queues and for them.
const MOST_WAITING: usize = 1 << 30;
/// Commands that may wait in a session's queues.
const MOST_COMMANDS: usize = 1 << 20;
/// Ranges of steps that are remembered as cancelled.
const MOST_CANCELLED: usize = 64;
/// Computed steps that are remembered for the next pong.
const MOST_RAN: usize = 4096;
/// Other workers that a session pushes to.
const MOST_PEERS: usize = 64;

/// When commands came, over all sessions of the process: the oldest work goes first.
static ARRIVALS: AtomicU64 = AtomicU64::new(0);

/// Where a session's weights are.
#[derive(Debug, Clone, Default)]
pub struct ModelSource(Option<Arc<WeightFile>>);

impl ModelSource {
    /// In this model; or with the host, which then sends them.
    pub fn new(file: Option<WeightFile>) -> Self {
        Self(file.map(Arc::new))
    }

    /// The model's path, if it is here.
    pub fn path(&self) -> Option<PathBuf> {
        self.0.as_ref().map(|file| file.path().to_owned())
    }

    pub(super) fn file(&self) -> Option<Arc<WeightFile>> {
        self.0.clone()
    }
}

/// Something to do.
#[derive(Debug)]
pub(super) struct Item {
    /// When it came.
    pub(super) since: u64,
    pub(super) step: Step,
    pub(super) command: Command,
    pub(super) payload: Bytes,
}

#[derive(Debug, Default)]
struct State {
    queues: Vec<VecDeque<Item>>,
    /// Hidden states that came before they were waited for.
    arrived: HashMap<u64, Bytes>,
    cancelled: VecDeque<(Step, Step)>,
    peers: HashMap<NodeId, Outlet<ToWorker>>,
    ran: Vec<Ran>,
    waiting_bytes: usize,
    over: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Session {
    id: SessionId,
    node: NodeId,
    host: Outlet<ToHost>,
    secret: Option<Secret>,
    state: Mutex<State>,
    /// One for each queue.
    wakes: Vec<Condvar>,
    ended: Condvar,
    clock: Instant,
    own: Weak<Self>,
}

impl Session {
    /// Begins a session whose queues run on threads of their own until it is over.
    ///
    /// # Errors
    /// Where a device has not so much memory left or cannot be opened, or the request makes no sense.
    pub fn start(
        open: &Open,
        devices: &[Arc<Device>],
        source: &ModelSource,
        host: Outlet<ToHost>,
        secret: Option<Secret>,
    ) -> Result<Arc<Self>, Fault> {
        if open.queues.is_empty() || open.queues.len() > MOST_QUEUES {
            return Err(Fault::protocol("a session without queues, or with too many"));
        }
        let session = Arc::new_cyclic(|own| Self {
            id: open.session,
            node: open.node,
            host,
            secret,
            state: Mutex::new(State {
                queues: open.queues.iter().map(|_| VecDeque::new()).collect(),
                ..State::default()
            }),
            wakes: open.queues.iter().map(|_| Condvar::new()).collect(),
            ended: Condvar::new(),
            clock: Instant::now(),
            own: own.clone(),
        });
        let mut queues = Vec::new();
        for (number, wanted) in (0..).zip(&open.queues) {
            let device = devices
                .get(usize::from(wanted.device))
                .ok_or_else(|| Fault::protocol("the number of a device that is not there"))?
                .clone();
            let reservation = device.reserve(wanted.reserve)?;
            queues.push(Queue::new(
                session.clone(),
                number,
                source.clone(),
                device,
                reservation,
            )?);
        }
        for queue in queues {
            let started = thread::Builder::new()
                .name("split queue".into())
                .spawn(move || queue.run());
            if let Err(error) = started {
                session.end();
                return Err(Fault::protocol(format!(
                    "a session, but no thread starts: {error}"
                )));
            }
        }
        Ok(session)
    }

    /// The session's id.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Tells the host.
    pub(super) fn tell(&self, message: ToHost, payload: Bytes) {
        self.host.send(message, payload);
    }

    /// The next thing for a queue; `None` when the session is over.
    pub(super) fn next(&self, queue: u8) -> Option<Item> {
        let mut state = lock(&self.state);
        loop {
            if state.over {
                return None;
            }
            if let Some(item) = state.queues[usize::from(queue)].pop_front() {
                state.waiting_bytes -= item.payload.len();
                return Some(item);
            }
            state = self.wakes[usize::from(queue)]
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits for a hidden state that `queue` needs.
    pub(super) fn wait(&self, queue: u8, transfer: u64) -> Result<Bytes, Fault> {
        let mut state = lock(&self.state);
        loop {
            if state.over {
                return Err(Fault::Over);
            }
            if let Some(bytes) = state.arrived.remove(&transfer) {
                state.waiting_bytes -= bytes.len();
                return Ok(bytes);
            }
            state = self.wakes[usize::from(queue)]
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A hidden state has come, from the host or from another worker.
    pub(super) fn arrive(&self, transfer: Transfer, payload: Bytes) {
        let mut state = lock(&self.state);
        if state.waiting_bytes + payload.len() > MOST_WAITING || state.arrived.len() >= MOST_COMMANDS {
            drop(state);
            return self.fail(&Fault::protocol("more than a session may have waiting"));
        }
        state.waiting_bytes += payload.len();
        let before = state.arrived.insert(transfer.number, payload);
        state.waiting_bytes -= before.map_or(0, |before| before.len());
        self.wakes.iter().for_each(Condvar::notify_one);
    }

    /// Sends a hidden state on its way.
    pub(super) fn push(&self, transfer: Transfer, bytes: Bytes, through_host: bool) -> Result<(), Fault> {
        if transfer.to == self.node {
            self.arrive(transfer, bytes);
            return Ok(());
        }
        if through_host {
            self.tell(ToHost::Deliver(transfer), bytes);
            return Ok(());
        }
        let peer = lock(&self.state).peers.get(&transfer.to).cloned();
        let peer = peer.ok_or_else(|| Fault::protocol("a push to a node that was not connected"))?;
        peer.send(ToWorker::Deliver(transfer), bytes);
        Ok(())
    }

    /// Whether a step need not be computed.
    pub(super) fn is_cancelled(&self, step: Step) -> bool {
        let state = lock(&self.state);
        let mut ranges = state.cancelled.iter();
        ranges.any(|(first, last)| (*first..=*last).contains(&step))
    }

    /// Takes note of work that began at `begin` and ends now.
    pub(super) fn note(&self, begin: Instant, ran: impl FnOnce(u64, u64) -> Ran) {
        let since = |moment: Instant| moment.duration_since(self.clock).as_micros() as u64;
        let ran = ran(since(begin), since(Instant::now()));
        let mut state = lock(&self.state);
        if state.ran.len() < MOST_RAN {
            state.ran.push(ran);
        }
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        lock(&self.state).over
    }

    /// Ends it and tells the host why.
    pub(super) fn fail(&self, fault: &Fault) {
        if self.end() && *fault != Fault::Over {
            tracing::warn!(%fault, session = ?self.id, "a split session ends");
            self.tell(ToHost::Failed(fault.to_string()), Bytes::new());
        }
    }

    /// Ends it: its queues stop and free what they hold. Whether it was not over already.
    pub fn end(&self) -> bool {
        let mut state = lock(&self.state);
        let first = !std::mem::replace(&mut state.over, true);
        for (_, peer) in state.peers.drain() {
            peer.close();
        }
        self.wakes.iter().for_each(Condvar::notify_one);
        self.ended.notify_all();
        first
    }

    fn append(&self, queue: u8, step: Step, command: Command, payload: Bytes) {
        let mut state = lock(&self.state);
        let fits = state.waiting_bytes + payload.len() <= MOST_WAITING;
        match state.queues.get_mut(usize::from(queue)) {
            Some(items) if fits && items.len() < MOST_COMMANDS => {
                items.push_back(Item {
                    since: ARRIVALS.fetch_add(1, Ordering::Relaxed),
                    step,
                    command,
                    payload: payload.clone(),
                });
                state.waiting_bytes += payload.len();
                self.wakes[usize::from(queue)].notify_one();
            }
            _ => {
                drop(state);
                self.fail(&Fault::protocol(
                    "more than its queues may hold, or to one that is not there",
                ));
            }
        }
    }

    fn answer_ping(&self, number: u64) {
        let ran = std::mem::take(&mut lock(&self.state).ran);
        let now = self.clock.elapsed().as_micros() as u64;
        self.tell(ToHost::Pong { number, now, ran }, Bytes::new());
    }

    /// Dials another worker on a thread of its own, and tells the host what came of it.
    fn connect(&self, node: NodeId, address: String, session: SessionId) {
        let (Some(own), Some(secret)) = (self.own.upgrade(), self.secret.clone()) else {
            return;
        };
        let dial = move || {
            let dialled = dial::peer(&address, &secret, session);
            let (fault, round_trip) = match dialled {
                Ok((outlet, round_trip)) => {
                    let mut state = lock(&own.state);
                    if state.over || state.peers.len() >= MOST_PEERS {
                        outlet.close();
                        return;
                    }
                    keep_alive(outlet.clone(), Arc::downgrade(&own));
                    state.peers.insert(node, outlet);
                    (None, round_trip)
                }
                Err(error) => (Some(format!("{address}: {error}")), Duration::ZERO),
            };
            let connected = ToHost::Connected {
                node,
                fault,
                round_trip: round_trip.as_micros() as u64,
            };
            own.tell(connected, Bytes::new());
        };
        if let Err(error) = thread::Builder::new().name("split dial".into()).spawn(dial) {
            let fault = Some(error.to_string());
            let connected = ToHost::Connected {
                node,
                fault,
                round_trip: 0,
            };
            self.tell(connected, Bytes::new());
        }
    }
}

/// Pings a peer, which takes silence for death, as long as the session lasts.
fn keep_alive(outlet: Outlet<ToWorker>, session: Weak<Session>) {
    let ping = move || {
        while let Some(session) = session.upgrade() {
            let state = lock(&session.state);
            let waited = session
                .ended
                .wait_timeout_while(state, PING_EVERY, |state| !state.over);
            let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
            if state.over {
                return;
            }
            drop(state);
            outlet.send(ToWorker::Ping(0), Bytes::new());
        }
    };
    if let Err(error) = thread::Builder::new().name("split pings".into()).spawn(ping) {
        tracing::warn!(%error, "a peer will take this worker for dead");
    }
}

impl Receive<ToWorker> for Session {
    fn receive(&self, message: ToWorker, payload: Bytes) {
        match message {
            ToWorker::Queue { queue, step, command } => self.append(queue, step, command, payload),
            ToWorker::Deliver(transfer) => self.arrive(transfer, payload),
            ToWorker::Cancel { first, last } => {
                let mut state = lock(&self.state);
                if state.cancelled.len() >= MOST_CANCELLED {
                    state.cancelled.pop_front();
                }
                state.cancelled.push_back((first, last));
            }
            ToWorker::Ping(number) => self.answer_ping(number),
            ToWorker::Connect {
                node,
                address,
                session,
            } => self.connect(node, address, session),
            ToWorker::Open(_) => self.fail(&Fault::protocol("a second opening")),
        }
    }

    fn closed(&self) {
        self.end();
    }
}
