//! What the engine tells about itself.

use crate::server::guesses::BySource;

/// Counters and gauges, as of the last step.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct EngineState {
    /// Slots with a request.
    pub busy_slots: u32,
    /// Requests that wait for a slot.
    pub waiting: u32,
    /// Tokens that the KV cache has, those of idle slots included; shared ones count for each slot.
    pub tokens_cached: u64,
    /// Tokens of all prompts so far.
    pub prompt_tokens_total: u64,
    /// Of these, those found in the cache.
    pub cached_tokens_total: u64,
    /// Tokens of all answers so far.
    pub completion_tokens_total: u64,
    /// Requests so far.
    pub requests_total: u64,
    /// Requests that failed.
    pub failures_total: u64,
    /// Requests whose client went away.
    pub cancelled_total: u64,
    /// Steps so far.
    pub steps_total: u64,
    /// Time in steps with prefill.
    pub prefill_seconds_total: f64,
    /// Time in steps with answers only.
    pub decode_seconds_total: f64,
    /// Tokens guessed so far, by where the guesses came from.
    pub guesses_total: BySource,
    /// Windows of guesses that are on their way.
    pub windows_in_flight: u32,
    /// How long a request holds a slot, on average of late.
    pub request_seconds: f64,
}
