//! What a text completion is answered with.

use serde::Serialize;

use super::super::{
    SYSTEM_FINGERPRINT,
    logprobs::CompletionLogprobs,
    response::{FinishReason, Header, is_none},
    usage::{Timings, Usage},
};

const OBJECT: &str = "text_completion";

/// A complete answer.
#[derive(Debug, Serialize)]
pub struct Completion<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    system_fingerprint: &'static str,
    choices: Vec<Choice>,
    usage: Usage,
    #[serde(skip_serializing_if = "Option::is_none")]
    timings: Option<Timings>,
}

impl<'a> Completion<'a> {
    /// The answer under this header. Timings are of the one choice, where there is one.
    pub fn new(header: &'a Header, choices: Vec<Choice>, usage: Usage, timings: Option<Timings>) -> Self {
        Completion {
            id: &header.id,
            object: OBJECT,
            created: header.created,
            model: &header.model,
            system_fingerprint: SYSTEM_FINGERPRINT,
            choices,
            usage,
            timings,
        }
    }
}

/// One of the answers, or more of it.
#[derive(Debug, Serialize)]
pub struct Choice {
    /// The text.
    pub text: String,
    /// Which answer, from 0: `n` for the first prompt, `n` for the second, and so on.
    pub index: usize,
    /// How likely it was.
    pub logprobs: Option<CompletionLogprobs>,
    /// Why the answer ended; none in a stream's event that is not the last.
    pub finish_reason: Option<FinishReason>,
}

/// An event of a stream.
#[derive(Debug, Serialize)]
pub struct CompletionChunk<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    system_fingerprint: &'static str,
    choices: &'a [Choice],
    #[serde(skip_serializing_if = "is_none")]
    usage: Option<Option<Usage>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timings: Option<Timings>,
}

impl<'a> CompletionChunk<'a> {
    /// An event under this header. `usage` is left out, null, or in the last event there.
    pub fn new(
        header: &'a Header,
        choices: &'a [Choice],
        usage: Option<Option<Usage>>,
        timings: Option<Timings>,
    ) -> Self {
        CompletionChunk {
            id: &header.id,
            object: OBJECT,
            created: header.created,
            model: &header.model,
            system_fingerprint: SYSTEM_FINGERPRINT,
            choices,
            usage,
            timings,
        }
    }
}
