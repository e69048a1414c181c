//! Memory of a remote device as a buffer of ggml: the functions that llama.cpp calls.

use std::ffi::{c_char, c_void};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use llama_cpp_sys_2 as sys;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use super::device::Device;
use crate::ggml::interface as ggml;
use crate::rpc::graph::{BufferId, Place};
use crate::rpc::wire::Command;

/// Where tensors begin in a buffer, in bytes: what CPUs want, and GPUs too.
const ALIGNMENT: usize = 128;

/// What a buffer of ours carries.
pub(super) struct Buffer {
    pub(super) id: BufferId,
    pub(super) device: *const Device,
    /// Addresses that nothing can be read from, so that none of ours is an address of something else.
    base: *mut c_void,
    size: usize,
    /// The worker knows of it. Only then does it take memory, and it is zeroed at first.
    announced: AtomicBool,
}

impl Buffer {
    /// Tells the worker of the buffer, before it is used for the first time: what it is for is not known
    /// when llama.cpp allocates it.
    pub(super) fn announce(&self, weight: bool) {
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

    pub(super) fn place(&self, data: *mut c_void) -> Place {
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
pub(super) unsafe fn own_buffer<'a>(buffer: *mut sys::ggml_backend_buffer) -> Option<(&'a Buffer, bool)> {
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

unsafe extern "C" fn buffer_free(buffer: sys::ggml_backend_buffer_t) {
    // SAFETY: `context` was made by `type_allocate` with `Box::into_raw`, and ggml frees a buffer once.
    let own = unsafe { Box::from_raw(std::ptr::from_ref(buffer_of(buffer).0).cast_mut()) };
    let device = own.device();
    if own.announced.load(Ordering::Relaxed) {
        device.free(own.id);
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
    let place = own.place(data).ahead(offset as u64);
    let bytes = size as u64;
    own.device().append(Command::Fill { place, bytes, value }, &[]);
}

pub(super) unsafe extern "C" fn buffer_set(
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
        let place = own.place(tensor.data).ahead(offset as u64);
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
    let place = own.place(from).ahead(offset as u64);
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
    let Some(id) = device.next_buffer() else {
        return ptr::null_mut();
    };
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
        Ok(base) => base,
        Err(_) => return ptr::null_mut(),
    };
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

pub(super) const BUFFER_TYPE: ggml::ggml_backend_buffer_type_i = ggml::ggml_backend_buffer_type_i {
    get_name: Some(type_name),
    alloc_buffer: Some(type_allocate),
    alloc_buffer_n: None,
    get_alignment: Some(type_alignment),
    get_max_size: None,
    get_alloc_size: None,
    get_alloc_size_n: None,
    is_host: Some(type_is_host),
};
