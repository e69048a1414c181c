//! Answers to `/api/chat` and `/api/generate`: one JSON object, or a line for each piece of the answer
//! and a last one that says why it ended and how long it took.

use super::super::chat::{self, FinishReason, Timings, Usage};
use super::super::{Answer, Problem};
use super::call::{Call, Calls};
use super::time::{nanoseconds, rfc3339};
use super::update::{Logprob, Update};
use serde::Serialize;

/// Which endpoint's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// A `message`.
    Chat,
    /// A `response`.
    Generate,
}

/// What the engine was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// A chat.
    Chat,
    /// A text's continuation.
    Text,
}

/// Translates an answer.
#[derive(Debug)]
pub(super) struct Reply {
    model: String,
    shape: Shape,
    source: Source,
    streams: bool,
    calls: Calls,
    created: u64,
    finish: Option<FinishReason>,
    usage: Usage,
    timings: Timings,
    /// An error was the last line.
    failed: bool,
}

/// What is new of an answer, in Ollama's words.
#[derive(Debug, Default)]
struct Piece {
    thinking: Option<String>,
    content: String,
    calls: Vec<Call>,
    logprobs: Option<Vec<Logprob>>,
}

impl Piece {
    fn is_empty(&self) -> bool {
        let no_thought = self.thinking.as_ref().is_none_or(String::is_empty);
        let no_tokens = self.logprobs.as_ref().is_none_or(Vec::is_empty);
        no_thought && no_tokens && self.content.is_empty() && self.calls.is_empty()
    }
}

/// A line, and the object of an answer in one piece.
#[derive(Debug, Serialize)]
struct Line<'a> {
    model: &'a str,
    created_at: String,
    #[serde(flatten)]
    said: Said,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<Vec<Logprob>>,
    done: bool,
    #[serde(flatten)]
    end: Option<End>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Said {
    Message(Message),
    #[serde(untagged)]
    Text(Text),
}

#[derive(Debug, Serialize)]
struct Message {
    role: chat::Role,
    content: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Call>,
}

#[derive(Debug, Serialize)]
struct Text {
    response: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking: Option<String>,
}

/// What the last line has besides; durations are in nanoseconds.
#[derive(Debug, Serialize)]
struct End {
    done_reason: &'static str,
    total_duration: u64,
    /// The model is loaded: this is the time in the queue.
    load_duration: u64,
    prompt_eval_count: u64,
    prompt_eval_duration: u64,
    eval_count: u64,
    eval_duration: u64,
}

impl Reply {
    pub(super) fn new(model: String, shape: Shape, source: Source, streams: bool) -> Self {
        Self {
            model,
            shape,
            source,
            streams,
            calls: Calls::default(),
            created: 0,
            finish: None,
            usage: Usage::default(),
            timings: Timings::default(),
            failed: false,
        }
    }

    /// The answer to a request that only loads the model.
    pub(super) fn loaded(model: &str, shape: Shape, created: u64) -> Vec<u8> {
        #[derive(Serialize)]
        struct Loaded<'a> {
            #[serde(flatten)]
            line: Line<'a>,
            done_reason: &'static str,
        }
        let line = Line {
            model,
            created_at: rfc3339(created),
            said: said(shape, &mut Piece::default()),
            logprobs: None,
            done: true,
            end: None,
        };
        let loaded = Loaded {
            line,
            done_reason: "load",
        };
        // Writing to memory cannot fail, and what is written has string keys.
        serde_json::to_vec(&loaded).unwrap_or_default()
    }

    fn take(&mut self, update: Update) -> Piece {
        self.created = update.created;
        self.usage = update.usage.unwrap_or(self.usage);
        self.timings = update.timings.unwrap_or(self.timings);
        self.finish = update.finish.or(self.finish);
        let mut calls = Vec::new();
        let mut content = update.delta.content.unwrap_or_default();
        for delta in update.delta.tool_calls {
            self.calls.take(delta, &mut calls);
        }
        if update.finish.is_some() {
            content.push_str(&self.calls.end(&mut calls));
        }
        Piece {
            thinking: update.delta.reasoning_content.filter(|text| !text.is_empty()),
            content,
            calls,
            logprobs: update.logprobs,
        }
    }

    fn write(&self, mut piece: Piece, end: Option<End>, out: &mut Vec<u8>) {
        let line = Line {
            model: &self.model,
            created_at: rfc3339(self.created),
            said: said(self.shape, &mut piece),
            logprobs: piece.logprobs,
            done: end.is_some(),
            end,
        };
        // Writing to memory cannot fail, and what is written has string keys.
        let _ = serde_json::to_writer(&mut *out, &line);
    }

    fn fail(&mut self, problem: &Problem, out: &mut Vec<u8>) {
        if !self.failed {
            self.failed = true;
            out.extend(super::words(problem));
            out.push(b'\n');
        }
    }

    fn ending(&self) -> Result<End, Problem> {
        let done_reason = match self.finish {
            Some(FinishReason::Stop | FinishReason::ToolCalls) => "stop",
            Some(FinishReason::Length) => "length",
            None => return Err(Problem::engine("the engine did not say why the answer ended")),
        };
        let load_duration = nanoseconds(self.timings.queued_ms);
        let prompt_eval_duration = nanoseconds(self.timings.prompt_ms);
        let eval_duration = nanoseconds(self.timings.predicted_ms);
        Ok(End {
            done_reason,
            total_duration: load_duration + prompt_eval_duration + eval_duration,
            load_duration,
            prompt_eval_count: self.usage.prompt_tokens,
            prompt_eval_duration,
            eval_count: self.usage.completion_tokens,
            eval_duration,
        })
    }
}

fn said(shape: Shape, piece: &mut Piece) -> Said {
    let (content, thinking) = (std::mem::take(&mut piece.content), piece.thinking.take());
    match shape {
        Shape::Chat => Said::Message(Message {
            role: chat::Role::Assistant,
            content,
            thinking,
            tool_calls: std::mem::take(&mut piece.calls),
        }),
        Shape::Generate => Said::Text(Text {
            response: content,
            thinking,
        }),
    }
}

impl Answer for Reply {
    fn content_type(&self) -> &'static str {
        if self.streams {
            "application/x-ndjson"
        } else {
            "application/json; charset=utf-8"
        }
    }

    fn whole(&mut self, answer: &[u8]) -> Result<Vec<u8>, Problem> {
        let update = match self.source {
            Source::Chat => Update::of_completion(answer),
            Source::Text => Update::of_text(answer),
        };
        let piece = self.take(update?);
        let end = self.ending()?;
        let mut out = Vec::new();
        self.write(piece, Some(end), &mut out);
        Ok(out)
    }

    fn event(&mut self, data: &[u8], out: &mut Vec<u8>) {
        if self.failed {
            return;
        }
        let update = match self.source {
            Source::Chat => Update::of_event(data),
            Source::Text => Update::of_text(data).map_err(|_| Problem::from_answer(500, data)),
        };
        match update.map(|update| self.take(update)) {
            Ok(piece) if piece.is_empty() => {}
            Ok(piece) => {
                self.write(piece, None, out);
                out.push(b'\n');
            }
            Err(problem) => self.fail(&problem, out),
        }
    }

    /// Lines of JSON have no comments, but JSON may begin with blanks.
    fn keep_alive(&mut self, out: &mut Vec<u8>) {
        if !self.failed {
            out.push(b' ');
        }
    }

    fn broken(&mut self, problem: &Problem, out: &mut Vec<u8>) {
        self.fail(problem, out);
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        if self.failed {
            return;
        }
        match self.ending() {
            Ok(end) => {
                self.write(Piece::default(), Some(end), out);
                out.push(b'\n');
            }
            Err(problem) => self.fail(&problem, out),
        }
    }
}
