//! Whether, and when, a crashed engine is started again.

use std::time::Duration;

/// An engine that crashes this often in a row is given up.
pub const MAX_CRASHES: u32 = 3;

/// An engine that answered requests for this long has proved itself: its crash is the first again.
pub const PROVEN_AFTER: Duration = Duration::from_secs(60);

/// The pauses after the first crash, the second, and so on.
const PAUSES: [Duration; (MAX_CRASHES - 1) as usize] =
    [Duration::from_millis(100), Duration::from_millis(500)];

/// Counts crashes in a row.
#[derive(Debug, Default)]
pub struct Restarts {
    crashes: u32,
}

/// What to do after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Start again.
    Restart {
        /// How often it crashed in a row.
        crashes: u32,
        /// The pause before the start.
        delay: Duration,
    },
    /// Leave it.
    GiveUp,
}

impl Restarts {
    /// Takes note of a crash of an engine that had answered requests for `served`.
    pub fn crashed(&mut self, served: Option<Duration>) -> Verdict {
        if served.is_some_and(|served| served >= PROVEN_AFTER) {
            self.crashes = 0;
        }
        self.crashes = self.crashes.saturating_add(1);
        match PAUSES.get(self.crashes as usize - 1) {
            Some(&delay) => Verdict::Restart {
                crashes: self.crashes,
                delay,
            },
            None => Verdict::GiveUp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_third_crash_in_a_row_is_the_last() {
        let mut restarts = Restarts::default();
        let restart = |crashes, ms| Verdict::Restart {
            crashes,
            delay: Duration::from_millis(ms),
        };
        assert_eq!(restarts.crashed(None), restart(1, 100));
        assert_eq!(restarts.crashed(Some(Duration::from_secs(59))), restart(2, 500));
        assert_eq!(restarts.crashed(None), Verdict::GiveUp);
    }

    proptest! {
        #[test]
        fn only_a_proven_run_starts_the_count_anew(
            runs in proptest::collection::vec(proptest::option::of(0u64..120), 1..40)
        ) {
            let mut restarts = Restarts::default();
            let mut in_a_row = 0;
            let mut last_delay = Duration::ZERO;
            for seconds in runs {
                if seconds.is_some_and(|seconds| seconds >= 60) {
                    (in_a_row, last_delay) = (0, Duration::ZERO);
                }
                in_a_row += 1;
                match restarts.crashed(seconds.map(Duration::from_secs)) {
                    Verdict::GiveUp => prop_assert!(in_a_row >= MAX_CRASHES),
                    Verdict::Restart { crashes, delay } => {
                        prop_assert!(in_a_row < MAX_CRASHES);
                        prop_assert_eq!(crashes, in_a_row);
                        prop_assert!(delay > last_delay);
                        last_delay = delay;
                    }
                }
            }
        }
    }
}
