//! The engine's own dialect, OpenAI's chat completions: what other dialects are translated to, and
//! what they are translated from.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Where the engine takes chats.
pub const PATH: &str = "/v1/chat/completions";

/// A request. What is not set is the engine's to choose.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// The model; none is the one that there is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The chat so far.
    pub messages: Vec<Message>,
    /// Functions that the model may call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Tool>,
    /// `"auto"`, `"none"`, `"required"`, or `{"type":"function","function":{"name":…}}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_choice: Option<Value>,
    /// Whether one answer may call several tools.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parallel_tool_calls: Option<bool>,
    /// The form of the answer: text, any JSON, or a schema's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_format: Option<Value>,
    /// `"none"` turns thinking off; `"low"`, `"medium"`, `"high"` are for the template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_effort: Option<String>,
    /// Whether the model is to think, where it can do both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enable_thinking: Option<bool>,
    /// Most tokens of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_completion_tokens: Option<u64>,
    /// Texts that end the answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
    /// Whether the answer comes as it is made.
    #[serde(default)]
    pub stream: bool,
    /// With `include_usage`, the last event has the counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_options: Option<StreamOptions>,
    /// Everything else that the engine takes: `temperature`, `top_p`, `seed`, `logprobs`, …
    #[serde(flatten)]
    pub options: Map<String, Value>,
}

/// What a stream has besides the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamOptions {
    /// The counts of tokens, in an event of their own before the end.
    pub include_usage: bool,
}

/// Whose a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Instructions.
    System,
    /// Instructions, by OpenAI's newer name.
    Developer,
    /// A question.
    User,
    /// An answer.
    Assistant,
    /// What a tool returned.
    Tool,
}

/// A message of a chat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Whose it is.
    pub role: Role,
    /// Its text; none only where tools are called.
    pub content: Option<String>,
    /// What the assistant thought.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// The tools that the assistant called.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// The call that a tool answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// The name of the participant, or of the tool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl Message {
    /// A message that only says something.
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Self {
            role,
            content: Some(text.into()),
            reasoning_content: None,
            tool_calls: Vec::new(),
            tool_call_id: None,
            name: None,
        }
    }
}

/// A call of a tool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    /// What the tool's answer refers to.
    pub id: String,
    /// Always `function`.
    #[serde(rename = "type", default)]
    pub kind: FunctionKind,
    /// The call.
    pub function: FunctionCall,
}

/// The only kind of tool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FunctionKind {
    /// A function that the client runs.
    #[default]
    Function,
}

/// A function, and what it is called with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionCall {
    /// The function.
    pub name: String,
    /// JSON, as the model wrote it.
    pub arguments: String,
}

/// A function that the model may call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tool {
    /// Always `function`.
    #[serde(rename = "type", default)]
    pub kind: FunctionKind,
    /// The function.
    pub function: Function,
}

/// A function's declaration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// What it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The schema of its arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Value>,
    /// Whether the arguments must fit the schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strict: Option<bool>,
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Completion {
    /// `chatcmpl-…`
    pub id: String,
    /// Unix seconds.
    pub created: u64,
    /// The model that answered.
    pub model: String,
    /// The answers; dialects ask for one.
    pub choices: Vec<Choice>,
    /// How many tokens there were.
    pub usage: Usage,
    /// How long it took, as the engine measured it.
    pub timings: Option<Timings>,
}

/// One of the answers.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Choice {
    /// The answer.
    pub message: Message,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// The stop text that ended it, if one did.
    pub stopping_word: Option<String>,
    /// How likely each token was, where that was asked for.
    pub logprobs: Option<Value>,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model ended it, or a stop text came up.
    Stop,
    /// As many tokens as were asked for, or as fit.
    Length,
    /// The model called tools.
    ToolCalls,
}

/// How many tokens there were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct Usage {
    /// In the prompt.
    pub prompt_tokens: u64,
    /// In the answer.
    pub completion_tokens: u64,
    /// Of the prompt, where they came from.
    #[serde(default)]
    pub prompt_tokens_details: PromptDetails,
}

/// Where a prompt's tokens came from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct PromptDetails {
    /// Computed before, and found in the cache.
    #[serde(default)]
    pub cached_tokens: u64,
}

/// How long an answer took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Timings {
    /// Milliseconds of waiting for a slot.
    pub queued_ms: f64,
    /// Milliseconds of the prompt.
    pub prompt_ms: f64,
    /// Milliseconds of the answer.
    pub predicted_ms: f64,
}

/// An event of a stream.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Chunk {
    /// `chatcmpl-…`
    pub id: String,
    /// Unix seconds.
    pub created: u64,
    /// The model that answers.
    pub model: String,
    /// What is new; empty in the event that has the counts.
    #[serde(default)]
    pub choices: Vec<ChunkChoice>,
    /// In the last event, where that was asked for.
    pub usage: Option<Usage>,
    /// In the last event.
    pub timings: Option<Timings>,
    /// In the first event, where `return_progress` asked for it.
    pub prompt_progress: Option<PromptProgress>,
}

/// How much of a prompt there is to compute.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct PromptProgress {
    /// Its tokens.
    pub total: u64,
    /// Those found in the cache.
    pub cache: u64,
}

/// What is new of one answer.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ChunkChoice {
    /// What is new.
    #[serde(default)]
    pub delta: Delta,
    /// In the answer's last event: why it ended.
    pub finish_reason: Option<FinishReason>,
    /// There, too: the stop text that ended it, if one did.
    pub stopping_word: Option<String>,
    /// How likely the new tokens were, where that was asked for.
    pub logprobs: Option<Value>,
}

/// What is new.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Delta {
    /// Of what the assistant says.
    pub content: Option<String>,
    /// Of what it thinks.
    pub reasoning_content: Option<String>,
    /// Of the tools that it calls.
    pub tool_calls: Vec<ToolCallDelta>,
}

/// What is new of a call.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ToolCallDelta {
    /// Which call of the answer, from 0.
    pub index: usize,
    /// In a call's first event.
    pub id: Option<String>,
    /// The name in a call's first event, the arguments in pieces.
    #[serde(default)]
    pub function: FunctionDelta,
}

/// What is new of a call's function.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct FunctionDelta {
    /// The function.
    pub name: Option<String>,
    /// More of the arguments.
    pub arguments: Option<String>,
}

/// An event of the engine's stream.
#[derive(Debug)]
pub enum Event {
    /// More of the answer.
    Chunk(Chunk),
    /// The engine gave up.
    Problem(super::Problem),
}

impl Event {
    /// Reads an event's data.
    pub fn read(data: &[u8]) -> Self {
        match serde_json::from_slice(data) {
            Ok(chunk) => Self::Chunk(chunk),
            Err(_) => Self::Problem(super::Problem::from_answer(500, data)),
        }
    }
}
