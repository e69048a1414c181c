//! What llama.cpp computes without us: a loop over `llama_decode`, with the batches that a test says.

use std::path::Path;
use std::sync::Arc;

use llama_engine::llama::{
    Batch, ChatTemplates, Context, ContextParams, Decoded, Model, ModelParams, SequenceId, Token,
};
use llama_engine::server::engine::{Engine, EngineParams, PROMPT_ROWS};
use llama_engine::server::options::{CacheType, FlashAttention};

/// Tokens of a step, where nobody said otherwise.
pub const STEP: usize = 512;

/// The context that a daemon makes for this many slots on one thread.
pub fn context_params(context: u32, slots: u32) -> ContextParams {
    ContextParams {
        context,
        batch: STEP as u32,
        micro_batch: STEP as u32,
        sequences: slots,
        outputs: slots + PROMPT_ROWS,
        threads: 1,
        cache_type_k: CacheType::F16,
        cache_type_v: CacheType::F16,
        flash_attention: FlashAttention::Auto,
        embeddings: None,
    }
}

/// Loads a model.
pub fn load(path: &Path) -> Arc<Model> {
    let params = ModelParams {
        devices: Some(Vec::new()),
        gpu_layers: Some(0),
        tensor_split: Vec::new(),
    };
    Arc::new(Model::load(path, &params, |_| {}).unwrap())
}

/// An engine in this process, without a server around it.
pub fn engine(model: &Arc<Model>, params: ContextParams, queue: u32) -> Engine {
    let templates = ChatTemplates::new(model, None).unwrap();
    let params = EngineParams {
        name: "test".to_owned(),
        context: params,
        queue,
    };
    Engine::start(model.clone(), templates, params).unwrap()
}

/// A context without an engine.
pub struct Bare {
    context: Context,
    batch: Batch,
}

/// Tokens of one sequence in a step; the token after the last of them is chosen.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    /// The sequence.
    pub sequence: SequenceId,
    /// Where in it the first token stands.
    pub position: usize,
    /// The tokens.
    pub tokens: &'a [Token],
}

/// The likeliest token after a part.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choice {
    /// The token.
    pub token: Token,
    /// By how much its logit is above the next.
    pub margin: f32,
    /// The logarithm of its probability.
    pub logprob: f32,
}

impl Choice {
    fn of(logits: &[f32]) -> Self {
        let (mut best, mut second) = (0, f32::NEG_INFINITY);
        for (token, logit) in logits.iter().enumerate().skip(1) {
            if *logit > logits[best] {
                second = logits[best];
                best = token;
            } else {
                second = second.max(*logit);
            }
        }
        let sum: f64 = logits
            .iter()
            .map(|logit| f64::from(logit - logits[best]).exp())
            .sum();
        Self {
            token: best as Token,
            margin: logits[best] - second,
            logprob: -(sum.ln() as f32),
        }
    }
}

impl Bare {
    /// An empty context.
    pub fn new(model: &Arc<Model>, params: ContextParams) -> Self {
        Self {
            context: Context::new(model.clone(), params).unwrap(),
            batch: Batch::default(),
        }
    }

    /// One with what a daemon has in it when it is ready: the token that went round, in sequence 0.
    pub fn warmed_up(model: &Arc<Model>, params: ContextParams) -> Self {
        let mut bare = Self::new(model, params);
        let token = model.bos().or(model.eos()).unwrap_or(0);
        bare.step(&[Part {
            sequence: 0,
            position: 0,
            tokens: &[token],
        }]);
        bare
    }

    /// Computes one step.
    pub fn step(&mut self, parts: &[Part<'_>]) -> Vec<Choice> {
        self.batch.clear();
        let mut rows = Vec::new();
        for part in parts {
            for (offset, token) in part.tokens.iter().enumerate() {
                let last = offset + 1 == part.tokens.len();
                self.batch
                    .push(*token, (part.position + offset) as u32, part.sequence, last);
            }
            rows.push(self.batch.len() - 1);
        }
        assert_eq!(self.context.decode(&mut self.batch).unwrap(), Decoded::Done);
        rows.into_iter()
            .map(|row| Choice::of(self.context.logits(row).unwrap()))
            .collect()
    }

    /// Forgets what `sequence` has from `position` on.
    pub fn truncate(&mut self, sequence: SequenceId, position: usize) {
        assert!(self.context.truncate(sequence, position as u32));
    }

    /// Continues `prompt`, of which the context has the first `known` tokens, alone, up to `most`
    /// tokens or the end of the text.
    pub fn continue_alone(
        &mut self,
        sequence: SequenceId,
        prompt: &[Token],
        known: usize,
        most: usize,
    ) -> Vec<Choice> {
        let mut position = known;
        let mut last = None;
        for tokens in prompt[known..].chunks(STEP) {
            last = self
                .step(&[Part {
                    sequence,
                    position,
                    tokens,
                }])
                .pop();
            position += tokens.len();
        }
        let mut choices = Vec::new();
        while let Some(choice) = last.take() {
            if self.context.model().is_end(choice.token) {
                break;
            }
            choices.push(choice);
            if choices.len() < most {
                last = self
                    .step(&[Part {
                        sequence,
                        position,
                        tokens: &[choice.token],
                    }])
                    .pop();
                position += 1;
            }
        }
        choices
    }
}
