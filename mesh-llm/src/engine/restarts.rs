//! Whether, and when, an engine that ended is started again.
//!
//! One that crashed may be at fault itself: it is given up in the end. One whose split lost a node, or does
//! not reach it, is not: it is tried for ever, less and less often.

use std::time::Duration;

/// An engine that crashes this often in a row is given up.
pub const MAX_CRASHES: u32 = 3;

/// An engine that answered requests for this long has proved itself: its crash is the first again.
pub const PROVEN_AFTER: Duration = Duration::from_secs(60);

/// The pauses after the first crash, the second, and so on.
const PAUSES: [Duration; (MAX_CRASHES - 1) as usize] =
    [Duration::from_millis(100), Duration::from_millis(500)];

/// The first pause while a node of a split is away; each is twice as long as the one before.
const FIRST_WAIT: Duration = Duration::from_millis(250);

/// The longest of these pauses.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Counts what happened in a row.
#[derive(Debug, Default)]
pub struct Restarts {
    crashes: u32,
    /// Runs that lost a node before they had proved themselves.
    losses: u32,
    /// Runs that did not reach a worker, since one was lost.
    unreached: u32,
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
        self.look_at(served);
        self.crashes = self.crashes.saturating_add(1);
        match PAUSES.get(self.crashes as usize - 1) {
            Some(&delay) => Verdict::Restart {
                crashes: self.crashes,
                delay,
            },
            None => Verdict::GiveUp,
        }
    }

    /// Takes note of an engine that lost a node of its split after it had answered requests for `served`; says
    /// how long to wait before the next start. At first not at all: most nodes are back at once.
    pub fn lost(&mut self, served: Option<Duration>) -> Duration {
        self.look_at(served);
        self.unreached = 0;
        self.losses = self.losses.saturating_add(1);
        self.losses.checked_sub(2).map_or(Duration::ZERO, wait)
    }

    /// Takes note of an engine that did not reach a worker of its split; says how long to wait before the next
    /// start.
    pub fn unreached(&mut self) -> Duration {
        let delay = wait(self.unreached);
        self.unreached = self.unreached.saturating_add(1);
        delay
    }

    fn look_at(&mut self, served: Option<Duration>) {
        if served.is_some_and(|served| served >= PROVEN_AFTER) {
            (self.crashes, self.losses) = (0, 0);
        }
    }
}

/// The pause after so many others.
fn wait(before: u32) -> Duration {
    let factor = 1_u32.checked_shl(before).unwrap_or(u32::MAX);
    FIRST_WAIT.saturating_mul(factor).min(LONGEST_WAIT)
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

    #[test]
    fn a_worker_is_waited_for_ever_but_less_and_less_often() {
        let mut restarts = Restarts::default();
        let waits: Vec<_> = (0..8).map(|_| restarts.unreached().as_millis()).collect();
        assert_eq!(waits, [250, 500, 1000, 2000, 4000, 5000, 5000, 5000]);
        for _ in 0..100 {
            assert_eq!(restarts.unreached(), LONGEST_WAIT);
        }
        // Whatever was waited for: this is no crash.
        assert!(matches!(
            restarts.crashed(None),
            Verdict::Restart { crashes: 1, .. }
        ));
    }

    #[test]
    fn a_lost_node_is_looked_for_at_once_unless_it_is_lost_again_and_again() {
        let mut restarts = Restarts::default();
        let soon = Some(Duration::from_secs(1));
        assert_eq!(restarts.lost(soon), Duration::ZERO);
        restarts.unreached();
        restarts.unreached();
        assert_eq!(restarts.lost(soon), FIRST_WAIT);
        assert_eq!(restarts.unreached(), FIRST_WAIT, "it was there meanwhile");
        assert_eq!(restarts.lost(None), FIRST_WAIT * 2);
        assert_eq!(restarts.lost(Some(PROVEN_AFTER)), Duration::ZERO);
        for _ in 0..100 {
            assert!(restarts.lost(soon) <= LONGEST_WAIT);
        }
        assert!(matches!(
            restarts.crashed(None),
            Verdict::Restart { crashes: 1, .. }
        ));
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
