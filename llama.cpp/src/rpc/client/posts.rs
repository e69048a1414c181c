//! Reads whose answers the server takes by step, long after `llama_decode` has returned.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use super::device::Device;
use super::shared::{Lost, Shared};
use crate::llama::Target;
use crate::rpc::link::lock;
use crate::rpc::wire::ReadId;

/// A read that `llama_decode` asked for. llama.cpp thinks that its bytes will be at `into`.
#[derive(Debug)]
pub struct Post {
    reads: Vec<ReadId>,
    /// Where llama.cpp would look for them.
    into: *mut u8,
    size: usize,
    shared: Arc<Shared>,
}

// SAFETY: the pointer is only used by who has llama.cpp's context.
unsafe impl Send for Post {}

impl Post {
    /// Where llama.cpp expects them.
    pub fn target(&self) -> Target {
        Target {
            address: self.into,
            bytes: self.size,
        }
    }

    /// Whether waiting for the bytes would take no time.
    pub fn is_ready(&self) -> bool {
        self.shared.are_answered(&self.reads)
    }

    /// Waits for the bytes.
    ///
    /// # Errors
    /// Where a node is lost.
    pub fn wait(self) -> Result<Vec<u8>, Lost> {
        let mut bytes = Vec::with_capacity(self.size);
        for read in &self.reads {
            bytes.extend_from_slice(&self.shared.answer(*read)?);
        }
        Ok(bytes)
    }
}

impl Drop for Post {
    fn drop(&mut self) {
        self.reads.iter().for_each(|read| self.shared.forget(*read));
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Posts {
    shared: Arc<Shared>,
    wanted: AtomicBool,
    posted: Mutex<Vec<Post>>,
    devices: OnceLock<Vec<DeviceRef>>,
}

/// A device that lives as long as the split does.
#[derive(Debug, Clone, Copy)]
pub(super) struct DeviceRef(pub(super) *const Device);

// SAFETY: a device may be used by any thread.
unsafe impl Send for DeviceRef {}
// SAFETY: as above.
unsafe impl Sync for DeviceRef {}

impl Posts {
    pub(super) fn new(shared: Arc<Shared>) -> Arc<Self> {
        Arc::new(Self {
            shared,
            wanted: AtomicBool::new(false),
            posted: Mutex::default(),
            devices: OnceLock::new(),
        })
    }

    /// All devices of the split, which outlive all calls.
    pub(super) fn set_devices(&self, devices: Vec<DeviceRef>) {
        // Set once, by the split.
        let _ = self.devices.set(devices);
    }

    /// Sends what waits in every queue: what is awaited may depend on it.
    pub(super) fn flush_all(&self) {
        for device in self.devices.get().into_iter().flatten() {
            // SAFETY: `Split` owns the devices, and outlives the contexts that call this.
            unsafe { &*device.0 }.flush();
        }
    }

    pub(super) fn are_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, reads: Vec<ReadId>, into: *mut u8, size: usize) {
        lock(&self.posted).push(Post {
            reads,
            into,
            size,
            shared: self.shared.clone(),
        });
    }

    /// Reads are posted from now on.
    pub(super) fn begin(&self) {
        lock(&self.posted).clear();
        self.wanted.store(true, Ordering::Relaxed);
    }

    /// Reads are ordinary again; those that were posted.
    pub(super) fn end(&self) -> Vec<Post> {
        self.wanted.store(false, Ordering::Relaxed);
        std::mem::take(&mut *lock(&self.posted))
    }
}
