//! `tools` and `tool_choice`.

use super::super::{Problem, chat};
use super::error::{invalid, missing};
use super::fields::{ToolChoiceFields, ToolFields};
use llama_engine::server::api::json::Object;
use serde_json::{Value, json};

/// The tools as functions.
pub(super) fn tools(tools: Vec<Object<ToolFields>>) -> Result<Vec<chat::Tool>, Problem> {
    let translate =
        |(index, Object(tool)): (usize, Object<ToolFields>)| tool.translate(&format!("tools[{index}]"));
    tools.into_iter().enumerate().map(translate).collect()
}

impl ToolFields {
    fn translate(self, path: &str) -> Result<chat::Tool, Problem> {
        if let Some(kind) = self.r#type.filter(|kind| kind != "custom") {
            return Err(invalid(
                &format!("{path}.type"),
                format_args!(
                    "{kind:?} is a tool that Anthropic provides, and this server has none of those; leave it \
                     out, or offer a tool of your own with an input_schema"
                ),
            ));
        }
        let name = self.name.ok_or_else(|| missing(&format!("{path}.name")))?;
        let schema = self
            .input_schema
            .ok_or_else(|| missing(&format!("{path}.input_schema")))?;
        Ok(chat::Tool {
            kind: chat::FunctionKind::Function,
            function: chat::Function {
                name,
                description: self.description,
                parameters: Some(Value::Object(schema)),
                strict: self.strict,
            },
        })
    }
}

/// Sets what of a request says whether tools are called.
pub(super) fn choose(choice: ToolChoiceFields, request: &mut chat::Request) -> Result<(), Problem> {
    const TYPE: &str = "tool_choice.type";
    const NAME: &str = "tool_choice.name";
    let chosen = match choice.r#type.as_deref() {
        None => return Err(missing(TYPE)),
        Some("auto") => json!("auto"),
        Some("none") => json!("none"),
        Some("any") if request.tools.is_empty() => {
            return Err(invalid(
                TYPE,
                "\"any\" wants a tool to be called, but there are no tools",
            ));
        }
        Some("any") => json!("required"),
        Some("tool") => {
            let name = choice.name.ok_or_else(|| missing(NAME))?;
            if !request.tools.iter().any(|tool| tool.function.name == name) {
                return Err(invalid(NAME, format_args!("there is no tool {name:?} in tools")));
            }
            json!({"type": "function", "function": {"name": name}})
        }
        Some(other) => {
            return Err(invalid(
                TYPE,
                format_args!("{other:?} must be \"auto\", \"any\", \"tool\" or \"none\""),
            ));
        }
    };
    request.tool_choice = Some(chosen);
    request.parallel_tool_calls = choice.disable_parallel_tool_use.map(|disable| !disable);
    Ok(())
}
