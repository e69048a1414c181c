//! What llama.cpp computes without us: a loop over `llama_decode`, with the batches that a test says.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use llama_engine::llama::{
    Batch, ChatTemplates, Context, ContextParams, Decoded, Model, ModelParams, SequenceId, Token,
};
use llama_engine::server::engine::{Engine, EngineParams, ModelFile, PROMPT_ROWS, SpeculationParams};
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
        rollback: 0,
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
        ..ModelParams::default()
    };
    Arc::new(Model::load(path, &params, |_| {}).unwrap())
}

/// An engine in this process, without a server around it.
pub fn engine(model: &Arc<Model>, params: ContextParams, queue: u32) -> Engine {
    let templates = ChatTemplates::new(model, None).unwrap();
    let params = EngineParams {
        name: "test".to_owned(),
        file: ModelFile::default(),
        context: params,
        queue,
        saved: None,
        split: None,
        step_delay: Duration::ZERO,
        speculation: SpeculationParams::off(),
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

/// What the model says comes next: a logit for each token.
#[derive(Debug, Clone)]
pub struct Row(Vec<f32>);

impl Row {
    /// The likeliest token; the first of several.
    pub fn likeliest(&self) -> Token {
        let better = |best, (token, logit): (usize, &f32)| if *logit > self.0[best] { token } else { best };
        self.0.iter().enumerate().fold(0, better) as Token
    }

    /// The logarithm of a token's probability.
    pub fn logprob(&self, token: Token) -> f32 {
        let sum: f64 = self.0.iter().map(|logit| f64::from(*logit).exp()).sum();
        self.0[token as usize] - sum.ln() as f32
    }

    /// How far a token's logit is below that of the likeliest: 0 for the greedy choice.
    pub fn shortfall(&self, token: Token) -> f32 {
        self.0[self.likeliest() as usize] - self.0[token as usize]
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
    pub fn step(&mut self, parts: &[Part<'_>]) -> Vec<Row> {
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
            .map(|row| Row(self.context.logits(row).unwrap().to_vec()))
            .collect()
    }

    /// Forgets what `sequence` has from `position` on.
    pub fn truncate(&mut self, sequence: SequenceId, position: usize) {
        assert!(self.context.truncate(sequence, position as u32));
    }

    /// Computes `tokens` of a sequence, as a daemon does that has nothing else to do.
    fn extend(&mut self, sequence: SequenceId, position: usize, tokens: &[Token]) -> Row {
        let mut row = None;
        for (number, tokens) in tokens.chunks(STEP).enumerate() {
            row = self
                .step(&[Part {
                    sequence,
                    position: position + number * STEP,
                    tokens,
                }])
                .pop();
        }
        row.expect("at least one token")
    }

    /// The greedy continuation of `prompt`, of which the context has the first `known` tokens, alone,
    /// up to `most` tokens or the end of the text; each with the row that it was chosen from.
    pub fn greedy(
        &mut self,
        sequence: SequenceId,
        prompt: &[Token],
        known: usize,
        most: usize,
    ) -> Vec<(Token, Row)> {
        let mut row = self.extend(sequence, known, &prompt[known..]);
        let mut chosen = Vec::new();
        loop {
            let token = row.likeliest();
            if self.context.model().is_end(token) {
                return chosen;
            }
            chosen.push((token, row));
            if chosen.len() == most {
                return chosen;
            }
            row = self.extend(sequence, prompt.len() + chosen.len() - 1, &[token]);
        }
    }

    /// Of each token of `answer`, how far it is from what comes likeliest after `prompt` and the
    /// tokens before it: 0 where a greedy loop agrees.
    pub fn shortfalls(&mut self, prompt: &[Token], answer: &[Token]) -> Vec<f32> {
        self.truncate(0, 0);
        let mut row = self.extend(0, 0, prompt);
        let mut shortfalls = Vec::new();
        for (at, token) in answer.iter().enumerate() {
            shortfalls.push(row.shortfall(*token));
            row = self.extend(0, prompt.len() + at, &[*token]);
        }
        shortfalls
    }
}

/// Asserts that answers are greedy whose tokens have these shortfalls: what llama.cpp computes depends a little on what
/// else is in a batch, which may decide where two tokens are as good as equally likely, and nowhere else. That is chance,
/// and many answers say more than one does.
pub fn assert_greedy(shortfalls: &[f32]) {
    let others: Vec<_> = shortfalls.iter().filter(|shortfall| **shortfall > 0.0).collect();
    assert!(
        others.iter().all(|shortfall| **shortfall < 0.05),
        "tokens that nobody would choose: {others:?}"
    );
    assert!(
        others.len() <= 1 + shortfalls.len() / 100,
        "{} of {} differ: {others:?}",
        others.len(),
        shortfalls.len()
    );
}
