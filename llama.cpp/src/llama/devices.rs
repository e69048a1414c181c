//! The devices that this build of llama.cpp can compute on.

use std::any::Any;
use std::ffi::CStr;
use std::fmt;
use std::sync::Arc;

use llama_cpp_sys_2 as sys;

use super::Error;

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
    /// Whether its memory is the host's, too.
    pub shares_memory: bool,
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
            shares_memory: false,
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

/// What ggml calls Apple's GPUs, before their numbers.
const METAL: &str = "MTL";

/// All devices, in ggml's order. [`super::initialize`] comes first.
pub fn devices() -> Vec<Device> {
    // SAFETY: reads the static registry.
    let count = unsafe { sys::ggml_backend_dev_count() };
    (0..count)
        // SAFETY: the index is below the count.
        .map(|index| describe(unsafe { sys::ggml_backend_dev_get(index) }))
        .collect()
}

/// The GPUs with these names, or all that are of use where none are named: where one has memory of its own, one that shares
/// the processor's would only be slow. [`super::initialize`] comes first.
///
/// # Errors
/// A name that is not there, or that comes twice.
pub fn gpus(names: &[String]) -> Result<Vec<Device>, Error> {
    let mut gpus = if names.is_empty() {
        devices()
    } else {
        named_devices(names)?
    };
    gpus.retain(|device| device.kind == DeviceKind::Gpu);
    if names.is_empty() && gpus.iter().any(|gpu| !gpu.shares_memory) {
        gpus.retain(|gpu| !gpu.shares_memory);
    }
    Ok(gpus)
}

/// The devices with these names, in this order. [`super::initialize`] comes first.
///
/// # Errors
/// A name that is not there, or that comes twice.
pub fn named_devices(names: &[String]) -> Result<Vec<Device>, Error> {
    let all = devices();
    let mut chosen: Vec<Device> = Vec::new();
    for name in names {
        let found = all.iter().find(|device| device.name.eq_ignore_ascii_case(name));
        let device = found.ok_or_else(|| {
            let known: Vec<&str> = all.iter().map(|device| device.name.as_str()).collect();
            Error::Rejected(format!(
                "there is no device {name}; this build finds {}",
                known.join(", ")
            ))
        })?;
        if chosen.contains(device) {
            return Err(Error::Rejected(format!(
                "device {} is named twice; name each once",
                device.name
            )));
        }
        chosen.push(device.clone());
    }
    Ok(chosen)
}

fn describe(device: sys::ggml_backend_dev_t) -> Device {
    let (mut free, mut total) = (0, 0);
    // SAFETY: `device` comes from the registry; names and descriptions are C strings that it owns.
    unsafe {
        sys::ggml_backend_dev_memory(device, &mut free, &mut total);
        let kind = sys::ggml_backend_dev_type(device);
        let name = CStr::from_ptr(sys::ggml_backend_dev_name(device))
            .to_string_lossy()
            .into_owned();
        Device {
            description: CStr::from_ptr(sys::ggml_backend_dev_description(device))
                .to_string_lossy()
                .into_owned(),
            // Apple's are built into the processor, whatever ggml calls them.
            shares_memory: kind != sys::GGML_BACKEND_DEVICE_TYPE_GPU || name.starts_with(METAL),
            name,
            kind: match kind {
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
