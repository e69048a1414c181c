//! Whose turn it is to compute: the queues of a device share it, and the oldest work goes first.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, PoisonError};

use crate::rpc::link::lock;

/// The right to compute on a device, held by one queue at a time.
#[derive(Debug, Default)]
pub struct Turn {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    taken: bool,
    /// When their work came, on a clock that all queues share.
    waiting: BTreeSet<u64>,
}

/// Holds the turn until it is dropped.
#[derive(Debug)]
pub struct Held<'a>(&'a Turn);

impl Turn {
    /// Waits for the turn. `since` says when the work came; no two are alike.
    pub fn take(&self, since: u64) -> Held<'_> {
        let mut state = lock(&self.state);
        state.waiting.insert(since);
        while state.taken || state.waiting.first() != Some(&since) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting.remove(&since);
        state.taken = true;
        Held(self)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        state.taken = false;
        if !state.waiting.is_empty() {
            self.0.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};
    use std::thread;

    use super::*;

    #[test]
    fn the_oldest_work_goes_first_whoever_asked_first() {
        let turn = Arc::new(Turn::default());
        let held = turn.take(0);
        let (order, done) = mpsc::channel();
        let threads: Vec<_> = [3, 1, 2]
            .into_iter()
            .map(|since| {
                let (turn, order) = (turn.clone(), order.clone());
                thread::spawn(move || {
                    let _held = turn.take(since);
                    order.send(since).unwrap();
                })
            })
            .collect();
        while lock(&turn.state).waiting.len() < 3 {
            thread::yield_now();
        }
        drop(held);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(done.try_iter().collect::<Vec<_>>(), [1, 2, 3]);
    }
}
