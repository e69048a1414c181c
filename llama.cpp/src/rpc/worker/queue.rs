//! A queue: does what a host appended for one device, in order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Fault;
use super::account::Room;
use super::device::{Backend, Device, Reservation};
use super::item::Item;
use super::ledger::Work;
use super::memory::Memory;
use super::prepare::{Obstacle, Prepared};
use super::session::{ModelSource, Session};
use super::weights::{Form, Spare, Weight};
use crate::priority;
use crate::rpc::graph::{BufferId, Graph, Place};
use crate::rpc::wire::frame::LONGEST_PAYLOAD;
use crate::rpc::wire::uploads::Uploads;
use crate::rpc::wire::{
    Coding, Command, HEAD, HOST, Load, MOST_GRAPHS, MOST_KEPT_TENSORS, MOST_LOADED, Ran, Step, ToHost,
    Transfer,
};

/// Bytes of weights between two words about progress.
const PROGRESS_STEP: u64 = 64 << 20;

/// Most weights of a buffer: each takes a little more than its bytes.
const MOST_WEIGHTS: usize = 1 << 16;

/// Bytes that are copied at once inside a device.
const COPY_AT_ONCE: u64 = 16 << 20;

/// Tells the session, and so the host, where a mistake of this program ends a queue.
struct Guard(Arc<Session>);

impl Drop for Guard {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.fail(&Fault::Mistake);
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Queue {
    session: Arc<Session>,
    number: u8,
    source: ModelSource,
    memory: Memory,
    backend: Backend,
    graphs: Vec<Option<Prepared>>,
    uploads: Uploads,
    /// For the uploads.
    uploads_room: Room,
    /// The weight that the host is sending.
    arriving: Option<Place>,
    begun: Begun,
}

/// The step that the queue is at work on.
#[derive(Debug)]
struct Begun {
    step: Step,
    /// Since when it is.
    since: Instant,
    /// Since when all was there that it needs, as far as it came to that.
    ready: Instant,
}

impl Begun {
    fn now(step: Step) -> Self {
        let since = Instant::now();
        Self {
            step,
            since,
            ready: since,
        }
    }

    /// Takes up something for `step` that came at `came`.
    fn take_up(&mut self, step: Step, came: Instant) {
        if self.step == step {
            self.ready = self.ready.max(came);
        } else {
            *self = Self {
                ready: came,
                ..Self::now(step)
            };
        }
    }

    /// How long it waited for other steps.
    fn waited(&self) -> Duration {
        self.since.saturating_duration_since(self.ready)
    }
}

impl Queue {
    pub(super) fn new(
        session: Arc<Session>,
        number: u8,
        source: ModelSource,
        device: Arc<Device>,
        reservation: Arc<Reservation>,
    ) -> Result<Self, Fault> {
        Ok(Self {
            backend: device.backend(session.stop())?,
            uploads_room: session.account().take(0)?,
            session,
            number,
            source,
            memory: Memory::new(device, reservation),
            graphs: (0..MOST_GRAPHS).map(|_| None).collect(),
            uploads: Uploads::default(),
            arriving: None,
            begun: Begun::now(Step(0)),
        })
    }

    /// Works until the session is over.
    pub(super) fn run(mut self) {
        priority::compute();
        let _guard = Guard(self.session.clone());
        while let Some(item) = self.session.next(self.number) {
            if let Err(fault) = self.execute(item) {
                self.session.fail(&fault);
                return;
            }
            self.session.ledger.note_done(self.number);
        }
    }

    fn execute(&mut self, item: Item) -> Result<(), Fault> {
        let Item {
            since,
            came,
            step,
            command,
            payload,
            ..
        } = item;
        self.begun.take_up(step, came);
        match command {
            Command::Run(graph) => self.compute(graph, step, since),
            Command::Write {
                place,
                bytes,
                coding,
                keep,
            } => self.write(place, bytes, coding, keep, &payload),
            Command::Receive {
                transfer,
                place,
                bytes,
            } => self.receive(step, transfer, place, bytes),
            Command::Push {
                transfer,
                place,
                bytes,
                through_host,
            } => {
                let state = self.read(place, bytes)?;
                self.session.push(transfer, state.into(), through_host)
            }
            Command::Read { read, place, bytes } => {
                let data = if self.session.is_cancelled(step) {
                    Vec::new()
                } else {
                    self.read(place, bytes)?
                };
                self.session.tell(ToHost::Data(read), data.into());
                Ok(())
            }
            Command::Copy { from, to, bytes } => self.copy(from, to, bytes),
            Command::Fill { place, bytes, value } => self.memory.fill(place, bytes, value),
            Command::Allocate { buffer, bytes } => self.memory.allocate(buffer, bytes),
            Command::AllocateWeights { buffer, bytes } => self.memory.allocate_weights(buffer, bytes),
            Command::Free(buffer) => self.free(buffer),
            Command::Load { buffer, weights } => self.load(buffer, weights),
            Command::Weight {
                buffer,
                weight,
                element,
                shape,
            } => self.announce(buffer, weight, Form { element, shape }),
            Command::Barrier(number) => {
                self.session.tell(ToHost::Reached(number), Bytes::new());
                Ok(())
            }
            Command::Define { graph, content } => self.define(graph, content),
        }
    }

    /// Bytes for a payload.
    fn read(&self, place: Place, bytes: u64) -> Result<Vec<u8>, Fault> {
        if bytes > LONGEST_PAYLOAD as u64 {
            return Err(Fault::protocol("a read that is longer than any answer"));
        }
        self.memory.read(place, bytes)
    }

    fn copy(&self, from: Place, to: Place, bytes: u64) -> Result<(), Fault> {
        let mut done = 0;
        while done < bytes {
            let piece = COPY_AT_ONCE.min(bytes - done);
            let at = |place: Place| Place {
                offset: place.offset.saturating_add(done),
                ..place
            };
            let copied = self.memory.read(at(from), piece)?;
            self.memory.write(at(to), &copied)?;
            done += piece;
        }
        Ok(())
    }

    fn compute(&mut self, graph: u8, step: Step, since: u64) -> Result<(), Fault> {
        if self.session.is_cancelled(step) {
            return Ok(());
        }
        let prepared = self
            .graphs
            .get(usize::from(graph))
            .and_then(Option::as_ref)
            .ok_or_else(|| Fault::protocol("the number of a graph that is not there"))?;
        let device = self.memory.device().clone();
        self.session.ledger.note(self.number, Work::Computes);
        let asked = Instant::now();
        let turn = device.turn.take(since, self.session.stop());
        let turn = turn.ok_or(Fault::Over)?;
        let begin = Instant::now();
        prepared.run(&self.backend, &device)?;
        if !self.is_head() {
            thread::sleep(device.step_delay);
        }
        drop(turn);
        let end = Instant::now();
        self.session.note(Ran {
            queue: self.number,
            step,
            begin: self.session.micros(begin),
            end: self.session.micros(end),
            waited: (self.begun.waited() + (begin - asked)).as_micros() as u64,
        });
        // What else there is of the step waited for this.
        self.begun = Begun::now(step);
        Ok(())
    }

    /// Whether it computes what follows the last layer.
    fn is_head(&self) -> bool {
        self.session.node == HOST && self.number == HEAD
    }

    fn write(
        &mut self,
        place: Place,
        bytes: u64,
        coding: Coding,
        keep: Option<u8>,
        payload: &[u8],
    ) -> Result<(), Fault> {
        let wrong = || Fault::protocol("a write that cannot be decoded");
        if coding == Coding::Plain && keep.is_none() {
            if payload.len() as u64 != bytes {
                return Err(wrong());
            }
            return self.put(place, payload);
        }
        let value = self.uploads.decode(bytes, coding, payload).ok_or_else(wrong)?;
        self.put(place, &value)?;
        let Some(number) = keep else { return Ok(()) };
        if !self.uploads.keep(number, value) {
            return Err(Fault::protocol("more uploads to keep than are kept"));
        }
        self.uploads_room.resize(self.uploads.bytes() as u64)
    }

    /// Writes into memory, or into a weight that the host sends.
    fn put(&mut self, place: Place, bytes: &[u8]) -> Result<(), Fault> {
        let Ok((_, weights)) = self.memory.weights(place.buffer) else {
            return self.memory.write(place, bytes);
        };
        let (start, weight) = weights
            .range_mut(..=place.offset)
            .next_back()
            .ok_or_else(|| Fault::protocol("bytes of a weight that was not announced"))?;
        let at = Place {
            offset: *start,
            ..place
        };
        // What has come of a weight is kept beside the memory that was asked for: of one at a time.
        if self.arriving.is_some_and(|arriving| arriving != at) {
            return Err(Fault::protocol(
                "bytes of another weight before the last was whole",
            ));
        }
        self.arriving = Some(at);
        if weight.arrive(place.offset - start, bytes)? {
            self.arriving = None;
            self.session.tell(ToHost::Loading(weight.bytes), Bytes::new());
        }
        Ok(())
    }

    fn receive(&mut self, step: Step, transfer: Transfer, place: Place, bytes: u64) -> Result<(), Fault> {
        let (state, since) = self.session.wait(self.number, transfer.number)?;
        self.begun.take_up(step, since);
        if state.len() as u64 != bytes {
            return Err(Fault::protocol("a hidden state of another length than announced"));
        }
        self.memory.write(place, &state)
    }

    /// Drops all graphs over a buffer.
    fn forget_graphs_over(&mut self, buffer: BufferId) {
        for graph in &mut self.graphs {
            if graph.as_ref().is_some_and(|graph| graph.uses(buffer)) {
                *graph = None;
            }
        }
    }

    fn free(&mut self, buffer: BufferId) -> Result<(), Fault> {
        self.forget_graphs_over(buffer);
        self.arriving = self.arriving.filter(|place| place.buffer != buffer);
        self.memory.free(buffer)
    }

    fn load(&mut self, buffer: BufferId, loads: Vec<Load>) -> Result<(), Fault> {
        let file = self
            .source
            .file()
            .ok_or_else(|| Fault::protocol("names of weights of a model that is not here"))?;
        if loads.len() > MOST_LOADED {
            return Err(Fault::protocol("too many weights at once"));
        }
        self.session.ledger.note(self.number, Work::Loads);
        let device = self.memory.device().clone();
        let reservation = self.memory.reservation().clone();
        let kinds = device.buffer_types();
        let plain = self.memory.plain();
        let (reach, weights) = self.memory.weights(buffer)?;
        let mut spare = Spare::new(self.session.account())?;
        let mut told = 0;
        for (index, load) in loads.iter().enumerate() {
            if let Some(next) = loads.get(index + 1) {
                file.read_soon(&next.name);
            }
            let form = file_form(&file, &load.name)?;
            let mut weight = Weight::new(load.clone(), form, &device, &reservation, &kinds)?;
            admit(weights, load.offset, weight.bytes, reach)?;
            if !weight.has_room_to_read(device.is_cpu(), &mut spare) {
                tracing::warn!(
                    weight = load.name,
                    "has no room to be brought into the CPU's own layout"
                );
                drop(weight);
                weight = Weight::new(load.clone(), form, &device, &reservation, &[plain])?;
            }
            weight.read(&file, device.is_cpu(), &mut spare)?;
            told += weight.bytes;
            weights.insert(load.offset, weight);
            self.session.ledger.note_loaded(self.number);
            if told >= PROGRESS_STEP {
                self.session
                    .tell(ToHost::Loading(std::mem::take(&mut told)), Bytes::new());
            }
            if self.session.is_over() {
                return Err(Fault::Over);
            }
        }
        self.session.tell(ToHost::Loading(told), Bytes::new());
        Ok(())
    }

    fn announce(&mut self, buffer: BufferId, load: Load, form: Form) -> Result<(), Fault> {
        let device = self.memory.device().clone();
        let reservation = self.memory.reservation().clone();
        let kinds = device.buffer_types();
        let plain = self.memory.plain();
        let (reach, weights) = self.memory.weights(buffer)?;
        let offset = load.offset;
        let mut weight = Weight::new(load.clone(), form, &device, &reservation, &kinds)?;
        if !weight.has_room_to_arrive(self.session.account()) {
            tracing::warn!(
                weight = load.name,
                "has no room to be brought into the CPU's own layout"
            );
            drop(weight);
            weight = Weight::new(load, form, &device, &reservation, &[plain])?;
        }
        admit(weights, offset, weight.bytes, reach)?;
        // Until its bytes come it must not show what another session left there.
        weight.zero();
        weights.insert(offset, weight);
        Ok(())
    }

    fn define(&mut self, number: u8, content: Graph) -> Result<(), Fault> {
        if usize::from(number) >= self.graphs.len() {
            return Err(Fault::protocol("a graph too many"));
        }
        // The old one goes first: two would need memory for both.
        self.graphs[usize::from(number)] = None;
        let kept: usize = self.graphs.iter().flatten().map(Prepared::tensors).sum();
        if kept + content.tensors.len() > MOST_KEPT_TENSORS {
            return Err(Fault::protocol("more graphs than are kept"));
        }
        let prepared = self.prepare(content)?;
        self.graphs[usize::from(number)] = Some(prepared);
        Ok(())
    }

    fn prepare(&mut self, content: Graph) -> Result<Prepared, Fault> {
        let room = Prepared::bytes_for(&content);
        let room = self.session.account().take(room)?;
        loop {
            match Prepared::new(content.clone(), &self.memory) {
                Ok(prepared) => return Ok(prepared.kept_in(room)),
                Err(Obstacle::NeedsPlain(place)) => self.make_plain(place)?,
                Err(Obstacle::Fault(fault)) => return Err(fault),
            }
        }
    }

    /// Loads a weight again, in ggml's own layout.
    fn make_plain(&mut self, place: Place) -> Result<(), Fault> {
        let file = self
            .source
            .file()
            .ok_or_else(|| Fault::Graph("it needs a weight in another layout than it was sent for".into()))?;
        self.session.ledger.note(self.number, Work::Loads);
        let device = self.memory.device().clone();
        let reservation = self.memory.reservation().clone();
        let plain = self.memory.plain();
        let account = self.session.account().clone();
        // Other graphs know where the weight is now. The host goes on to name them: they are made again.
        let over: Vec<(usize, Graph)> = (0..self.graphs.len())
            .filter_map(|number| {
                let graph = self.graphs[number].take_if(|graph| graph.uses(place.buffer))?;
                Some((number, graph.into_graph()))
            })
            .collect();
        let (_, weights) = self.memory.weights(place.buffer)?;
        let weight = weights
            .remove(&place.offset)
            .filter(|weight| !weight.plain)
            .ok_or_else(|| Fault::protocol("a graph over a weight that is not there"))?;
        let load = weight.load.clone();
        drop(weight);
        let form = file_form(&file, &load.name)?;
        let mut weight = Weight::new(load, form, &device, &reservation, &[plain])?;
        weight.read(&file, device.is_cpu(), &mut Spare::new(&account)?)?;
        weights.insert(place.offset, weight);
        for (number, graph) in over {
            self.graphs[number] = Some(self.prepare(graph)?);
        }
        Ok(())
    }
}

/// Whether a weight may be at `offset`.
fn admit(weights: &BTreeMap<u64, Weight>, offset: u64, bytes: u64, reach: u64) -> Result<(), Fault> {
    if offset.saturating_add(bytes) > reach || weights.contains_key(&offset) {
        return Err(Fault::protocol("a weight outside of its buffer, or one twice"));
    }
    if weights.len() >= MOST_WEIGHTS {
        return Err(Fault::protocol("more weights than a buffer may have"));
    }
    Ok(())
}

/// The form of a weight in the file.
fn file_form(file: &crate::rpc::files::WeightFile, name: &str) -> Result<Form, Fault> {
    let found = file
        .tensor(name)
        .map_err(|error| Fault::File(error.to_string()))?;
    let mut shape = [1; 4];
    for (length, known) in shape.iter_mut().zip(found.shape) {
        *length = *known;
    }
    Ok(Form {
        element: found.element.id(),
        shape,
    })
}
