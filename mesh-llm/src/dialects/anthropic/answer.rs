//! Whole answers, and what they have in common with streams.

use super::super::{Answer, Form, Problem, chat};
use super::error;
use super::stream::Writer;
use serde::Serialize;
use serde_json::{Map, Value, json};

/// What of a request its answer depends on.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) max_tokens: u64,
    pub(super) stop_sequences: Vec<String>,
    pub(super) display: Display,
}

/// Whether thoughts are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Display {
    /// As the model wrote them: there is nobody who could summarise them.
    Whole,
    /// That there were some is all that is shown.
    Omitted,
}

/// An answer (`message.py`).
#[derive(Debug, Serialize)]
pub(super) struct Message<'a> {
    pub(super) id: String,
    pub(super) r#type: &'static str,
    pub(super) role: &'static str,
    pub(super) model: &'a str,
    pub(super) content: Vec<Block>,
    pub(super) stop_reason: Option<&'static str>,
    pub(super) stop_sequence: Option<String>,
    pub(super) usage: Usage,
}

impl<'a> Message<'a> {
    /// An answer as it begins.
    pub(super) fn new(id: &str, model: &'a str, usage: Usage) -> Self {
        Self {
            id: format!("msg_{}", bare(id)),
            r#type: "message",
            role: "assistant",
            model,
            content: Vec::new(),
            stop_reason: None,
            stop_sequence: None,
            usage,
        }
    }
}

/// The engine's id less its prefix.
fn bare(id: &str) -> &str {
    id.strip_prefix("chatcmpl-").unwrap_or(id)
}

/// What marks a signature that has a thought in it.
const HIDDEN: &str = "thought:";

/// What proves to Anthropic that a thought is its model's. Clients drop thoughts that have none, so it
/// names the answer; it is not checked when it comes back. It is opaque to clients, and they send it
/// back: a thought that is not shown is in it.
pub(super) fn signature(id: &str, hidden: &str) -> String {
    match hidden {
        "" => format!("sig_{}", bare(id)),
        hidden => format!("{HIDDEN}{hidden}"),
    }
}

/// The thought that was not shown.
pub(super) fn hidden_thought(signature: &str) -> Option<&str> {
    signature.strip_prefix(HIDDEN)
}

/// A part of an answer (`content_block.py`).
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Block {
    Thinking {
        thinking: String,
        signature: String,
    },
    Text {
        text: String,
    },
    ToolUse {
        id: String,
        name: String,
        input: Map<String, Value>,
    },
}

/// Tokens (`usage.py`).
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Usage {
    /// Of the prompt, less those from the cache.
    input_tokens: u64,
    /// Nobody pays for the cache here: what is written to it counts as input.
    cache_creation_input_tokens: u64,
    cache_read_input_tokens: u64,
    pub(super) output_tokens: u64,
}

impl Usage {
    pub(super) fn new(prompt_tokens: u64, cached_tokens: u64, output_tokens: u64) -> Self {
        Self {
            input_tokens: prompt_tokens.saturating_sub(cached_tokens),
            cache_creation_input_tokens: 0,
            cache_read_input_tokens: cached_tokens,
            output_tokens,
        }
    }
}

impl From<chat::Usage> for Usage {
    fn from(usage: chat::Usage) -> Self {
        Self::new(
            usage.prompt_tokens,
            usage.prompt_tokens_details.cached_tokens,
            usage.completion_tokens,
        )
    }
}

/// Why an answer ended (`stop_reason.py`), and the stop sequence if it was one.
#[derive(Debug, Serialize)]
pub(super) struct Stop {
    pub(super) stop_reason: &'static str,
    pub(super) stop_sequence: Option<String>,
}

impl Asked {
    /// Says in the dialect's words why an answer ended.
    pub(super) fn stop(
        &self,
        reason: chat::FinishReason,
        stopping_word: Option<String>,
        output_tokens: u64,
    ) -> Stop {
        let stop_sequence = stopping_word.filter(|word| self.stop_sequences.contains(word));
        let stop_reason = match reason {
            chat::FinishReason::ToolCalls => "tool_use",
            chat::FinishReason::Length if output_tokens < self.max_tokens => "model_context_window_exceeded",
            chat::FinishReason::Length => "max_tokens",
            chat::FinishReason::Stop if stop_sequence.is_some() => "stop_sequence",
            chat::FinishReason::Stop => "end_turn",
        };
        Stop {
            stop_reason,
            stop_sequence: stop_sequence.filter(|_| stop_reason == "stop_sequence"),
        }
    }

    fn message(&self, completion: chat::Completion) -> Result<Vec<u8>, Problem> {
        let [choice] = <[chat::Choice; 1]>::try_from(completion.choices)
            .map_err(|choices| Problem::engine(format!("the engine gave {} answers", choices.len())))?;
        let stop = self.stop(
            choice.finish_reason,
            choice.stopping_word,
            completion.usage.completion_tokens,
        );
        let mut message = Message::new(&completion.id, &completion.model, completion.usage.into());
        if let Some(thinking) = choice.message.reasoning_content.filter(|text| !text.is_empty()) {
            let (thinking, hidden) = match self.display {
                Display::Whole => (thinking, String::new()),
                Display::Omitted => (String::new(), thinking),
            };
            let signature = signature(&completion.id, &hidden);
            message.content.push(Block::Thinking { thinking, signature });
        }
        if let Some(text) = choice.message.content.filter(|text| !text.is_empty()) {
            message.content.push(Block::Text { text });
        }
        for call in choice.message.tool_calls {
            message.content.push(Block::ToolUse {
                id: call.id,
                name: call.function.name,
                input: input(call.function.arguments),
            });
        }
        message.stop_reason = Some(stop.stop_reason);
        message.stop_sequence = stop.stop_sequence;
        serde_json::to_vec(&message)
            .map_err(|error| Problem::engine(format!("the answer cannot be written: {error}")))
    }
}

/// A call's arguments as the object that they must be here. What was cut off, or is no object, comes as
/// Anthropic advises clients to send such input
/// (<https://platform.claude.com/docs/en/agents-and-tools/tool-use/fine-grained-tool-streaming>).
fn input(arguments: String) -> Map<String, Value> {
    if arguments.is_empty() {
        return Map::new();
    }
    serde_json::from_str(&arguments)
        .unwrap_or_else(|_| Map::from_iter([("INVALID_JSON".to_owned(), json!(arguments))]))
}

/// Puts an answer into the dialect's words.
#[derive(Debug)]
pub(super) struct MessageAnswer {
    asked: Asked,
    form: Form,
    writer: Writer,
}

impl MessageAnswer {
    pub(super) fn new(asked: Asked, form: Form) -> Self {
        Self {
            writer: Writer::new(asked.display),
            asked,
            form,
        }
    }
}

impl Answer for MessageAnswer {
    fn content_type(&self) -> &'static str {
        match self.form {
            Form::Whole => "application/json",
            Form::Stream => "text/event-stream",
        }
    }

    fn whole(&mut self, answer: &[u8]) -> Result<Vec<u8>, Problem> {
        let completion = serde_json::from_slice(answer)
            .map_err(|error| Problem::engine(format!("the engine's answer cannot be read: {error}")))?;
        self.asked.message(completion)
    }

    fn event(&mut self, data: &[u8], out: &mut Vec<u8>) {
        match chat::Event::read(data) {
            chat::Event::Chunk(chunk) => self.writer.chunk(chunk, out),
            chat::Event::Problem(problem) => self.broken(&problem, out),
        }
    }

    fn keep_alive(&mut self, out: &mut Vec<u8>) {
        self.writer.ping(out);
    }

    fn broken(&mut self, problem: &Problem, out: &mut Vec<u8>) {
        if self.writer.close() {
            error::event(problem, out);
        }
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        match self.writer.finish(&self.asked, out) {
            Ok(()) => {}
            Err(problem) => self.broken(&problem, out),
        }
    }
}
