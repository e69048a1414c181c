//! How much memory a model and a context take, computed by llama.cpp without allocating it.

use std::path::Path;

use serde::Deserialize;

use super::{ContextParams, Error, ModelParams, ffi, log};

/// What a model and its context need.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct MemoryNeed {
    /// The devices that are used, in their order; the host's memory comes last.
    pub devices: Vec<DeviceNeed>,
}

/// The name of the host's memory among the devices.
pub const HOST: &str = "host";

/// What one device must hold, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct DeviceNeed {
    /// The device's name, or [`HOST`].
    pub name: String,
    /// Free now, as the device says.
    pub free: u64,
    /// Weights.
    pub model: u64,
    /// KV cache or recurrent state.
    pub context: u64,
    /// Buffers for computing.
    pub compute: u64,
}

impl DeviceNeed {
    /// All of it, in bytes.
    pub fn total(&self) -> u64 {
        self.model + self.context + self.compute
    }
}

/// What the model at `path` would need. It reads the file's header; nothing is allocated.
///
/// # Errors
/// [`Error::Load`] where llama.cpp cannot use the file or make such a context, with its last words.
pub fn memory_need(path: &Path, model: &ModelParams, context: &ContextParams) -> Result<MemoryNeed, Error> {
    super::initialize();
    let _alone = log::alone();
    let file = ffi::c_string(&path.to_string_lossy())?;
    log::take_last_error();
    let raw_context = context.raw();
    let (json, error) = model.with_raw(|raw| {
        // SAFETY: all pointers outlive the call, and none is kept.
        ffi::with_error(|error| unsafe { ffi::mesh_memory_need(file.as_ptr(), raw, &raw_context, error) })
    });
    let failed = |cause: String| Error::Load {
        path: path.display().to_string(),
        cause,
    };
    let json = ffi::take_string(json).ok_or_else(|| {
        failed(
            log::take_last_error()
                .or(error)
                .unwrap_or_else(|| "it gave no reason".into()),
        )
    })?;
    serde_json::from_str(&json).map_err(|error| failed(error.to_string()))
}
