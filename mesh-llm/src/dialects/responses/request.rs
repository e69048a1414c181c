//! A request, and what the engine is asked for it.

use super::super::{Form, Problem, chat};
use super::entry::{Entry, Ids};
use super::fields::{missing, object, unsupported, wrong_type, wrong_value};
use super::item::Item;
use super::messages::messages;
use super::reply::Reply;
use super::settings::{Reasoning, Settings, Text, Truncation, metadata};
use super::tools::{Tool, ToolChoice};
use super::{Known, previous_not_found};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// A request as it was read, before it is known what it refers to.
#[derive(Debug)]
pub struct Draft {
    model: Option<String>,
    input: Vec<Entry>,
    settings: Settings,
    /// Tell how likely tokens were.
    logprobs: Logprobs,
    form: Form,
    parallel_tool_calls: Option<bool>,
    tool_choice: Option<Value>,
    /// Fields of the engine's own.
    extensions: Map<String, Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Logprobs {
    Omitted,
    Included,
}

/// What a response's ids and its time are made of.
#[derive(Debug, Clone)]
pub struct Origin {
    /// Letters and digits that no other response has.
    pub seed: String,
    /// Unix seconds.
    pub now: u64,
}

/// What the engine is asked.
#[derive(Debug)]
pub struct Asked {
    /// The chat, for [`chat::PATH`].
    pub body: Vec<u8>,
    /// Whether the client gets a stream.
    pub form: Form,
    /// Whether the response is to be kept.
    pub store: bool,
    /// Makes the response.
    pub reply: Reply,
}

#[derive(Debug, Deserialize)]
struct Fields {
    model: Option<String>,
    input: Option<Value>,
    instructions: Option<String>,
    previous_response_id: Option<String>,
    tools: Option<Vec<Value>>,
    tool_choice: Option<Value>,
    parallel_tool_calls: Option<bool>,
    text: Option<Value>,
    reasoning: Option<Value>,
    max_output_tokens: Option<u64>,
    max_tool_calls: Option<u64>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    top_logprobs: Option<u64>,
    include: Option<Vec<String>>,
    metadata: Option<BTreeMap<String, String>>,
    truncation: Option<Truncation>,
    store: Option<bool>,
    stream: Option<bool>,
    background: Option<bool>,
    prompt_cache_key: Option<String>,
    safety_identifier: Option<String>,
    user: Option<String>,
}

/// Fields that would change the response, and what to do without them.
const REFUSED: [(&str, &str); 4] = [
    (
        "conversation",
        "conversations are not kept: use `previous_response_id`, or send all items",
    ),
    (
        "prompt",
        "there are no prompt templates: send `instructions` and `input`",
    ),
    (
        "context_management",
        "conversations are not compacted: send fewer items",
    ),
    ("moderation", "there is no moderation: leave it out"),
];

/// Fields that the engine has beyond OpenAI's, passed on as they are.
const EXTENSIONS: [&str; 13] = [
    "seed",
    "top_k",
    "min_p",
    "typical_p",
    "repeat_penalty",
    "repeat_last_n",
    "frequency_penalty",
    "presence_penalty",
    "logit_bias",
    "ignore_eos",
    "grammar",
    "chat_template_kwargs",
    "enable_thinking",
];

/// What `include` may name. All but the log probabilities belong to tools that are refused, or, as
/// encrypted thoughts, to servers that hide them: here the thoughts themselves are in the response.
const INCLUDABLE: [&str; 8] = [
    LOGPROBS,
    "reasoning.encrypted_content",
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
];
const LOGPROBS: &str = "message.output_text.logprobs";

const TOP_LOGPROBS: u64 = 20;

impl Draft {
    /// Reads a request.
    ///
    /// # Errors
    /// Where it is not one, or asks for what cannot be.
    pub fn read(body: &[u8]) -> Result<Self, Problem> {
        let mut all = super::super::object(body)?;
        for (field, remedy) in REFUSED {
            if all.get(field).is_some_and(|value| !value.is_null()) {
                return Err(Problem {
                    code: Some("unsupported_parameter".to_owned()),
                    ..Problem::invalid(Some(field), format!("{field} is not supported: {remedy}"))
                });
            }
        }
        let extensions = EXTENSIONS
            .iter()
            .filter_map(|name| all.shift_remove_entry(*name))
            .filter(|(_, value)| !value.is_null())
            .collect();
        let fields: Fields = object(Value::Object(all), "")?;
        fields.check(extensions)
    }

    /// The response that this one continues.
    pub fn previous(&self) -> Option<&str> {
        self.settings.previous_response_id.as_deref()
    }

    /// The ids of items that it refers to.
    pub fn references(&self) -> impl Iterator<Item = &str> {
        self.input.iter().filter_map(|entry| match entry {
            Entry::Reference { id, .. } => Some(id.as_str()),
            _ => None,
        })
    }

    /// Asks the engine.
    ///
    /// # Errors
    /// Where something is not known that it refers to.
    pub fn ask(self, known: &Known, origin: Origin) -> Result<Asked, Problem> {
        if let Some(previous) = self.previous()
            && known
                .history
                .last()
                .is_none_or(|turn| turn.response.id != previous)
        {
            return Err(previous_not_found(previous));
        }
        let mut ids = Ids::new(origin.seed);
        let input = self
            .input
            .into_iter()
            .map(|entry| entry.item(&mut ids, |id| known.items.get(id).cloned()))
            .collect::<Result<Vec<Item>, _>>()?;
        let settings = self.settings;
        let items = known.history.iter().flat_map(|turn| turn.items()).chain(&input);
        let mut options = self.extensions;
        if let Some(temperature) = settings.temperature {
            options.insert("temperature".to_owned(), json!(temperature));
        }
        if let Some(top_p) = settings.top_p {
            options.insert("top_p".to_owned(), json!(top_p));
        }
        if self.logprobs == Logprobs::Included {
            options.insert("logprobs".to_owned(), json!(true));
            options.insert("top_logprobs".to_owned(), json!(settings.top_logprobs));
        }
        let stream = self.form == Form::Stream;
        let request = chat::Request {
            model: self.model.clone(),
            messages: messages(settings.instructions.as_deref(), items),
            tools: settings.tools.iter().map(Tool::chat).collect(),
            tool_choice: self.tool_choice,
            parallel_tool_calls: self.parallel_tool_calls,
            response_format: settings.text.chat(),
            reasoning_effort: settings.reasoning.chat_effort()?,
            enable_thinking: None,
            max_completion_tokens: settings.max_output_tokens,
            stop: Vec::new(),
            stream,
            stream_options: stream.then_some(chat::StreamOptions { include_usage: true }),
            options,
        };
        let body = serde_json::to_vec(&request)
            .map_err(|error| Problem::engine(format!("the chat cannot be written: {error}")))?;
        Ok(Asked {
            body,
            form: self.form,
            store: settings.store,
            reply: Reply::new(self.model, settings, input, ids, origin.now, self.form),
        })
    }
}

impl Fields {
    fn check(self, extensions: Map<String, Value>) -> Result<Draft, Problem> {
        if self.background == Some(true) {
            return Err(unsupported(
                "background",
                "background is not supported: the response is made while the request is open; stream it, or \
                 leave `background` out",
            ));
        }
        let top_logprobs = self.top_logprobs.unwrap_or(0);
        if top_logprobs > TOP_LOGPROBS {
            let message = format!("top_logprobs is {top_logprobs}, but must be at most {TOP_LOGPROBS}");
            return Err(wrong_value("top_logprobs", message));
        }
        let tools = self.tools.unwrap_or_default().into_iter().enumerate();
        let tools = tools
            .map(|(index, tool)| Tool::read(tool, &format!("tools[{index}]")))
            .collect::<Result<Vec<_>, _>>()?;
        let tool_choice = self.tool_choice.map(ToolChoice::read).transpose()?;
        let input = input(self.input, self.previous_response_id.is_some())?;
        Ok(Draft {
            model: self.model,
            input,
            logprobs: logprobs(&self.include.unwrap_or_default())?,
            form: match self.stream {
                Some(true) => Form::Stream,
                _ => Form::Whole,
            },
            parallel_tool_calls: self.parallel_tool_calls,
            tool_choice: tool_choice.as_ref().map(ToolChoice::chat),
            extensions,
            settings: Settings {
                instructions: self.instructions,
                max_output_tokens: self.max_output_tokens,
                max_tool_calls: self.max_tool_calls,
                metadata: metadata(self.metadata.unwrap_or_default())?,
                parallel_tool_calls: self.parallel_tool_calls.unwrap_or(true),
                previous_response_id: self.previous_response_id,
                prompt_cache_key: self.prompt_cache_key,
                reasoning: self
                    .reasoning
                    .map(Reasoning::read)
                    .transpose()?
                    .unwrap_or_default(),
                safety_identifier: self.safety_identifier,
                store: self.store.unwrap_or(true),
                temperature: self.temperature,
                text: self.text.map(Text::read).transpose()?.unwrap_or_default(),
                tool_choice: tool_choice.unwrap_or_default(),
                tools,
                top_logprobs,
                top_p: self.top_p,
                truncation: self.truncation.unwrap_or_default(),
                user: self.user,
            },
        })
    }
}

/// The items; a text is a question.
fn input(input: Option<Value>, continues: bool) -> Result<Vec<Entry>, Problem> {
    match input {
        Some(Value::String(text)) => Ok(vec![Entry::question(text)]),
        Some(Value::Array(items)) if items.is_empty() && !continues => {
            Err(wrong_value("input", "input is empty: send at least one item"))
        }
        Some(Value::Array(items)) => {
            let items = items.into_iter().enumerate();
            items
                .map(|(index, item)| Entry::read(item, &format!("input[{index}]")))
                .collect()
        }
        None if continues => Ok(Vec::new()),
        None => Err(missing("input")),
        Some(_) => Err(wrong_type("input", "a string or an array of items")),
    }
}

fn logprobs(include: &[String]) -> Result<Logprobs, Problem> {
    for (index, name) in include.iter().enumerate() {
        if !INCLUDABLE.contains(&name.as_str()) {
            let path = format!("include[{index}]");
            let message = format!("{path} is {name:?}, but must be one of {}", INCLUDABLE.join(", "));
            return Err(unsupported(&path, message));
        }
    }
    Ok(match include.iter().any(|name| name == LOGPROBS) {
        true => Logprobs::Included,
        false => Logprobs::Omitted,
    })
}
