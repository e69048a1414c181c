//! How much memory a model and a context take, computed by llama.cpp without allocating it.

use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;

use super::{Context, ContextParams, Error, Graph, Model, ModelParams, Threads, ffi, log};

/// What a model and its context need.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct MemoryNeed {
    /// The devices that are used, in their order; the host's memory comes last.
    pub devices: Vec<DeviceNeed>,
}

impl MemoryNeed {
    /// Bytes of caches and buffers, on all devices.
    pub fn without_model(&self) -> u64 {
        self.devices.iter().map(DeviceNeed::without_model).sum()
    }
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
    /// Cache and buffers, in bytes.
    pub fn without_model(&self) -> u64 {
        self.context + self.compute
    }

    /// All of it, in bytes.
    pub fn total(&self) -> u64 {
        self.model + self.context + self.compute
    }
}

/// A model without its weights: what it is, its vocabulary, and what it would need.
#[derive(Debug)]
pub struct Outline(Arc<Model>);

impl Outline {
    /// Reads the header of the GGUF file at `path`, its vocabulary above all.
    ///
    /// # Errors
    /// [`Error::Load`] where llama.cpp cannot use the file, with its last words.
    pub fn load(path: &Path, params: &ModelParams) -> Result<Self, Error> {
        let model = log::on_trial(|| Model::load_outline(path, params))?;
        Ok(Self(Arc::new(model)))
    }

    /// The model. No context of it can compute.
    pub fn model(&self) -> &Model {
        &self.0
    }

    /// What it would need with such a context. Nothing is allocated.
    ///
    /// # Errors
    /// [`Error::Context`] where llama.cpp cannot make such a context, with its last words.
    pub fn need(&self, context: &ContextParams, graph: Graph) -> Result<MemoryNeed, Error> {
        self.open(context, graph, None)?.memory_taken()
    }

    /// What it would need with such a context if it guessed for `target` (EAGLE-3), from which it may take matrices.
    ///
    /// # Errors
    /// As [`Self::need`].
    pub fn need_beside(&self, context: &ContextParams, target: &Self) -> Result<MemoryNeed, Error> {
        let target = target.open(context, Graph::Model, None)?;
        self.open(context, Graph::Eagle, Some(&target))?.memory_taken()
    }

    fn open(&self, context: &ContextParams, graph: Graph, other: Option<&Context>) -> Result<Context, Error> {
        let threads = Arc::new(Threads::new(context.threads)?);
        log::on_trial(|| Context::open(self.0.clone(), context.clone(), graph, threads, other))
    }
}

impl Context {
    /// What it and its model take.
    ///
    /// # Errors
    /// [`Error::Context`] where llama.cpp cannot say.
    pub fn memory_taken(&self) -> Result<MemoryNeed, Error> {
        // SAFETY: the context is live, and nothing is kept of it.
        let (json, error) = ffi::with_error(|error| unsafe { ffi::mesh_memory(self.as_ptr(), error) });
        let unknown = |cause| Error::Context(format!("the memory it takes is unknown: {cause}"));
        let json = ffi::take_string(json).ok_or_else(|| unknown(error.unwrap_or_default()))?;
        serde_json::from_str(&json).map_err(|error| unknown(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::random::Architecture;
    use crate::rpc::tests::lab;
    use crate::server::options::CacheType;

    #[test]
    fn what_is_reckoned_before_loading_is_what_is_taken() {
        let params = ModelParams {
            devices: Some(Vec::new()),
            gpu_layers: Some(0),
            ..ModelParams::default()
        };
        for architecture in Architecture::ALL {
            let sample = lab::Sample::new(architecture);
            let outline = Outline::load(&sample.path, &params).unwrap();
            if !outline.model().makes_text() {
                continue;
            }
            let model = Arc::new(Model::load(&sample.path, &params, |_| {}).unwrap());
            for cache in [CacheType::F16, CacheType::Q8_0] {
                let context = lab::context_params(cache);
                let reckoned = outline.need(&context, Graph::Model).unwrap();
                let taken = Context::new(model.clone(), context)
                    .unwrap()
                    .memory_taken()
                    .unwrap();
                let totals =
                    |need: &MemoryNeed| need.devices.iter().map(DeviceNeed::total).collect::<Vec<_>>();
                assert_eq!(totals(&reckoned), totals(&taken), "{architecture:?}, {cache:?}");
                assert!(
                    totals(&taken)[0] > model.size_bytes(),
                    "{architecture:?}: {taken:?}"
                );
            }
        }
    }
}
