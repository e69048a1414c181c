//! A session: what one host sends, sorted to its queues.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Instant;

use bytes::Bytes;

use super::Fault;
use super::account::{Account, Room};
use super::device::Device;
use super::item::Item;
use super::ledger::{Ledger, Work};
use super::queue::Queue;
use super::watch;
use crate::rpc::cancelled::Cancelled;
use crate::rpc::dial::Dialler;
use crate::rpc::files::WeightFile;
use crate::rpc::link::{Outlet, Receive, lock};
use crate::rpc::wire::{
    Command, MOST_QUEUES, NodeId, Open, OpenQueue, Ran, SessionId, Step, ToHost, ToWorker, Transfer,
};

/// Bytes that may wait in a session's queues and for them.
const MOST_WAITING: usize = 512 << 20;
/// Where so many wait, nothing more is taken from the host until its queues have done some of it.
const MUCH_WAITING: usize = 64 << 20;
/// Commands that may wait in a session's queues.
const MOST_COMMANDS: usize = 1 << 20;
/// Computed steps that are remembered for the next pong.
const MOST_RAN: usize = 4096;

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

    pub(super) fn file(&self) -> Option<Arc<WeightFile>> {
        self.0.clone()
    }
}

/// A hidden state that has come.
#[derive(Debug)]
struct Arrived {
    payload: Bytes,
    since: Instant,
    /// For the payload, until it is taken.
    _room: Room,
}

#[derive(Debug, Default)]
pub(super) struct State {
    queues: Vec<VecDeque<Item>>,
    /// Queues that wait for a hidden state.
    receiving: usize,
    /// Hidden states that came before they were waited for.
    arrived: HashMap<u64, Arrived>,
    cancelled: Cancelled,
    pub(super) peers: HashMap<NodeId, Outlet<ToWorker>>,
    /// How often the host had this worker dial another.
    pub(super) dialled: usize,
    ran: Vec<Ran>,
    waiting_bytes: usize,
    pub(super) over: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Session {
    id: SessionId,
    pub(super) node: NodeId,
    pub(super) host: Outlet<ToHost>,
    pub(super) dialler: Option<Dialler>,
    pub(super) state: Mutex<State>,
    /// Of what it takes beside its buffers.
    account: Arc<Account>,
    /// One for each queue.
    wakes: Vec<Condvar>,
    /// There is room for more from the host.
    room: Condvar,
    /// What its queues do.
    pub(super) ledger: Ledger,
    /// The same as `state.over`, for a device that computes.
    stop: Arc<AtomicBool>,
    clock: Instant,
    pub(super) own: Weak<Self>,
}

impl Session {
    /// Begins a session whose queues run on threads of their own until it is over. Its times are those since
    /// `clock`.
    ///
    /// # Errors
    /// Where a device has not so much memory left or cannot be opened, or the request makes no sense.
    pub fn start(
        open: &Open,
        devices: &[Arc<Device>],
        source: &ModelSource,
        host: Outlet<ToHost>,
        dialler: Option<Dialler>,
        clock: Instant,
    ) -> Result<Arc<Self>, Fault> {
        if open.queues.is_empty() || open.queues.len() > MOST_QUEUES {
            return Err(Fault::protocol("a session without queues, or with too many"));
        }
        let find = |wanted: &OpenQueue| {
            let device = devices.get(usize::from(wanted.device));
            device.ok_or_else(|| Fault::protocol("the number of a device that is not there"))
        };
        let reserve = |wanted: &OpenQueue| {
            let device = find(wanted)?;
            Ok((device.clone(), device.reserve(wanted.reserve)?))
        };
        let reserved: Vec<_> = open.queues.iter().map(reserve).collect::<Result<_, Fault>>()?;
        let on_devices = open
            .queues
            .iter()
            .map(|wanted| Ok((find(wanted)?.clone(), wanted.reserve)));
        let account = Account::open(&on_devices.collect::<Result<Vec<_>, Fault>>()?)?;
        let used: Vec<Arc<Device>> = reserved.iter().map(|(device, _)| device.clone()).collect();
        let session = Arc::new_cyclic(|own| Self {
            id: open.session,
            node: open.node,
            host,
            dialler,
            account,
            state: Mutex::new(State {
                queues: open.queues.iter().map(|_| VecDeque::new()).collect(),
                ..State::default()
            }),
            wakes: open.queues.iter().map(|_| Condvar::new()).collect(),
            room: Condvar::new(),
            ledger: Ledger::new(used.iter().cloned()),
            stop: Arc::default(),
            clock,
            own: own.clone(),
        });
        let mut queues = Vec::new();
        for (number, (device, reservation)) in (0..).zip(reserved) {
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

    /// What it takes beside its buffers.
    pub(super) fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// What counts the bytes of payloads that come.
    pub(super) fn brought(&self) -> &Arc<AtomicU64> {
        self.ledger.brought()
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
                self.ledger.note(queue, Work::Does);
                state.waiting_bytes -= item.held;
                self.room.notify_one();
                return Some(item);
            }
            self.ledger.note(queue, Work::Nothing);
            state = self.wakes[usize::from(queue)]
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits for a hidden state that `queue` needs.
    pub(super) fn wait(&self, queue: u8, transfer: u64) -> Result<(Bytes, Instant), Fault> {
        self.ledger.note(queue, Work::Receives);
        let mut state = lock(&self.state);
        state.receiving += 1;
        // It may come behind what the host is kept waiting with.
        self.room.notify_one();
        let received = loop {
            if state.over {
                break Err(Fault::Over);
            }
            if let Some(Arrived { payload, since, .. }) = state.arrived.remove(&transfer) {
                state.waiting_bytes -= payload.len();
                break Ok((payload, since));
            }
            state = self.wakes[usize::from(queue)]
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        };
        state.receiving -= 1;
        self.ledger.note(queue, Work::Does);
        received
    }

    /// A hidden state has come, from the host or from another worker.
    pub(in crate::rpc) fn arrive(&self, transfer: Transfer, payload: Bytes) {
        let mut state = lock(&self.state);
        if state.over {
            return;
        }
        if state.waiting_bytes + payload.len() > MOST_WAITING || state.arrived.len() >= MOST_COMMANDS {
            drop(state);
            return self.fail(&Fault::protocol("more than a session may have waiting"));
        }
        let room = match self.account.take(payload.len() as u64) {
            Ok(room) => room,
            Err(fault) => {
                drop(state);
                return self.fail(&fault);
            }
        };
        state.waiting_bytes += payload.len();
        let arrived = Arrived {
            payload,
            since: Instant::now(),
            _room: room,
        };
        let before = state.arrived.insert(transfer.number, arrived);
        state.waiting_bytes -= before.map_or(0, |before| before.payload.len());
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
        if peer.is_closed() {
            return Err(watch::unreachable(transfer.to));
        }
        peer.send(ToWorker::Deliver(transfer), bytes);
        Ok(())
    }

    /// Whether a step need not be computed.
    pub(super) fn is_cancelled(&self, step: Step) -> bool {
        lock(&self.state).cancelled.has(step)
    }

    /// What says to a device that the session is over, while it computes.
    pub(super) fn stop(&self) -> &Arc<AtomicBool> {
        &self.stop
    }

    /// What a moment is on the clock that the host is told.
    pub(super) fn micros(&self, moment: Instant) -> u64 {
        moment.duration_since(self.clock).as_micros() as u64
    }

    /// Takes note of work that was done.
    pub(super) fn note(&self, ran: Ran) {
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
        if !self.is_over() && *fault != Fault::Over {
            tracing::warn!(%fault, session = ?self.id, "a split session ends");
            let message = match fault.clone() {
                Fault::Peer { node, cause } => ToHost::Unheard { node, cause },
                other => ToHost::Failed(other.to_string()),
            };
            // Before other workers can miss this one, which its end makes them do.
            self.tell(message, Bytes::new());
        }
        self.end();
    }

    /// Ends it: its queues stop and free what they hold.
    pub fn end(&self) {
        let mut state = lock(&self.state);
        state.over = true;
        self.stop.store(true, Ordering::Release);
        for (_, peer) in state.peers.drain() {
            peer.close();
        }
        state.queues.iter_mut().for_each(VecDeque::clear);
        state.arrived.clear();
        state.waiting_bytes = 0;
        self.room.notify_one();
        self.wakes.iter().for_each(Condvar::notify_one);
        drop(state);
        self.ledger.devices().for_each(|device| device.turn.look_again());
    }

    /// Only the one thread that takes what the host sends calls it.
    fn append(&self, queue: u8, step: Step, command: Command, payload: Bytes) {
        let held = Item::held(&command, &payload);
        let mut state = lock(&self.state);
        while state.waiting_bytes > MUCH_WAITING && state.receiving == 0 && !state.over {
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.over {
            return;
        }
        let room = match self.account.take(held as u64) {
            Ok(room) => room,
            Err(fault) => {
                drop(state);
                return self.fail(&fault);
            }
        };
        let fits = state.waiting_bytes + held <= MOST_WAITING;
        match state.queues.get_mut(usize::from(queue)) {
            Some(items) if fits && items.len() < MOST_COMMANDS => {
                items.push_back(Item {
                    since: ARRIVALS.fetch_add(1, Ordering::Relaxed),
                    came: Instant::now(),
                    step,
                    command,
                    payload,
                    held,
                    _room: room,
                });
                state.waiting_bytes += held;
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
        self.host.send_if_idle(ToHost::Pong { number, now, ran });
        if let Outlet::Local(_) = self.host {
            // Nobody watches over a session in the host's own process.
            self.host.send_if_idle(ToHost::Doing(self.ledger.doing()));
        }
    }
}

impl Receive<ToWorker> for Session {
    fn receive(&self, message: ToWorker, payload: Bytes) {
        match message {
            ToWorker::Queue { queue, step, command } => self.append(queue, step, command, payload),
            ToWorker::Deliver(transfer) => self.arrive(transfer, payload),
            ToWorker::Cancel { first, last } => {
                lock(&self.state).cancelled.add(first, last);
            }
            ToWorker::Ping(number) => self.answer_ping(number),
            ToWorker::Connect {
                node,
                address,
                session,
            } => watch::connect(self, node, address, session),
            ToWorker::Open(_) => self.fail(&Fault::protocol("a second opening")),
        }
    }

    fn closed(&self) {
        self.end();
    }
}
