//! What a chat completion is answered with.

use serde::Serialize;

use super::super::{
    SYSTEM_FINGERPRINT,
    logprobs::ChatLogprobs,
    response::{Header, is_none},
    usage::{Timings, Usage},
};
use super::message::Role;
pub use crate::server::api::response::FinishReason;

/// A complete answer.
#[derive(Debug, Serialize)]
pub struct ChatCompletion<'a> {
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

impl<'a> ChatCompletion<'a> {
    /// The answer under this header. Timings are of the one choice, where there is one.
    pub fn new(header: &'a Header, choices: Vec<Choice>, usage: Usage, timings: Option<Timings>) -> Self {
        ChatCompletion {
            id: &header.id,
            object: "chat.completion",
            created: header.created,
            model: &header.model,
            system_fingerprint: SYSTEM_FINGERPRINT,
            choices,
            usage,
            timings,
        }
    }
}

/// One of the answers.
#[derive(Debug, Serialize)]
pub struct Choice {
    /// Which, from 0.
    pub index: usize,
    /// The answer.
    pub message: AssistantMessage,
    /// How likely it was.
    pub logprobs: Option<ChatLogprobs>,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// The request's stop text that ended it, if one did: llama.cpp's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopping_word: Option<String>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AssistantMessage {
    role: Role,
    /// What it says: none where it only calls tools.
    pub content: Option<String>,
    refusal: Option<()>,
    /// What the model thought.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// The tools that it calls.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ResponseToolCall>,
}

/// A tool that the model calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ResponseToolCall {
    /// What the tool's answer refers to.
    pub id: String,
    r#type: FunctionKind,
    /// The call.
    pub function: FunctionCall,
}

/// A function, and what it is called with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FunctionCall {
    /// The function.
    pub name: String,
    /// JSON, as the model wrote it.
    pub arguments: String,
}

impl AssistantMessage {
    /// Puts the deltas of a stream together, as a client would.
    pub fn from_deltas(deltas: impl IntoIterator<Item = ChunkDelta>) -> Self {
        let mut content: Option<String> = None;
        let mut reasoning: Option<String> = None;
        let mut tool_calls: Vec<ResponseToolCall> = Vec::new();
        for delta in deltas {
            if let Some(text) = delta.content {
                content.get_or_insert_default().push_str(&text);
            }
            if let Some(text) = delta.reasoning_content {
                reasoning.get_or_insert_default().push_str(&text);
            }
            for call in delta.tool_calls.into_iter().flatten() {
                if call.index == tool_calls.len() {
                    tool_calls.push(ResponseToolCall {
                        id: String::new(),
                        r#type: FunctionKind::Function,
                        function: FunctionCall {
                            name: String::new(),
                            arguments: String::new(),
                        },
                    });
                }
                let Some(known) = tool_calls.get_mut(call.index) else {
                    continue;
                };
                known.id.push_str(&call.id.unwrap_or_default());
                known
                    .function
                    .name
                    .push_str(&call.function.name.unwrap_or_default());
                known.function.arguments.push_str(&call.function.arguments);
            }
        }
        let content = match (content, tool_calls.is_empty()) {
            (None, true) => Some(String::new()),
            (content, _) => content.filter(|text| tool_calls.is_empty() || !text.is_empty()),
        };
        AssistantMessage {
            role: Role::Assistant,
            content,
            refusal: None,
            reasoning_content: reasoning,
            tool_calls,
        }
    }
}

/// An event of a stream.
#[derive(Debug, Serialize)]
pub struct ChatChunk<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    system_fingerprint: &'static str,
    choices: &'a [ChunkChoice],
    #[serde(skip_serializing_if = "is_none")]
    usage: Option<Option<Usage>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timings: Option<Timings>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_progress: Option<PromptProgress>,
}

/// How much of a prompt is computed when its answer begins: some of llama.cpp's fields of that name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PromptProgress {
    /// Tokens of the prompt.
    pub total: u64,
    /// Those that were found in a KV cache.
    pub cache: u64,
    /// Those that are computed: at the beginning, those from the cache.
    pub processed: u64,
}

/// What counts a chat's tokens without answering it.
#[derive(Debug, Serialize)]
pub struct InputTokens {
    object: &'static str,
    input_tokens: usize,
}

impl InputTokens {
    /// So many.
    pub fn new(input_tokens: usize) -> Self {
        InputTokens {
            object: "chat.completion.input_tokens",
            input_tokens,
        }
    }
}

impl<'a> ChatChunk<'a> {
    /// An event under this header. `usage` is left out, null, or in the last event there.
    pub fn new(
        header: &'a Header,
        choices: &'a [ChunkChoice],
        usage: Option<Option<Usage>>,
        timings: Option<Timings>,
    ) -> Self {
        ChatChunk {
            id: &header.id,
            object: "chat.completion.chunk",
            created: header.created,
            model: &header.model,
            system_fingerprint: SYSTEM_FINGERPRINT,
            choices,
            usage,
            timings,
            prompt_progress: None,
        }
    }

    /// With how much of the prompt is computed.
    pub fn with_progress(self, prompt_progress: Option<PromptProgress>) -> Self {
        ChatChunk {
            prompt_progress,
            ..self
        }
    }
}

/// More of one of the answers.
#[derive(Debug, Serialize)]
pub struct ChunkChoice {
    /// Which, from 0.
    pub index: usize,
    /// What is new.
    pub delta: ChunkDelta,
    /// How likely it was.
    pub logprobs: Option<ChatLogprobs>,
    /// Why the answer ended, in its last event.
    pub finish_reason: Option<FinishReason>,
    /// There, too: the request's stop text that ended it, if one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopping_word: Option<String>,
}

impl ChunkChoice {
    /// More of the answer of this number, which goes on.
    pub fn more(index: usize, delta: ChunkDelta, logprobs: Option<ChatLogprobs>) -> Self {
        ChunkChoice {
            index,
            delta,
            logprobs,
            finish_reason: None,
            stopping_word: None,
        }
    }
}

/// What is new in an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ChunkDelta {
    /// In the first event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// More of what it says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// More of what the model thought.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// More of a tool call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<[ToolCallDelta; 1]>,
}

impl ChunkDelta {
    /// The first of an answer.
    pub fn role() -> Self {
        ChunkDelta {
            role: Some(Role::Assistant),
            content: Some(String::new()),
            ..ChunkDelta::default()
        }
    }

    /// More of what it says.
    pub fn content(text: String) -> Self {
        ChunkDelta {
            content: Some(text),
            ..ChunkDelta::default()
        }
    }

    /// More of what the model thought.
    pub fn reasoning(text: String) -> Self {
        ChunkDelta {
            reasoning_content: Some(text),
            ..ChunkDelta::default()
        }
    }

    /// More of a tool call.
    pub fn tool_call(call: ToolCallDelta) -> Self {
        ChunkDelta {
            tool_calls: Some([call]),
            ..ChunkDelta::default()
        }
    }
}

/// More of a tool call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ToolCallDelta {
    /// Which, from 0.
    pub index: usize,
    /// In a call's first event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// In a call's first event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#type: Option<FunctionKind>,
    /// The call.
    pub function: FunctionDelta,
}

/// More of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FunctionDelta {
    /// In a call's first event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// More of the arguments.
    pub arguments: String,
}

/// The only kind of tool that there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FunctionKind {
    /// A function.
    Function,
}
