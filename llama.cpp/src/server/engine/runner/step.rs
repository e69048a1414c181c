//! A step on its way, and whose tokens are in it.

use std::ops::Range;

use crate::llama::Token;
use crate::server::engine::slot::SlotId;

/// The part of a step that belongs to a slot.
#[derive(Debug)]
pub struct Part {
    /// The slot.
    pub slot: SlotId,
    /// The slot's, when the step was made.
    pub epoch: u64,
    /// Where its first token is in the slot's sequence.
    pub position: usize,
    /// Its tokens.
    pub tokens: usize,
    /// Where the first of them is in the batch.
    pub row: usize,
    /// How many of them are guesses.
    pub guesses: usize,
    /// Rows from which the answer's next tokens are chosen, one after the other.
    pub rows: Range<usize>,
    /// Rows that say how likely a token of the prompt was, with that token.
    pub prompt: Vec<(usize, Token)>,
    /// A guess before it was wrong: what is computed for it is worth nothing.
    pub void: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Step {
    /// By slot.
    pub parts: Vec<Part>,
    /// Tokens of answers, guesses among them.
    pub answers: usize,
    /// Tokens of prompts.
    pub prefill: usize,
}

impl Step {
    /// Whether it has something of a slot, as that is since `epoch`, that may be worth something.
    pub fn has(&self, slot: SlotId, epoch: u64) -> bool {
        let mut parts = self.parts.iter();
        parts.any(|part| part.slot == slot && part.epoch == epoch && !part.void)
    }

    /// Whether there is more in it than guesses.
    pub fn is_certain(&self) -> bool {
        self.parts.iter().any(|part| part.tokens > part.guesses)
    }

    /// Whether nothing in it is worth anything.
    pub fn is_void(&self) -> bool {
        self.parts.iter().all(|part| part.void)
    }

    /// What it has of a slot from position `cut` on is worth nothing.
    pub fn void(&mut self, slot: SlotId, cut: usize) {
        for part in self
            .parts
            .iter_mut()
            .filter(|part| part.slot == slot && part.position >= cut)
        {
            part.void = true;
        }
    }
}
