//! A remote device: what llama.cpp asks of it is appended to its queue, and only reads that nobody posted
//! wait. `interface` and `buffer` are its faces to ggml.
//!
//! A lost node never ends the process: what is queued goes nowhere, reads give zeros, graphs fail.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use llama_cpp_sys_2 as sys;

use super::buffer::{BUFFER_TYPE, Buffer, own_buffer};
use super::capture::{self, Location};
use super::interface::{DEVICE, registry};
use super::outgoing::Outgoing;
use super::posts::Posts;
use super::shared::Shared;
use crate::ggml::interface as ggml;
use crate::rpc::graph::{BufferId, Place};
use crate::rpc::link::lock;
use crate::rpc::wire::{Coding, Command, HOST, Load, MOST_LOADED, NodeId, ReadId, Transfer};

/// Bytes of one write or read: larger ones are cut.
const LARGEST_PIECE: usize = 32 << 20;
/// Bytes that wait before they are sent without being asked for.
const MOST_WAITING: usize = 256 << 10;

/// How other devices' hidden states get here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// By way of the host.
    ThroughHost,
    /// From worker to worker.
    Direct,
}

#[derive(Debug, Default)]
struct State {
    /// Reads that a `synchronize` waits for, with where their answers go.
    reads: Vec<(ReadId, *mut u8, usize)>,
    /// Weights to load, by buffer.
    loads: HashMap<BufferId, Vec<Load>>,
    /// What llama.cpp does with weights.
    uses: HashMap<String, u32>,
    /// How workers reach this device's.
    ways: HashMap<NodeId, Way>,
    /// The worker has the model's file.
    has_file: bool,
    has_weights: bool,
}

/// A remote device, or one of this machine that is driven like one.
pub(super) struct Device {
    device: ggml::ggml_backend_device,
    pub(super) buffer_type: ggml::ggml_backend_buffer_type,
    pub(super) name: CString,
    pub(super) description: CString,
    pub(super) memory: u64,
    pub(super) node: NodeId,
    shared: Arc<Shared>,
    posts: Arc<Posts>,
    buffers: AtomicU32,
    outgoing: Mutex<Outgoing>,
    state: Mutex<State>,
}

// SAFETY: what is behind its pointers does not change once it is made, or is behind a lock; where
// answers go is used only by the thread that waits for them.
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// How a device is made.
pub(super) struct DeviceParams {
    pub(super) name: String,
    pub(super) description: String,
    /// Bytes that it offers.
    pub(super) memory: u64,
    pub(super) node: NodeId,
    /// Its queue on that node.
    pub(super) queue: u8,
    pub(super) shared: Arc<Shared>,
    pub(super) posts: Arc<Posts>,
}

impl Device {
    /// A device that stays where it is, for ggml points into it.
    pub(super) fn new(params: DeviceParams) -> Box<Self> {
        let text = |text: String| CString::new(text.replace('\0', "")).unwrap_or_default();
        let mut device = Box::new(Self {
            device: ggml::ggml_backend_device {
                iface: DEVICE,
                reg: ptr::null_mut(),
                context: ptr::null_mut(),
            },
            buffer_type: ggml::ggml_backend_buffer_type {
                iface: BUFFER_TYPE,
                device: ptr::null_mut(),
                context: ptr::null_mut(),
            },
            name: text(params.name),
            description: text(params.description),
            memory: params.memory,
            node: params.node,
            shared: params.shared,
            posts: params.posts,
            buffers: AtomicU32::new(0),
            outgoing: Mutex::new(Outgoing::new(params.queue, params.node != HOST)),
            state: Mutex::default(),
        });
        let own: *mut Self = &mut *device;
        device.device.context = own.cast();
        device.device.reg = registry();
        device.buffer_type.context = own.cast();
        device.buffer_type.device = (&raw mut device.device).cast();
        device
    }

    /// What llama.cpp is given.
    pub(super) fn raw(&self) -> sys::ggml_backend_dev_t {
        (&raw const self.device).cast_mut().cast()
    }

    /// The number of the next buffer; `None` where nothing can be allocated any more.
    pub(super) fn next_buffer(&self) -> Option<BufferId> {
        let number = self.buffers.fetch_add(1, Ordering::Relaxed);
        (!self.shared.has_failed()).then_some(BufferId(number))
    }

    /// A buffer is freed: graphs over it are gone on the worker, too.
    pub(super) fn free(&self, buffer: BufferId) {
        lock(&self.outgoing).forget_graphs(self.shared.step());
        self.append(Command::Free(buffer), &[]);
        self.flush();
    }

    /// Takes note of what a weight is for: llama.cpp asks about each, in an empty buffer of the type that
    /// it would be in, with the operation that uses it.
    ///
    /// # Safety
    /// The operation is live, and its sources.
    pub(super) unsafe fn note_use(&self, op: &sys::ggml_tensor) {
        for source in op.src {
            // SAFETY: sources of a live operation are live, or null.
            let Some(weight) = (unsafe { source.as_ref() }) else {
                continue;
            };
            let buffer: *const ggml::ggml_backend_buffer = weight.buffer.cast_const().cast();
            // SAFETY: a tensor's buffer is live, or null.
            let Some(buffer) = (unsafe { buffer.as_ref() }) else {
                continue;
            };
            let empty = buffer.size == 0 && ptr::addr_eq(buffer.buft, &raw const self.buffer_type);
            // SAFETY: ggml ends names with NUL.
            let name = unsafe { CStr::from_ptr(weight.name.as_ptr()) };
            if empty && !name.is_empty() {
                let name = name.to_string_lossy().into_owned();
                lock(&self.state).uses.insert(name, op.op);
            }
        }
    }

    /// Appends the run of a graph. `false` where it cannot be sent.
    ///
    /// # Safety
    /// `nodes` gives the nodes of the graph that ggml numbers `uid`; they are live, and what they refer to.
    pub(super) unsafe fn compute(
        &self,
        uid: u64,
        nodes: impl FnOnce() -> Vec<*mut sys::ggml_tensor>,
    ) -> bool {
        if self.shared.has_failed() {
            return false;
        }
        let step = self.shared.step();
        let known = lock(&self.outgoing).run_again(step, uid);
        if !known {
            // SAFETY: the caller says that all of it is live.
            match unsafe { capture::capture(&nodes(), |tensor| self.locate(tensor)) } {
                Ok(graph) => lock(&self.outgoing).run(step, uid, graph),
                Err(fault) => {
                    tracing::error!(%fault, device = ?self.name, "a graph is not sent");
                    return false;
                }
            }
        }
        if self.node == HOST {
            // Begins while the rest of the step is still put together.
            self.flush();
        }
        true
    }

    /// The worker's session has begun.
    pub(super) fn opened(&self, has_file: bool) {
        lock(&self.state).has_file = has_file;
    }

    /// How hidden states get here from `node`.
    pub(super) fn set_way(&self, node: NodeId, way: Way) {
        lock(&self.state).ways.insert(node, way);
    }

    /// Sends what waits.
    pub(super) fn flush(&self) {
        self.flush_locked(&mut lock(&self.outgoing));
    }

    fn flush_locked(&self, outgoing: &mut Outgoing) {
        if outgoing.len() == 0 {
            return;
        }
        self.shared.note_sent(self.node, outgoing.take_count());
        let frames = outgoing.take();
        if let Some(outlet) = self.shared.outlet(self.node) {
            outlet.send_frames(frames);
        }
    }

    /// Asks the worker for all weights that llama.cpp gave a name and no bytes.
    pub(super) fn send_loads(&self) {
        let loads = std::mem::take(&mut lock(&self.state).loads);
        for (buffer, loads) in loads {
            for weights in loads.chunks(MOST_LOADED) {
                let weights = weights.to_vec();
                self.append(Command::Load { buffer, weights }, &[]);
            }
        }
        self.flush();
    }

    /// Appends a barrier.
    pub(super) fn barrier(&self, number: u64) {
        self.append(Command::Barrier(number), &[]);
        self.flush();
    }

    /// Whether llama.cpp put weights on it.
    pub(super) fn computes(&self) -> bool {
        lock(&self.state).has_weights
    }

    pub(super) fn append(&self, command: Command, payload: &[u8]) {
        if self.shared.has_failed() {
            return;
        }
        let mut outgoing = lock(&self.outgoing);
        outgoing.command(self.shared.step(), command, payload);
        if outgoing.len() > MOST_WAITING {
            self.flush_locked(&mut outgoing);
        }
    }

    /// Where a tensor lies for this device.
    ///
    /// # Safety
    /// The tensor, and what it is a view of, are live.
    unsafe fn locate(&self, tensor: &sys::ggml_tensor) -> Location {
        // A view that nobody allocated is where its owner is.
        // SAFETY: the caller says that the owner is live.
        let owner = unsafe { tensor.view_src.as_ref() };
        let buffer = match owner {
            Some(owner) if tensor.buffer.is_null() => owner.buffer,
            _ => tensor.buffer,
        };
        let data = match owner {
            Some(owner) if tensor.data.is_null() && !owner.data.is_null() => {
                owner.data.wrapping_byte_add(tensor.view_offs)
            }
            _ => tensor.data,
        };
        if data.is_null() {
            return Location::None;
        }
        // SAFETY: a tensor's buffer is live as long as the tensor.
        match unsafe { own_buffer(buffer) } {
            Some((buffer, weight)) if ptr::eq(buffer.device, self) => {
                buffer.announce(weight);
                Location::Own(buffer.place(data))
            }
            _ => Location::Foreign,
        }
    }

    pub(super) fn write(&self, place: Place, bytes: &[u8], again: bool) {
        if self.shared.has_failed() {
            return;
        }
        let mut outgoing = lock(&self.outgoing);
        if again && bytes.len() <= LARGEST_PIECE {
            outgoing.upload(self.shared.step(), place, bytes);
        } else {
            for (index, piece) in bytes.chunks(LARGEST_PIECE).enumerate() {
                let command = Command::Write {
                    place: place.ahead((index * LARGEST_PIECE) as u64),
                    bytes: piece.len() as u64,
                    coding: Coding::Plain,
                    keep: None,
                };
                outgoing.command(self.shared.step(), command, piece);
                self.flush_locked(&mut outgoing);
            }
        }
    }

    /// Appends a read of `size` bytes, in pieces; their answers go to `into`.
    pub(super) fn read(&self, place: Place, into: *mut u8, size: usize) {
        if self.shared.has_failed() {
            // SAFETY: ggml's callers give room for `size` bytes.
            unsafe { ptr::write_bytes(into, 0, size) };
            return;
        }
        let mut into = into;
        for (read, length) in self.ask(place, size) {
            lock(&self.state).reads.push((read, into, length));
            into = into.wrapping_add(length);
        }
    }

    /// Appends reads of `size` bytes in all: which, and how long each is, in order.
    fn ask(&self, place: Place, size: usize) -> Vec<(ReadId, usize)> {
        let pieces = (0..size).step_by(LARGEST_PIECE).map(|from| {
            let length = LARGEST_PIECE.min(size - from);
            let read = ReadId(self.shared.number());
            self.shared.expect(read, self.node, length);
            let place = place.ahead(from as u64);
            let bytes = length as u64;
            self.append(Command::Read { read, place, bytes }, &[]);
            (read, length)
        });
        pieces.collect()
    }

    /// Appends a read: a posted one, where the server takes answers by step.
    pub(super) fn get(&self, place: Place, into: *mut u8, size: usize) {
        if self.posts.are_wanted() {
            self.post(place, into, size);
        } else {
            self.read(place, into, size);
        }
    }

    /// Appends a read whose answer the server takes by step.
    fn post(&self, place: Place, into: *mut u8, size: usize) {
        let reads = self.ask(place, size);
        let reads = reads.into_iter().map(|(read, _)| read).collect();
        self.posts.add(reads, into, size);
        self.flush();
    }

    /// Waits for the reads that were not posted.
    pub(super) fn wait(&self) {
        let reads = std::mem::take(&mut lock(&self.state).reads);
        if reads.is_empty() {
            return;
        }
        self.posts.flush_all();
        for (read, into, size) in reads {
            let answer = self.shared.answer(read);
            if answer.is_err() {
                self.shared.forget(read);
            }
            let bytes = answer.ok().filter(|bytes| bytes.len() == size);
            // SAFETY: ggml's callers gave room for `size` bytes, until they have synchronized.
            unsafe {
                match bytes {
                    Some(bytes) => ptr::copy_nonoverlapping(bytes.as_ptr(), into, size),
                    None => ptr::write_bytes(into, 0, size),
                }
            }
        }
    }

    /// Takes a weight: by its name, or with its bytes where the worker has no file.
    pub(super) fn set_weight(&self, buffer: &Buffer, tensor: &sys::ggml_tensor, bytes: &[u8], offset: usize) {
        // SAFETY: ggml ends names with NUL.
        let name = unsafe { CStr::from_ptr(tensor.name.as_ptr()) }
            .to_string_lossy()
            .into_owned();
        let place = buffer.place(tensor.data);
        let mut state = lock(&self.state);
        state.has_weights = true;
        let load = Load {
            op: state.uses.get(&name).copied().unwrap_or(0),
            name,
            offset: place.offset,
        };
        if state.has_file {
            let loads = state.loads.entry(buffer.id).or_default();
            if loads.last() != Some(&load) {
                loads.push(load);
            }
            return;
        }
        drop(state);
        if offset == 0 {
            let weight = Command::Weight {
                buffer: buffer.id,
                weight: load,
                element: tensor.type_,
                shape: tensor.ne.map(|length| length as u64),
            };
            self.append(weight, &[]);
        }
        self.write(place.ahead(offset as u64), bytes, false);
    }

    /// A hidden state goes from `source` to this device, in the order of both queues.
    pub(super) fn receive_from(&self, source: &Device, from: Place, to: Place, bytes: u64) {
        let way = lock(&self.state).ways.get(&source.node).copied();
        let transfer = Transfer {
            to: self.node,
            number: self.shared.number(),
        };
        let through_host = way != Some(Way::Direct);
        if through_host {
            self.shared.expect_passing(transfer, source.node, bytes);
        }
        let push = Command::Push {
            transfer,
            place: from,
            bytes,
            through_host,
        };
        source.append(push, &[]);
        source.flush();
        let receive = Command::Receive {
            transfer,
            place: to,
            bytes,
        };
        self.append(receive, &[]);
    }
}
