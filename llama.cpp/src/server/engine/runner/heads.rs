//! Heads inside the model: they learn what it computed, and guess between its steps.

use super::{Part, Runner};
use crate::llama::Error;
use crate::server::engine::policy::Share;
use crate::server::engine::slot::SlotId;
use crate::server::engine::speculation::heads::{Ask, Heads};
use crate::server::engine::speculation::policy::Decision;

impl Runner {
    /// Does something with the heads, if there are any. Without those that fail answers go on.
    pub(super) fn with_heads(&mut self, act: impl FnOnce(&mut Heads) -> Result<(), Error>) {
        let Some(heads) = &mut self.speculating.heads else {
            return;
        };
        if let Err(error) = act(heads) {
            tracing::warn!(%error, "the model's heads failed: answers go on without them");
            self.speculating.heads = None;
        }
    }

    /// The slot's cache keeps its first `length` tokens at most.
    pub(super) fn truncate_heads(&mut self, index: usize, length: usize) {
        self.with_heads(|heads| {
            heads.truncate(SlotId(index as u32), length);
            Ok(())
        });
    }

    /// Hands over the hidden states of what a step computed of slot `index` and is certain by now.
    pub(super) fn feed_heads(&mut self, index: usize, part: &Part) {
        let (Some(heads), Some(pipeline)) = (&mut self.speculating.heads, &mut self.pipeline) else {
            return;
        };
        let certain = self.slots[index].sequence.cached();
        let end = certain.len().min(part.position + part.tokens);
        let tokens = certain.get(part.position..end).unwrap_or_default();
        let fed = heads.feed(part.slot, part.position, tokens, pipeline.context(), part.row);
        self.with_heads(|_| fed);
    }

    /// Has the heads guess for the answers among `shares`, a token of each at a time, as long as that is worth its
    /// time.
    pub(super) fn guess_by_heads(&mut self, shares: &[Share], groups: usize) {
        let beside = shares.iter().map(|share| share.tokens).sum::<usize>();
        let answers = shares.iter().filter(|share| !self.is_prefill(share));
        let mut open: Vec<usize> = answers.map(|share| share.slot.0 as usize).collect();
        while self.speculating.heads.is_some() {
            let claims = self.claims(groups, beside.saturating_sub(1));
            let mut wanting = Vec::with_capacity(open.len());
            for index in open {
                self.extend(index, &claims);
                let waits = self.decide(index, &claims, true, false) == Decision::Wait;
                if waits || self.is_probing(index) {
                    wanting.push(index);
                }
            }
            if wanting.is_empty() {
                return;
            }
            self.guess_once(&wanting);
            open = wanting;
        }
    }

    /// Has the heads guess one more token for each of these slots.
    fn guess_once(&mut self, wanting: &[usize]) {
        let Some(heads) = &mut self.speculating.heads else {
            return;
        };
        let slots = &self.slots;
        let asks: Vec<Ask<'_>> = wanting
            .iter()
            .map(|index| Ask {
                slot: SlotId(*index as u32),
                stream: slots[*index].sequence.stream(),
                certain: slots[*index].sequence.len(),
            })
            .collect();
        match heads.guess(&asks) {
            Ok(guessed) => {
                for (index, guessed) in wanting.iter().zip(guessed) {
                    let slot = &mut self.slots[*index];
                    if let Some(guesses) = &mut slot.guesses {
                        guesses.guessed(&mut slot.sequence, guessed);
                    }
                }
            }
            Err(error) => self.with_heads(|_| Err(error)),
        }
    }
}
