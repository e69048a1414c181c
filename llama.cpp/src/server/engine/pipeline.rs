//! Steps on their way through the model.
//!
//! Steps are submitted and their results taken in order. On one node a step is computed while it is
//! submitted and one is in flight at most; where devices queue, as those of a split do, more are.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::llama::{Batch, Context, Decoded, Error};

/// Computes steps in order; `T` is what the caller wants back with a step's results.
#[derive(Debug)]
pub struct Pipeline<T> {
    context: Context,
    depth: usize,
    in_flight: VecDeque<(Instant, T)>,
}

/// What became of a step.
#[derive(Debug)]
pub enum Submitted<T> {
    /// It is on its way.
    InFlight,
    /// The cache has no room for it; nothing changed.
    NoRoom(T),
    /// llama.cpp could not compute it.
    Failed(T, Error),
}

/// A step whose results are in the context.
#[derive(Debug)]
pub struct Finished<T> {
    /// What was submitted with it.
    pub step: T,
    /// From submission to results.
    pub time: Duration,
    /// Whether there are results.
    pub outcome: Result<(), Error>,
}

impl<T> Pipeline<T> {
    /// A pipeline over `context` with up to `depth` steps in flight.
    pub fn new(context: Context, depth: usize) -> Self {
        Self {
            context,
            depth,
            in_flight: VecDeque::new(),
        }
    }

    /// The context: its cache, and the logits of the step that was taken last.
    pub fn context(&mut self) -> &mut Context {
        &mut self.context
    }

    /// Whether a step can be submitted before one is taken.
    pub fn has_room(&self) -> bool {
        self.in_flight.len() < self.depth
    }

    /// Whether no step is in flight.
    pub fn is_empty(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Sends a step on its way.
    pub fn submit(&mut self, batch: &mut Batch, step: T) -> Submitted<T> {
        let since = Instant::now();
        match self.context.decode(batch) {
            Ok(Decoded::Done) => {
                self.in_flight.push_back((since, step));
                Submitted::InFlight
            }
            Ok(Decoded::NoRoom) => Submitted::NoRoom(step),
            Err(error) => Submitted::Failed(step, error),
        }
    }

    /// Waits for the oldest step. `None` if none is in flight.
    pub fn take(&mut self) -> Option<Finished<T>> {
        let (since, step) = self.in_flight.pop_front()?;
        let outcome = self.context.synchronize();
        Some(Finished {
            step,
            time: since.elapsed(),
            outcome,
        })
    }
}
