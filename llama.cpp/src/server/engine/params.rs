//! How an engine is made.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::saved::SlotFiles;
use crate::gguf::Value;
use crate::llama::{ContextParams, Model};
use crate::rpc::client::Split;
use crate::server::options::SpeculationMode;

/// What is known of a model's file.
#[derive(Debug, Clone, Default)]
pub struct ModelFile {
    /// When it was last changed.
    pub modified: Option<SystemTime>,
    /// Its metadata without lists, which can be as long as the vocabulary.
    pub metadata: Vec<(String, Value)>,
}

/// How an engine is made.
#[derive(Debug, Clone)]
pub struct EngineParams {
    /// The model's id at the API.
    pub name: String,
    /// Where the model comes from.
    pub file: ModelFile,
    /// The slots' context; its `sequences` are the slots.
    pub context: ContextParams,
    /// Requests that may wait for a slot.
    pub queue: u32,
    /// Where slots' caches are kept from one start to the next.
    pub saved: Option<SlotFiles>,
    /// Where the model's devices are, if it is split.
    pub split: Option<Arc<Split>>,
    /// How answers are guessed ahead.
    pub speculation: SpeculationParams,
    /// How much longer a step takes than it would, if the model is not split.
    pub step_delay: Duration,
}

/// A context for the model's heads, with a sequence for each slot.
#[derive(Debug, Clone)]
pub struct HeadsContext(pub(super) ContextParams);

impl HeadsContext {
    /// One with these parameters.
    ///
    /// # Safety
    /// The engine's model has heads, they are loaded, and llama.cpp has a graph for them: else it aborts the process.
    pub unsafe fn new(params: ContextParams) -> Self {
        Self(params)
    }
}

/// How answers are guessed ahead. The context has room for it: rows for the windows of all slots and,
/// where there is a recurrent state, earlier ones to go back to.
#[derive(Debug, Clone)]
pub struct SpeculationParams {
    /// A draft model whose vocabulary is the model's, and a context for it with a sequence for each slot.
    pub model: Option<(Arc<Model>, ContextParams)>,
    /// A context for heads of the model itself. It is of no use beside a draft model.
    pub heads: Option<HeadsContext>,
    /// Tokens of a window at most.
    pub most_window: u32,
    /// What the draft model must think of a guess at least.
    pub min_p: f32,
    /// What is used: [`SpeculationMode::Off`] also where the model, or memory, allows nothing.
    pub mode: SpeculationMode,
    /// Windows in flight; none: as many as pay.
    pub windows: Option<u32>,
}

impl SpeculationParams {
    /// Nothing is guessed.
    pub fn off() -> Self {
        Self {
            model: None,
            heads: None,
            most_window: 0,
            min_p: 0.0,
            mode: SpeculationMode::Off,
            windows: None,
        }
    }
}
