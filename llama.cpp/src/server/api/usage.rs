//! What a request used: tokens and time.

use std::time::Duration;

use serde::Serialize;

/// `usage`: tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Usage {
    /// Of all prompts; a prompt with several choices counts once.
    pub prompt_tokens: u64,
    /// Of all choices.
    pub completion_tokens: u64,
    /// The sum.
    pub total_tokens: u64,
    /// More about the prompts.
    pub prompt_tokens_details: PromptDetails,
}

/// `usage.prompt_tokens_details`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct PromptDetails {
    /// Tokens that were found in a KV cache.
    pub cached_tokens: u64,
}

impl Usage {
    /// Adds a prompt.
    pub fn add_prompt(&mut self, tokens: u64, cached: u64) {
        self.prompt_tokens += tokens;
        self.total_tokens += tokens;
        self.prompt_tokens_details.cached_tokens += cached;
    }

    /// Adds a choice.
    pub fn add_completion(&mut self, tokens: u64) {
        self.completion_tokens += tokens;
        self.total_tokens += tokens;
    }
}

/// `timings`, an extension: llama.cpp's names, and the time in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Timings {
    /// Waiting for a slot.
    pub queued_ms: f64,
    /// Prompt tokens that were found in a KV cache.
    pub cache_n: u64,
    /// Prompt tokens that were processed.
    pub prompt_n: u64,
    /// Time for these, up to the first token of the answer.
    pub prompt_ms: f64,
    /// Their rate.
    pub prompt_per_second: Option<f64>,
    /// Tokens of the answer.
    pub predicted_n: u64,
    /// Time from its first token to its last.
    pub predicted_ms: f64,
    /// Their rate: the first token is the prompt's, so that it is not in this time.
    pub predicted_per_second: Option<f64>,
}

/// What [`Timings`] are computed from.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Measured {
    /// Length of the prompt.
    pub prompt_tokens: u64,
    /// How many of them were in a KV cache.
    pub cached_tokens: u64,
    /// Length of the answer.
    pub completion_tokens: u64,
    /// Waiting for a slot.
    pub queued: Duration,
    /// From the slot to the first token.
    pub prefill: Duration,
    /// From the first token to the last.
    pub decode: Duration,
}

impl From<Measured> for Timings {
    fn from(measured: Measured) -> Self {
        let prompt_n = measured.prompt_tokens.saturating_sub(measured.cached_tokens);
        Timings {
            queued_ms: milliseconds(measured.queued),
            cache_n: measured.cached_tokens,
            prompt_n,
            prompt_ms: milliseconds(measured.prefill),
            prompt_per_second: rate(prompt_n, measured.prefill),
            predicted_n: measured.completion_tokens,
            predicted_ms: milliseconds(measured.decode),
            predicted_per_second: rate(measured.completion_tokens.saturating_sub(1), measured.decode),
        }
    }
}

fn milliseconds(duration: Duration) -> f64 {
    // Microseconds are as exact as anyone reads.
    duration.as_micros() as f64 / 1000.0
}

fn rate(count: u64, duration: Duration) -> Option<f64> {
    (count > 0 && !duration.is_zero()).then(|| {
        let rate = count as f64 / duration.as_secs_f64();
        (rate * 1000.0).round() / 1000.0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_adds_up() {
        let mut usage = Usage::default();
        usage.add_prompt(10, 4);
        usage.add_completion(3);
        usage.add_completion(2);
        assert_eq!(
            serde_json::to_string(&usage).unwrap(),
            r#"{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15,"prompt_tokens_details":{"cached_tokens":4}}"#
        );
    }

    #[test]
    fn rates_leave_out_what_was_not_computed() {
        let timings = Timings::from(Measured {
            prompt_tokens: 10,
            cached_tokens: 4,
            completion_tokens: 11,
            queued: Duration::from_micros(1500),
            prefill: Duration::from_millis(3),
            decode: Duration::from_millis(100),
        });
        assert_eq!(timings.queued_ms, 1.5);
        assert_eq!(timings.prompt_n, 6);
        assert_eq!(timings.prompt_per_second, Some(2000.0));
        assert_eq!(timings.predicted_per_second, Some(100.0));
    }

    #[test]
    fn a_rate_of_nothing_is_null_and_not_infinite() {
        let timings = Timings::from(Measured {
            completion_tokens: 1,
            ..Measured::default()
        });
        assert_eq!(
            (timings.prompt_per_second, timings.predicted_per_second),
            (None, None)
        );
    }
}
