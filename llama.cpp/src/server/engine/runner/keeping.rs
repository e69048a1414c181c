//! Slots' caches from one start to the next.

use super::Runner;
use crate::llama::Token;
use crate::server::engine::pipeline::Pipeline;
use crate::server::engine::saved::SlotFiles;

impl Runner {
    /// Fills slots with the caches that were used last, as many as fit.
    pub(super) fn restore_slots(&mut self) {
        let (Some(files), Some(pipeline)) = (&self.files, &mut self.pipeline) else {
            return;
        };
        let context = pipeline.context();
        let vocab = context.model().vocab_size();
        let mut free = self.limits.context;
        let mut number = 0;
        for saved in files.load() {
            let Some(slot) = self.slots.get_mut(number) else {
                break;
            };
            let known = |token: &Token| u32::try_from(*token).is_ok_and(|token| token < vocab);
            if saved.tokens.len() > free || !saved.tokens.iter().all(known) {
                continue;
            }
            match context.restore(number as i32, &saved.state) {
                Ok(()) => {
                    free -= saved.tokens.len();
                    tracing::debug!(
                        slot = number,
                        tokens = saved.tokens.len(),
                        "a slot is as it was saved"
                    );
                    slot.sequence.restore(saved.tokens);
                    number += 1;
                }
                Err(error) => tracing::debug!(%error, "a saved slot stays on disk"),
            }
        }
        // Of those that were saved, the first was used last.
        for slot in self.slots[..number].iter_mut().rev() {
            self.clock += 1;
            slot.since = self.clock;
        }
    }

    /// Writes what the slots have, the one used longest ago first.
    pub(super) fn save_slots(&mut self) {
        while let Some(finished) = self.pipeline.as_mut().and_then(Pipeline::take) {
            self.apply(finished);
        }
        let (Some(files), Some(pipeline)) = (&self.files, &mut self.pipeline) else {
            return;
        };
        let mut order: Vec<usize> = (0..self.slots.len()).collect();
        order.sort_unstable_by_key(|index| self.slots[*index].since);
        for index in order {
            let tokens = self.slots[index].sequence.cached();
            if !SlotFiles::is_worthwhile(tokens.len()) {
                continue;
            }
            let saved = pipeline
                .save(index as i32, files.most_bytes())
                .map_err(|error| error.to_string())
                .and_then(|state| files.save(tokens, &state).map_err(|error| error.to_string()));
            if let Err(error) = saved {
                tracing::warn!(error, slot = index, "a slot's cache was not saved");
            }
        }
    }
}
