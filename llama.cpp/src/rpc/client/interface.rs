//! A remote device as a device of ggml, and its stream of work as a backend: the functions that
//! llama.cpp calls.

use std::ffi::{c_char, c_void};
use std::ptr;

use llama_cpp_sys_2 as sys;

use super::buffer::{self, own_buffer};
use super::device::Device;
use crate::ggml::interface as ggml;
use crate::llama::ffi::mesh_graph_uid;

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
    unsafe { buffer::buffer_set((*tensor).buffer, tensor, data, offset, size) };
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
        let place = own.place((*tensor).data).ahead(offset as u64);
        device.get(place, data.cast(), size);
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
        let nodes = || {
            let count = sys::ggml_graph_n_nodes(graph).max(0);
            (0..count)
                .map(|index| sys::ggml_graph_node(graph, index))
                .collect()
        };
        if device.compute(mesh_graph_uid(graph), nodes) {
            sys::GGML_STATUS_SUCCESS
        } else {
            sys::GGML_STATUS_FAILED
        }
    }
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
        device_of(device).note_use(&*op);
        let cpu = sys::ggml_backend_dev_by_type(sys::GGML_BACKEND_DEVICE_TYPE_CPU);
        sys::ggml_backend_dev_supports_op(cpu, op)
    }
}

unsafe extern "C" fn device_supports_buffer(
    device: sys::ggml_backend_dev_t,
    kind: sys::ggml_backend_buffer_type_t,
) -> bool {
    // SAFETY: ggml gives one of our devices.
    ptr::eq(kind, unsafe { device_buffer_type(device) })
}

pub(super) const DEVICE: ggml::ggml_backend_device_i = ggml::ggml_backend_device_i {
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

/// Tells our backends from others.
static GUID: [u8; 16] = *b"mesh-llm split\0\x01";

unsafe extern "C" fn registry_name(_: sys::ggml_backend_reg_t) -> *const c_char {
    c"split".as_ptr()
}

unsafe extern "C" fn registry_count(_: sys::ggml_backend_reg_t) -> usize {
    0
}

/// The registry's entry, which devices must have and nobody lists.
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

pub(super) fn registry() -> sys::ggml_backend_reg_t {
    (&raw const REGISTRY.0).cast_mut().cast()
}
