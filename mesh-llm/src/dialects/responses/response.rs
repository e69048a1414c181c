//! The response, as clients get it.

use super::super::Problem;
use super::super::chat;
use super::item::Item;
use super::settings::Settings;
use serde::Serialize;
use serde_json::json;

/// A response.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Response {
    pub(super) id: String,
    pub(super) object: Object,
    pub(super) created_at: u64,
    pub(super) status: Status,
    pub(super) background: bool,
    pub(super) error: Option<Error>,
    pub(super) incomplete_details: Option<IncompleteDetails>,
    pub(super) model: String,
    pub(super) output: Vec<Item>,
    pub(super) usage: Option<Usage>,
    #[serde(flatten)]
    pub(super) settings: Settings,
}

/// What it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Object {
    /// A response.
    Response,
}

/// How far a response is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It is being made.
    InProgress,
    /// The model ended it.
    Completed,
    /// It was cut off.
    Incomplete,
    /// The engine gave up.
    Failed,
    /// The client gave up.
    Cancelled,
}

impl Status {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Incomplete => "incomplete",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Why the engine gave up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Error {
    code: ErrorCode,
    message: String,
}

/// The error in a word. OpenAI has more, for what this server has not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The server's fault.
    ServerError,
    /// Too much at once.
    RateLimitExceeded,
    /// The request's fault.
    InvalidPrompt,
}

impl From<&Problem> for Error {
    fn from(problem: &Problem) -> Self {
        let code = match problem.status {
            429 => ErrorCode::RateLimitExceeded,
            400..500 => ErrorCode::InvalidPrompt,
            _ => ErrorCode::ServerError,
        };
        Self {
            code,
            message: problem.message.clone(),
        }
    }
}

/// Why a response was cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum IncompleteDetails {
    /// As many tokens as were asked for, or as fit.
    MaxOutputTokens,
}

/// How many tokens there were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Usage {
    input_tokens: u64,
    input_tokens_details: InputDetails,
    output_tokens: u64,
    output_tokens_details: OutputDetails,
    total_tokens: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct InputDetails {
    cached_tokens: u64,
    cache_write_tokens: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct OutputDetails {
    reasoning_tokens: u64,
}

impl Usage {
    /// The engine does not tell thoughts' tokens from others. What is not found in the cache is
    /// written to it.
    pub(super) fn new(usage: chat::Usage, reasoning_tokens: u64) -> Self {
        let cached_tokens = usage.prompt_tokens_details.cached_tokens;
        Self {
            input_tokens: usage.prompt_tokens,
            input_tokens_details: InputDetails {
                cached_tokens,
                cache_write_tokens: usage.prompt_tokens.saturating_sub(cached_tokens),
            },
            output_tokens: usage.completion_tokens,
            output_tokens_details: OutputDetails { reasoning_tokens },
            total_tokens: usage.prompt_tokens + usage.completion_tokens,
        }
    }
}

impl Response {
    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The response that it continues.
    pub fn previous(&self) -> Option<&str> {
        self.settings.previous_response_id.as_deref()
    }

    /// How far it is.
    pub fn status(&self) -> Status {
        self.status
    }

    /// As an answer's body.
    pub fn json(&self) -> Vec<u8> {
        json!(self).to_string().into_bytes()
    }
}

/// What a deletion is answered with.
pub fn deleted(id: &str) -> Vec<u8> {
    json!({"id": id, "object": "response", "deleted": true})
        .to_string()
        .into_bytes()
}
