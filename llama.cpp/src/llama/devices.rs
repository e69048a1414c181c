//! The devices that this build of llama.cpp can compute on.

use std::any::Any;
use std::ffi::CStr;
use std::fmt;
use std::sync::Arc;

use llama_cpp_sys_2 as sys;

/// A device that ggml knows.
#[derive(Debug, Clone)]
pub struct Device {
    /// ggml's name, `CUDA0` for example: what `--device` takes.
    pub name: String,
    /// What the vendor calls it.
    pub description: String,
    /// What it is.
    pub kind: DeviceKind,
    /// Bytes that are free, as its driver says.
    pub free: u64,
    /// Bytes in all.
    pub total: u64,
    pub(super) handle: Handle,
    owner: Owner,
}

/// What must live as long as a device is used; nothing where ggml owns it.
#[derive(Clone)]
struct Owner(Option<Arc<dyn Any + Send + Sync>>);

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Owner").field(&self.0.is_some()).finish()
    }
}

impl PartialEq for Device {
    fn eq(&self, other: &Self) -> bool {
        self.handle == other.handle
    }
}

impl Eq for Device {}

impl Device {
    /// A device of a split, which `owner` keeps.
    pub(crate) fn of_split(
        name: String,
        bytes: u64,
        handle: sys::ggml_backend_dev_t,
        owner: Arc<dyn Any + Send + Sync>,
    ) -> Self {
        Self {
            description: name.clone(),
            name,
            kind: DeviceKind::Gpu,
            free: bytes,
            total: bytes,
            handle: Handle(handle),
            owner: Owner(Some(owner)),
        }
    }

    /// ggml's pointer.
    pub(crate) fn raw(&self) -> sys::ggml_backend_dev_t {
        self.handle.0
    }

    /// Whether it is a device of a split: what is on it is not read here.
    pub fn is_of_split(&self) -> bool {
        self.owner.0.is_some()
    }
}

/// What a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// The host's processor.
    Cpu,
    /// A GPU, with memory of its own or shared.
    Gpu,
    /// Something that helps the CPU on its memory, such as a BLAS library.
    Accelerator,
}

/// ggml's registry owns its devices for as long as the program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Handle(pub(super) sys::ggml_backend_dev_t);

// SAFETY: a device is an entry of ggml's static registry, which any thread may read.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

/// All devices, in ggml's order. [`super::initialize`] comes first.
pub fn devices() -> Vec<Device> {
    // SAFETY: reads the static registry.
    let count = unsafe { sys::ggml_backend_dev_count() };
    (0..count)
        // SAFETY: the index is below the count.
        .map(|index| describe(unsafe { sys::ggml_backend_dev_get(index) }))
        .collect()
}

fn describe(device: sys::ggml_backend_dev_t) -> Device {
    let (mut free, mut total) = (0, 0);
    // SAFETY: `device` comes from the registry; names and descriptions are C strings that it owns.
    unsafe {
        sys::ggml_backend_dev_memory(device, &mut free, &mut total);
        Device {
            name: CStr::from_ptr(sys::ggml_backend_dev_name(device))
                .to_string_lossy()
                .into_owned(),
            description: CStr::from_ptr(sys::ggml_backend_dev_description(device))
                .to_string_lossy()
                .into_owned(),
            kind: match sys::ggml_backend_dev_type(device) {
                sys::GGML_BACKEND_DEVICE_TYPE_GPU | sys::GGML_BACKEND_DEVICE_TYPE_IGPU => DeviceKind::Gpu,
                sys::GGML_BACKEND_DEVICE_TYPE_CPU => DeviceKind::Cpu,
                _ => DeviceKind::Accelerator,
            },
            free: free as u64,
            total: total as u64,
            handle: Handle(device),
            owner: Owner(None),
        }
    }
}
