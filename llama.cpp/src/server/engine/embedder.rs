//! Texts to vectors.
//!
//! A context of its own, made when the first embedding is asked for: it needs neither the slots'
//! cache nor their logits, and models that only make embeddings have no slots at all.

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::task::Failure;
use crate::llama::{Batch, Context, ContextParams, Decoded, Model, Pooling, Token};

/// The only sequence of the context.
const SEQUENCE: i32 = 0;

/// llama.cpp's numbers of ways to make one vector of many: mean, first, last, rank.
const POOLINGS: RangeInclusive<i32> = 1..=4;

/// Turns one text at a time into a vector.
#[derive(Debug)]
pub struct Embedder {
    context: Context,
    batch: Batch,
    ranks: bool,
}

/// The parameters of an embedding context for texts of up to `limit` tokens.
///
/// A text is pooled as the model's file says, and where that says nothing, as in models made to
/// chat, by the mean of its tokens.
pub fn context_params(model: &Model, base: &ContextParams, limit: u32) -> ContextParams {
    // llama.cpp aborts on kinds that it does not know, and for 0 it makes no vector of a text.
    let pooling = if model.pooling().is_some_and(|kind| POOLINGS.contains(&kind)) {
        Pooling::OfModel
    } else {
        Pooling::Mean
    };
    ContextParams {
        context: limit,
        batch: limit,
        // Pooling, and attention that sees the whole text, want it in one micro-batch.
        micro_batch: limit,
        sequences: 1,
        outputs: limit,
        rollback: 0,
        embeddings: Some(pooling),
        ..base.clone()
    }
}

impl Embedder {
    /// An embedder with parameters from [`context_params`].
    ///
    /// # Errors
    /// [`Failure::Engine`] where the context cannot be made.
    pub fn new(model: Arc<Model>, params: ContextParams) -> Result<Self, Failure> {
        let ranks = model.ranks();
        let context = Context::new(model, params).map_err(|error| Failure::Engine(error.to_string()))?;
        Ok(Self {
            context,
            batch: Batch::default(),
            ranks,
        })
    }

    /// The vector of a text, of length 1, or what a model that ranks texts says of it.
    ///
    /// # Errors
    /// [`Failure::Engine`] where llama.cpp fails.
    pub fn embed(&mut self, tokens: &[Token]) -> Result<Vec<f32>, Failure> {
        let failed = |cause: &str| Failure::Engine(cause.to_owned());
        self.context.truncate(SEQUENCE, 0);
        self.batch.clear();
        for (position, token) in (0..).zip(tokens) {
            self.batch.push(*token, position, SEQUENCE, true);
        }
        match self.context.decode(&mut self.batch) {
            Ok(Decoded::Done) => {}
            Ok(Decoded::NoRoom) => return Err(failed("the text is longer than the embedding context")),
            Err(error) => return Err(failed(&error.to_string())),
        }
        let vector = self
            .context
            .pooled_embedding(SEQUENCE)
            .ok_or_else(|| failed("the model made no embedding"))?;
        Ok(if self.ranks {
            vector.to_vec()
        } else {
            normalised(vector)
        })
    }
}

fn normalised(vector: &[f32]) -> Vec<f32> {
    let length = vector
        .iter()
        .map(|value| f64::from(*value).powi(2))
        .sum::<f64>()
        .sqrt();
    let scale = if length > 0.0 { 1.0 / length } else { 0.0 };
    vector
        .iter()
        .map(|value| (f64::from(*value) * scale) as f32)
        .collect()
}
