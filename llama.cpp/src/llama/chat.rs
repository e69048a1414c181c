//! Chat templates, and the way back from a model's text to a message: llama.cpp's `common/chat`.

use std::ptr::NonNull;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Error, Model, Token, ffi};

/// A model's chat templates.
#[derive(Debug)]
pub struct ChatTemplates {
    handle: NonNull<ffi::mesh_chat_templates>,
}

// SAFETY: applying a template only reads it; llama.cpp's own server does so from several threads.
unsafe impl Send for ChatTemplates {}
// SAFETY: as above.
unsafe impl Sync for ChatTemplates {}

impl Drop for ChatTemplates {
    fn drop(&mut self) {
        // SAFETY: made by `mesh_chat_templates_new` and freed only here.
        unsafe { ffi::mesh_chat_templates_free(self.handle.as_ptr()) };
    }
}

/// A conversation to render.
#[derive(Debug, Clone, Serialize)]
pub struct ChatRequest {
    /// OpenAI's array of messages, text only.
    pub messages: Value,
    /// OpenAI's array of tools.
    pub tools: Option<Value>,
    /// Whether tools may, must not or must be called.
    pub tool_choice: ToolChoice,
    /// Whether one answer may call several tools.
    pub parallel_tool_calls: bool,
    /// What the answer must be.
    pub json_schema: Option<Value>,
    /// What the answer must be, in GBNF; not together with tools.
    pub grammar: Option<String>,
    /// Whether the model may think first, where its template knows.
    pub enable_thinking: bool,
    /// More variables for the template.
    pub template_kwargs: serde_json::Map<String, Value>,
    /// Begin the assistant's answer.
    pub add_generation_prompt: bool,
}

/// Whether tools may, must not or must be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolChoice {
    /// The model decides.
    Auto,
    /// None is called.
    None,
    /// At least one is called.
    Required,
}

/// A rendered conversation, and how to sample and read the answer.
#[derive(Debug, Clone, Deserialize)]
pub struct ChatPrompt {
    /// The text to continue.
    pub prompt: String,
    /// What the answer may be, in GBNF; empty is anything.
    pub grammar: String,
    /// The grammar sleeps until a trigger.
    pub grammar_lazy: bool,
    /// What wakes it.
    pub grammar_triggers: Vec<GrammarTrigger>,
    /// Special tokens that the parser must see as text.
    pub preserved_tokens: Vec<String>,
    /// Texts that end the answer.
    pub additional_stops: Vec<String>,
    /// What of the answer the template already wrote.
    pub generation_prompt: String,
    /// What begins a thinking block; empty where the model has none.
    pub thinking_start_tag: String,
    /// What ends it.
    pub thinking_end_tags: Vec<String>,
    /// How to read the answer.
    pub format: ChatFormat,
}

/// What wakes a lazy grammar. `kind` is llama.cpp's `common_grammar_trigger_type`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrammarTrigger {
    /// 0 a token, 1 a word, 2 a pattern, 3 a pattern for the whole text.
    pub kind: u8,
    /// The word or pattern.
    pub value: String,
    /// The token, for kind 0.
    pub token: Token,
}

/// How to read an answer, made by [`ChatTemplates::apply`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ChatFormat {
    format: i32,
    generation_prompt: String,
    parser: String,
}

impl ChatTemplates {
    /// The templates of `model`, or `source` in their place. A model without any gets ChatML.
    ///
    /// # Errors
    /// [`Error::Rejected`] where the template does not parse.
    pub fn new(model: &Model, source: Option<&str>) -> Result<Self, Error> {
        let source = source.map(ffi::c_string).transpose()?;
        let source = source.as_ref().map_or(std::ptr::null(), |source| source.as_ptr());
        // SAFETY: the model and `source` outlive the call.
        let (handle, error) =
            ffi::with_error(|error| unsafe { ffi::mesh_chat_templates_new(model.as_ptr(), source, error) });
        NonNull::new(handle)
            .map(|handle| Self { handle })
            .ok_or_else(|| Error::Rejected(error.unwrap_or_default()))
    }

    /// The template's text.
    pub fn source(&self) -> String {
        // SAFETY: the handle is live.
        ffi::take_string(unsafe { ffi::mesh_chat_templates_source(self.handle.as_ptr()) }).unwrap_or_default()
    }

    /// What the template can do, by llama.cpp's names: an object of booleans.
    pub fn capabilities(&self) -> Value {
        // SAFETY: the handle is live.
        ffi::take_string(unsafe { ffi::mesh_chat_templates_capabilities(self.handle.as_ptr()) })
            .and_then(|json| serde_json::from_str(&json).ok())
            .unwrap_or(Value::Null)
    }

    /// Renders a conversation.
    ///
    /// # Errors
    /// [`Error::Rejected`] with the template's or llama.cpp's complaint.
    pub fn apply(&self, request: &ChatRequest) -> Result<ChatPrompt, Error> {
        let request = serde_json::to_string(request).map_err(|error| Error::Rejected(error.to_string()))?;
        let request = ffi::c_string(&request)?;
        // SAFETY: the handle is live; `request` outlives the call.
        let (json, error) = ffi::with_error(|error| unsafe {
            ffi::mesh_chat_apply(self.handle.as_ptr(), request.as_ptr(), error)
        });
        let json = ffi::take_string(json).ok_or_else(|| Error::Rejected(error.unwrap_or_default()))?;
        serde_json::from_str(&json).map_err(|error| Error::Rejected(error.to_string()))
    }
}

impl ChatFormat {
    /// Whether an answer of this format is all content: nothing in it needs a parser.
    pub fn is_plain(&self) -> bool {
        let Ok(rules) = serde_json::from_str::<Value>(&self.parser) else {
            return self.parser.is_empty();
        };
        rules
            .get("parsers")
            .and_then(Value::as_array)
            .is_some_and(|nodes| nodes.iter().all(keeps_all_as_content))
    }
}

/// Whether a node of llama.cpp's parser takes text for content as it is.
fn keeps_all_as_content(node: &Value) -> bool {
    match node.get("type").and_then(Value::as_str) {
        // Literals are what the template itself wrote.
        Some("epsilon" | "end" | "sequence" | "literal") => true,
        Some("until") => node
            .get("delimiters")
            .and_then(Value::as_array)
            .is_some_and(Vec::is_empty),
        Some("tag") => node.get("tag").and_then(Value::as_str) == Some("content"),
        _ => false,
    }
}

/// Reads an answer as it grows.
#[derive(Debug)]
pub struct ChatParser {
    handle: NonNull<ffi::mesh_chat_parser>,
    plain: bool,
}

// SAFETY: a parser is used by one thread at a time, as `&mut` says.
unsafe impl Send for ChatParser {}

impl Drop for ChatParser {
    fn drop(&mut self) {
        // SAFETY: made by `mesh_chat_parser_new` and freed only here.
        unsafe { ffi::mesh_chat_parser_free(self.handle.as_ptr()) };
    }
}

/// What an answer has grown by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChatDelta {
    /// Thinking.
    Reasoning(String),
    /// The answer itself.
    Content(String),
    /// A call of a tool: its first delta has id and name, all of them parts of the arguments.
    ToolCall {
        /// Which of the answer's calls.
        index: usize,
        /// Its id.
        id: Option<String>,
        /// The tool.
        name: Option<String>,
        /// More of the arguments' JSON text.
        arguments: String,
    },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum WireDelta {
    Reasoning {
        reasoning: String,
    },
    Content {
        content: String,
    },
    ToolCall {
        index: usize,
        id: String,
        name: String,
        arguments: String,
    },
}

impl From<WireDelta> for ChatDelta {
    fn from(delta: WireDelta) -> Self {
        let some = |text: String| (!text.is_empty()).then_some(text);
        match delta {
            WireDelta::Reasoning { reasoning } => Self::Reasoning(reasoning),
            WireDelta::Content { content } => Self::Content(content),
            WireDelta::ToolCall {
                index,
                id,
                name,
                arguments,
            } => Self::ToolCall {
                index,
                id: some(id),
                name: some(name),
                arguments,
            },
        }
    }
}

impl ChatParser {
    /// A parser for an answer of this format. Without `parse_tool_calls` calls stay in the content.
    ///
    /// # Errors
    /// [`Error::Rejected`] where the format is not one that [`ChatTemplates::apply`] made.
    pub fn new(format: &ChatFormat, parse_tool_calls: bool) -> Result<Self, Error> {
        let options = serde_json::json!({
            "format": format.format,
            "generation_prompt": format.generation_prompt,
            "parser": format.parser,
            "parse_tool_calls": parse_tool_calls,
        });
        let options = ffi::c_string(&options.to_string())?;
        // SAFETY: `options` outlives the call.
        let (handle, error) =
            ffi::with_error(|error| unsafe { ffi::mesh_chat_parser_new(options.as_ptr(), error) });
        let plain = format.is_plain();
        NonNull::new(handle)
            .map(|handle| Self { handle, plain })
            .ok_or_else(|| Error::Rejected(error.unwrap_or_default()))
    }

    /// Whether answers are all content: [`Self::update`] would return them as they are.
    pub fn is_plain(&self) -> bool {
        self.plain
    }

    /// What `text`, the whole answer so far, adds to what the last call saw.
    ///
    /// # Errors
    /// [`Error::Rejected`] where a complete answer has not the form that the template prescribes.
    pub fn update(&mut self, text: &str, partial: bool) -> Result<Vec<ChatDelta>, Error> {
        // SAFETY: the handle is live; `text` is valid for its length during the call.
        let (json, error) = ffi::with_error(|error| unsafe {
            ffi::mesh_chat_parser_update(
                self.handle.as_ptr(),
                text.as_ptr().cast(),
                text.len(),
                partial,
                error,
            )
        });
        let json = ffi::take_string(json).ok_or_else(|| Error::Rejected(error.unwrap_or_default()))?;
        let deltas: Vec<WireDelta> =
            serde_json::from_str(&json).map_err(|error| Error::Rejected(error.to_string()))?;
        Ok(deltas.into_iter().map(ChatDelta::from).collect())
    }
}
