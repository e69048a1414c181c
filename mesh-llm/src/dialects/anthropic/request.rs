//! From a request to what the engine is asked.

use super::super::{Exchange, Form, Problem, chat};
use super::answer::{Asked, Display, MessageAnswer};
use super::count::{self, CountAnswer};
use super::error::{invalid, missing};
use super::fields::{Fields, FormatFields, OutputFields, ThinkingFields};
use super::{content, tools};
use llama_engine::server::api::json::{self, Bounded, Object};
use serde_json::{Value, json};

/// Reads `POST /v1/messages` (<https://platform.claude.com/docs/en/api/messages/create>).
///
/// # Errors
/// Where the request is wrong, or asks for what this program cannot do.
pub fn messages(body: &[u8]) -> Result<Exchange, Problem> {
    let fields = read(body)?;
    let max_tokens = fields.max_tokens.ok_or_else(|| missing("max_tokens"))?;
    if max_tokens == 0 {
        return Err(invalid("max_tokens", "must be at least 1"));
    }
    let asked = Asked {
        max_tokens,
        stop_sequences: fields
            .stop_sequences
            .as_ref()
            .map_or(Vec::new(), |Bounded(all)| all.clone()),
        display: display(fields.thinking.as_ref())?,
    };
    let streams = fields.stream.unwrap_or(false);
    let mut request = translate(fields)?;
    if request
        .messages
        .last()
        .is_some_and(|last| last.role == chat::Role::Assistant)
    {
        return Err(invalid(
            "messages",
            "the last message is the assistant's, but an answer cannot be begun for the model; end with a \
             message of the user",
        ));
    }
    request.max_completion_tokens = Some(max_tokens);
    request.stop.clone_from(&asked.stop_sequences);
    request.stream = streams;
    let form = if streams { Form::Stream } else { Form::Whole };
    if streams {
        request.stream_options = Some(chat::StreamOptions { include_usage: true });
        // The first event then says how long the prompt is: `message_start` does, too.
        request.options.insert("return_progress".to_owned(), json!(true));
    }
    Ok(Exchange {
        path: chat::PATH,
        body: write(&request)?,
        form,
        answer: Box::new(MessageAnswer::new(asked, form)),
    })
}

/// Reads `POST /v1/messages/count_tokens`
/// (<https://platform.claude.com/docs/en/api/messages/count_tokens>).
///
/// # Errors
/// Where the request is wrong, or asks for what this program cannot do.
pub fn count_tokens(body: &[u8]) -> Result<Exchange, Problem> {
    let request = translate(read(body)?)?;
    Ok(Exchange {
        path: count::PATH,
        body: write(&request)?,
        form: Form::Whole,
        answer: Box::new(CountAnswer),
    })
}

fn read(body: &[u8]) -> Result<Fields, Problem> {
    json::from_slice(body).map_err(|error| Problem::invalid(error.param.as_deref(), error.message))
}

fn write(request: &chat::Request) -> Result<Vec<u8>, Problem> {
    serde_json::to_vec(request)
        .map_err(|error| Problem::engine(format!("the request cannot be written: {error}")))
}

/// What both endpoints have in common: all that the prompt is made of.
fn translate(fields: Fields) -> Result<chat::Request, Problem> {
    if fields
        .mcp_servers
        .is_some_and(|Bounded(servers)| !servers.is_empty())
    {
        return Err(invalid(
            "mcp_servers",
            "this server calls no others; offer their tools in tools",
        ));
    }
    if fields.container.is_some() {
        return Err(invalid("container", "this server runs no code; leave it out"));
    }
    let mut messages = Vec::new();
    if let Some(system) = fields.system {
        messages.extend(content::system(system)?);
    }
    let Bounded(said) = fields.messages.ok_or_else(|| missing("messages"))?;
    content::messages(said, &mut messages)?;
    let mut request = chat::Request {
        model: Some(fields.model.ok_or_else(|| missing("model"))?),
        messages,
        tools: tools::tools(fields.tools.map_or(Vec::new(), |Bounded(tools)| tools))?,
        enable_thinking: Some(thinks(fields.thinking)?),
        ..chat::Request::default()
    };
    if let Some(Object(choice)) = fields.tool_choice {
        tools::choose(choice, &mut request)?;
    }
    if let Some(Object(format)) = fields.output_format {
        request.response_format = Some(schema(format, "output_format")?);
    }
    if let Some(Object(output)) = fields.output_config {
        form(output, &mut request)?;
    }
    let options = [
        ("temperature", fields.temperature.map(Value::from)),
        ("top_k", fields.top_k.map(Value::from)),
        ("top_p", fields.top_p.map(Value::from)),
    ];
    for (name, value) in options {
        request
            .options
            .extend(value.map(|value| (name.to_owned(), value)));
    }
    Ok(request)
}

/// Whether the model is to think. Clients that do not ask for it do not expect it: they read the first
/// block as the answer.
fn thinks(thinking: Option<Object<ThinkingFields>>) -> Result<bool, Problem> {
    const TYPE: &str = "thinking.type";
    let Some(Object(thinking)) = thinking else {
        return Ok(false);
    };
    match thinking.r#type.as_deref() {
        Some("enabled" | "adaptive") => Ok(true),
        Some("disabled") => Ok(false),
        Some(other) => Err(invalid(
            TYPE,
            format_args!("{other:?} must be \"enabled\", \"adaptive\" or \"disabled\""),
        )),
        None => Err(missing(TYPE)),
    }
}

fn display(thinking: Option<&Object<ThinkingFields>>) -> Result<Display, Problem> {
    match thinking.and_then(|Object(thinking)| thinking.display.as_deref()) {
        None | Some("summarized") => Ok(Display::Whole),
        Some("omitted") => Ok(Display::Omitted),
        Some(other) => Err(invalid(
            "thinking.display",
            format_args!("{other:?} must be \"summarized\" or \"omitted\""),
        )),
    }
}

fn form(output: OutputFields, request: &mut chat::Request) -> Result<(), Problem> {
    request.reasoning_effort = match output.effort.as_deref() {
        None => None,
        Some(effort @ ("low" | "medium" | "high")) => Some(effort.to_owned()),
        // The most that templates know.
        Some("xhigh" | "max") => Some("high".to_owned()),
        Some(other) => {
            return Err(invalid(
                "output_config.effort",
                format_args!("{other:?} must be \"low\", \"medium\", \"high\", \"xhigh\" or \"max\""),
            ));
        }
    };
    if let Some(Object(format)) = output.format {
        request.response_format = Some(schema(format, "output_config.format")?);
    }
    Ok(())
}

fn schema(format: FormatFields, path: &str) -> Result<Value, Problem> {
    match format.r#type.as_deref() {
        Some("json_schema") => {}
        Some(other) => {
            return Err(invalid(
                &format!("{path}.type"),
                format_args!("{other:?} must be \"json_schema\""),
            ));
        }
        None => return Err(missing(&format!("{path}.type"))),
    }
    let schema = format.schema.ok_or_else(|| missing(&format!("{path}.schema")))?;
    Ok(json!({"type": "json_schema", "json_schema": {"name": "answer", "strict": true, "schema": schema}}))
}
