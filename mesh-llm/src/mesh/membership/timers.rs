//! What is due when, and how timeouts follow the paths.
//!
//! `foca` doesn't let its timeouts change while it runs, and begun anew it would forget which suspicions it had answered.
//! But it has no clock: it only says what is due after how long. So it keeps the timeouts of a fast network, and on a
//! slow one time goes slower for it: all that has to do with probes takes the same factor longer, and their proportions
//! stay right. What was begun before the path became slow is stretched as well.

use super::identity::Claim;
use super::tempo::PROBE_TIMEOUT;
use foca::Timer;
use std::collections::BTreeMap;
use std::time::Duration;

/// How much longer than its RTT a path may take: queues fill, RTTs vary. The rest of the period, 1.5 times the timeout,
/// is then 2.25 times the RTT: enough for a probe through another member, which takes two of them.
const MARGIN: f64 = 1.5;

/// Timeouts follow no further: such a path is of no use.
const LONGEST_RTT: Duration = Duration::from_secs(20);

/// A factor that differs less than this from the last one changes nothing, up or down.
const WORTH_A_CHANGE: f64 = 1.25;

/// Something to be done later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Due {
    /// By `foca`.
    Foca(Timer<Claim>),
    /// Call some that are down.
    Hail,
}

/// What is due, in the order of time; what is due at the same time, in the order it was added.
#[derive(Debug, Default)]
pub(super) struct Timers {
    queue: BTreeMap<(Duration, u64), Due>,
    added: u64,
}

impl Timers {
    pub fn add(&mut self, at: Duration, due: Due) {
        self.queue.insert((at, self.added), due);
        self.added += 1;
    }

    /// The first that is due.
    pub fn pop(&mut self, now: Duration) -> Option<Due> {
        let first = self.queue.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    pub fn next(&self) -> Option<Duration> {
        self.queue.first_key_value().map(|((at, _), _)| *at)
    }

    /// Lets what detects failures take `factor` times as long from now on.
    pub fn stretch(&mut self, now: Duration, factor: f64) {
        let stretched = std::mem::take(&mut self.queue)
            .into_iter()
            .map(|((at, order), due)| {
                let at = match &due {
                    Due::Foca(timer) if detects(timer) => now + at.saturating_sub(now).mul_f64(factor),
                    _ => at,
                };
                ((at, order), due)
            });
        self.queue = stretched.collect();
    }
}

/// How many times slower time goes for what detects failures; at least 1.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stretch(f64);

impl Default for Stretch {
    fn default() -> Self {
        Self(1.0)
    }
}

impl Stretch {
    /// Follows the slowest path; says by which factor the stretch has changed, if it has. Zero is no measurement.
    pub fn follow(&mut self, rtt: Duration) -> Option<f64> {
        if rtt.is_zero() {
            return None;
        }
        let needed = rtt
            .min(LONGEST_RTT)
            .mul_f64(MARGIN)
            .div_duration_f64(PROBE_TIMEOUT)
            .max(1.0);
        let factor = needed / self.0;
        if (1.0 / WORTH_A_CHANGE..=WORTH_A_CHANGE).contains(&factor) {
            return None;
        }
        self.0 = needed;
        Some(factor)
    }

    /// How long a timer takes that `foca` gave `after`.
    pub fn of(self, timer: &Timer<Claim>, after: Duration) -> Duration {
        match detects(timer) {
            true => after.mul_f64(self.0),
            false => after,
        }
    }
}

/// Whether a timer is part of the detection of failures, whose timeouts follow the paths.
fn detects(timer: &Timer<Claim>) -> bool {
    matches!(
        timer,
        Timer::ProbeRandomMember(_) | Timer::SendIndirectProbe { .. } | Timer::ChangeSuspectToDown { .. }
    )
}

#[cfg(test)]
impl Timers {
    /// When the next part of the detection of failures is due.
    pub fn next_of_detection(&self) -> Option<Duration> {
        let detection = |due: &Due| matches!(due, Due::Foca(timer) if detects(timer));
        self.queue
            .iter()
            .find(|(_, due)| detection(due))
            .map(|((at, _), _)| *at)
    }
}
