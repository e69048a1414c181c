//! What a step that was computed means for the requests in it.

use std::time::{Duration, Instant};

use super::{Part, Runner, Step};
use crate::llama::Error;
use crate::server::engine::flow::Stage;
use crate::server::engine::pipeline::{Finished, Pipeline};
use crate::server::engine::request::Progress;
use crate::server::engine::slot::Settled;
use crate::server::engine::task::{Failure, FinishReason};

impl Runner {
    /// Takes note of what was computed when.
    pub(super) fn measure(&mut self, finished: &Finished<Step>) {
        let flow = &mut self.flow;
        let passed = |at: Instant| at.saturating_duration_since(self.begun);
        let split = self.pipeline.as_ref().and_then(Pipeline::split);
        if split.is_none() {
            let stage = Stage { node: 0, queue: 0 };
            flow.computed(stage, finished.number, Duration::ZERO, finished.time);
        }
        flow.returned(finished.number, finished.time);
        if self.step_times.grow_older(finished.step.answers > 0) {
            self.speculating.divided = None;
        }
        let Some(split) = split else { return };
        // What `just trace-split` makes a picture of.
        let moment = |at: Instant| passed(at).as_micros() as u64;
        tracing::trace!(
            step = finished.number,
            tokens = finished.step.answers + finished.step.prefill,
            begin_us = moment(finished.since),
            queued_us = finished.queued.as_micros() as u64,
            time_us = finished.time.as_micros() as u64,
            "step"
        );
        for span in split.shared().take_timeline() {
            tracing::trace!(
                step = span.step.0,
                node = span.node.0,
                queue = span.queue,
                waited_us = span.waited.as_micros() as u64,
                begin_us = moment(span.begin),
                time_us = span.time.as_micros() as u64,
                "computed"
            );
            let stage = Stage {
                node: span.node.0,
                queue: span.queue,
            };
            flow.computed(stage, span.step.0, span.waited, span.time);
        }
        if !flow.is_measured() {
            // Nodes tell by themselves now and then; the first answer is not to wait for that.
            split.ask_for_times();
        }
    }

    pub(super) fn apply(&mut self, finished: Finished<Step>) {
        self.measure(&finished);
        let Finished {
            step, time, outcome, ..
        } = finished;
        self.state.steps_total += 1;
        self.costs.record(step.answers, step.prefill, time);
        let seconds = if step.prefill > 0 {
            &mut self.state.prefill_seconds_total
        } else {
            &mut self.state.decode_seconds_total
        };
        *seconds += time.as_secs_f64();
        if let Err(error) = outcome {
            self.fail_step(&step, &error);
            return;
        }
        let streams = self.answering();
        let chosen = self.chosen;
        for part in step.parts.iter().filter(|part| !part.void) {
            let index = part.slot.0 as usize;
            if self.slots[index].epoch == part.epoch {
                self.apply_part(index, part);
                self.feed_heads(index, part);
            }
        }
        self.note_progress(&step, streams, (self.chosen - chosen) as usize);
        self.cancel_void();
    }

    pub(super) fn apply_part(&mut self, index: usize, part: &Part) {
        let (Some(pipeline), Some(running)) = (&mut self.pipeline, &mut self.slots[index].running) else {
            return;
        };
        let context = pipeline.context();
        let noted = part
            .prompt
            .iter()
            .try_for_each(|(row, token)| running.note_prompt(context, *row, *token));
        if let Err(error) = noted {
            return self.fail_slot(index, &error);
        }
        for row in part.rows.clone() {
            if !self.choose(index, row) {
                return;
            }
        }
    }

    /// Chooses the next token of slot `index` from a row. `false` if the rows after it are worth nothing.
    pub(super) fn choose(&mut self, index: usize, row: usize) -> bool {
        let slot = &mut self.slots[index];
        let (Some(pipeline), Some(running)) = (&mut self.pipeline, &mut slot.running) else {
            return false;
        };
        let progress = if slot.sequence.generated() >= running.max_tokens() {
            Ok(Progress::Ended(FinishReason::Length))
        } else {
            running.advance(pipeline.context(), row)
        };
        match progress {
            Ok(Progress::Token(token)) => {
                self.chosen += 1;
                let settled = match &mut slot.guesses {
                    Some(guesses) => {
                        guesses.settle(&mut slot.sequence, token, &mut self.speculating.acceptance)
                    }
                    None => slot.sequence.settle(token),
                };
                let full = slot.sequence.generated() >= running.max_tokens()
                    || slot.sequence.len() >= self.limits.context;
                if let Settled::Wrong { cut: Some(cut) } = settled {
                    self.cut(index, cut);
                }
                if full {
                    self.finish(index, FinishReason::Length);
                }
                !full && settled == Settled::Right
            }
            Ok(Progress::Ended(reason)) => {
                self.finish(index, reason);
                false
            }
            Err(error) => {
                self.fail_slot(index, &error);
                false
            }
        }
    }

    /// Cuts the cache of slot `index` to so many tokens. What is in flight behind them is worth nothing.
    pub(super) fn cut(&mut self, index: usize, length: usize) {
        self.void_from(index, length);
        let Some(pipeline) = &mut self.pipeline else {
            return;
        };
        if !pipeline.context().truncate(index as i32, length as u32) {
            // Not all caches can be cut everywhere: what is lost is computed again.
            pipeline.context().truncate(index as i32, 0);
            self.slots[index].sequence.lose_cache();
        }
    }

    pub(super) fn finish(&mut self, index: usize, reason: FinishReason) {
        let sequence = &self.slots[index].sequence;
        let (generated, length) = (sequence.generated(), sequence.len());
        self.state.completion_tokens_total += generated as u64;
        let speculated = self.end_guesses(index);
        if let Some(running) = self.release(index) {
            let timings = running.finish(reason, generated, speculated);
            let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
            // How much and how long, never what.
            tracing::debug!(
                slot = index,
                prompt_tokens = length - generated,
                completion_tokens = generated,
                queued_ms = milliseconds(timings.queued),
                prefill_ms = milliseconds(timings.prefill),
                decode_ms = milliseconds(timings.decode),
                "a request is answered"
            );
            let seconds = (timings.prefill + timings.decode).as_secs_f64();
            let average = &mut self.state.request_seconds;
            *average = if *average == 0.0 {
                seconds
            } else {
                0.9 * *average + 0.1 * seconds
            };
        }
    }

    pub(super) fn fail_slot(&mut self, index: usize, error: &Error) {
        self.state.failures_total += 1;
        if let Some(running) = self.release(index) {
            running.fail(match error {
                Error::Lost(cause) => Failure::Lost(cause.clone()),
                _ => Failure::Engine(error.to_string()),
            });
        }
    }

    /// Ends the requests of a step that failed: what the cache has of them is unknown.
    pub(super) fn fail_step(&mut self, step: &Step, error: &Error) {
        tracing::error!(%error, "a step failed");
        if let Error::Lost(cause) = error {
            self.lose(cause.clone());
        }
        for part in &step.parts {
            let index = part.slot.0 as usize;
            if self.slots[index].epoch != part.epoch {
                continue;
            }
            self.fail_slot(index, error);
            self.slots[index].sequence.clear();
            self.truncate_heads(index, 0);
            if let Some(pipeline) = &mut self.pipeline {
                pipeline.context().truncate(index as i32, 0);
            }
        }
    }
}
