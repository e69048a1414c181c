//! Waiting for what nobody announces.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;

/// What hangs is not measured.
const LONGEST: Duration = Duration::from_secs(60);

/// Between two looks: what is measured is exact to this, and takes little of the cores that it is measured on.
const LOOKS_EVERY: Duration = Duration::from_millis(2);

/// Waits until `look` sees what it looks for.
///
/// # Errors
/// Where that takes too long; `what` says what did not happen.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    let began = Instant::now();
    loop {
        if let Some(seen) = look() {
            return Ok(seen);
        }
        ensure!(began.elapsed() < LONGEST, "not within {LONGEST:?}: {what}");
        thread::sleep(LOOKS_EVERY);
    }
}
