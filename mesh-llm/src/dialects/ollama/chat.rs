//! `POST /api/chat`
//! (<https://github.com/ollama/ollama/blob/main/docs/api.md#generate-a-chat-completion>).

use super::super::{Exchange, Form, Problem, chat};
use super::Asked;
use super::answer::{Reply, Shape, Source};
use super::call::{Call, Ids};
use super::models::Load;
use super::request::{Common, read, refuse_images};
use llama_engine::server::api::json::{Bounded, Object};
use llama_engine::server::api::limits;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

#[derive(Debug, Deserialize)]
struct Fields {
    messages: Option<Bounded<Object<Message>, { limits::MESSAGES }>>,
    tools: Option<Bounded<Object<Tool>, { limits::TOOLS }>>,
}

#[derive(Debug, Deserialize)]
struct Message {
    role: Option<chat::Role>,
    content: Option<String>,
    thinking: Option<String>,
    images: Option<Vec<IgnoredAny>>,
    tool_calls: Option<Bounded<Object<Call>, { limits::TOOL_CALLS }>>,
    tool_name: Option<String>,
    tool_call_id: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Tool {
    function: Option<Object<Function>>,
}

#[derive(Debug, Deserialize)]
struct Function {
    name: Option<String>,
    description: Option<String>,
    parameters: Option<Value>,
}

/// Reads a request.
///
/// # Errors
/// A problem that names the field that cannot be honoured.
pub fn asked(body: &[u8]) -> Result<Asked, Problem> {
    let common = Common::read(body)?;
    let fields: Fields = read(body)?;
    let messages = fields.messages.map_or(Vec::new(), |Bounded(messages)| messages);
    if messages.is_empty() {
        return Ok(Asked::Load(Load::new(common.model, Shape::Chat)));
    }
    let request = translate(&common, messages, fields.tools)?;
    Ok(Asked::Text(exchange(&common, &request, Shape::Chat)))
}

/// The exchange that a chat is, whatever it was asked as.
pub(super) fn exchange(common: &Common, request: &chat::Request, shape: Shape) -> Exchange {
    Exchange {
        path: chat::PATH,
        // Writing to memory cannot fail, and what is written has string keys.
        body: serde_json::to_vec(request).unwrap_or_default(),
        form: if common.stream { Form::Stream } else { Form::Whole },
        answer: Box::new(Reply::new(
            common.model.clone(),
            shape,
            Source::Chat,
            common.stream,
        )),
    }
}

fn translate(
    common: &Common,
    messages: Vec<Object<Message>>,
    tools: Option<Bounded<Object<Tool>, { limits::TOOLS }>>,
) -> Result<chat::Request, Problem> {
    let mut ids = Ids::default();
    let messages = messages
        .into_iter()
        .enumerate()
        .map(|(index, Object(message))| message.translate(&format!("messages[{index}]"), &mut ids))
        .collect::<Result<_, _>>()?;
    let tools = tools.map_or(Vec::new(), |Bounded(tools)| tools);
    let tools = tools
        .into_iter()
        .enumerate()
        .map(|(index, Object(tool))| tool.translate(&format!("tools[{index}]")))
        .collect::<Result<_, _>>()?;
    Ok(common.chat(messages, tools))
}

impl Message {
    fn translate(self, path: &str, ids: &mut Ids) -> Result<chat::Message, Problem> {
        let role = self.role.ok_or_else(|| missing(&format!("{path}.role")))?;
        refuse_images(self.images.as_ref(), &format!("{path}.images"))?;
        let calls = self.tool_calls.map_or(Vec::new(), |Bounded(calls)| calls);
        let tool_calls: Vec<_> = calls.into_iter().map(|Object(call)| ids.call(call)).collect();
        let mut message = chat::Message {
            reasoning_content: self.thinking,
            // Only a call may stand for words.
            content: match self.content {
                None if tool_calls.is_empty() => Some(String::new()),
                content => content,
            },
            tool_calls,
            ..chat::Message::text(role, "")
        };
        if role == chat::Role::Tool {
            let call = ids.result(self.tool_call_id.as_deref(), self.tool_name.as_deref());
            let (id, name) = call.unzip();
            message.tool_call_id = self.tool_call_id.or(id);
            message.name = self.tool_name.or(name);
        }
        Ok(message)
    }
}

impl Tool {
    fn translate(self, path: &str) -> Result<chat::Tool, Problem> {
        let path = format!("{path}.function");
        let Object(function) = self.function.ok_or_else(|| missing(&path))?;
        Ok(chat::Tool {
            kind: chat::FunctionKind::Function,
            function: chat::Function {
                name: function.name.ok_or_else(|| missing(&format!("{path}.name")))?,
                description: function.description,
                parameters: function.parameters,
                strict: None,
            },
        })
    }
}

fn missing(path: &str) -> Problem {
    Problem::invalid(Some(path), format!("{path} is missing"))
}
