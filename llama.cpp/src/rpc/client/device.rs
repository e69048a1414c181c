//! A remote device as a device of ggml: the functions that llama.cpp calls. Each appends to the device's
//! queue and returns; only reads that nobody posted wait.
//!
//! A lost node never ends the process: what is queued goes nowhere, reads give zeros, graphs fail.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use llama_cpp_sys_2 as sys;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use super::capture::{self, Location};
use super::outgoing::Outgoing;
use super::posts::Posts;
use super::shared::Shared;
use crate::ggml::interface as ggml;
use crate::llama::ffi::mesh_graph_uid;
use crate::rpc::graph::{BufferId, Place};
use crate::rpc::link::lock;
use crate::rpc::wire::{Coding, Command, HOST, Load, MOST_LOADED, NodeId, ReadId, Transfer};

/// Where tensors begin in a buffer, in bytes: what CPUs want, and GPUs too.
const ALIGNMENT: usize = 128;
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
    buffer_type: ggml::ggml_backend_buffer_type,
    name: CString,
    description: CString,
    memory: u64,
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

/// What a buffer of ours carries.
struct Buffer {
    id: BufferId,
    device: *const Device,
    /// Addresses that nothing can be read from, so that none of ours is an address of something else.
    base: *mut c_void,
    size: usize,
    /// The worker knows of it. Only then does it take memory, and it is zeroed at first.
    announced: AtomicBool,
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

    pub(super) fn name(&self) -> String {
        self.name.to_string_lossy().into_owned()
    }

    pub(super) fn memory(&self) -> u64 {
        self.memory
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

    fn append(&self, command: Command, payload: &[u8]) {
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

    fn write(&self, place: Place, bytes: &[u8], again: bool) {
        if self.shared.has_failed() {
            return;
        }
        let mut outgoing = lock(&self.outgoing);
        if again && bytes.len() <= LARGEST_PIECE {
            outgoing.upload(self.shared.step(), place, bytes);
        } else {
            for (index, piece) in bytes.chunks(LARGEST_PIECE).enumerate() {
                let place = Place {
                    offset: place.offset + (index * LARGEST_PIECE) as u64,
                    ..place
                };
                let command = Command::Write {
                    place,
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
    fn read(&self, place: Place, into: *mut u8, size: usize) {
        if self.shared.has_failed() {
            // SAFETY: ggml's callers give room for `size` bytes.
            unsafe { ptr::write_bytes(into, 0, size) };
            return;
        }
        for from in (0..size).step_by(LARGEST_PIECE) {
            let length = LARGEST_PIECE.min(size - from);
            let read = ReadId(self.shared.number());
            self.shared.expect(read);
            let place = Place {
                offset: place.offset + from as u64,
                ..place
            };
            let bytes = length as u64;
            self.append(Command::Read { read, place, bytes }, &[]);
            let into = into.wrapping_add(from);
            lock(&self.state).reads.push((read, into, length));
        }
    }

    /// Appends a read whose answer the server takes by step.
    fn post(&self, place: Place, into: *mut u8, size: usize) {
        let mut reads = Vec::new();
        for from in (0..size).step_by(LARGEST_PIECE) {
            let read = ReadId(self.shared.number());
            self.shared.expect(read);
            let place = Place {
                offset: place.offset + from as u64,
                ..place
            };
            let bytes = LARGEST_PIECE.min(size - from) as u64;
            self.append(Command::Read { read, place, bytes }, &[]);
            reads.push(read);
        }
        self.posts.add(reads, into, size);
        self.flush();
    }

    /// Waits for the reads that were not posted.
    fn wait(&self) {
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
    fn set_weight(&self, buffer: &Buffer, tensor: &sys::ggml_tensor, bytes: &[u8], offset: usize) {
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
        let place = Place {
            offset: place.offset + offset as u64,
            ..place
        };
        self.write(place, bytes, false);
    }

    /// A hidden state goes from `source` to this device, in the order of both queues.
    fn receive_from(&self, source: &Device, from: Place, to: Place, bytes: u64) {
        let way = lock(&self.state).ways.get(&source.node).copied();
        let transfer = Transfer {
            to: self.node,
            number: self.shared.number(),
        };
        let push = Command::Push {
            transfer,
            place: from,
            bytes,
            through_host: way != Some(Way::Direct),
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

impl Buffer {
    /// Tells the worker of the buffer, before it is used for the first time: what it is for is not known
    /// when llama.cpp allocates it.
    fn announce(&self, weight: bool) {
        if self.announced.swap(true, Ordering::Relaxed) {
            return;
        }
        let (buffer, bytes) = (self.id, self.size as u64);
        let command = if weight {
            Command::AllocateWeights { buffer, bytes }
        } else {
            Command::Allocate { buffer, bytes }
        };
        self.device().append(command, &[]);
    }

    fn place(&self, data: *mut c_void) -> Place {
        Place {
            buffer: self.id,
            offset: (data as usize).wrapping_sub(self.base as usize) as u64,
        }
    }

    fn device(&self) -> &Device {
        // SAFETY: devices outlive their buffers: `Split` is dropped after the model and its contexts.
        unsafe { &*self.device }
    }
}

/// Our part of a buffer, and whether it is for weights, if it is one of ours with memory.
unsafe fn own_buffer<'a>(buffer: *mut sys::ggml_backend_buffer) -> Option<(&'a Buffer, bool)> {
    let raw: *const ggml::ggml_backend_buffer = buffer.cast_const().cast();
    // SAFETY: the caller has a live buffer, or none.
    let raw = unsafe { raw.as_ref() }?;
    let own: unsafe extern "C" fn(sys::ggml_backend_buffer_t) = buffer_free;
    let is_ours = raw
        .iface
        .free_buffer
        .is_some_and(|free| ptr::fn_addr_eq(free, own));
    if !is_ours {
        return None;
    }
    let weight = raw.usage == sys::GGML_BACKEND_BUFFER_USAGE_WEIGHTS;
    // SAFETY: a buffer with our functions has our context.
    Some((unsafe { &*raw.context.cast::<Buffer>() }, weight))
}

/// The device behind a backend, if it is one of ours.
unsafe fn own_device<'a>(backend: sys::ggml_backend_t) -> Option<&'a Device> {
    let raw: *const ggml::ggml_backend = backend.cast_const().cast();
    // SAFETY: the caller has a live backend.
    let raw = unsafe { raw.as_ref() }?;
    let own: unsafe extern "C" fn(sys::ggml_backend_t) = backend_free;
    raw.iface
        .free
        .is_some_and(|free| ptr::fn_addr_eq(free, own))
        // SAFETY: a backend with our functions has one of our devices as context.
        .then(|| unsafe { &*raw.context.cast::<Device>() })
}

unsafe fn device_of<'a>(device: sys::ggml_backend_dev_t) -> &'a Device {
    // SAFETY: ggml calls our functions with our devices only.
    unsafe {
        &*(*device.cast::<ggml::ggml_backend_device>())
            .context
            .cast::<Device>()
    }
}

unsafe fn type_device<'a>(kind: sys::ggml_backend_buffer_type_t) -> &'a Device {
    // SAFETY: ggml calls our functions with our buffer types only.
    unsafe {
        &*(*kind.cast::<ggml::ggml_backend_buffer_type>())
            .context
            .cast::<Device>()
    }
}

unsafe fn buffer_of<'a>(buffer: sys::ggml_backend_buffer_t) -> (&'a Buffer, bool) {
    // SAFETY: ggml calls our functions with our buffers only, from one thread at a time.
    unsafe {
        let raw = &*buffer.cast::<ggml::ggml_backend_buffer>();
        let weight = raw.usage == sys::GGML_BACKEND_BUFFER_USAGE_WEIGHTS;
        (&*raw.context.cast::<Buffer>(), weight)
    }
}

// Buffers.

unsafe extern "C" fn buffer_free(buffer: sys::ggml_backend_buffer_t) {
    // SAFETY: `context` was made by `type_allocate` with `Box::into_raw`, and ggml frees a buffer once.
    let own = unsafe { Box::from_raw(std::ptr::from_ref(buffer_of(buffer).0).cast_mut()) };
    let device = own.device();
    if own.announced.load(Ordering::Relaxed) {
        lock(&device.outgoing).forget_graphs();
        device.append(Command::Free(own.id), &[]);
        device.flush();
    }
    // SAFETY: mapped by `type_allocate` with this size, and no longer used.
    let unmapped = unsafe { munmap(own.base, own.size) };
    if let Err(error) = unmapped {
        tracing::debug!(%error, "addresses stay reserved");
    }
}

unsafe extern "C" fn buffer_base(buffer: sys::ggml_backend_buffer_t) -> *mut c_void {
    // SAFETY: see `buffer_of`.
    unsafe { buffer_of(buffer) }.0.base
}

unsafe extern "C" fn buffer_memset(
    buffer: sys::ggml_backend_buffer_t,
    tensor: *mut sys::ggml_tensor,
    value: u8,
    offset: usize,
    size: usize,
) {
    // SAFETY: see `buffer_of`; ggml gives a live tensor of the buffer.
    let ((own, weight), data) = unsafe { (buffer_of(buffer), (*tensor).data) };
    own.announce(weight);
    let mut place = own.place(data);
    place.offset += offset as u64;
    let bytes = size as u64;
    own.device().append(Command::Fill { place, bytes, value }, &[]);
}

unsafe extern "C" fn buffer_set(
    buffer: sys::ggml_backend_buffer_t,
    tensor: *mut sys::ggml_tensor,
    data: *const c_void,
    offset: usize,
    size: usize,
) {
    // SAFETY: see `buffer_of`; ggml gives a live tensor of the buffer and `size` bytes of data. For
    // weights of a mapped file nobody looks at them here.
    unsafe {
        let (own, weight) = buffer_of(buffer);
        own.announce(weight);
        let tensor = &*tensor;
        let bytes = std::slice::from_raw_parts(data.cast::<u8>(), size);
        if weight {
            return own.device().set_weight(own, tensor, bytes, offset);
        }
        let usage = (*buffer.cast::<ggml::ggml_backend_buffer>()).usage;
        let mut place = own.place(tensor.data);
        place.offset += offset as u64;
        let again = usage == sys::GGML_BACKEND_BUFFER_USAGE_COMPUTE;
        own.device().write(place, bytes, again);
    }
}

unsafe extern "C" fn buffer_get(
    buffer: sys::ggml_backend_buffer_t,
    tensor: *const sys::ggml_tensor,
    data: *mut c_void,
    offset: usize,
    size: usize,
) {
    // SAFETY: see `buffer_of`; ggml gives a live tensor of the buffer.
    let ((own, weight), from) = unsafe { (buffer_of(buffer), (*tensor).data) };
    own.announce(weight);
    let mut place = own.place(from);
    place.offset += offset as u64;
    own.device().read(place, data.cast(), size);
    own.device().wait();
}

unsafe extern "C" fn buffer_copy(
    buffer: sys::ggml_backend_buffer_t,
    source: *const sys::ggml_tensor,
    target: *mut sys::ggml_tensor,
) -> bool {
    // SAFETY: see `buffer_of`; ggml gives live tensors with data.
    let (own, from, to, bytes) = unsafe {
        let Some((from, _)) = own_buffer((*source).buffer) else {
            return false;
        };
        let (own, weight) = buffer_of(buffer);
        own.announce(weight);
        let places = (from.place((*source).data), own.place((*target).data));
        if !ptr::eq(from.device, own.device) {
            return false;
        }
        (own, places.0, places.1, sys::ggml_nbytes(source) as u64)
    };
    own.device().append(Command::Copy { from, to, bytes }, &[]);
    true
}

unsafe extern "C" fn buffer_clear(buffer: sys::ggml_backend_buffer_t, value: u8) {
    // SAFETY: see `buffer_of`.
    let (own, weight) = unsafe { buffer_of(buffer) };
    if value == 0 && !own.announced.load(Ordering::Relaxed) {
        return;
    }
    own.announce(weight);
    let place = Place {
        buffer: own.id,
        offset: 0,
    };
    let bytes = own.size as u64;
    own.device().append(Command::Fill { place, bytes, value }, &[]);
}

const BUFFER: ggml::ggml_backend_buffer_i = ggml::ggml_backend_buffer_i {
    free_buffer: Some(buffer_free),
    get_base: Some(buffer_base),
    init_tensor: None,
    memset_tensor: Some(buffer_memset),
    set_tensor: Some(buffer_set),
    get_tensor: Some(buffer_get),
    set_tensor_2d: None,
    get_tensor_2d: None,
    cpy_tensor: Some(buffer_copy),
    clear: Some(buffer_clear),
    reset: None,
};

// Buffer types.

unsafe extern "C" fn type_name(kind: sys::ggml_backend_buffer_type_t) -> *const c_char {
    // SAFETY: see `type_device`.
    unsafe { type_device(kind) }.name.as_ptr()
}

unsafe extern "C" fn type_allocate(
    kind: sys::ggml_backend_buffer_type_t,
    size: usize,
) -> sys::ggml_backend_buffer_t {
    // SAFETY: see `type_device`.
    let device = unsafe { type_device(kind) };
    let size = size.max(1);
    // SAFETY: new addresses; nothing can be read from them or written to them.
    let mapped = unsafe {
        mmap_anonymous(
            ptr::null_mut(),
            size,
            ProtFlags::empty(),
            MapFlags::PRIVATE | MapFlags::NORESERVE,
        )
    };
    let base = match mapped {
        Ok(base) if !device.shared.has_failed() => base,
        _ => return ptr::null_mut(),
    };
    let id = BufferId(device.buffers.fetch_add(1, Ordering::Relaxed));
    let own = Box::new(Buffer {
        id,
        device,
        base,
        size,
        announced: AtomicBool::new(false),
    });
    // SAFETY: the functions fit the context; ggml frees the buffer by `buffer_free`.
    unsafe { ggml::ggml_backend_buffer_init(kind, BUFFER, Box::into_raw(own).cast(), size).cast() }
}

unsafe extern "C" fn type_alignment(_: sys::ggml_backend_buffer_type_t) -> usize {
    ALIGNMENT
}

unsafe extern "C" fn type_is_host(_: sys::ggml_backend_buffer_type_t) -> bool {
    false
}

const BUFFER_TYPE: ggml::ggml_backend_buffer_type_i = ggml::ggml_backend_buffer_type_i {
    get_name: Some(type_name),
    alloc_buffer: Some(type_allocate),
    alloc_buffer_n: None,
    get_alignment: Some(type_alignment),
    get_max_size: None,
    get_alloc_size: None,
    get_alloc_size_n: None,
    is_host: Some(type_is_host),
};

// Backends.

unsafe extern "C" fn backend_name(backend: sys::ggml_backend_t) -> *const c_char {
    // SAFETY: ggml calls our functions with our backends only.
    unsafe { own_device(backend) }.map_or(ptr::null(), |device| device.name.as_ptr())
}

unsafe extern "C" fn backend_free(backend: sys::ggml_backend_t) {
    // SAFETY: made by `device_backend` with `Box::into_raw`, and freed once.
    drop(unsafe { Box::from_raw(backend.cast::<ggml::ggml_backend>()) });
}

unsafe extern "C" fn backend_set(
    _: sys::ggml_backend_t,
    tensor: *mut sys::ggml_tensor,
    data: *const c_void,
    offset: usize,
    size: usize,
) {
    // SAFETY: as ggml's own contract for `buffer_set`; the tensor is one of the backend's.
    unsafe { buffer_set((*tensor).buffer, tensor, data, offset, size) };
}

unsafe extern "C" fn backend_get(
    backend: sys::ggml_backend_t,
    tensor: *const sys::ggml_tensor,
    data: *mut c_void,
    offset: usize,
    size: usize,
) {
    // SAFETY: ggml gives one of our backends and a live tensor of it.
    unsafe {
        let (Some(device), Some((own, _))) = (own_device(backend), own_buffer((*tensor).buffer)) else {
            return;
        };
        let mut place = own.place((*tensor).data);
        place.offset += offset as u64;
        if device.posts.are_wanted() {
            device.post(place, data.cast(), size);
        } else {
            device.read(place, data.cast(), size);
        }
    }
}

unsafe extern "C" fn backend_copy(
    from: sys::ggml_backend_t,
    to: sys::ggml_backend_t,
    source: *const sys::ggml_tensor,
    target: *mut sys::ggml_tensor,
) -> bool {
    // SAFETY: ggml gives live backends and tensors.
    unsafe {
        let (Some(from), Some(to)) = (own_device(from), own_device(to)) else {
            return false;
        };
        let (Some((source_buffer, _)), Some((target_buffer, _))) =
            (own_buffer((*source).buffer), own_buffer((*target).buffer))
        else {
            return false;
        };
        if ptr::eq(from, to) {
            return false;
        }
        let source_place = source_buffer.place((*source).data);
        let target_place = target_buffer.place((*target).data);
        target_buffer.announce(false);
        to.receive_from(from, source_place, target_place, sys::ggml_nbytes(source) as u64);
    }
    true
}

unsafe extern "C" fn backend_synchronize(backend: sys::ggml_backend_t) {
    // SAFETY: ggml gives one of our backends.
    if let Some(device) = unsafe { own_device(backend) } {
        device.wait();
    }
}

unsafe extern "C" fn backend_compute(
    backend: sys::ggml_backend_t,
    graph: *mut sys::ggml_cgraph,
) -> sys::ggml_status {
    // SAFETY: ggml gives one of our backends and a graph that lives through the call.
    unsafe {
        let Some(device) = own_device(backend) else {
            return sys::GGML_STATUS_FAILED;
        };
        if device.shared.has_failed() {
            return sys::GGML_STATUS_FAILED;
        }
        let uid = mesh_graph_uid(graph);
        let step = device.shared.step();
        if !lock(&device.outgoing).run_again(step, uid) {
            let count = sys::ggml_graph_n_nodes(graph).max(0);
            let nodes: Vec<_> = (0..count)
                .map(|index| sys::ggml_graph_node(graph, index))
                .collect();
            match capture::capture(&nodes, |tensor| device.locate(tensor)) {
                Ok(captured) => lock(&device.outgoing).run(step, uid, captured),
                Err(fault) => {
                    tracing::error!(%fault, device = device.name(), "a graph is not sent");
                    return sys::GGML_STATUS_FAILED;
                }
            }
        }
        if device.node == HOST {
            // Begins while the rest of the step is still put together.
            device.flush();
        }
    }
    sys::GGML_STATUS_SUCCESS
}

const BACKEND: ggml::ggml_backend_i = ggml::ggml_backend_i {
    get_name: Some(backend_name),
    free: Some(backend_free),
    set_tensor_async: Some(backend_set),
    get_tensor_async: Some(backend_get),
    set_tensor_2d_async: None,
    get_tensor_2d_async: None,
    cpy_tensor_async: Some(backend_copy),
    synchronize: Some(backend_synchronize),
    graph_plan_create: None,
    graph_plan_free: None,
    graph_plan_update: None,
    graph_plan_compute: None,
    graph_compute: Some(backend_compute),
    event_record: None,
    event_wait: None,
    graph_optimize: None,
};

// Devices.

unsafe extern "C" fn device_name(device: sys::ggml_backend_dev_t) -> *const c_char {
    // SAFETY: see `device_of`.
    unsafe { device_of(device) }.name.as_ptr()
}

unsafe extern "C" fn device_description(device: sys::ggml_backend_dev_t) -> *const c_char {
    // SAFETY: see `device_of`.
    unsafe { device_of(device) }.description.as_ptr()
}

unsafe extern "C" fn device_memory(device: sys::ggml_backend_dev_t, free: *mut usize, total: *mut usize) {
    // SAFETY: see `device_of`; ggml gives places for both numbers.
    unsafe {
        let memory = usize::try_from(device_of(device).memory).unwrap_or(usize::MAX);
        (*free, *total) = (memory, memory);
    }
}

unsafe extern "C" fn device_type(_: sys::ggml_backend_dev_t) -> sys::ggml_backend_dev_type {
    sys::GGML_BACKEND_DEVICE_TYPE_GPU
}

unsafe extern "C" fn device_props(device: sys::ggml_backend_dev_t, props: *mut sys::ggml_backend_dev_props) {
    // SAFETY: see `device_of`; ggml gives a zeroed struct.
    unsafe {
        (*props).name = device_name(device);
        (*props).description = device_description(device);
        (*props).type_ = device_type(device);
        device_memory(
            device,
            &raw mut (*props).memory_free,
            &raw mut (*props).memory_total,
        );
        (*props).caps.async_ = true;
        (*props).caps.mmap_support = true;
    }
}

unsafe extern "C" fn device_backend(
    device: sys::ggml_backend_dev_t,
    _: *const c_char,
) -> sys::ggml_backend_t {
    // SAFETY: see `device_of`.
    let own = unsafe { device_of(device) };
    let backend = ggml::ggml_backend {
        guid: (&raw const GUID).cast_mut().cast(),
        iface: BACKEND,
        device,
        context: std::ptr::from_ref(own).cast_mut().cast(),
    };
    Box::into_raw(Box::new(backend)).cast()
}

unsafe extern "C" fn device_buffer_type(device: sys::ggml_backend_dev_t) -> sys::ggml_backend_buffer_type_t {
    // SAFETY: see `device_of`.
    (&raw const unsafe { device_of(device) }.buffer_type)
        .cast_mut()
        .cast()
}

/// A worker declines nothing that a CPU can do.
unsafe extern "C" fn device_supports(device: sys::ggml_backend_dev_t, op: *const sys::ggml_tensor) -> bool {
    // SAFETY: see `device_of`; ggml gives a live operation with its sources.
    unsafe {
        note_use(device_of(device), &*op);
        let cpu = sys::ggml_backend_dev_by_type(sys::GGML_BACKEND_DEVICE_TYPE_CPU);
        sys::ggml_backend_dev_supports_op(cpu, op)
    }
}

/// llama.cpp asks about every weight, in an empty buffer, with the operation that it is for.
unsafe fn note_use(device: &Device, op: &sys::ggml_tensor) {
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
        let own: *const c_void = (&raw const device.buffer_type).cast();
        let empty = buffer.size == 0 && ptr::eq(buffer.buft.cast_const().cast(), own);
        // SAFETY: ggml ends names with NUL.
        let name = unsafe { CStr::from_ptr(weight.name.as_ptr()) };
        if empty && !name.is_empty() {
            let name = name.to_string_lossy().into_owned();
            lock(&device.state).uses.insert(name, op.op);
        }
    }
}

unsafe extern "C" fn device_supports_buffer(
    device: sys::ggml_backend_dev_t,
    kind: sys::ggml_backend_buffer_type_t,
) -> bool {
    // SAFETY: ggml gives one of our devices.
    ptr::eq(kind, unsafe { device_buffer_type(device) })
}

const DEVICE: ggml::ggml_backend_device_i = ggml::ggml_backend_device_i {
    get_name: Some(device_name),
    get_description: Some(device_description),
    get_memory: Some(device_memory),
    get_type: Some(device_type),
    get_props: Some(device_props),
    init_backend: Some(device_backend),
    get_buffer_type: Some(device_buffer_type),
    get_host_buffer_type: None,
    buffer_from_host_ptr: None,
    supports_op: Some(device_supports),
    supports_buft: Some(device_supports_buffer),
    offload_op: None,
    event_new: None,
    event_free: None,
    event_synchronize: None,
};

// The registry's entry, which devices must have and nobody lists.

/// Tells our backends from others.
static GUID: [u8; 16] = *b"mesh-llm split\0\x01";

unsafe extern "C" fn registry_name(_: sys::ggml_backend_reg_t) -> *const c_char {
    c"split".as_ptr()
}

unsafe extern "C" fn registry_count(_: sys::ggml_backend_reg_t) -> usize {
    0
}

struct Registry(ggml::ggml_backend_reg);

// SAFETY: it never changes.
unsafe impl Sync for Registry {}

static REGISTRY: Registry = Registry(ggml::ggml_backend_reg {
    api_version: ggml::GGML_BACKEND_API_VERSION as i32,
    iface: ggml::ggml_backend_reg_i {
        get_name: Some(registry_name),
        get_device_count: Some(registry_count),
        get_device: None,
        get_proc_address: None,
    },
    context: ptr::null_mut(),
});

fn registry() -> sys::ggml_backend_reg_t {
    (&raw const REGISTRY.0).cast_mut().cast()
}
