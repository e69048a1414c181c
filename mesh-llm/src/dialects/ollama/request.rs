//! What requests for a chat and for a text have in common.

use super::super::{Problem, chat};
use llama_engine::server::api::json::{self, Alternative, Bounded, Object, TextOr};
use llama_engine::server::api::{ApiError, limits};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Reads a body; what is wrong is named by its path.
pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    json::from_slice(body).map_err(|error: ApiError| Problem::invalid(error.param.as_deref(), error.message))
}

/// How tokens are chosen: the options whose names the engine shares.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Sampling {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) top_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) top_k: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) min_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) typical_p: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) repeat_last_n: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) repeat_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) presence_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) frequency_penalty: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) seed: Option<i64>,
}

/// Options that mean something else than a way to choose tokens. `num_ctx` and what else is about
/// loading a model is not among them: it is loaded.
#[derive(Debug, Default, Deserialize)]
struct Options {
    num_predict: Option<i64>,
    stop: Option<TextOr<Stops>>,
    mirostat: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(transparent)]
struct Stops(Bounded<String, { limits::STOPS }>);

impl Alternative for Stops {
    const EXPECTED: &'static str = "an array of strings";
}

#[derive(Debug, Deserialize)]
struct Fields {
    model: Option<String>,
    stream: Option<bool>,
    format: Option<Value>,
    think: Option<Value>,
    options: Option<Object<Options>>,
    logprobs: Option<bool>,
    top_logprobs: Option<i64>,
}

#[derive(Debug, Deserialize)]
struct SamplingField {
    options: Option<Object<Sampling>>,
}

/// What is common to both requests, checked.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Common {
    /// As the client wrote it.
    pub(super) model: String,
    pub(super) stream: bool,
    pub(super) think: Option<Think>,
    pub(super) response_format: Option<Value>,
    /// Most tokens of the answer; none is as many as there is room for.
    pub(super) limit: Option<u64>,
    pub(super) stop: Vec<String>,
    pub(super) sampling: Sampling,
    /// Report how likely the tokens were, with this many alternatives.
    pub(super) logprobs: Option<i64>,
}

/// Whether the model is to think, and how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Think {
    No,
    Yes,
    Effort(&'static str),
}

impl Common {
    pub(super) fn read(body: &[u8]) -> Result<Self, Problem> {
        let fields: Fields = read(body)?;
        // Each group of fields is read on its own: serde's `flatten` would lose the paths of what is wrong.
        let sampling: SamplingField = read(body)?;
        let Object(options) = fields.options.unwrap_or(Object(Options::default()));
        if options.mirostat.is_some_and(|version| version != 0) {
            return Err(Problem::invalid(
                Some("options.mirostat"),
                "options.mirostat is not supported; leave it out, and use temperature, top_p or min_p",
            ));
        }
        Ok(Self {
            model: model(fields.model)?,
            stream: fields.stream.unwrap_or(true),
            think: fields.think.as_ref().map(think).transpose()?,
            response_format: fields.format.map(response_format).transpose()?.flatten(),
            // All of Ollama's -1, -2 and 0 end an answer where the context does.
            limit: options
                .num_predict
                .filter(|limit| *limit > 0)
                .map(|limit| limit.unsigned_abs().min(u32::MAX.into())),
            stop: match options.stop {
                None => Vec::new(),
                Some(TextOr::Text(stop)) => vec![stop],
                Some(TextOr::Other(Stops(Bounded(stops)))) => stops,
            },
            sampling: sampling
                .options
                .map(|Object(sampling)| sampling)
                .unwrap_or_default(),
            logprobs: fields
                .logprobs
                .unwrap_or(false)
                .then(|| fields.top_logprobs.unwrap_or(0)),
        })
    }

    /// A chat with these messages.
    pub(super) fn chat(&self, messages: Vec<chat::Message>, tools: Vec<chat::Tool>) -> chat::Request {
        let mut options = self.options();
        if let Some(alternatives) = self.logprobs {
            options.insert("logprobs".to_owned(), json!(true));
            options.insert("top_logprobs".to_owned(), json!(alternatives));
        }
        chat::Request {
            model: Some(super::untagged(&self.model).to_owned()),
            messages,
            tools,
            response_format: self.response_format.clone(),
            reasoning_effort: match self.think {
                Some(Think::Effort(effort)) => Some(effort.to_owned()),
                _ => None,
            },
            enable_thinking: self.think.map(|think| think != Think::No),
            max_completion_tokens: self.limit,
            stop: self.stop.clone(),
            stream: self.stream,
            stream_options: self.stream_options(),
            options,
            ..chat::Request::default()
        }
    }

    /// The options by the engine's names.
    pub(super) fn options(&self) -> Map<String, Value> {
        match json!(self.sampling) {
            Value::Object(options) => options,
            _ => Map::new(),
        }
    }

    pub(super) fn stream_options(&self) -> Option<chat::StreamOptions> {
        self.stream.then_some(chat::StreamOptions { include_usage: true })
    }
}

/// Checks that a model is named.
pub(super) fn model(name: Option<String>) -> Result<String, Problem> {
    name.filter(|name| !name.is_empty())
        .ok_or_else(|| Problem::invalid(Some("model"), "model is required: name one that /api/tags lists"))
}

/// Refuses pictures, which no model here can see.
pub(super) fn refuse_images<T>(images: Option<&Vec<T>>, path: &str) -> Result<(), Problem> {
    if images.is_none_or(Vec::is_empty) {
        return Ok(());
    }
    Err(Problem::invalid(
        Some(path),
        format!("{path} has images, but this server reads text only; leave them out"),
    ))
}

fn think(think: &Value) -> Result<Think, Problem> {
    match think {
        Value::Bool(true) => Ok(Think::Yes),
        Value::Bool(false) => Ok(Think::No),
        Value::String(level) => match level.as_str() {
            "low" => Ok(Think::Effort("low")),
            "medium" => Ok(Think::Effort("medium")),
            "high" => Ok(Think::Effort("high")),
            _ => Err(wrong_think(think)),
        },
        _ => Err(wrong_think(think)),
    }
}

fn wrong_think(think: &Value) -> Problem {
    let message = format!("think is {think}, but must be true, false, \"low\", \"medium\" or \"high\"");
    Problem::invalid(Some("think"), message)
}

fn response_format(format: Value) -> Result<Option<Value>, Problem> {
    match format {
        Value::String(name) if name.is_empty() => Ok(None),
        Value::String(name) if name == "json" => Ok(Some(json!({"type": "json_object"}))),
        Value::Object(schema) => Ok(Some(json!({
            "type": "json_schema",
            "json_schema": {"name": "format", "schema": schema},
        }))),
        other => Err(Problem::invalid(
            Some("format"),
            format!("format is {other}, but must be \"json\" or an object, a JSON schema"),
        )),
    }
}
