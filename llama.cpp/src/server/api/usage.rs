//! What a request used: tokens and time.

use std::time::Duration;

use serde::Serialize;

use super::super::guesses::{BySource, Guesses, Windows};

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
    /// More about the choices.
    pub completion_tokens_details: CompletionDetails,
}

/// `usage.completion_tokens_details`: guesses, wherever they came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct CompletionDetails {
    /// Guessed tokens that were right.
    pub accepted_prediction_tokens: u64,
    /// Guessed tokens that were computed in vain.
    pub rejected_prediction_tokens: u64,
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
    pub fn add_completion(&mut self, tokens: u64, guesses: Guesses) {
        self.completion_tokens += tokens;
        self.total_tokens += tokens;
        self.completion_tokens_details.accepted_prediction_tokens += guesses.accepted;
        self.completion_tokens_details.rejected_prediction_tokens += guesses.wasted;
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
    /// Tokens that were guessed and sent to be verified.
    pub draft_n: u64,
    /// Of these, right.
    pub draft_n_accepted: u64,
    /// The same, and those in vain, by where the guesses came from.
    pub draft_by_source: BySource,
    /// Windows of guesses that were on their way at once.
    pub draft_windows: Windows,
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
    /// Tokens guessed.
    pub guesses: BySource,
    /// Windows of them on their way at once.
    pub windows: Windows,
}

impl From<Measured> for Timings {
    fn from(measured: Measured) -> Self {
        let prompt_n = measured.prompt_tokens.saturating_sub(measured.cached_tokens);
        let guesses = measured.guesses.total();
        Timings {
            queued_ms: milliseconds(measured.queued),
            cache_n: measured.cached_tokens,
            prompt_n,
            prompt_ms: milliseconds(measured.prefill),
            prompt_per_second: rate(prompt_n, measured.prefill),
            predicted_n: measured.completion_tokens,
            predicted_ms: milliseconds(measured.decode),
            predicted_per_second: rate(measured.completion_tokens.saturating_sub(1), measured.decode),
            draft_n: guesses.drafted,
            draft_n_accepted: guesses.accepted,
            draft_by_source: measured.guesses,
            draft_windows: measured.windows,
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
        let guesses = Guesses {
            drafted: 3,
            accepted: 2,
            wasted: 1,
        };
        usage.add_completion(3, guesses);
        usage.add_completion(2, Guesses::default());
        assert_eq!(
            serde_json::to_string(&usage).unwrap(),
            r#"{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15,"prompt_tokens_details":{"cached_tokens":4},"completion_tokens_details":{"accepted_prediction_tokens":2,"rejected_prediction_tokens":1}}"#
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
            ..Measured::default()
        });
        assert_eq!(timings.queued_ms, 1.5);
        assert_eq!(timings.prompt_n, 6);
        assert_eq!(timings.prompt_per_second, Some(2000.0));
        assert_eq!(timings.predicted_per_second, Some(100.0));
    }

    #[test]
    fn timings_tell_of_guesses_under_the_names_of_llama_cpp() {
        let guesses = |drafted, accepted| Guesses {
            drafted,
            accepted,
            wasted: drafted - accepted,
        };
        let timings = Timings::from(Measured {
            guesses: BySource([guesses(4, 4), guesses(0, 0), guesses(8, 3), guesses(0, 0)]),
            windows: Windows { mean: 1.5, most: 2 },
            ..Measured::default()
        });
        let json = serde_json::to_value(timings).unwrap();
        assert_eq!(
            (&json["draft_n"], &json["draft_n_accepted"]),
            (&12.into(), &7.into())
        );
        assert_eq!(json["draft_by_source"]["model"]["wasted"], 5);
        assert_eq!(json["draft_windows"], serde_json::json!({"mean": 1.5, "most": 2}));
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
