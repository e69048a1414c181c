//! Whose turn it is to compute: the queues of a device share it, and the oldest work goes first.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::rpc::link::lock;

/// The right to compute on a device, held by one queue at a time.
#[derive(Debug, Default)]
pub struct Turn {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Since when somebody has it.
    taken: Option<Instant>,
    /// When their work came, on a clock that all queues share.
    waiting: BTreeSet<u64>,
}

/// Holds the turn until it is dropped.
#[derive(Debug)]
pub struct Held<'a>(&'a Turn);

impl Turn {
    /// Waits for the turn. `since` says when the work came; no two are alike. `None` where `stop` is set
    /// meanwhile, and [`Self::look_again`] called.
    pub fn take(&self, since: u64, stop: &AtomicBool) -> Option<Held<'_>> {
        let mut state = lock(&self.state);
        state.waiting.insert(since);
        while !stop.load(Ordering::Acquire) {
            if state.taken.is_none() && state.waiting.first() == Some(&since) {
                state.waiting.remove(&since);
                state.taken = Some(Instant::now());
                return Some(Held(self));
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting.remove(&since);
        self.changed.notify_all();
        None
    }

    /// Has all who wait look whether they still should.
    pub fn look_again(&self) {
        // Nobody is between its look and its wait then.
        let _state = lock(&self.state);
        self.changed.notify_all();
    }

    /// For how long the turn has been somebody's.
    pub fn held_for(&self) -> Option<Duration> {
        lock(&self.state).taken.map(|since| since.elapsed())
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        state.taken = None;
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
        let stop = Arc::new(AtomicBool::new(false));
        let held = turn.take(0, &stop).unwrap();
        let (order, done) = mpsc::channel();
        let threads: Vec<_> = [3, 1, 2]
            .into_iter()
            .map(|since| {
                let (turn, order, stop) = (turn.clone(), order.clone(), stop.clone());
                thread::spawn(move || {
                    let _held = turn.take(since, &stop).unwrap();
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

    #[test]
    fn who_need_not_wait_any_more_leaves_and_is_in_nobodys_way() {
        let turn = Arc::new(Turn::default());
        let (stop, go_on) = (Arc::new(AtomicBool::new(false)), AtomicBool::new(false));
        let held = turn.take(0, &go_on).unwrap();
        assert!(turn.held_for().is_some());
        let (own, stopped) = (turn.clone(), stop.clone());
        let waiting = thread::spawn(move || own.take(1, &stopped).is_none());
        while lock(&turn.state).waiting.is_empty() {
            thread::yield_now();
        }
        stop.store(true, Ordering::Release);
        turn.look_again();
        assert!(waiting.join().unwrap());
        drop(held);
        assert_eq!(turn.held_for(), None);
        assert!(turn.take(2, &go_on).is_some());
    }
}
