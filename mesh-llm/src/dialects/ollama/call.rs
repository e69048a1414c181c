//! Calls of tools: Ollama's have arguments as JSON objects, and need no ids.

use super::super::chat::{FunctionCall, FunctionKind, ToolCall, ToolCallDelta};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A call as Ollama writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Call {
    /// Newer clients send it back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<String>,
    pub(super) function: Called,
}

/// What is called, and with what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Called {
    pub(super) name: String,
    #[serde(default)]
    pub(super) arguments: Map<String, Value>,
}

/// Gives calls and their results ids in the order of a chat: a result belongs to the first call that
/// has none yet, and that is of its tool if it names one.
#[derive(Debug, Default)]
pub(super) struct Ids {
    calls: usize,
    /// Ids and tools of the calls without a result.
    open: Vec<(String, String)>,
}

impl Ids {
    /// A call in the engine's words.
    pub(super) fn call(&mut self, call: Call) -> ToolCall {
        let id = call.id.unwrap_or_else(|| format!("call_{}", self.calls));
        self.calls += 1;
        self.open.push((id.clone(), call.function.name.clone()));
        ToolCall {
            id,
            kind: FunctionKind::Function,
            function: FunctionCall {
                name: call.function.name,
                arguments: Value::Object(call.function.arguments).to_string(),
            },
        }
    }

    /// The id and tool of the call that a result is for.
    pub(super) fn result(&mut self, id: Option<&str>, tool: Option<&str>) -> Option<(String, String)> {
        let found = self.open.iter().position(|(open, name)| match (id, tool) {
            (Some(id), _) => open == id,
            (None, Some(tool)) => name == tool,
            (None, None) => true,
        });
        found.map(|index| self.open.remove(index))
    }
}

/// Puts calls together whose arguments come in pieces.
#[derive(Debug, Default)]
pub(super) struct Calls {
    open: Option<(usize, ToolCall)>,
    /// What the model wrote of calls whose arguments are no JSON object.
    broken: String,
}

impl Calls {
    /// Takes a piece; a piece of another call ends the one before.
    pub(super) fn take(&mut self, delta: ToolCallDelta, done: &mut Vec<Call>) {
        if self.open.as_ref().is_none_or(|(index, _)| *index != delta.index) {
            self.close(done);
        }
        let (_, call) = self.open.get_or_insert_with(|| {
            let call = ToolCall {
                id: String::new(),
                kind: FunctionKind::Function,
                function: FunctionCall::default(),
            };
            (delta.index, call)
        });
        call.id.push_str(delta.id.as_deref().unwrap_or_default());
        let function = delta.function;
        call.function
            .name
            .push_str(function.name.as_deref().unwrap_or_default());
        call.function
            .arguments
            .push_str(function.arguments.as_deref().unwrap_or_default());
    }

    /// Ends the last call. Returns what cannot be told as calls: better the model's words than nothing,
    /// and better than a call with other arguments.
    pub(super) fn end(&mut self, done: &mut Vec<Call>) -> String {
        self.close(done);
        std::mem::take(&mut self.broken)
    }

    fn close(&mut self, done: &mut Vec<Call>) {
        let Some((_, call)) = self.open.take() else {
            return;
        };
        let FunctionCall { name, arguments } = call.function;
        let parsed = if arguments.trim().is_empty() {
            Some(Map::new())
        } else {
            serde_json::from_str(&arguments).ok()
        };
        match parsed {
            Some(arguments) => done.push(Call {
                id: Some(call.id).filter(|id| !id.is_empty()),
                function: Called { name, arguments },
            }),
            None => {
                self.broken.push_str(&name);
                self.broken.push_str(&arguments);
            }
        }
    }
}
