//! `tools` and `tool_choice`: flat here, nested in a chat.

use super::super::Problem;
use super::super::chat::{Function, FunctionKind, Tool as ChatTool};
use super::fields::{missing, object, unsupported, wrong_type};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A function that the model may call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tool {
    r#type: FunctionKind,
    name: String,
    description: Option<String>,
    parameters: Option<Value>,
    strict: Option<bool>,
}

impl Tool {
    pub(super) fn read(value: Value, path: &str) -> Result<Self, Problem> {
        only_functions(&value, path)?;
        object(value, path)
    }

    pub(super) fn chat(&self) -> ChatTool {
        ChatTool {
            kind: FunctionKind::Function,
            function: Function {
                name: self.name.clone(),
                description: self.description.clone(),
                parameters: self.parameters.clone(),
                strict: self.strict,
            },
        }
    }
}

/// Whether tools are called, and which.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum ToolChoice {
    /// In a word.
    Mode(Mode),
    /// By name.
    Named(Named),
}

impl Default for ToolChoice {
    fn default() -> Self {
        Self::Mode(Mode::Auto)
    }
}

/// Whether a tool is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// None is.
    None,
    /// The model decides.
    Auto,
    /// At least one is.
    Required,
}

/// Tools by name.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Named {
    /// This one is called.
    Function {
        /// The function.
        name: String,
    },
    /// These are there.
    AllowedTools {
        /// Whether one of them is called.
        mode: Mode,
        /// Which are.
        tools: Vec<AllowedTool>,
    },
}

/// A tool by its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllowedTool {
    r#type: FunctionKind,
    name: String,
}

#[derive(Debug, Deserialize)]
struct FunctionFields {
    name: String,
}

#[derive(Debug, Deserialize)]
struct AllowedFields {
    mode: Value,
    tools: Vec<Value>,
}

impl ToolChoice {
    pub(super) fn read(value: Value) -> Result<Self, Problem> {
        const PATH: &str = "tool_choice";
        if value.is_string() {
            return Ok(Self::Mode(Mode::read(&value, PATH)?));
        }
        if !value.is_object() {
            return Err(wrong_type(PATH, "a string or an object"));
        }
        if value["type"] != "allowed_tools" {
            only_functions(&value, PATH)?;
            let FunctionFields { name } = object(value, PATH)?;
            return Ok(Self::Named(Named::Function { name }));
        }
        let AllowedFields { mode, tools } = object(value, PATH)?;
        let mode = Mode::read(&mode, "tool_choice.mode")?;
        let read = |(index, tool)| {
            let path = format!("tool_choice.tools[{index}]");
            only_functions(&tool, &path)?;
            object(tool, &path)
        };
        let tools = tools
            .into_iter()
            .enumerate()
            .map(read)
            .collect::<Result<_, _>>()?;
        Ok(Self::Named(Named::AllowedTools { mode, tools }))
    }

    pub(super) fn chat(&self) -> Value {
        let function = |name: &str| json!({"type": "function", "function": {"name": name}});
        match self {
            Self::Mode(mode) => json!(mode),
            Self::Named(Named::Function { name }) => function(name),
            Self::Named(Named::AllowedTools { mode, tools }) => {
                let tools: Vec<Value> = tools.iter().map(|tool| function(&tool.name)).collect();
                json!({"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}})
            }
        }
    }
}

impl Mode {
    fn read(value: &Value, path: &str) -> Result<Self, Problem> {
        match value.as_str() {
            Some("none") => Ok(Self::None),
            Some("auto") => Ok(Self::Auto),
            Some("required") => Ok(Self::Required),
            _ => Err(unsupported(
                path,
                format!("{path} must be \"none\", \"auto\" or \"required\", not {value}"),
            )),
        }
    }
}

fn only_functions(value: &Value, path: &str) -> Result<(), Problem> {
    if !value.is_object() {
        return Err(wrong_type(path, "an object"));
    }
    let path = format!("{path}.type");
    match &value["type"] {
        Value::Null => Err(missing(&path)),
        Value::String(kind) if kind == "function" => Ok(()),
        Value::String(kind) => Err(unsupported(
            &path,
            format!(
                "{path} is {kind:?}, but this server has no tools of its own: only \"function\" is possible, \
                 a function that the client runs"
            ),
        )),
        _ => Err(wrong_type(&path, "a string")),
    }
}
