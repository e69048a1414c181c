//! The messages of a chat.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error, ser::SerializeStruct};
use serde_json::Value;

use super::super::{
    ApiError, ErrorCode,
    json::{Alternative, Bounded, Object, TextOr},
    limits,
};

/// A message, in the form that chat templates take.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Message {
    /// Whose it is.
    pub role: Role,
    /// What it says; none only where an assistant calls tools.
    pub content: Option<Content>,
    /// What the assistant thought.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
    /// The name of the participant, or of the tool.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The call that a tool answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// The tools that the assistant called.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
}

/// Whose a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Instructions.
    System,
    /// Instructions, by OpenAI's newer name.
    Developer,
    /// A question.
    User,
    /// An answer.
    Assistant,
    /// What a tool returned. The deprecated `function` is read as this.
    Tool,
}

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Content {
    /// In one piece.
    Text(String),
    /// In several.
    Parts(Vec<Part>),
}

/// A part of a message's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its text.
    pub text: String,
}

/// `{"type":"text","text":…}`
impl Serialize for Part {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut part = serializer.serialize_struct("Part", 2)?;
        part.serialize_field("type", "text")?;
        part.serialize_field("text", &self.text)?;
        part.end()
    }
}

/// A tool that the assistant called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCall {
    /// What the tool's answer refers to.
    pub id: Option<String>,
    /// The tool.
    pub name: String,
    /// JSON, as the model wrote it.
    pub arguments: String,
}

/// `{"id":…,"type":"function","function":{"name":…,"arguments":…}}`
impl Serialize for ToolCall {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Function<'a> {
            name: &'a str,
            arguments: &'a str,
        }
        let mut call = serializer.serialize_struct("ToolCall", 3)?;
        match &self.id {
            Some(id) => call.serialize_field("id", id)?,
            None => call.skip_field("id")?,
        }
        call.serialize_field("type", "function")?;
        call.serialize_field(
            "function",
            &Function {
                name: &self.name,
                arguments: &self.arguments,
            },
        )?;
        call.end()
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Fields {
    role: Option<String>,
    content: Option<TextOr<Parts>>,
    reasoning_content: Option<String>,
    name: Option<String>,
    tool_call_id: Option<String>,
    tool_calls: Option<Bounded<Object<ToolCallFields>, { limits::TOOL_CALLS }>>,
}

pub(super) type Parts = Bounded<Object<PartFields>, { limits::CONTENT_PARTS }>;

impl Alternative for Parts {
    const EXPECTED: &'static str = "a string or an array of content parts";
}

#[derive(Debug, Deserialize)]
pub(super) struct PartFields {
    r#type: Option<String>,
    text: Option<String>,
    refusal: Option<String>,
}

#[derive(Debug, Deserialize)]
struct ToolCallFields {
    id: Option<String>,
    r#type: Option<String>,
    function: Option<Object<CalledFields>>,
}

#[derive(Debug, Deserialize)]
struct CalledFields {
    name: Option<String>,
    arguments: Option<Arguments>,
}

/// OpenAI sends the arguments as a string of JSON; some clients send the JSON itself.
#[derive(Debug)]
struct Arguments(String);

impl<'de> Deserialize<'de> for Arguments {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) => Ok(Arguments(text)),
            value @ Value::Object(_) => Ok(Arguments(value.to_string())),
            _ => Err(D::Error::custom("invalid type: expected a string or an object")),
        }
    }
}

pub(super) fn check(
    messages: Option<Bounded<Object<Fields>, { limits::MESSAGES }>>,
) -> Result<Vec<Message>, ApiError> {
    let Bounded(messages) = messages.ok_or_else(|| ApiError::missing("messages"))?;
    if messages.is_empty() {
        return Err(ApiError::value(
            "messages",
            "messages is empty; send at least one message",
        ));
    }
    let check =
        |(index, Object(fields)): (usize, Object<Fields>)| fields.check(&format!("messages[{index}]"));
    messages.into_iter().enumerate().map(check).collect()
}

/// Reads the parts of a content at `path`.
pub(super) fn check_parts(Bounded(parts): Parts, path: &str) -> Result<Vec<Part>, ApiError> {
    let check = |(index, Object(part)): (usize, Object<PartFields>)| part.check(&format!("{path}[{index}]"));
    parts.into_iter().enumerate().map(check).collect()
}

impl Fields {
    fn check(self, path: &str) -> Result<Message, ApiError> {
        let role = role(self.role.as_deref(), path)?;
        let content = match self.content {
            None => None,
            Some(TextOr::Text(text)) => Some(Content::Text(text)),
            Some(TextOr::Other(parts)) => {
                Some(Content::Parts(check_parts(parts, &format!("{path}.content"))?))
            }
        };
        let tool_calls = self.tool_calls.map_or(Vec::new(), |Bounded(calls)| calls);
        if role != Role::Assistant && !tool_calls.is_empty() {
            return Err(ApiError::value(
                format!("{path}.tool_calls"),
                format!("{path}.tool_calls is only for messages of the role assistant"),
            ));
        }
        if content.is_none() && tool_calls.is_empty() {
            let mut error = ApiError::missing(format!("{path}.content"));
            if role == Role::Assistant {
                error
                    .message
                    .push_str(", and so is tool_calls: an assistant's message needs one of them");
            }
            return Err(error);
        }
        Ok(Message {
            role,
            content,
            reasoning_content: self.reasoning_content,
            name: self.name,
            tool_call_id: self.tool_call_id,
            tool_calls: tool_calls
                .into_iter()
                .enumerate()
                .map(|(index, Object(call))| call.check(&format!("{path}.tool_calls[{index}]")))
                .collect::<Result<_, _>>()?,
        })
    }
}

fn role(role: Option<&str>, path: &str) -> Result<Role, ApiError> {
    match role {
        Some("system") => Ok(Role::System),
        Some("developer") => Ok(Role::Developer),
        Some("user") => Ok(Role::User),
        Some("assistant") => Ok(Role::Assistant),
        Some("tool" | "function") => Ok(Role::Tool),
        None => Err(ApiError::missing(format!("{path}.role"))),
        Some(other) => Err(ApiError::bad(
            ErrorCode::UnsupportedValue,
            format!("{path}.role"),
            format!(
                "{path}.role is {other:?}, but must be \"system\", \"developer\", \"user\", \
                 \"assistant\" or \"tool\""
            ),
        )),
    }
}

impl PartFields {
    fn check(self, path: &str) -> Result<Part, ApiError> {
        let (name, text) = match self.r#type.as_deref() {
            Some("text") => ("text", self.text),
            // An assistant's earlier refusal is what it said.
            Some("refusal") => ("refusal", self.refusal),
            None => return Err(ApiError::missing(format!("{path}.type"))),
            Some(other) => {
                return Err(ApiError::bad(
                    ErrorCode::UnsupportedValue,
                    path,
                    format!("{path} has the type {other:?}, but the model takes text only"),
                ));
            }
        };
        let text = text.ok_or_else(|| ApiError::missing(format!("{path}.{name}")))?;
        Ok(Part { text })
    }
}

impl ToolCallFields {
    fn check(self, path: &str) -> Result<ToolCall, ApiError> {
        if let Some(other) = self.r#type.filter(|kind| kind != "function") {
            return Err(ApiError::bad(
                ErrorCode::UnsupportedValue,
                format!("{path}.type"),
                format!("{path}.type is {other:?}, but must be \"function\""),
            ));
        }
        let Object(called) = self
            .function
            .ok_or_else(|| ApiError::missing(format!("{path}.function")))?;
        Ok(ToolCall {
            id: self.id,
            name: called
                .name
                .ok_or_else(|| ApiError::missing(format!("{path}.function.name")))?,
            // A call without arguments is one with none.
            arguments: called
                .arguments
                .map_or_else(|| "{}".to_owned(), |Arguments(text)| text),
        })
    }
}
