//! What a request sets and its response repeats.

use super::super::Problem;
use super::fields::{object, unsupported, wrong_value};
use super::tools::{Tool, ToolChoice};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What a request sets and its response repeats. What was not set is the engine's to choose, so that
/// it is null.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Settings {
    pub(super) instructions: Option<String>,
    pub(super) max_output_tokens: Option<u64>,
    pub(super) max_tool_calls: Option<u64>,
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) parallel_tool_calls: bool,
    pub(super) previous_response_id: Option<String>,
    pub(super) prompt_cache_key: Option<String>,
    pub(super) reasoning: Reasoning,
    pub(super) safety_identifier: Option<String>,
    pub(super) store: bool,
    pub(super) temperature: Option<f64>,
    pub(super) text: Text,
    pub(super) tool_choice: ToolChoice,
    pub(super) tools: Vec<Tool>,
    pub(super) top_logprobs: u64,
    pub(super) top_p: Option<f64>,
    pub(super) truncation: Truncation,
    pub(super) user: Option<String>,
}

/// What happens to a conversation that is too long. It is refused either way: what is left out cannot
/// be known here, and a conversation that silently loses its beginning is worse than one that ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Truncation {
    /// Its beginning might be left out.
    Auto,
    /// It is refused.
    #[default]
    Disabled,
}

/// How the model thinks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reasoning {
    effort: Option<String>,
    /// Not made: the thoughts themselves are in the response.
    summary: Option<String>,
}

impl Reasoning {
    pub(super) fn read(value: Value) -> Result<Self, Problem> {
        let reasoning: Self = object(value, "reasoning")?;
        reasoning.chat_effort()?;
        Ok(reasoning)
    }

    /// A chat's `reasoning_effort`: templates know three levels, and none.
    pub(super) fn chat_effort(&self) -> Result<Option<String>, Problem> {
        let effort = match self.effort.as_deref() {
            None => return Ok(None),
            Some("none") => "none",
            Some("minimal" | "low") => "low",
            Some("medium") => "medium",
            Some("high" | "xhigh" | "max") => "high",
            Some(other) => {
                return Err(unsupported(
                    "reasoning.effort",
                    format!(
                        "reasoning.effort is {other:?}, but must be \"none\", \"minimal\", \"low\", \
                         \"medium\", \"high\", \"xhigh\" or \"max\""
                    ),
                ));
            }
        };
        Ok(Some(effort.to_owned()))
    }
}

/// The form of the answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Text {
    format: Format,
    /// A wish that models here do not know.
    #[serde(skip_serializing_if = "Option::is_none")]
    verbosity: Option<Verbosity>,
}

/// How many words the answer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verbosity {
    /// Few.
    Low,
    /// Some.
    Medium,
    /// Many.
    High,
}

/// The form of the answer's text.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Format {
    /// Any.
    #[default]
    Text,
    /// Some JSON object.
    JsonObject,
    /// JSON that fits a schema.
    JsonSchema(Schema),
}

/// A JSON schema.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Schema {
    name: String,
    description: Option<String>,
    schema: Value,
    strict: Option<bool>,
}

impl Text {
    pub(super) fn read(value: Value) -> Result<Self, Problem> {
        #[derive(Deserialize)]
        struct Fields {
            format: Option<Value>,
            verbosity: Option<Verbosity>,
        }
        let Fields { format, verbosity } = object(value, "text")?;
        let format = format.map_or(Ok(Format::Text), |format| object(format, "text.format"))?;
        Ok(Self { format, verbosity })
    }

    /// A chat's `response_format`.
    pub(super) fn chat(&self) -> Option<Value> {
        match &self.format {
            Format::Text => None,
            Format::JsonObject => Some(json!({"type": "json_object"})),
            Format::JsonSchema(schema) => Some(json!({"type": "json_schema", "json_schema": schema})),
        }
    }
}

/// Checks what OpenAI promises of `metadata`: it is kept with the response.
pub(super) fn metadata(metadata: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Problem> {
    const PAIRS: usize = 16;
    const KEY: usize = 64;
    const VALUE: usize = 512;
    if metadata.len() > PAIRS {
        let message = format!(
            "metadata has {} pairs, but at most {PAIRS} are possible",
            metadata.len()
        );
        return Err(wrong_value("metadata", message));
    }
    for (key, value) in &metadata {
        if key.chars().count() > KEY || value.chars().count() > VALUE {
            let message = format!(
                "metadata.{key} is too long: keys have at most {KEY} characters, values at most {VALUE}"
            );
            return Err(wrong_value(&format!("metadata.{key}"), message));
        }
    }
    Ok(metadata)
}
