//! From items to a chat's messages. What the model did in one go (it thought, it said something, it
//! called functions) is several items, but one message.

use super::super::chat::{FunctionCall as ChatCall, FunctionKind, Message, Role as ChatRole, ToolCall};
use super::item::{Item, Output, Part, Role};

/// The messages of a conversation.
pub(super) fn messages<'a>(
    instructions: Option<&str>,
    items: impl IntoIterator<Item = &'a Item>,
) -> Vec<Message> {
    let mut chat = Chat::default();
    if let Some(text) = instructions {
        chat.messages.push(Message::text(ChatRole::System, text));
    }
    for item in items {
        chat.push(item);
    }
    chat.close();
    chat.messages
}

#[derive(Debug, Default)]
struct Chat {
    messages: Vec<Message>,
    /// What the model does at the moment.
    open: Option<Message>,
}

impl Chat {
    fn push(&mut self, item: &Item) {
        match item {
            Item::Message(message) if message.role == Role::Assistant => {
                let open = self.open(|open| open.content.is_none() && open.tool_calls.is_empty());
                open.content = Some(text(&message.content));
            }
            Item::Message(message) => {
                self.close();
                let role = match message.role {
                    Role::System => ChatRole::System,
                    Role::Developer => ChatRole::Developer,
                    Role::User | Role::Assistant => ChatRole::User,
                };
                self.messages.push(Message::text(role, text(&message.content)));
            }
            Item::Reasoning(reasoning) => {
                let thought = reasoning.text();
                if thought.is_empty() {
                    return;
                }
                let open = self.open(|open| {
                    open.reasoning_content.is_none() && open.content.is_none() && open.tool_calls.is_empty()
                });
                open.reasoning_content = Some(thought);
            }
            Item::FunctionCall(call) => {
                let call = ToolCall {
                    id: call.call_id.clone(),
                    kind: FunctionKind::Function,
                    function: ChatCall {
                        name: call.name.clone(),
                        arguments: call.arguments.clone(),
                    },
                };
                self.open(|_| true).tool_calls.push(call);
            }
            Item::FunctionCallOutput(output) => {
                self.close();
                let result = match &output.output {
                    Output::Text(text) => text.clone(),
                    Output::Parts(parts) => text(parts),
                };
                self.messages.push(Message {
                    tool_call_id: Some(output.call_id.clone()),
                    ..Message::text(ChatRole::Tool, result)
                });
            }
        }
    }

    /// The model's message, a new one where what comes does not fit into the one that there is.
    fn open(&mut self, fits: impl FnOnce(&Message) -> bool) -> &mut Message {
        if !self.open.as_ref().is_some_and(fits) {
            self.close();
        }
        self.open.get_or_insert_with(|| Message {
            content: None,
            ..Message::text(ChatRole::Assistant, "")
        })
    }

    fn close(&mut self) {
        if let Some(mut message) = self.open.take() {
            if message.tool_calls.is_empty() {
                // Without a call there is a content, even if the model said nothing.
                message.content.get_or_insert_default();
            }
            self.messages.push(message);
        }
    }
}

fn text(parts: &[Part]) -> String {
    parts.iter().map(Part::text).collect()
}
