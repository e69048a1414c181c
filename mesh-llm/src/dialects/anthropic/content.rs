//! `messages` and `system`: from blocks to a chat's messages.

use super::super::Problem;
use super::super::chat::{FunctionCall, FunctionKind, Message, Role, ToolCall};
use super::answer::hidden_thought;
use super::error::{invalid, missing};
use super::fields::{Block, Blocks, MessageFields};
use llama_engine::server::api::json::{Bounded, Object, TextOr};
use serde_json::Value;

/// What several texts are joined by that different hands wrote: as llama.cpp does it for templates that
/// take only one.
const BETWEEN: &str = "\n";

/// A line that Claude Code puts before its instructions. It is meant for Anthropic's accounts, and a
/// number in it changes with each request, so that nothing after it would be found in the cache
/// (<https://github.com/anthropics/claude-code/issues/68900>).
const BILLING: &str = "x-anthropic-billing-header:";

/// The instructions, less what is not meant for the model.
pub(super) fn system(content: TextOr<Blocks>) -> Result<Option<Message>, Problem> {
    let texts = texts(content, "system")?;
    let texts: Vec<&str> = texts
        .iter()
        .map(|text| without_billing(text))
        .filter(|text| !text.is_empty())
        .collect();
    Ok((!texts.is_empty()).then(|| Message::text(Role::System, texts.join(BETWEEN))))
}

fn without_billing(text: &str) -> &str {
    if !text.starts_with(BILLING) {
        return text;
    }
    text.split_once('\n').map_or("", |(_, rest)| rest)
}

/// Adds the messages. Several in a row of one role become one, as in Anthropic's API: many templates
/// insist on turns.
pub(super) fn messages(messages: Vec<Object<MessageFields>>, chat: &mut Vec<Message>) -> Result<(), Problem> {
    if messages.is_empty() {
        return Err(invalid("messages", "send at least one message"));
    }
    for (index, Object(message)) in messages.into_iter().enumerate() {
        message.add_to(chat, &format!("messages[{index}]"))?;
    }
    Ok(())
}

impl MessageFields {
    fn add_to(self, chat: &mut Vec<Message>, path: &str) -> Result<(), Problem> {
        let role = self.role.ok_or_else(|| missing(&format!("{path}.role")))?;
        let path_of_content = format!("{path}.content");
        let content = self.content.ok_or_else(|| missing(&path_of_content))?;
        match role.as_str() {
            "user" => user(content, chat, &path_of_content),
            "assistant" => assistant(content, chat, &path_of_content),
            "system" => {
                instructions(&texts(content, &path_of_content)?.join(BETWEEN), chat);
                Ok(())
            }
            other => Err(invalid(
                &format!("{path}.role"),
                format_args!("{other:?} must be \"user\", \"assistant\" or \"system\""),
            )),
        }
    }
}

/// Instructions in the middle of a chat, which Claude Code sends after the user's words. Many templates
/// take them only at the beginning, and moving them there would change the prompt from its first token
/// on, of which nothing would then be in the cache: they stay where they are, in the user's turn.
fn instructions(text: &str, chat: &mut Vec<Message>) {
    let begins = chat.iter().all(|message| message.role == Role::System);
    let message = if begins {
        Message::text(Role::System, text)
    } else {
        Message::text(Role::User, format!("<system>\n{text}\n</system>"))
    };
    add(chat, message);
}

/// The results of tools first, then what the user says.
fn user(content: TextOr<Blocks>, chat: &mut Vec<Message>, path: &str) -> Result<(), Problem> {
    let blocks = match content {
        TextOr::Text(text) => {
            add(chat, Message::text(Role::User, text));
            return Ok(());
        }
        TextOr::Other(Blocks(Bounded(blocks))) => blocks,
    };
    if blocks.is_empty() {
        return Err(invalid(path, "send at least one block"));
    }
    let mut texts = Vec::new();
    for (index, Object(block)) in blocks.into_iter().enumerate() {
        let path = format!("{path}[{index}]");
        match block.kind(&path)? {
            "text" => texts.push(block.text(&path)?),
            "tool_result" => chat.push(block.result(&path)?),
            other => return Err(unsupported(other, &path)),
        }
    }
    if !texts.is_empty() {
        add(chat, Message::text(Role::User, texts.join(BETWEEN)));
    }
    Ok(())
}

/// What the assistant thought, said and called. Its texts are pieces of one answer.
fn assistant(content: TextOr<Blocks>, chat: &mut Vec<Message>, path: &str) -> Result<(), Problem> {
    let mut message = Message::text(Role::Assistant, "");
    let (mut said, mut thought) = (String::new(), String::new());
    match content {
        TextOr::Text(text) => said = text,
        TextOr::Other(Blocks(Bounded(blocks))) => {
            for (index, Object(block)) in blocks.into_iter().enumerate() {
                let path = format!("{path}[{index}]");
                match block.kind(&path)? {
                    "text" => said.push_str(&block.text(&path)?),
                    "thinking" => thought.push_str(&block.thought(&path)?),
                    // Only Anthropic can read it.
                    "redacted_thinking" => {}
                    "tool_use" => message.tool_calls.push(block.call(&path)?),
                    other => return Err(unsupported(other, &path)),
                }
            }
        }
    }
    let only_calls = said.is_empty() && !message.tool_calls.is_empty();
    message.content = (!only_calls).then_some(said);
    message.reasoning_content = (!thought.is_empty()).then_some(thought);
    add(chat, message);
    Ok(())
}

/// Adds a message, to the last one if that has the same role.
fn add(chat: &mut Vec<Message>, message: Message) {
    match chat.last_mut() {
        Some(last) if last.role == message.role => {
            join(&mut last.content, message.content);
            join(&mut last.reasoning_content, message.reasoning_content);
            last.tool_calls.extend(message.tool_calls);
        }
        _ => chat.push(message),
    }
}

fn join(text: &mut Option<String>, more: Option<String>) {
    match (text, more) {
        (_, None) => {}
        (Some(text), Some(more)) => {
            text.push_str(BETWEEN);
            text.push_str(&more);
        }
        (text, more) => *text = more,
    }
}

/// A string, or the texts of blocks that may be nothing else.
fn texts(content: TextOr<Blocks>, path: &str) -> Result<Vec<String>, Problem> {
    each(content, path, |block, path| match block.kind(path)? {
        "text" => block.text(path),
        other => Err(unsupported(other, path)),
    })
}

/// What a tool returned. One that finds tools, such as Claude Code's, names those that it found; they
/// are then among the request's tools.
fn results(content: TextOr<Blocks>, path: &str) -> Result<Vec<String>, Problem> {
    each(content, path, |block, path| match block.kind(path)? {
        "text" => block.text(path),
        "tool_reference" => {
            let name = block
                .tool_name
                .ok_or_else(|| missing(&format!("{path}.tool_name")))?;
            Ok(format!("The tool {name} can be called now."))
        }
        other => Err(unsupported(other, path)),
    })
}

/// A string, or what `read` makes of each block.
fn each(
    content: TextOr<Blocks>,
    path: &str,
    read: impl Fn(Block, &str) -> Result<String, Problem>,
) -> Result<Vec<String>, Problem> {
    let blocks = match content {
        TextOr::Text(text) => return Ok(vec![text]),
        TextOr::Other(Blocks(Bounded(blocks))) => blocks,
    };
    let read = |(index, Object(block))| read(block, &format!("{path}[{index}]"));
    blocks.into_iter().enumerate().map(read).collect()
}

impl Block {
    fn kind(&self, path: &str) -> Result<&str, Problem> {
        self.r#type
            .as_deref()
            .ok_or_else(|| missing(&format!("{path}.type")))
    }

    fn text(self, path: &str) -> Result<String, Problem> {
        self.text.ok_or_else(|| missing(&format!("{path}.text")))
    }

    fn thought(self, path: &str) -> Result<String, Problem> {
        let shown = self
            .thinking
            .ok_or_else(|| missing(&format!("{path}.thinking")))?;
        let hidden = self.signature.as_deref().and_then(hidden_thought);
        Ok(hidden.map_or(shown, str::to_owned))
    }

    fn call(self, path: &str) -> Result<ToolCall, Problem> {
        let missing = |field: &str| missing(&format!("{path}.{field}"));
        let input = self.input.ok_or_else(|| missing("input"))?;
        Ok(ToolCall {
            id: self.id.ok_or_else(|| missing("id"))?,
            kind: FunctionKind::Function,
            function: FunctionCall {
                name: self.name.ok_or_else(|| missing("name"))?,
                arguments: Value::Object(input).to_string(),
            },
        })
    }

    fn result(self, path: &str) -> Result<Message, Problem> {
        let id = self
            .tool_use_id
            .ok_or_else(|| missing(&format!("{path}.tool_use_id")))?;
        let mut text = match self.content {
            None => String::new(),
            Some(content) => results(content, &format!("{path}.content"))?.join(BETWEEN),
        };
        if self.is_error == Some(true) {
            // A chat has no other place for it.
            text.insert_str(0, "Error: ");
        }
        Ok(Message {
            tool_call_id: Some(id),
            ..Message::text(Role::Tool, text)
        })
    }
}

/// A block that cannot be taken where it is, and what to do instead.
fn unsupported(kind: &str, path: &str) -> Problem {
    let remedy = match kind {
        "image" => "models read only text here; describe the image in words",
        "document" | "search_result" => "models read only text here; send what it says as a text block",
        "tool_use" | "thinking" | "redacted_thinking" => "it belongs into a message of the assistant",
        "tool_result" => "it belongs into a message of the user",
        _ => "it is not known here, or comes from a tool that Anthropic runs; leave it out",
    };
    invalid(
        &format!("{path}.type"),
        format_args!("a block of type {kind:?} cannot be taken: {remedy}"),
    )
}
