//! A device of this machine, and what of it hosts may take.

use std::ffi::{CStr, c_void};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use llama_cpp_sys_2 as sys;

use super::Fault;
use super::account;
use super::gpu;
use super::turn::Turn;
use crate::llama::{self, DeviceKind, Threads};
use crate::rpc::bandwidth;
use crate::rpc::link::lock;
use crate::rpc::wire::DeviceOffer;
use crate::server::{free_host_memory, free_of_gpus};

/// A device that computes for hosts.
#[derive(Debug)]
pub struct Device {
    handle: llama::Device,
    threads: u32,
    /// None for a GPU.
    pool: Option<Threads>,
    total: u64,
    /// Bytes a second, once measured.
    bandwidth: OnceLock<u64>,
    pub(super) free: Mutex<u64>,
    /// How much longer its layers take for a step than they would.
    pub(super) step_delay: Duration,
    /// Operations that it has computed, where it says so in the middle of a graph.
    computed: Arc<AtomicU64>,
    /// Whose turn it is.
    pub turn: Turn,
}

/// Bytes that are offered at most; none: what is free.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Most {
    /// Of the machine's own memory, the process included.
    pub memory: Option<u64>,
    /// Of all GPUs together.
    pub vram: Option<u64>,
    /// Of everything together, the process included.
    pub together: Option<u64>,
}

/// The devices of this machine by ggml's names, or the best kind that there is where none are named:
/// all GPUs, else the CPU. Together they offer at most `most`, the first ones first. Each takes
/// `step_delay` longer for a step than it would.
///
/// # Errors
/// A name that is not there, or threads that do not start.
pub fn open_devices(
    names: &[String],
    threads: u32,
    most: Most,
    step_delay: Duration,
) -> Result<Vec<Arc<Device>>, llama::Error> {
    llama::initialize();
    let mut chosen = if names.is_empty() {
        of_machine(&[])?
    } else {
        llama::named_devices(names)?
    };
    if names.is_empty() && chosen.iter().any(is_gpu) {
        chosen.retain(is_gpu);
    }
    let beside_process =
        |most: Option<u64>| most.map_or(u64::MAX, |most| most.saturating_sub(account::PROCESS));
    let (of_host, mut together) = (beside_process(most.memory), beside_process(most.together));
    if of_host.min(together) == 0 {
        let process_gb = account::PROCESS as f64 / 1e9;
        tracing::warn!(
            process_gb,
            "--max-memory leaves nothing to lend: the program itself takes some"
        );
    }
    let gpus: Vec<llama::Device> = chosen.iter().filter(|device| is_gpu(device)).cloned().collect();
    // ggml takes all memory of the machine for free.
    let mut of_host = of_host.min(free_host_memory());
    let mut of_gpus = free_of_gpus(&gpus, most.vram, of_host).into_iter();
    let mut devices = Vec::new();
    for device in chosen {
        let free = match device.kind {
            DeviceKind::Gpu if device.shares_memory => of_gpus.next().unwrap_or(0).min(of_host),
            DeviceKind::Gpu => of_gpus.next().unwrap_or(0),
            _ => device.free.min(of_host),
        };
        let offered = free.min(together);
        together -= offered;
        if !is_gpu(&device) || device.shares_memory {
            of_host = of_host.saturating_sub(offered);
        }
        let device = Device::new(device, threads, offered)?.delayed(step_delay);
        device.measure();
        devices.push(Arc::new(device));
    }
    Ok(devices)
}

fn is_gpu(device: &llama::Device) -> bool {
    device.kind == DeviceKind::Gpu
}

/// The GPUs with these names, or all that are of use where none are named, and the processor.
///
/// # Errors
/// A name that is not there.
pub(super) fn of_machine(names: &[String]) -> Result<Vec<llama::Device>, llama::Error> {
    let mut devices = llama::gpus(names)?;
    let all = llama::devices().into_iter();
    devices.extend(all.filter(|device| device.kind == DeviceKind::Cpu).take(1));
    Ok(devices)
}

/// Bytes a second that a device reads; on a processor, so many threads do. `None` where that cannot be measured.
pub(super) fn bandwidth_of(device: &llama::Device, threads: u32) -> Option<u64> {
    match device.kind {
        DeviceKind::Gpu => gpu::bandwidth(device),
        DeviceKind::Cpu | DeviceKind::Accelerator => Some(bandwidth::measure(threads)),
    }
}

impl Device {
    /// A device that offers so many bytes.
    ///
    /// # Errors
    /// Where its threads do not start.
    pub fn new(handle: llama::Device, threads: u32, offered: u64) -> Result<Self, llama::Error> {
        let cpu = handle.kind == DeviceKind::Cpu;
        let pool = if cpu { Some(Threads::new(threads)?) } else { None };
        Ok(Self {
            pool,
            threads,
            total: offered,
            bandwidth: OnceLock::new(),
            free: Mutex::new(offered),
            handle,
            step_delay: Duration::ZERO,
            computed: Arc::default(),
            turn: Turn::default(),
        })
    }

    /// Its layers take so much longer for a step.
    #[must_use]
    pub fn delayed(self, step_delay: Duration) -> Self {
        Self { step_delay, ..self }
    }

    /// Measures its bandwidth, which takes a tenth of a second: for those who plan by it.
    pub fn measure(&self) {
        self.bandwidth
            .get_or_init(|| bandwidth_of(&self.handle, self.threads).unwrap_or(0));
    }

    /// What hosts are told: what a session may reserve.
    pub fn offer(&self) -> DeviceOffer {
        DeviceOffer {
            name: self.handle.name.clone(),
            description: self.handle.description.clone(),
            free: account::most_to_reserve(*lock(&self.free)),
            total: account::most_to_reserve(self.total),
            bandwidth: self.bandwidth.get().copied().unwrap_or(0),
        }
    }

    /// ggml's name.
    pub fn name(&self) -> &str {
        &self.handle.name
    }

    pub(super) fn raw(&self) -> sys::ggml_backend_dev_t {
        self.handle.raw()
    }

    /// Another number than before where an operation was computed meanwhile. A GPU's stays the same.
    pub(in crate::rpc) fn computed(&self) -> u64 {
        self.computed.load(Ordering::Relaxed)
    }

    /// An operation was computed, as tests say.
    #[cfg(test)]
    pub(in crate::rpc) fn note_computed(&self) {
        self.computed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn is_cpu(&self) -> bool {
        self.handle.kind == DeviceKind::Cpu
    }

    /// Sets so many bytes aside.
    pub(super) fn reserve(self: &Arc<Self>, bytes: u64) -> Result<Arc<Reservation>, Fault> {
        self.take(bytes)?;
        Ok(Arc::new(Reservation {
            device: self.clone(),
            bytes,
            left: Mutex::new(bytes),
        }))
    }

    pub(super) fn take(&self, bytes: u64) -> Result<(), Fault> {
        let mut free = lock(&self.free);
        *free = free.checked_sub(bytes).ok_or_else(|| Fault::Device {
            device: self.name().to_owned(),
            what: format!(
                "has {:.2} GB left of what it offers, and {:.2} GB are asked for",
                *free as f64 / 1e9,
                bytes as f64 / 1e9
            ),
        })?;
        Ok(())
    }

    pub(super) fn give_back(&self, bytes: u64) {
        *lock(&self.free) += bytes;
    }

    /// A stream of work on it, given up in the middle of a graph where `stop` is set and it can be. Only
    /// who has the turn may use it.
    pub(super) fn backend(&self, stop: &Arc<AtomicBool>) -> Result<Backend, Fault> {
        // SAFETY: the device is an entry of ggml's registry.
        let backend = unsafe { sys::ggml_backend_dev_init(self.raw(), std::ptr::null()) };
        let backend = NonNull::new(backend).ok_or_else(|| Fault::Device {
            device: self.name().to_owned(),
            what: "cannot be opened".into(),
        })?;
        let watched = Box::new(Watched {
            stop: stop.clone(),
            computed: self.computed.clone(),
        });
        if let Some(pool) = &self.pool {
            // SAFETY: the backend is the CPU's; the pool lives as long as the device, which every
            // queue holds, and `watched` as long as the backend.
            unsafe {
                let watched = (&raw const *watched).cast_mut().cast();
                sys::ggml_backend_cpu_set_abort_callback(backend.as_ptr(), Some(is_to_stop), watched);
                sys::ggml_backend_cpu_set_n_threads(backend.as_ptr(), self.threads as i32);
                sys::ggml_backend_cpu_set_threadpool(backend.as_ptr(), pool.as_ptr());
            }
        }
        Ok(Backend {
            raw: backend,
            _watched: watched,
        })
    }

    /// Kinds of memory that a weight can be in, the best first: layouts of the CPU's own, for some.
    pub(super) fn buffer_types(&self) -> Vec<BufferType> {
        let mut types = Vec::new();
        if self.is_cpu() {
            // SAFETY: the registry's device has a registry entry; the function pointer, where there is
            // one, has the type that ggml declares for this name, and returns a list that ends with null.
            unsafe {
                let registry = sys::ggml_backend_dev_backend_reg(self.raw());
                let name = c"ggml_backend_dev_get_extra_bufts";
                let function = sys::ggml_backend_reg_get_proc_address(registry, name.as_ptr());
                if !function.is_null() {
                    let function: unsafe extern "C" fn(
                        sys::ggml_backend_dev_t,
                    )
                        -> *mut sys::ggml_backend_buffer_type_t = std::mem::transmute(function);
                    let mut list = function(self.raw());
                    while !list.is_null() && !(*list).is_null() {
                        types.push(BufferType {
                            handle: *list,
                            plain: false,
                        });
                        list = list.add(1);
                    }
                }
            }
        }
        // SAFETY: the device is an entry of ggml's registry.
        let plain = unsafe { sys::ggml_backend_dev_buffer_type(self.raw()) };
        types.push(BufferType {
            handle: plain,
            plain: true,
        });
        types
    }
}

/// Bytes of a device that a session may take.
#[derive(Debug)]
pub(super) struct Reservation {
    device: Arc<Device>,
    bytes: u64,
    left: Mutex<u64>,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.device.give_back(self.bytes);
    }
}

/// A part of a reservation that is in use.
#[derive(Debug)]
pub(super) struct Grant {
    of: Arc<Reservation>,
    bytes: u64,
}

impl Grant {
    pub(super) fn take(of: &Arc<Reservation>, bytes: u64) -> Result<Self, Fault> {
        let mut left = lock(&of.left);
        if bytes > *left {
            return Err(Fault::Memory {
                needed: bytes,
                left: *left,
            });
        }
        *left -= bytes;
        Ok(Self {
            of: of.clone(),
            bytes,
        })
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        *lock(&self.of.left) += self.bytes;
    }
}

/// A kind of memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct BufferType {
    pub(super) handle: sys::ggml_backend_buffer_type_t,
    /// ggml's own layout.
    pub(super) plain: bool,
}

/// A stream of work.
#[derive(Debug)]
pub(super) struct Backend {
    raw: NonNull<sys::ggml_backend>,
    _watched: Box<Watched>,
}

/// What ggml looks at after each operation of a graph.
#[derive(Debug)]
struct Watched {
    stop: Arc<AtomicBool>,
    computed: Arc<AtomicU64>,
}

unsafe extern "C" fn is_to_stop(watched: *mut c_void) -> bool {
    // SAFETY: ggml gives what it was given with this function, which lives as long as the backend.
    let watched = unsafe { &*watched.cast_const().cast::<Watched>() };
    watched.computed.fetch_add(1, Ordering::Relaxed);
    watched.stop.load(Ordering::Acquire)
}

// SAFETY: a backend has no ties to the thread that made it.
unsafe impl Send for Backend {}

impl Backend {
    pub(super) fn as_ptr(&self) -> sys::ggml_backend_t {
        self.raw.as_ptr()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        // SAFETY: made by `ggml_backend_dev_init` and freed only here.
        unsafe { sys::ggml_backend_free(self.raw.as_ptr()) };
    }
}

/// What ggml calls a status.
pub(super) fn status_text(status: sys::ggml_status) -> String {
    // SAFETY: returns a constant for every number.
    unsafe { CStr::from_ptr(sys::ggml_status_to_string(status)) }
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_device_is_offered_once() {
        let named = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            super::open_devices(&names, 1, super::Most::default(), std::time::Duration::ZERO)
        };
        assert_eq!(named(&["CPU"]).unwrap().len(), 1);
        let error = named(&["CPU", "cpu"]).unwrap_err().to_string();
        assert!(error.contains("CPU is named twice"), "{error}");
    }
}
