//! What a step spends between the stages, of what is measured. Pure.
//!
//! What is left of a step's time, when what stages computed and what it waited for other steps there is taken off, was
//! spent on the network. The quickest of the last few steps is the network as it is now: others were late for other
//! reasons.

use std::collections::VecDeque;

/// Steps of which the quickest counts.
const LATEST: usize = 8;

/// See the module.
#[derive(Debug, Default)]
pub struct Between {
    /// What is left of the last steps, the newest first.
    latest: VecDeque<f64>,
}

impl Between {
    /// Seconds between the stages, once round; `None` before anything was measured.
    pub fn seconds(&self) -> Option<f64> {
        self.latest.iter().copied().reduce(f64::min)
    }

    /// So many seconds are left of a step's time.
    pub fn record(&mut self, rest: f64) {
        self.latest.push_front(rest);
        self.latest.truncate(LATEST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(steps: &[f64]) -> f64 {
        let mut between = Between::default();
        steps.iter().for_each(|rest| between.record(*rest));
        between.seconds().unwrap()
    }

    #[test]
    fn a_slower_network_is_known_after_a_few_steps() {
        let steps = [vec![0.02; 100], vec![0.08; LATEST]].concat();
        assert!((after(&steps) - 0.08).abs() < 1e-9);
    }

    #[test]
    fn a_quicker_network_is_known_at_once() {
        let steps = [vec![0.08; 100], vec![0.02]].concat();
        assert!((after(&steps) - 0.02).abs() < 1e-9);
    }

    #[test]
    fn steps_that_are_late_now_and_then_change_nothing() {
        let steps = [vec![0.02; 100], [0.09, 0.02].repeat(20)].concat();
        assert!((after(&steps) - 0.02).abs() < 1e-9);
    }
}
