//! Waiting for what nobody announces.

use std::thread;
use std::time::{Duration, Instant};

/// No step of a test takes this long, however slow the machine, unless it hangs.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// The pause between two looks at a condition. The only place where these tests sleep.
const PAUSE: Duration = Duration::from_millis(5);

/// Waits until `look` sees what it looks for, and returns that.
///
/// # Panics
/// Where `within` is over first; `what` says what did not happen.
pub fn eventually<T>(what: &str, within: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(began.elapsed() < within, "not within {within:?}: {what}");
        thread::sleep(PAUSE);
    }
}
