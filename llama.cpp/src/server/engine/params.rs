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

/// Heads that guess from the model's hidden states, and a context for them with a sequence for each slot.
#[derive(Debug, Clone)]
pub struct HeadsContext {
    pub(super) heads: HeadsOf,
    pub(super) context: ContextParams,
}

/// Where heads are.
#[derive(Debug, Clone)]
pub(super) enum HeadsOf {
    /// In the model.
    Model,
    /// In a file of their own (EAGLE-3): they take the hidden states before these layers of the model.
    Eagle { eagle: Arc<Model>, layers: Vec<u32> },
}

impl HeadsContext {
    /// Those of the model itself.
    ///
    /// # Safety
    /// The engine's model has heads, they are loaded, and llama.cpp has a graph for them: else it aborts the process.
    pub unsafe fn of_model(context: ContextParams) -> Self {
        Self {
            heads: HeadsOf::Model,
            context,
        }
    }

    /// Those of an EAGLE-3 file, which take the hidden states before these layers of the model. Each token of a batch
    /// may have a row of logits.
    ///
    /// # Safety
    /// The engine's model has these layers, llama.cpp's graph of it says what they are given, and `eagle` is made for
    /// that, and for tokens of this model: else llama.cpp aborts the process.
    pub unsafe fn of_eagle(eagle: Arc<Model>, layers: Vec<u32>, context: ContextParams) -> Self {
        Self {
            heads: HeadsOf::Eagle { eagle, layers },
            context,
        }
    }
}

/// How answers are guessed ahead. The context has room for it: rows for the windows of all slots and,
/// where there is a recurrent state, earlier ones to go back to.
#[derive(Debug, Clone)]
pub struct SpeculationParams {
    /// A draft model whose vocabulary is the model's, and a context for it with a sequence for each slot.
    pub model: Option<(Arc<Model>, ContextParams)>,
    /// Heads of the model itself, or made for it. They are of no use beside a draft model.
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
    /// Bytes of the weights of what guesses, beside the model's.
    pub fn guesser_bytes(&self) -> u64 {
        let eagle = self.heads.as_ref().and_then(|heads| match &heads.heads {
            HeadsOf::Eagle { eagle, .. } => Some(eagle),
            HeadsOf::Model => None,
        });
        let draft = self.model.as_ref().map(|(draft, _)| draft);
        draft.or(eagle).map_or(0, |model| model.size_bytes())
    }

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
