//! What a step spends between the stages, of what is measured. Pure.
//!
//! What is left of a step's time, when what stages computed is taken off, was spent on the network, and waiting for
//! other steps, so that it says what the network takes at most. A step that found every stage idle did not wait. The
//! quickest of the last few steps is the network as it is now, quicker or slower than before, if one of them did not
//! wait.

use std::collections::VecDeque;

/// Steps of which the quickest counts: some are late for other reasons.
const LATEST: usize = 8;
/// How fast the least is forgotten while all steps may have waited.
const FORGET: f64 = 1.005;

/// How a step came through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    /// Every stage was idle when it came.
    Free,
    /// It may have waited somewhere.
    Queued,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Between {
    seconds: Option<f64>,
    /// What is left of the last steps, the newest first.
    latest: VecDeque<(f64, Passage)>,
}

impl Between {
    /// Seconds between the stages, once round; `None` before anything was measured.
    pub fn seconds(&self) -> Option<f64> {
        self.seconds
    }

    /// So many seconds are left of a step's time.
    pub fn record(&mut self, rest: f64, passage: Passage) {
        self.latest.push_front((rest, passage));
        self.latest.truncate(LATEST);
        let are_enough = self.latest.len() == LATEST;
        let is_free = self.latest.iter().any(|(_, passage)| *passage == Passage::Free);
        let least = if are_enough && is_free {
            self.latest.iter().map(|(rest, _)| *rest).fold(f64::MAX, f64::min)
        } else {
            0.0
        };
        let known = self.seconds.get_or_insert(rest);
        *known = rest.min(least.max(*known * FORGET));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(steps: &[(f64, Passage)]) -> f64 {
        let mut between = Between::default();
        steps
            .iter()
            .for_each(|(rest, passage)| between.record(*rest, *passage));
        between.seconds().unwrap()
    }

    #[test]
    fn a_slower_network_is_known_after_a_few_steps_of_which_one_did_not_wait() {
        let mut steps = vec![(0.02, Passage::Free); 100];
        steps.extend([(0.09, Passage::Queued); LATEST - 1]);
        steps.push((0.08, Passage::Free));
        assert!((after(&steps) - 0.08).abs() < 1e-9);
    }

    #[test]
    fn a_quicker_network_is_known_at_once() {
        let mut steps = vec![(0.08, Passage::Free); 100];
        steps.push((0.02, Passage::Queued));
        assert!((after(&steps) - 0.02).abs() < 1e-9);
    }

    #[test]
    fn what_waits_does_not_pass_for_a_slower_network() {
        let mut steps = vec![(0.02, Passage::Free); 100];
        steps.extend([(0.5, Passage::Queued); 20]);
        assert!(after(&steps) < 0.023);
    }

    #[test]
    fn a_single_late_step_changes_nothing() {
        let mut steps = vec![(0.02, Passage::Free); 100];
        for _ in 0..20 {
            steps.extend([(0.09, Passage::Free), (0.02, Passage::Free)]);
        }
        assert!((after(&steps) - 0.02).abs() < 1e-3);
    }
}
