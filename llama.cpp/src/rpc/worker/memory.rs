//! A session's buffers on one device.

use std::collections::{BTreeMap, HashMap};
use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use llama_cpp_sys_2 as sys;

use super::Fault;
use super::device::{BufferType, Device, Grant, Reservation};
use super::weights::Weight;
use crate::rpc::graph::{BufferId, Place};

/// Most buffers of a queue.
const MOST_BUFFERS: usize = 4096;

/// A piece of a device's memory.
#[derive(Debug)]
pub(super) struct Allocation {
    handle: NonNull<sys::ggml_backend_buffer>,
    base: *mut c_void,
    bytes: u64,
    _grant: Grant,
}

// SAFETY: a buffer has no ties to the thread that made it; one queue uses it.
unsafe impl Send for Allocation {}

impl Allocation {
    /// So many bytes of `kind`.
    pub(super) fn new(
        reservation: &Arc<Reservation>,
        device: &Device,
        kind: BufferType,
        bytes: u64,
    ) -> Result<Self, Fault> {
        let grant = Grant::take(reservation, bytes)?;
        let failed = || Fault::Device {
            device: device.name().to_owned(),
            what: format!("has no {bytes} bytes"),
        };
        let size = usize::try_from(bytes.max(1)).map_err(|_| failed())?;
        // SAFETY: the kind of buffer comes from the device.
        let handle = unsafe { sys::ggml_backend_buft_alloc_buffer(kind.handle, size) };
        let handle = NonNull::new(handle).ok_or_else(failed)?;
        // SAFETY: the buffer is live.
        let base = unsafe { sys::ggml_backend_buffer_get_base(handle.as_ptr()) };
        Ok(Self {
            handle,
            base,
            bytes,
            _grant: grant,
        })
    }

    pub(super) fn handle(&self) -> *mut sys::ggml_backend_buffer {
        self.handle.as_ptr()
    }

    pub(super) fn base(&self) -> *mut c_void {
        self.base
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where `offset` is.
    pub(super) fn at(&self, offset: u64) -> *mut c_void {
        debug_assert!(offset <= self.bytes);
        self.base.wrapping_byte_add(offset as usize)
    }

    /// A tensor over some bytes, for ggml's functions that copy.
    fn bytes_of(&self, offset: u64, length: usize) -> Result<sys::ggml_tensor, Fault> {
        let end = offset.checked_add(length as u64);
        if end.is_none_or(|end| end > self.bytes) {
            return Err(Fault::protocol(format!(
                "a piece of {length} bytes at {offset} of a buffer of {}",
                self.bytes
            )));
        }
        Ok(bytes_tensor(self.handle.as_ptr(), self.at(offset), length))
    }

    /// Zeroes all of it.
    pub(super) fn zero(&self) {
        // SAFETY: the buffer is live.
        unsafe { sys::ggml_backend_buffer_clear(self.handle.as_ptr(), 0) };
    }
}

/// A tensor over `length` bytes at `data` of a buffer.
pub(super) fn bytes_tensor(
    buffer: *mut sys::ggml_backend_buffer,
    data: *mut c_void,
    length: usize,
) -> sys::ggml_tensor {
    sys::ggml_tensor {
        type_: sys::GGML_TYPE_I8,
        buffer,
        ne: [length as i64, 1, 1, 1],
        nb: [1, length, length, length],
        op: sys::GGML_OP_NONE,
        op_params: [0; 16],
        flags: 0,
        src: [ptr::null_mut(); 10],
        view_src: ptr::null_mut(),
        view_offs: 0,
        data,
        name: [0; 64],
        extra: ptr::null_mut(),
        padding: [0; 8],
    }
}

/// A tensor without data, for others to be made of.
pub(super) fn blank_tensor() -> sys::ggml_tensor {
    bytes_tensor(ptr::null_mut(), ptr::null_mut(), 1)
}

impl Drop for Allocation {
    fn drop(&mut self) {
        // SAFETY: made by `ggml_backend_buft_alloc_buffer` and freed only here.
        unsafe { sys::ggml_backend_buffer_free(self.handle.as_ptr()) };
    }
}

/// One buffer.
#[derive(Debug)]
pub(super) enum Buffer {
    /// Cache or computing.
    Memory(Allocation),
    /// Weights by offset.
    Weights {
        /// How far offsets go.
        bytes: u64,
        /// What came so far.
        weights: BTreeMap<u64, Weight>,
    },
}

/// All buffers of a queue.
#[derive(Debug)]
pub(super) struct Memory {
    device: Arc<Device>,
    reservation: Arc<Reservation>,
    buffers: HashMap<BufferId, Buffer>,
}

impl Memory {
    pub(super) fn new(device: Arc<Device>, reservation: Arc<Reservation>) -> Self {
        Self {
            device,
            reservation,
            buffers: HashMap::new(),
        }
    }

    pub(super) fn device(&self) -> &Arc<Device> {
        &self.device
    }

    pub(super) fn reservation(&self) -> &Arc<Reservation> {
        &self.reservation
    }

    fn insert(&mut self, id: BufferId, buffer: Buffer) -> Result<(), Fault> {
        if self.buffers.len() >= MOST_BUFFERS || self.buffers.contains_key(&id) {
            return Err(Fault::protocol("a buffer too many, or one twice"));
        }
        self.buffers.insert(id, buffer);
        Ok(())
    }

    /// A zeroed buffer.
    pub(super) fn allocate(&mut self, id: BufferId, bytes: u64) -> Result<(), Fault> {
        let plain = self.plain();
        let allocation = Allocation::new(&self.reservation, &self.device, plain, bytes)?;
        // What another session left there is not this one's to read.
        allocation.zero();
        self.insert(id, Buffer::Memory(allocation))
    }

    /// A buffer for weights.
    pub(super) fn allocate_weights(&mut self, id: BufferId, bytes: u64) -> Result<(), Fault> {
        let weights = BTreeMap::new();
        self.insert(id, Buffer::Weights { bytes, weights })
    }

    pub(super) fn plain(&self) -> BufferType {
        let types = self.device.buffer_types();
        types[types.len() - 1]
    }

    pub(super) fn free(&mut self, id: BufferId) -> Result<(), Fault> {
        let freed = self.buffers.remove(&id);
        freed
            .map(drop)
            .ok_or_else(|| Fault::protocol("the end of a buffer that is not there"))
    }

    pub(super) fn get(&self, id: BufferId) -> Option<&Buffer> {
        self.buffers.get(&id)
    }

    /// The weights of a buffer, and how far offsets go.
    pub(super) fn weights(&mut self, id: BufferId) -> Result<(u64, &mut BTreeMap<u64, Weight>), Fault> {
        match self.buffers.get_mut(&id) {
            Some(Buffer::Weights { bytes, weights }) => Ok((*bytes, weights)),
            _ => Err(Fault::protocol("weights for a buffer that has none")),
        }
    }

    fn allocation(&self, id: BufferId) -> Result<&Allocation, Fault> {
        match self.buffers.get(&id) {
            Some(Buffer::Memory(allocation)) => Ok(allocation),
            _ => Err(Fault::protocol("a piece of a buffer that is not there")),
        }
    }

    /// Writes bytes.
    pub(super) fn write(&self, place: Place, bytes: &[u8]) -> Result<(), Fault> {
        let mut tensor = self
            .allocation(place.buffer)?
            .bytes_of(place.offset, bytes.len())?;
        if !bytes.is_empty() {
            // SAFETY: the tensor lies inside its live buffer, and has the length of `bytes`.
            unsafe { sys::ggml_backend_tensor_set(&mut tensor, bytes.as_ptr().cast(), 0, bytes.len()) };
        }
        Ok(())
    }

    /// Reads bytes.
    pub(super) fn read(&self, place: Place, length: u64) -> Result<Vec<u8>, Fault> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let tensor = self.allocation(place.buffer)?.bytes_of(place.offset, length)?;
        let mut bytes: Vec<u8> = Vec::with_capacity(length);
        if length > 0 {
            // SAFETY: the tensor lies inside its live buffer; `bytes` has room for its length, all of
            // which is written.
            unsafe {
                sys::ggml_backend_tensor_get(&tensor, bytes.as_mut_ptr().cast(), 0, length);
                bytes.set_len(length);
            }
        }
        Ok(bytes)
    }

    /// Fills bytes.
    pub(super) fn fill(&self, place: Place, length: u64, value: u8) -> Result<(), Fault> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let mut tensor = self.allocation(place.buffer)?.bytes_of(place.offset, length)?;
        if length > 0 {
            // SAFETY: the tensor lies inside its live buffer.
            unsafe { sys::ggml_backend_tensor_memset(&mut tensor, value, 0, length) };
        }
        Ok(())
    }
}
