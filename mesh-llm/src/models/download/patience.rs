//! How long a download waits for what, and how often it tries again.

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use std::time::{Duration, SystemTime};

/// Limits of waiting.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// For a connection.
    pub(super) connect: Duration,
    /// For an answer's head, and for each next piece of its body. A connection that brings a byte
    /// within it is slow but living.
    pub(super) read: Duration,
    /// Before the second attempt; doubles from there.
    pub(super) first_delay: Duration,
    /// Between two attempts.
    pub(super) longest_delay: Duration,
    /// That a server may ask for; more is told to the user instead.
    pub(super) longest_wait: Duration,
    /// Attempts in a row that bring nothing, before anything has arrived.
    pub(super) first_retries: usize,
    /// The same, after something has.
    pub(super) retries: usize,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            read: Duration::from_secs(30),
            first_delay: Duration::from_millis(500),
            longest_delay: Duration::from_secs(30),
            longest_wait: Duration::from_secs(300),
            first_retries: 3,
            retries: 8,
        }
    }
}

impl Patience {
    /// The attempts to reach a server at first.
    pub(super) fn first_attempts(&self) -> ExponentialBuilder {
        self.attempts(self.first_retries)
    }

    /// The delays between attempts, once something has arrived.
    pub(super) fn delays(&self) -> ExponentialBackoff {
        self.attempts(self.retries).build()
    }

    /// Random in part, so that connections do not come back together.
    fn attempts(&self, retries: usize) -> ExponentialBuilder {
        ExponentialBuilder::new()
            .with_jitter()
            .with_min_delay(self.first_delay)
            .with_max_delay(self.longest_delay)
            .with_max_times(retries)
    }
}

/// How long the server asks to wait: seconds or a date (RFC 9110, section 10.2.3).
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::HeaderValue;

    fn after(value: &str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_str(value).unwrap());
        retry_after(
            &headers,
            SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777),
        )
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(after("120"), Some(Duration::from_secs(120)));
        assert_eq!(
            after("Sun, 06 Nov 1994 08:49:47 GMT"),
            Some(Duration::from_secs(10))
        );
        assert_eq!(after("Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(after("soon"), None);
    }

    #[test]
    fn delays_grow_and_end() {
        let patience = Patience::default();
        let delays: Vec<_> = patience.delays().collect();
        assert_eq!(delays.len(), 8);
        assert!(delays[0] >= patience.first_delay, "{delays:?}");
        assert!(
            delays.iter().all(|delay| *delay <= 2 * patience.longest_delay),
            "{delays:?}"
        );
        assert!(delays[4] > delays[0], "{delays:?}");
    }
}
