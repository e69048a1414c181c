//! `POST /api/generate`
//! (<https://github.com/ollama/ollama/blob/main/docs/api.md#generate-a-completion>).
//!
//! A prompt is the user's message of a chat; one that is `raw`, or has a `suffix`, is continued as it is.

use super::super::{Exchange, Form, Problem, chat};
use super::Asked;
use super::answer::{Reply, Shape, Source};
use super::models::Load;
use super::request::{Common, Think, read, refuse_images};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Where the engine continues texts.
const TEXT_PATH: &str = "/v1/completions";

#[derive(Debug, Deserialize)]
struct Fields {
    prompt: Option<String>,
    suffix: Option<String>,
    system: Option<String>,
    template: Option<String>,
    raw: Option<bool>,
    context: Option<Vec<IgnoredAny>>,
    images: Option<Vec<IgnoredAny>>,
}

/// A text for the engine to continue.
#[derive(Debug, Serialize)]
struct TextRequest<'a> {
    model: &'a str,
    prompt: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    suffix: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_format: Option<&'a Value>,
    /// -1 is no limit: without a number, the engine would stop soon.
    n_predict: i64,
    stop: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<i64>,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<chat::StreamOptions>,
    #[serde(flatten)]
    options: Map<String, Value>,
}

/// Reads a request.
///
/// # Errors
/// A problem that names the field that cannot be honoured.
pub fn asked(body: &[u8]) -> Result<Asked, Problem> {
    let common = Common::read(body)?;
    let fields: Fields = read(body)?;
    fields.refuse()?;
    let prompt = fields.prompt.unwrap_or_default();
    let suffix = fields.suffix.filter(|suffix| !suffix.is_empty());
    let system = fields.system.filter(|system| !system.is_empty());
    if prompt.is_empty() && suffix.is_none() {
        return Ok(Asked::Load(Load::new(common.model, Shape::Generate)));
    }
    if fields.raw == Some(true) || suffix.is_some() {
        refuse_beside_raw_text(&common, system.as_deref())?;
        return Ok(Asked::Text(continuation(&common, &prompt, suffix.as_deref())));
    }
    let system = system.map(|system| chat::Message::text(chat::Role::System, system));
    let user = chat::Message::text(chat::Role::User, prompt);
    let request = common.chat(system.into_iter().chain([user]).collect(), Vec::new());
    Ok(Asked::Text(super::chat::exchange(
        &common,
        &request,
        Shape::Generate,
    )))
}

impl Fields {
    fn refuse(&self) -> Result<(), Problem> {
        refuse_images(self.images.as_ref(), "images")?;
        if self
            .template
            .as_ref()
            .is_some_and(|template| !template.is_empty())
        {
            return Err(Problem::invalid(
                Some("template"),
                "template is not supported: the model's own is used; write the prompt as the model wants \
                 it, and set raw to true",
            ));
        }
        if self.context.as_ref().is_some_and(|context| !context.is_empty()) {
            return Err(Problem::invalid(
                Some("context"),
                "context is not supported: send the conversation to /api/chat, whose beginning is found \
                 in the cache",
            ));
        }
        Ok(())
    }
}

/// Where no template is put around the prompt, nothing can go into it.
fn refuse_beside_raw_text(common: &Common, system: Option<&str>) -> Result<(), Problem> {
    let field = match (system, common.think) {
        (Some(_), _) => "system",
        (None, Some(Think::Yes | Think::Effort(_))) => "think",
        (None, _) => return Ok(()),
    };
    Err(Problem::invalid(
        Some(field),
        format!("{field} cannot be used with raw or suffix, as no template is applied; leave it out"),
    ))
}

fn continuation(common: &Common, prompt: &str, suffix: Option<&str>) -> Exchange {
    let request = TextRequest {
        model: super::untagged(&common.model),
        prompt,
        suffix,
        response_format: common.response_format.as_ref(),
        n_predict: common
            .limit
            .map_or(-1, |limit| i64::try_from(limit).unwrap_or(-1)),
        stop: &common.stop,
        logprobs: common.logprobs,
        stream: common.stream,
        stream_options: common.stream_options(),
        options: common.options(),
    };
    Exchange {
        path: TEXT_PATH,
        // Writing to memory cannot fail, and what is written has string keys.
        body: serde_json::to_vec(&request).unwrap_or_default(),
        form: if common.stream { Form::Stream } else { Form::Whole },
        answer: Box::new(Reply::new(
            common.model.clone(),
            Shape::Generate,
            Source::Text,
            common.stream,
        )),
    }
}
