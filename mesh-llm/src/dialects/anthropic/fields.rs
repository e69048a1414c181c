//! What clients send, as it is written: every field by its name, nothing checked yet.
//!
//! Blocks are read into one type with all fields, not into one type for each kind: serde would
//! otherwise lose the path of what is wrong.

use llama_engine::server::api::json::{Alternative, Bounded, Object, TextOr};
use llama_engine::server::api::limits;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

/// The body of both endpoints (`message_create_params.py`, `message_count_tokens_params.py`).
#[derive(Debug, Deserialize)]
pub(super) struct Fields {
    pub(super) model: Option<String>,
    pub(super) max_tokens: Option<u64>,
    pub(super) messages: Option<Bounded<Object<MessageFields>, { limits::MESSAGES }>>,
    pub(super) system: Option<TextOr<Blocks>>,
    pub(super) stop_sequences: Option<Bounded<String, { limits::STOPS }>>,
    pub(super) stream: Option<bool>,
    pub(super) temperature: Option<f64>,
    pub(super) top_k: Option<i64>,
    pub(super) top_p: Option<f64>,
    pub(super) thinking: Option<Object<ThinkingFields>>,
    pub(super) tools: Option<Bounded<Object<ToolFields>, { limits::TOOLS }>>,
    pub(super) tool_choice: Option<Object<ToolChoiceFields>>,
    pub(super) output_config: Option<Object<OutputFields>>,
    /// Where `output_config.format` was while it was in beta.
    pub(super) output_format: Option<Object<FormatFields>>,
    pub(super) mcp_servers: Option<Bounded<IgnoredAny, { limits::TOOLS }>>,
    pub(super) container: Option<IgnoredAny>,
}

/// A message (`message_param.py`).
#[derive(Debug, Deserialize)]
pub(super) struct MessageFields {
    pub(super) role: Option<String>,
    pub(super) content: Option<TextOr<Blocks>>,
}

/// What a string stands in for.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct Blocks(pub(super) Bounded<Object<Block>, { limits::CONTENT_PARTS }>);

impl Alternative for Blocks {
    const EXPECTED: &'static str = "a string or an array of content blocks";
}

/// A block of any kind (`content_block_param.py`).
#[derive(Debug, Deserialize)]
pub(super) struct Block {
    pub(super) r#type: Option<String>,
    pub(super) text: Option<String>,
    pub(super) thinking: Option<String>,
    pub(super) signature: Option<String>,
    pub(super) id: Option<String>,
    pub(super) name: Option<String>,
    pub(super) input: Option<Map<String, Value>>,
    pub(super) tool_name: Option<String>,
    pub(super) tool_use_id: Option<String>,
    pub(super) content: Option<TextOr<Blocks>>,
    pub(super) is_error: Option<bool>,
}

/// Whether to think (`thinking_config_param.py`). A budget is not something that models keep to.
#[derive(Debug, Deserialize)]
pub(super) struct ThinkingFields {
    pub(super) r#type: Option<String>,
    pub(super) display: Option<String>,
}

/// A tool (`tool_union_param.py`).
#[derive(Debug, Deserialize)]
pub(super) struct ToolFields {
    pub(super) r#type: Option<String>,
    pub(super) name: Option<String>,
    pub(super) description: Option<String>,
    pub(super) input_schema: Option<Map<String, Value>>,
    pub(super) strict: Option<bool>,
}

/// Whether tools are called (`tool_choice_param.py`).
#[derive(Debug, Deserialize)]
pub(super) struct ToolChoiceFields {
    pub(super) r#type: Option<String>,
    pub(super) name: Option<String>,
    pub(super) disable_parallel_tool_use: Option<bool>,
}

/// The form of the answer (`output_config_param.py`).
#[derive(Debug, Deserialize)]
pub(super) struct OutputFields {
    pub(super) effort: Option<String>,
    pub(super) format: Option<Object<FormatFields>>,
}

/// A schema (`json_output_format_param.py`).
#[derive(Debug, Deserialize)]
pub(super) struct FormatFields {
    pub(super) r#type: Option<String>,
    pub(super) schema: Option<Map<String, Value>>,
}
