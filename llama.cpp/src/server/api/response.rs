//! What the answers of chat and text completion have in common.

use serde::Serialize;

/// What all events of an answer repeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// `chatcmpl-…` or `cmpl-…`.
    pub id: String,
    /// Unix seconds.
    pub created: u64,
    /// The name of the model that answers.
    pub model: String,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model ended it, or a stop text came up.
    Stop,
    /// As many tokens as were asked for, or as fit.
    Length,
    /// The model called tools.
    ToolCalls,
}

/// For `skip_serializing_if` on a field that is left out, null or there.
pub(super) fn is_none<T>(value: &Option<Option<T>>) -> bool {
    value.is_none()
}
