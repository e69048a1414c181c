//! Who gets a slot and cells, and who gives them back.

use super::{Runner, Slot};
use crate::server::engine::placement::{CacheKind, SlotView, place};
use crate::server::engine::request::Running;
use crate::server::engine::slot::SlotId;

impl Runner {
    pub(super) fn drop_abandoned(&mut self) {
        let waiting = self.queue.len();
        self.queue.retain(|request| !request.is_abandoned());
        let mut gone = waiting - self.queue.len();
        for index in 0..self.slots.len() {
            if self.slots[index]
                .running
                .as_ref()
                .is_some_and(Running::is_abandoned)
            {
                gone += 1;
                self.release(index);
            }
        }
        if gone > 0 {
            self.cancel_void();
        }
        self.state.cancelled_total += gone as u64;
    }

    /// Frees a slot, whose cache is kept for prompts that begin alike.
    pub(super) fn release(&mut self, index: usize) -> Option<Running> {
        self.clock += 1;
        let slot = &mut self.slots[index];
        slot.since = self.clock;
        slot.parked = false;
        slot.epoch += 1;
        let cut = slot.sequence.end();
        let running = slot.running.take();
        if let Some(cut) = cut {
            self.cut(index, cut);
        }
        self.end_guesses(index);
        running
    }

    /// Tokens of all requests that have a slot and their cells.
    pub(super) fn claimed(&self) -> usize {
        self.slots
            .iter()
            .filter(|slot| slot.running.is_some() && !slot.parked)
            .map(|slot| slot.sequence.len())
            .sum()
    }

    /// Lets requests that had to give their cells away go on, oldest first.
    pub(super) fn unpark(&mut self) {
        while let Some(index) = self.oldest(|slot| slot.parked) {
            if self.claimed() + self.slots[index].sequence.len() > self.limits.context {
                return;
            }
            self.slots[index].parked = false;
        }
    }

    pub(super) fn oldest(&self, wanted: impl Fn(&Slot) -> bool) -> Option<usize> {
        (0..self.slots.len())
            .filter(|index| wanted(&self.slots[*index]))
            .min_by_key(|index| self.slots[*index].since)
    }

    /// Gives slots to waiting requests, first come, first served.
    pub(super) fn admit(&mut self) {
        while let Some(request) = self.queue.front() {
            let parked = self.slots.iter().any(|slot| slot.parked);
            let busy = self.claimed();
            if parked
                || (busy > 0 && busy + request.task.prompt.len() > self.limits.context)
                || !self.admit_one()
            {
                return;
            }
        }
    }

    pub(super) fn admit_one(&mut self) -> bool {
        let (Some(pipeline), Some(request)) = (&mut self.pipeline, self.queue.front()) else {
            return false;
        };
        let context = pipeline.context();
        let window = matches!(self.limits.cache, CacheKind::Window(_));
        let views: Vec<SlotView<'_>> = (0..)
            .zip(&self.slots)
            .map(|(number, slot)| SlotView {
                slot: SlotId(number),
                idle: slot.running.is_none(),
                last_used: slot.since,
                cached: slot.sequence.cached(),
                first_position: if window {
                    context.first_position(number as i32).unwrap_or(0) as usize
                } else {
                    0
                },
            })
            .collect();
        let Some(mut placement) = place(&request.task.prompt, &views, self.limits.cache) else {
            return false;
        };
        if request.task.prompt_logprobs {
            placement.reused = 0;
        }
        let Some(mut request) = self.queue.pop_front() else {
            return false;
        };

        let sequence = placement.slot.0 as i32;
        let kept = match placement.donor {
            Some(donor) if placement.reused > 0 => {
                context.truncate(sequence, 0);
                context.share(donor.0 as i32, sequence, placement.reused as u32);
                true
            }
            _ => context.truncate(sequence, placement.reused as u32),
        };
        if !kept {
            context.truncate(sequence, 0);
            placement.reused = 0;
        }
        self.clock += 1;
        let prompt = std::mem::take(&mut request.task.prompt);
        let prediction = std::mem::take(&mut request.task.prediction);
        self.state.prompt_tokens_total += prompt.len() as u64;
        self.state.cached_tokens_total += placement.reused as u64;
        let slot = &mut self.slots[placement.slot.0 as usize];
        slot.since = self.clock;
        slot.running = Some(request.start(prompt.len(), placement.reused));
        slot.guesses = self.speculating.begin(prediction, prompt.len());
        slot.sequence.begin(prompt, placement.reused);
        self.with_heads(|heads| match placement.donor {
            Some(donor) if placement.reused > 0 => heads.share(donor, placement.slot, placement.reused),
            _ => {
                heads.truncate(placement.slot, placement.reused);
                Ok(())
            }
        });
        self.prepare_draft(placement.slot.0 as usize);
        true
    }

    /// Frees cells: those of the idle slot that was used longest ago, or, where none has any, those
    /// of the youngest of several requests, which goes on when there is room again.
    pub(super) fn make_room(&mut self) -> bool {
        let idle = self.oldest(|slot| slot.running.is_none() && !slot.sequence.cached().is_empty());
        let active: Vec<usize> = (0..self.slots.len())
            .filter(|index| self.slots[*index].running.is_some() && !self.slots[*index].parked)
            .collect();
        let youngest = active
            .iter()
            .copied()
            .max_by_key(|index| self.slots[*index].since);
        let Some(pipeline) = &mut self.pipeline else {
            return false;
        };
        let index = match (idle, youngest) {
            (Some(idle), _) => {
                self.slots[idle].sequence.clear();
                idle
            }
            (None, Some(youngest)) if active.len() > 1 => {
                tracing::debug!(slot = youngest, "the context is full: the youngest request waits");
                let slot = &mut self.slots[youngest];
                slot.sequence.lose_cache();
                if let Some(guesses) = &mut slot.guesses {
                    guesses.lose_cache();
                }
                slot.parked = true;
                slot.epoch += 1;
                if let Some(running) = slot.running.as_mut().filter(|_| slot.sequence.generated() == 0) {
                    running.restart_prompt();
                }
                youngest
            }
            _ => return false,
        };
        let freed = pipeline.context().truncate(index as i32, 0);
        self.truncate_heads(index, 0);
        freed
    }
}
