//! `POST /v1/chat/completions`.

mod delta;
mod message;
mod prediction;
mod response;
mod tools;

use serde::{Deserialize, de::IgnoredAny};
use serde_json::{Map, Value};

pub use delta::{Delta, MessageBuilder, Reasoning};
pub use message::{Content, Message, Part, Role, ToolCall};
pub use response::{
    AssistantMessage, ChatChunk, ChatCompletion, Choice, ChunkChoice, ChunkDelta, FinishReason, FunctionCall,
    FunctionDelta, InputTokens, PromptProgress, ResponseToolCall, ToolCallDelta,
};
pub use tools::{Function, Tool, ToolUse};

use super::{
    ApiError, ErrorCode,
    constraint::Constraint,
    generation::{self, GenerationRequest},
    json::{self, Bounded, Object},
    limits,
    range::integer,
};

/// A checked request.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatCompletionRequest {
    /// The model; none is the one that there is.
    pub model: Option<String>,
    /// At least one.
    pub messages: Vec<Message>,
    /// The tools that may be called: with a named `tool_choice`, only that one.
    pub tools: Vec<Tool>,
    /// Whether a tool may, must or must not be called. [`ToolUse::None`] where there are no tools.
    pub tool_use: ToolUse,
    /// Several calls in one answer; none leaves it to the template.
    pub parallel_tool_calls: Option<bool>,
    /// Where reasoning goes.
    pub reasoning: Reasoning,
    /// Whether the template is told to make the model think; none leaves it to the template.
    pub enable_thinking: Option<bool>,
    /// Variables for the template.
    pub template_kwargs: Map<String, Value>,
    /// Whether the prompt ends with the beginning of an answer.
    pub add_generation_prompt: bool,
    /// Report log probabilities, with this many alternatives a token.
    pub logprobs: Option<u32>,
    /// Whether a stream's first event says how much of the prompt there is to compute.
    pub prompt_report: PromptReport,
    /// What the answer may well say, as the client thinks; empty if it said nothing.
    pub prediction: String,
    /// What chat shares with text completion.
    pub generation: GenerationRequest,
}

/// Whether a stream's first event says how much of the prompt there is to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PromptReport {
    /// It does not.
    Omitted,
    /// It does, in `prompt_progress`.
    Included,
}

#[derive(Debug, Deserialize)]
struct Fields {
    model: Option<String>,
    messages: Option<Bounded<Object<message::Fields>, { limits::MESSAGES }>>,
    tools: Option<Bounded<Object<tools::Fields>, { limits::TOOLS }>>,
    tool_choice: Option<tools::ChoiceField>,
    parallel_tool_calls: Option<bool>,
    reasoning_format: Option<String>,
    reasoning_effort: Option<String>,
    enable_thinking: Option<bool>,
    chat_template_kwargs: Option<Map<String, Value>>,
    add_generation_prompt: Option<bool>,
    logprobs: Option<bool>,
    top_logprobs: Option<i64>,
    return_progress: Option<bool>,
    prediction: Option<Object<prediction::Fields>>,
    modalities: Option<Bounded<String, 16>>,
    functions: Option<IgnoredAny>,
    function_call: Option<IgnoredAny>,
}

/// Reads and checks a request.
pub fn parse(body: &[u8]) -> Result<ChatCompletionRequest, ApiError> {
    let fields: Fields = json::from_slice(body)?;
    fields.refuse_deprecated()?;
    let generation = generation::parse(body, 1)?;
    let (tools, tool_use) = tools::check(fields.tools, fields.tool_choice)?;
    if tool_use != ToolUse::None && matches!(generation.constraint, Constraint::Grammar(_)) {
        return Err(ApiError::value(
            "grammar",
            "grammar and tools cannot be used together: the tools make a grammar of their own; leave \
             out one of them, or set tool_choice to \"none\"",
        ));
    }
    let mut template_kwargs = fields.chat_template_kwargs.unwrap_or_default();
    let enable_thinking = thinking(
        fields.enable_thinking,
        fields.reasoning_effort,
        &mut template_kwargs,
    )?;
    Ok(ChatCompletionRequest {
        model: fields.model.filter(|model| !model.is_empty()),
        messages: message::check(fields.messages)?,
        tools,
        tool_use,
        parallel_tool_calls: fields.parallel_tool_calls,
        reasoning: reasoning(fields.reasoning_format.as_deref())?,
        enable_thinking,
        template_kwargs,
        add_generation_prompt: fields.add_generation_prompt.unwrap_or(true),
        logprobs: logprobs(fields.logprobs, fields.top_logprobs)?,
        prompt_report: match fields.return_progress {
            Some(true) => PromptReport::Included,
            Some(false) | None => PromptReport::Omitted,
        },
        prediction: prediction::check(fields.prediction)?,
        generation,
    })
}

impl Fields {
    fn refuse_deprecated(&self) -> Result<(), ApiError> {
        if self.functions.is_some() {
            return Err(ApiError::unsupported(
                "functions",
                "functions is deprecated and not supported; send each as \
                 {\"type\":\"function\",\"function\":…} in tools",
            ));
        }
        if self.function_call.is_some() {
            return Err(ApiError::unsupported(
                "function_call",
                "function_call is deprecated and not supported; use tool_choice",
            ));
        }
        let modalities = self.modalities.as_ref().map_or(&[][..], |Bounded(all)| all);
        match modalities.iter().position(|modality| modality != "text") {
            None => Ok(()),
            Some(index) => Err(ApiError::bad(
                ErrorCode::UnsupportedValue,
                format!("modalities[{index}]"),
                format!(
                    "modalities[{index}] is {:?}, but the model writes text only",
                    modalities[index]
                ),
            )),
        }
    }
}

/// `enable_thinking` stands on its own or in `chat_template_kwargs`, where llama.cpp has it;
/// a `reasoning_effort` of "none" is the same as switching it off.
fn thinking(
    enable: Option<bool>,
    effort: Option<String>,
    kwargs: &mut Map<String, Value>,
) -> Result<Option<bool>, ApiError> {
    const KWARG: &str = "chat_template_kwargs.enable_thinking";
    let in_kwargs = match kwargs.get("enable_thinking") {
        None => None,
        Some(Value::Bool(enable)) => Some(*enable),
        Some(other) => {
            return Err(ApiError::bad(
                ErrorCode::InvalidType,
                KWARG,
                format!("{KWARG} is {other}, but must be true or false"),
            ));
        }
    };
    let mut enable = enable.or(in_kwargs);
    match effort.as_deref() {
        None | Some("") => {}
        Some("none") => {
            enable = enable.or(Some(false));
            kwargs.shift_remove("reasoning_effort");
        }
        Some(effort) => {
            kwargs.entry("reasoning_effort").or_insert_with(|| effort.into());
        }
    }
    // The template must not hear two answers.
    if let (Some(kwarg), Some(enable)) = (kwargs.get_mut("enable_thinking"), enable) {
        *kwarg = enable.into();
    }
    Ok(enable)
}

fn reasoning(format: Option<&str>) -> Result<Reasoning, ApiError> {
    match format {
        None | Some("auto" | "deepseek") => Ok(Reasoning::Split),
        Some("none") => Ok(Reasoning::Inline),
        Some(other) => Err(ApiError::bad(
            ErrorCode::UnsupportedValue,
            "reasoning_format",
            format!("reasoning_format is {other:?}, but must be \"auto\", \"deepseek\" or \"none\""),
        )),
    }
}

fn logprobs(logprobs: Option<bool>, top: Option<i64>) -> Result<Option<u32>, ApiError> {
    let top: Option<u32> = integer("top_logprobs", top, 0..=limits::TOP_LOGPROBS)?;
    match (logprobs.unwrap_or(false), top) {
        (true, top) => Ok(Some(top.unwrap_or(0))),
        (false, None | Some(0)) => Ok(None),
        (false, Some(_)) => Err(ApiError::value(
            "top_logprobs",
            "top_logprobs needs logprobs to be true",
        )),
    }
}

#[cfg(test)]
mod tests;
