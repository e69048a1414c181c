//! How much memory a model and a context take, computed by llama.cpp without allocating it.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{ContextParams, Error, Model, ModelParams, ffi, log};

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

/// A model without its weights: what it is, its vocabulary, and what it would need.
#[derive(Debug)]
pub struct Outline {
    model: Model,
    path: PathBuf,
}

impl Outline {
    /// Reads the header of the GGUF file at `path`, its vocabulary above all.
    ///
    /// # Errors
    /// [`Error::Load`] where llama.cpp cannot use the file, with its last words.
    pub fn load(path: &Path, params: &ModelParams) -> Result<Self, Error> {
        Ok(Self {
            model: Model::load_outline(path, params)?,
            path: path.to_owned(),
        })
    }

    /// The model. No context can be made of it.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// What it would need with such a context. Nothing is allocated.
    ///
    /// # Errors
    /// [`Error::Load`] where llama.cpp cannot make such a context, with its last words.
    pub fn need(&self, context: &ContextParams) -> Result<MemoryNeed, Error> {
        log::take_last_error();
        // SAFETY: the model lives during the call, and nothing is kept of it.
        let (json, error) = ffi::with_error(|error| unsafe {
            ffi::mesh_memory_need(self.model.as_ptr(), context.raw(), error)
        });
        let failed = |cause: String| Error::Load {
            path: self.path.display().to_string(),
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
}
