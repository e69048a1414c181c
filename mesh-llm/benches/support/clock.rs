//! One clock for several processes.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// A moment on the system's monotonic clock, which all processes of a machine share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    nanoseconds: u64,
}

impl Moment {
    /// This moment.
    pub fn now() -> Self {
        let time = clock_gettime(ClockId::Monotonic);
        // The clock starts with the machine: both parts are positive and far from their limits.
        Self {
            nanoseconds: time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64,
        }
    }

    /// The moment that another process called so many nanoseconds.
    pub fn from_nanoseconds(nanoseconds: u64) -> Self {
        Self { nanoseconds }
    }

    /// How long this moment was after `earlier`; nothing if it was before.
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.nanoseconds.saturating_sub(earlier.nanoseconds))
    }
}
