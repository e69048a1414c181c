//! How long a stream takes from one wrong guess to the next, window by window. Pure.

use super::policy::Cost;

/// Windows of a run whose end is looked at; those that come later follow in the same rhythm.
const LOOKED_AT: usize = 12;
/// Most windows in flight that are looked at.
const MOST_IN_FLIGHT: usize = 24;

/// A window on its way, in seconds since the run began.
#[derive(Debug, Clone, Copy, Default)]
struct Flight {
    /// When the first node begins with it.
    begins: f64,
    /// When it is known what was right.
    back: f64,
}

/// Windows of one length that follow each other, so many of them in flight, as long as all guesses are right. It begins
/// when a token is known that was not guessed, with the draft of what comes after it.
#[derive(Debug)]
pub struct Run {
    windows: [Flight; LOOKED_AT + MOST_IN_FLIGHT],
    in_flight: usize,
    /// Seconds until the first window is drafted.
    first: f64,
    /// Seconds that the first node takes for one.
    host: f64,
}

impl Run {
    /// Windows of so many tokens, each of which takes `draft` seconds to guess, and the window `cost` on the ring.
    pub fn new(window: usize, in_flight: usize, draft: f64, cost: &Cost) -> Self {
        let in_flight = in_flight.clamp(1, MOST_IN_FLIGHT);
        let first = (window.max(1) - 1) as f64 * draft;
        let mut windows = [Flight::default(); LOOKED_AT + MOST_IN_FLIGHT];
        for number in 0..LOOKED_AT + in_flight {
            let drafted = first + (number * window) as f64 * draft;
            let oldest = number.checked_sub(in_flight).map(|oldest| windows[oldest].back);
            let leaves = oldest.map_or(drafted, |back| drafted.max(back));
            windows[number] = match number.checked_sub(1).map(|last| windows[last]) {
                Some(last) => {
                    let begins = leaves.max(last.begins + cost.host);
                    let back = (begins + cost.around).max(last.back + cost.slowest);
                    Flight { begins, back }
                }
                None => Flight {
                    begins: leaves,
                    back: leaves + cost.around,
                },
            };
        }
        Self {
            windows,
            in_flight,
            first,
            host: cost.host,
        }
    }

    /// Seconds until the next run may begin, on average, where a window is right as a whole with chance `all`, below 1.
    pub fn seconds(&self, all: f64) -> f64 {
        let mut seconds = 0.0;
        let mut reached = 1.0;
        for number in 0..LOOKED_AT {
            seconds += reached * (1.0 - all) * (self.windows[number].back + self.blocked(number));
            reached *= all;
        }
        let (last, before) = (LOOKED_AT - 1, LOOKED_AT - 1 - self.in_flight.min(LOOKED_AT - 1));
        let pace = (self.windows[last].back - self.windows[before].back) / (last - before) as f64;
        seconds + reached * (self.windows[last].back + pace / (1.0 - all))
    }

    /// Seconds for which the first node still computes what is stale, where the window of this number has a wrong guess, beyond
    /// those that the next guesses take meanwhile.
    fn blocked(&self, number: usize) -> f64 {
        let back = self.windows[number].back;
        // Those that come later leave only where this one was right.
        let others = &self.windows[number..number + self.in_flight];
        let last = others.iter().rev().find(|other| other.begins <= back);
        let busy = last.map_or(0.0, |last| last.begins + self.host - back);
        (busy - self.first).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two nodes of 15 ms each, and 20 ms between them.
    fn cost() -> Cost {
        Cost::of(&[0.015; 2], 0.02)
    }

    fn seconds(window: usize, in_flight: usize, draft: f64, all: f64) -> f64 {
        Run::new(window, in_flight, draft, &cost()).seconds(all)
    }

    #[test]
    fn what_is_always_wrong_takes_a_ring_and_what_of_the_next_window_the_draft_does_not_hide() {
        assert!((seconds(4, 1, 0.001, 0.0) - 0.053).abs() < 1e-9);
        // The fourth window begins at 45 ms, the first is back at 50.
        assert!((seconds(4, 4, 0.0, 0.0) - 0.06).abs() < 1e-9);
        // While its last 10 ms are computed, the next guesses are made.
        assert!((seconds(8, 4, 0.001, 0.0) - 0.057 - 0.003).abs() < 1e-9);
    }

    #[test]
    fn windows_that_are_right_follow_at_the_pace_of_the_slowest_stage_or_of_the_draft() {
        let long = |window, in_flight, draft| seconds(window, in_flight, draft, 0.999) * 0.001;
        assert!((long(8, 4, 0.0) - 0.015).abs() < 2e-4);
        assert!((long(8, 2, 0.0) - 0.025).abs() < 2e-4, "they wait for each other");
        assert!((long(8, 4, 0.0025) - 0.02).abs() < 2e-4);
    }
}
