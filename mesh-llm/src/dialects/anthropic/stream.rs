//! Answers as they are made
//! (<https://platform.claude.com/docs/en/build-with-claude/streaming>, `raw_message_stream_event.py`):
//! `message_start`, the blocks one after another, `message_delta`, `message_stop`.

use super::super::{Problem, chat, sse};
use super::answer::{Asked, Block, Display, Message, Stop, Usage, signature};
use serde::Serialize;
use serde_json::Map;

#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Event<'a> {
    MessageStart { message: Message<'a> },
    ContentBlockStart { index: usize, content_block: Block },
    ContentBlockDelta { index: usize, delta: Delta },
    ContentBlockStop { index: usize },
    MessageDelta { delta: Stop, usage: Usage },
    MessageStop,
    Ping,
}

impl Event<'_> {
    fn name(&self) -> &'static str {
        match self {
            Self::MessageStart { .. } => "message_start",
            Self::ContentBlockStart { .. } => "content_block_start",
            Self::ContentBlockDelta { .. } => "content_block_delta",
            Self::ContentBlockStop { .. } => "content_block_stop",
            Self::MessageDelta { .. } => "message_delta",
            Self::MessageStop => "message_stop",
            Self::Ping => "ping",
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        sse::write(out, self.name(), self);
    }
}

#[derive(Debug, Serialize)]
#[serde(tag = "type")]
enum Delta {
    #[serde(rename = "text_delta")]
    Text { text: String },
    #[serde(rename = "thinking_delta")]
    Thinking { thinking: String },
    #[serde(rename = "signature_delta")]
    Signature { signature: String },
    #[serde(rename = "input_json_delta")]
    InputJson { partial_json: String },
}

/// Which block is being written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    Thinking,
    Text,
    /// The call of this number.
    Call(usize),
}

/// How far a stream has come.
#[derive(Debug)]
enum Progress {
    /// Nothing has come yet.
    Silent,
    /// The message has begun; the engine's id for it.
    Begun(String),
    /// All is said, be it an error.
    Over,
}

/// Writes a stream.
#[derive(Debug)]
pub(super) struct Writer {
    display: Display,
    progress: Progress,
    /// Blocks so far.
    blocks: usize,
    open: Option<Open>,
    /// What the open block does not show.
    hidden: String,
    finish: Option<(chat::FinishReason, Option<String>)>,
    usage: Option<chat::Usage>,
}

impl Writer {
    pub(super) fn new(display: Display) -> Self {
        Self {
            display,
            progress: Progress::Silent,
            blocks: 0,
            open: None,
            hidden: String::new(),
            finish: None,
            usage: None,
        }
    }

    /// Writes what an event of the engine brings.
    pub(super) fn chunk(&mut self, chunk: chat::Chunk, out: &mut Vec<u8>) {
        match self.progress {
            Progress::Over => return,
            Progress::Begun(_) => {}
            Progress::Silent => {
                let prompt = chunk.prompt_progress.unwrap_or_default();
                let usage = Usage::new(prompt.total, prompt.cache, 0);
                let message = Message::new(&chunk.id, &chunk.model, usage);
                Event::MessageStart { message }.write(out);
                self.progress = Progress::Begun(chunk.id);
            }
        }
        self.usage = chunk.usage.or(self.usage);
        for choice in chunk.choices {
            self.delta(choice.delta, out);
            if let Some(reason) = choice.finish_reason {
                self.finish = Some((reason, choice.stopping_word));
            }
        }
    }

    fn delta(&mut self, delta: chat::Delta, out: &mut Vec<u8>) {
        if let Some(thinking) = delta.reasoning_content.filter(|text| !text.is_empty()) {
            self.open(Open::Thinking, out, || Block::Thinking {
                thinking: String::new(),
                signature: String::new(),
            });
            match self.display {
                Display::Whole => self.add(Delta::Thinking { thinking }, out),
                Display::Omitted => self.hidden.push_str(&thinking),
            }
        }
        if let Some(text) = delta.content.filter(|text| !text.is_empty()) {
            self.open(Open::Text, out, || Block::Text { text: String::new() });
            self.add(Delta::Text { text }, out);
        }
        for call in delta.tool_calls {
            let (id, name) = (call.id, call.function.name);
            self.open(Open::Call(call.index), out, || Block::ToolUse {
                id: id.unwrap_or_default(),
                name: name.unwrap_or_default(),
                input: Map::new(),
            });
            if let Some(partial_json) = call.function.arguments.filter(|text| !text.is_empty()) {
                self.add(Delta::InputJson { partial_json }, out);
            }
        }
    }

    /// Goes on with the open block if it is this one, else ends it and begins another.
    fn open(&mut self, block: Open, out: &mut Vec<u8>, begin: impl FnOnce() -> Block) {
        if self.open == Some(block) {
            return;
        }
        self.stop_block(out);
        self.open = Some(block);
        let (index, content_block) = (self.blocks, begin());
        Event::ContentBlockStart { index, content_block }.write(out);
    }

    fn add(&self, delta: Delta, out: &mut Vec<u8>) {
        let index = self.blocks;
        Event::ContentBlockDelta { index, delta }.write(out);
    }

    fn stop_block(&mut self, out: &mut Vec<u8>) {
        let Some(open) = self.open.take() else { return };
        if let (Open::Thinking, Progress::Begun(id)) = (open, &self.progress) {
            let signature = signature(id, &std::mem::take(&mut self.hidden));
            self.add(Delta::Signature { signature }, out);
        }
        Event::ContentBlockStop { index: self.blocks }.write(out);
        self.blocks += 1;
    }

    /// Writes the end of a whole answer.
    ///
    /// # Errors
    /// Where the engine did not say why the answer ended, or what it took.
    pub(super) fn finish(&mut self, asked: &Asked, out: &mut Vec<u8>) -> Result<(), Problem> {
        if matches!(self.progress, Progress::Over) {
            return Ok(());
        }
        let (Some((reason, stopping_word)), Some(usage)) = (self.finish.take(), self.usage) else {
            return Err(Problem::engine("the engine ended its answer without saying why"));
        };
        self.stop_block(out);
        let delta = asked.stop(reason, stopping_word, usage.completion_tokens);
        let usage = usage.into();
        Event::MessageDelta { delta, usage }.write(out);
        Event::MessageStop.write(out);
        self.progress = Progress::Over;
        Ok(())
    }

    /// A sign of life.
    pub(super) fn ping(&self, out: &mut Vec<u8>) {
        if !matches!(self.progress, Progress::Over) {
            Event::Ping.write(out);
        }
    }

    /// Ends the stream, saying whether it was still open.
    pub(super) fn close(&mut self) -> bool {
        !matches!(
            std::mem::replace(&mut self.progress, Progress::Over),
            Progress::Over
        )
    }
}
