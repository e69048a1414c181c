//! Weights: read from the worker's own file, or sent by the host, in the layout that the device wants.

use std::ffi::CString;
use std::ptr;
use std::sync::Arc;

use llama_cpp_sys_2 as sys;

use super::Fault;
use super::account::{Account, Room};
use super::device::{BufferType, Device, Reservation};
use super::memory::Allocation;
use crate::rpc::files::WeightFile;
use crate::rpc::wire::{LONGEST_NAME, Load};

/// Bytes that are read from the file at once.
const READ_AT_ONCE: usize = 16 << 20;

/// A weight in a device's memory.
#[derive(Debug)]
pub(super) struct Weight {
    /// What it is, with its data and what its layout adds.
    pub(super) tensor: Box<sys::ggml_tensor>,
    pub(super) plain: bool,
    pub(super) load: Load,
    /// Bytes in the file.
    pub(super) bytes: u64,
    allocation: Allocation,
    /// Bytes from the host, until there are all of them; in ggml's own layout they go where they belong.
    arriving: Vec<u8>,
    /// For those.
    arriving_room: Option<Room>,
    arrived: u64,
}

// SAFETY: the tensor points into the allocation, which has no ties to a thread.
unsafe impl Send for Weight {}

/// Memory to read weights in that do not go straight to where they belong.
#[derive(Debug)]
pub(super) struct Spare {
    bytes: Vec<u8>,
    room: Room,
}

impl Spare {
    /// None yet.
    pub(super) fn new(account: &Arc<Account>) -> Result<Self, Fault> {
        Ok(Self {
            bytes: Vec::new(),
            room: account.take(0)?,
        })
    }

    /// The first `length` bytes of it, which is made so large.
    fn grow(&mut self, length: usize) -> Result<&mut [u8], Fault> {
        if self.bytes.len() < length {
            self.room.resize(length as u64)?;
            // The old ones are not copied, nor kept beside the new ones.
            self.bytes = Vec::new();
            self.bytes = vec![0; length];
        }
        Ok(&mut self.bytes[..length])
    }
}

/// A tensor's type and shape.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form {
    pub(super) element: u32,
    pub(super) shape: [u64; 4],
}

impl Form {
    /// A tensor of this form without data, and its bytes; `None` for one that cannot be.
    fn tensor(self) -> Option<(sys::ggml_tensor, u64)> {
        let mut tensor = super::memory::blank_tensor();
        if self.element >= sys::GGML_TYPE_COUNT {
            return None;
        }
        // SAFETY: these look a known type up.
        let (block, size) = unsafe {
            (
                sys::ggml_blck_size(self.element),
                sys::ggml_type_size(self.element),
            )
        };
        let block = u64::try_from(block).ok().filter(|block| *block > 0)?;
        let [first, ..] = self.shape;
        if size == 0 || first % block != 0 || self.shape.contains(&0) {
            return None;
        }
        tensor.type_ = self.element;
        let mut stride = size as u64;
        for (dimension, length) in self.shape.into_iter().enumerate() {
            tensor.ne[dimension] = i64::try_from(length).ok()?;
            tensor.nb[dimension] = usize::try_from(stride).ok()?;
            let steps = if dimension == 0 { length / block } else { length };
            stride = stride.checked_mul(steps)?;
        }
        (stride < 1 << 48).then_some((tensor, stride))
    }
}

impl Weight {
    /// Room for a weight of this form, in the first of `kinds` that serves its operation.
    pub(super) fn new(
        load: Load,
        form: Form,
        device: &Device,
        reservation: &Arc<Reservation>,
        kinds: &[BufferType],
    ) -> Result<Self, Fault> {
        let unfit = || Fault::protocol(format!("weight {:?} of a form that cannot be", load.name));
        if load.name.len() > LONGEST_NAME {
            return Err(unfit());
        }
        let (tensor, bytes) = form.tensor().ok_or_else(unfit)?;
        let mut tensor = Box::new(tensor);
        if let Ok(name) = CString::new(load.name.as_str()) {
            // SAFETY: the tensor is live, the name is a C string.
            unsafe { sys::ggml_set_name(&mut *tensor, name.as_ptr()) };
        }
        let kind = kinds
            .iter()
            .find(|kind| kind.plain || serves(**kind, device, &mut tensor, load.op))
            .ok_or_else(unfit)?;
        // SAFETY: the kind is the device's, the tensor has type and shape.
        let size = unsafe { sys::ggml_backend_buft_get_alloc_size(kind.handle, &*tensor) };
        let allocation = Allocation::new(reservation, device, *kind, size as u64)?;
        // SAFETY: the buffer has the size that its kind wants for this tensor; the tensor has no data yet.
        let status =
            unsafe { sys::ggml_backend_tensor_alloc(allocation.handle(), &mut *tensor, allocation.base()) };
        if status != sys::GGML_STATUS_SUCCESS {
            return Err(Fault::Device {
                device: device.name().to_owned(),
                what: format!("does not take weight {:?}", load.name),
            });
        }
        Ok(Self {
            tensor,
            plain: kind.plain,
            load,
            bytes,
            allocation,
            arriving: Vec::new(),
            arriving_room: None,
            arrived: 0,
        })
    }

    /// Bytes of memory that it takes.
    pub(super) fn allocated(&self) -> u64 {
        self.allocation.bytes()
    }

    /// How much of it is read from the file at once: other layouts are made of a weight as a whole.
    fn piece(&self) -> usize {
        let length = usize::try_from(self.bytes).unwrap_or(usize::MAX);
        if self.plain {
            length.min(READ_AT_ONCE)
        } else {
            length
        }
    }

    /// Whether there is room to read it in.
    pub(super) fn has_room_to_read(&self, host_memory: bool, spare: &mut Spare) -> bool {
        (self.plain && host_memory) || spare.grow(self.piece()).is_ok()
    }

    /// Makes room for what comes of it from the host before it is whole; whether that could be done.
    pub(super) fn has_room_to_arrive(&mut self, account: &Arc<Account>) -> bool {
        if !self.plain {
            self.arriving_room = account.take(self.bytes).ok();
        }
        self.plain || self.arriving_room.is_some()
    }

    /// Reads it from the file. `spare` is memory to work in.
    pub(super) fn read(
        &mut self,
        file: &WeightFile,
        host_memory: bool,
        spare: &mut Spare,
    ) -> Result<(), Fault> {
        let length = usize::try_from(self.bytes).unwrap_or(usize::MAX);
        let failed = |error: crate::rpc::files::Error| Fault::File(error.to_string());
        if self.plain && host_memory {
            let padding = (self.allocation.bytes() - self.bytes) as usize;
            // SAFETY: the allocation is memory of ggml's in this process, has so many bytes, and nobody else
            // knows it yet. What the file does not fill is zeroed: graphs may read it.
            let into = unsafe {
                let data = self.tensor.data.cast::<u8>();
                ptr::write_bytes(data.add(length), 0, padding);
                std::slice::from_raw_parts_mut(data, length)
            };
            return file.read_into(&self.load.name, 0, into).map_err(failed);
        }
        let piece = self.piece();
        let mut offset = 0;
        while offset < length {
            let count = piece.min(length - offset);
            let spare = spare.grow(count)?;
            file.read_into(&self.load.name, offset as u64, spare)
                .map_err(failed)?;
            self.set(offset, spare);
            offset += count;
        }
        Ok(())
    }

    fn set(&mut self, offset: usize, bytes: &[u8]) {
        // SAFETY: the callers keep within the tensor's bytes.
        unsafe {
            sys::ggml_backend_tensor_set(&mut *self.tensor, bytes.as_ptr().cast(), offset, bytes.len());
        }
    }

    /// Takes bytes from the host, which come in order. Whether the weight is whole now.
    pub(super) fn arrive(&mut self, offset: u64, bytes: &[u8]) -> Result<bool, Fault> {
        let end = offset.saturating_add(bytes.len() as u64);
        if offset != self.arrived || end > self.bytes {
            return Err(Fault::protocol(format!(
                "weight {:?} in disorder",
                self.load.name
            )));
        }
        self.arrived = end;
        if self.plain {
            self.set(offset as usize, bytes);
            return Ok(end == self.bytes);
        }
        // All at once: what grows is twice as large at times.
        self.arriving
            .reserve_exact(self.bytes as usize - self.arriving.len());
        self.arriving.extend_from_slice(bytes);
        if end < self.bytes {
            return Ok(false);
        }
        let whole = std::mem::take(&mut self.arriving);
        self.set(0, &whole);
        self.arriving_room = None;
        Ok(true)
    }

    /// Zeroes its memory.
    pub(super) fn zero(&self) {
        self.allocation.zero();
    }
}

/// Whether `device` computes `op` on a weight of this form in memory of this kind: ggml is asked about
/// an operation of the right shape.
fn serves(kind: BufferType, device: &Device, tensor: &mut sys::ggml_tensor, op: u32) -> bool {
    if op != sys::GGML_OP_MUL_MAT && op != sys::GGML_OP_MUL_MAT_ID {
        return false;
    }
    // SAFETY: a buffer without bytes; null where the kind makes none.
    let empty = unsafe { sys::ggml_backend_buft_alloc_buffer(kind.handle, 0) };
    if empty.is_null() {
        return false;
    }
    tensor.buffer = empty;
    let [width, rows, experts, _] = tensor.ne;
    let mut input = super::memory::blank_tensor();
    input.type_ = sys::GGML_TYPE_F32;
    let mut ids = super::memory::blank_tensor();
    ids.type_ = sys::GGML_TYPE_I32;
    let mut product = super::memory::blank_tensor();
    product.type_ = sys::GGML_TYPE_F32;
    // The shapes that llama.cpp's own loader asks about.
    let tokens = 512;
    product.op = op;
    product.src[0] = tensor;
    product.src[1] = &raw mut input;
    if op == sys::GGML_OP_MUL_MAT {
        shape(&mut input, [width, tokens, tensor.ne[2], tensor.ne[3]], 4);
        shape(&mut product, [rows, tokens, tensor.ne[2], tensor.ne[3]], 4);
    } else {
        let used = experts.min(8);
        shape(&mut input, [width, used, tokens, 1], 4);
        shape(&mut ids, [used, tokens, 1, 1], 4);
        shape(&mut product, [rows, used, tokens, 1], 4);
        product.src[2] = &raw mut ids;
    }
    // SAFETY: the operation and its sources are whole tensors that live through the call; none has data,
    // which the question does not need.
    let serves = unsafe { sys::ggml_backend_dev_supports_op(device.raw(), &product) };
    tensor.buffer = ptr::null_mut();
    // SAFETY: made above and used no more.
    unsafe { sys::ggml_backend_buffer_free(empty) };
    serves
}

fn shape(tensor: &mut sys::ggml_tensor, shape: [i64; 4], element_bytes: usize) {
    let mut stride = element_bytes;
    for (dimension, length) in shape.into_iter().enumerate() {
        tensor.ne[dimension] = length;
        tensor.nb[dimension] = stride;
        stride *= length.max(1) as usize;
    }
}
