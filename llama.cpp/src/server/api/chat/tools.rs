//! `tools` and `tool_choice`.

use serde::{Deserialize, Serialize, Serializer, ser::SerializeStruct};
use serde_json::Value;

use super::super::{
    ApiError, ErrorCode,
    json::{Alternative, Bounded, Object, TextOr},
    limits,
};

/// A tool that the model may call.
#[derive(Debug, Clone, PartialEq)]
pub struct Tool {
    /// The only kind of tool that there is.
    pub function: Function,
}

/// A function that the model may call.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Function {
    /// What the model calls it by.
    pub name: String,
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The JSON schema of its arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parameters: Option<Value>,
}

/// `{"type":"function","function":…}`
impl Serialize for Tool {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tool = serializer.serialize_struct("Tool", 2)?;
        tool.serialize_field("type", "function")?;
        tool.serialize_field("function", &self.function)?;
        tool.end()
    }
}

/// Whether a tool may, must or must not be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToolUse {
    /// Must not, or there is none.
    None,
    /// May.
    Auto,
    /// Must.
    Required,
}

#[derive(Debug, Deserialize)]
pub(super) struct Fields {
    r#type: Option<String>,
    function: Option<Object<FunctionFields>>,
}

#[derive(Debug, Deserialize)]
struct FunctionFields {
    name: Option<String>,
    description: Option<String>,
    parameters: Option<Value>,
}

/// `tool_choice`: a word, or an object.
pub(super) type ChoiceField = TextOr<Object<ChoiceFields>>;

impl Alternative for Object<ChoiceFields> {
    const EXPECTED: &'static str = "\"none\", \"auto\", \"required\" or an object";
}

#[derive(Debug, Deserialize)]
pub(super) struct ChoiceFields {
    r#type: Option<String>,
    function: Option<Object<NameFields>>,
    allowed_tools: Option<Object<AllowedFields>>,
}

#[derive(Debug, Deserialize)]
struct AllowedFields {
    mode: Option<String>,
    tools: Option<Bounded<Object<NamedFields>, { limits::TOOLS }>>,
}

#[derive(Debug, Deserialize)]
struct NamedFields {
    r#type: Option<String>,
    function: Option<Object<NameFields>>,
}

#[derive(Debug, Deserialize)]
struct NameFields {
    name: Option<String>,
}

pub(super) fn check(
    tools: Option<Bounded<Object<Fields>, { limits::TOOLS }>>,
    choice: Option<ChoiceField>,
) -> Result<(Vec<Tool>, ToolUse), ApiError> {
    let mut tools = tools
        .map_or(Vec::new(), |Bounded(tools)| tools)
        .into_iter()
        .enumerate()
        .map(|(index, Object(fields))| fields.check(&format!("tools[{index}]")))
        .collect::<Result<Vec<_>, _>>()?;
    let (tool_use, only) = match choice {
        None => (ToolUse::Auto, None),
        Some(TextOr::Text(word)) => (mode("tool_choice", &word)?, None),
        Some(TextOr::Other(Object(choice))) => choice.check()?,
    };
    if let Some(names) = &only {
        for (path, name) in names {
            if !tools.iter().any(|tool| tool.function.name == *name) {
                return Err(ApiError::value(
                    path,
                    format!("{path} is {name:?}, but tools has no function of that name"),
                ));
            }
        }
        tools.retain(|tool| names.iter().any(|(_, name)| *name == tool.function.name));
    }
    match (tools.is_empty(), tool_use) {
        (true, ToolUse::Required) => Err(ApiError::value(
            "tool_choice",
            "tool_choice requires a tool to be called, but there are no tools",
        )),
        (true, _) => Ok((tools, ToolUse::None)),
        (false, tool_use) => Ok((tools, tool_use)),
    }
}

impl Fields {
    fn check(self, path: &str) -> Result<Tool, ApiError> {
        only_functions(self.r#type.as_deref(), path)?;
        let path = format!("{path}.function");
        let Object(function) = self.function.ok_or_else(|| ApiError::missing(&path))?;
        let name = function
            .name
            .ok_or_else(|| ApiError::missing(format!("{path}.name")))?;
        if name.is_empty()
            || name.len() > limits::TOOL_NAME_BYTES
            || name.chars().any(|c| c.is_control() || c.is_whitespace())
        {
            return Err(ApiError::value(
                format!("{path}.name"),
                format!(
                    "{path}.name must have from 1 to {} bytes and no space",
                    limits::TOOL_NAME_BYTES
                ),
            ));
        }
        if let Some(parameters) = &function.parameters
            && !parameters.is_object()
        {
            return Err(ApiError::bad(
                ErrorCode::InvalidType,
                format!("{path}.parameters"),
                format!("{path}.parameters must be an object, a JSON schema"),
            ));
        }
        Ok(Tool {
            function: Function {
                name,
                description: function.description,
                parameters: function.parameters,
            },
        })
    }
}

/// The tools that a choice leaves, each with the path of its name; none leaves all.
type Only = Option<Vec<(String, String)>>;

impl ChoiceFields {
    fn check(self) -> Result<(ToolUse, Only), ApiError> {
        match self.r#type.as_deref() {
            None => Err(ApiError::missing("tool_choice.type")),
            Some("function") => {
                let name = name(self.function, "tool_choice.function")?;
                Ok((ToolUse::Required, Some(vec![name])))
            }
            Some("allowed_tools") => {
                let Object(allowed) = self
                    .allowed_tools
                    .ok_or_else(|| ApiError::missing("tool_choice.allowed_tools"))?;
                allowed.check()
            }
            Some(other) => Err(ApiError::bad(
                ErrorCode::UnsupportedValue,
                "tool_choice.type",
                format!("tool_choice.type is {other:?}, but must be \"function\" or \"allowed_tools\""),
            )),
        }
    }
}

impl AllowedFields {
    fn check(self) -> Result<(ToolUse, Only), ApiError> {
        const MODE: &str = "tool_choice.allowed_tools.mode";
        const TOOLS: &str = "tool_choice.allowed_tools.tools";
        let word = self.mode.ok_or_else(|| ApiError::missing(MODE))?;
        let tool_use = mode(MODE, &word)?;
        let Bounded(tools) = self.tools.ok_or_else(|| ApiError::missing(TOOLS))?;
        let names = tools
            .into_iter()
            .enumerate()
            .map(|(index, Object(named))| {
                let path = format!("{TOOLS}[{index}]");
                only_functions(named.r#type.as_deref(), &path)?;
                name(named.function, &format!("{path}.function"))
            })
            .collect::<Result<_, ApiError>>()?;
        Ok((tool_use, Some(names)))
    }
}

fn mode(param: &str, word: &str) -> Result<ToolUse, ApiError> {
    match word {
        "none" => Ok(ToolUse::None),
        "auto" => Ok(ToolUse::Auto),
        "required" => Ok(ToolUse::Required),
        other => Err(ApiError::bad(
            ErrorCode::UnsupportedValue,
            param,
            format!(
                "{param} is {other:?}, but must be \"none\", \"auto\", \"required\" or an object that \
                 names a function"
            ),
        )),
    }
}

fn only_functions(kind: Option<&str>, path: &str) -> Result<(), ApiError> {
    match kind {
        Some("function") => Ok(()),
        None => Err(ApiError::missing(format!("{path}.type"))),
        Some(other) => Err(ApiError::bad(
            ErrorCode::UnsupportedValue,
            format!("{path}.type"),
            format!("{path}.type is {other:?}, but must be \"function\""),
        )),
    }
}

/// A function's name, and its path.
fn name(function: Option<Object<NameFields>>, path: &str) -> Result<(String, String), ApiError> {
    let Object(function) = function.ok_or_else(|| ApiError::missing(path))?;
    let path = format!("{path}.name");
    match function.name {
        Some(name) => Ok((path, name)),
        None => Err(ApiError::missing(path)),
    }
}
