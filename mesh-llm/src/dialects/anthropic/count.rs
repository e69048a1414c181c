//! The answer of `count_tokens` (`message_tokens_count.py`).

use super::super::{Answer, Problem};
use serde::Deserialize;
use serde_json::json;

/// Where the engine counts a chat's tokens.
pub(super) const PATH: &str = "/v1/chat/completions/input_tokens";

/// What the engine answers there.
#[derive(Debug, Deserialize)]
struct Counted {
    input_tokens: u64,
}

/// Puts the engine's count into the dialect's words.
#[derive(Debug)]
pub(super) struct CountAnswer;

impl Answer for CountAnswer {
    fn content_type(&self) -> &'static str {
        "application/json"
    }

    fn whole(&mut self, answer: &[u8]) -> Result<Vec<u8>, Problem> {
        let counted: Counted = serde_json::from_slice(answer)
            .map_err(|error| Problem::engine(format!("the engine's count cannot be read: {error}")))?;
        Ok(json!({"input_tokens": counted.input_tokens})
            .to_string()
            .into_bytes())
    }

    // A count comes whole: nobody calls what is for streams.
    fn event(&mut self, _: &[u8], _: &mut Vec<u8>) {}

    fn keep_alive(&mut self, _: &mut Vec<u8>) {}

    fn broken(&mut self, _: &Problem, _: &mut Vec<u8>) {}

    fn end(&mut self, _: &mut Vec<u8>) {}
}
