//! From the engine's events to a chat's answer, whole or as a stream.

use std::time::Duration;

use tokio::time::Instant;

use super::super::{
    api::{
        chat::{
            AssistantMessage, ChatChunk, Choice, ChunkChoice, ChunkDelta, Delta, FinishReason,
            MessageBuilder, PromptProgress, PromptReport,
        },
        generation::UsageReport,
        logprobs::{ChatLogprobs, TokenLogprob},
        response::Header,
        sse,
        usage::{Measured, Timings, Usage},
    },
    engine::task::{self, Finish, Piece, Started},
};
use super::{prompt, stream::Writer};
use crate::llama::{ChatDelta, ChatParser};

/// The parser goes through the whole answer each time. It may take up to a quarter of the time, so
/// that it does not keep long answers from growing.
const PARSER_SHARE: u32 = 4;

/// Parsers this fast run for every token.
const PARSER_FAST: Duration = Duration::from_micros(500);

/// One of the answers, as far as it has come.
pub(super) struct ChatAnswer {
    parser: ChatParser,
    builder: MessageBuilder,
    /// All of the text, or for a parser that finds nothing but content, what was not yet taken.
    text: String,
    /// What of it is reasoning.
    reasoning: String,
    fresh: Fresh,
    /// When the parser may run again.
    parse_at: Option<Instant>,
    logprobs: Option<Vec<TokenLogprob>>,
    deltas: Vec<ChunkDelta>,
    measured: Measured,
    finish: Option<FinishReason>,
    /// The request's stop texts; the template's own are nobody's business.
    stops: Vec<String>,
    stopping_word: Option<String>,
}

/// Whether the parser has seen all of the text.
#[derive(PartialEq)]
enum Fresh {
    Parsed,
    Unparsed,
}

impl ChatAnswer {
    pub(super) fn new(
        parser: ChatParser,
        builder: MessageBuilder,
        logprobs: bool,
        stops: Vec<String>,
    ) -> Self {
        ChatAnswer {
            parser,
            builder,
            text: String::new(),
            reasoning: String::new(),
            fresh: Fresh::Parsed,
            parse_at: None,
            logprobs: logprobs.then(Vec::new),
            deltas: Vec::new(),
            measured: Measured::default(),
            finish: None,
            stops,
            stopping_word: None,
        }
    }

    pub(super) fn started(&mut self, started: Started) {
        self.measured.prompt_tokens = started.prompt_tokens.into();
        self.measured.cached_tokens = started.cached_tokens.into();
    }

    pub(super) fn text(&mut self, piece: Piece) {
        if !piece.text.is_empty() {
            self.text.push_str(&piece.text);
            self.fresh = Fresh::Unparsed;
        }
        if let Some(logprobs) = &mut self.logprobs {
            logprobs.extend(piece.tokens.into_iter().map(prompt::logprob));
        }
    }

    /// The answer is complete: parses the rest of it.
    pub(super) fn done(&mut self, finish: &Finish) {
        self.measured.completion_tokens = finish.completion_tokens.into();
        self.measured.queued = finish.timings.queued;
        self.measured.prefill = finish.timings.prefill;
        self.measured.decode = finish.timings.decode;
        self.measured.guesses = finish.speculated.guesses;
        self.measured.windows = finish.speculated.windows;
        self.parse_last(&finish.reason);
        self.builder.finish(&mut self.deltas);
        if let task::FinishReason::StopText(text) = &finish.reason {
            self.stopping_word = Some(text.clone()).filter(|text| self.stops.contains(text));
        }
        self.finish = Some(match finish.reason {
            task::FinishReason::Length => FinishReason::Length,
            _ if self.builder.has_tool_calls() => FinishReason::ToolCalls,
            task::FinishReason::EndOfText | task::FinishReason::StopText(_) => FinishReason::Stop,
        });
    }

    /// Finds what the fresh text adds. Returns when to try again, where it is too early now.
    fn parse(&mut self) -> Option<Instant> {
        if self.fresh == Fresh::Parsed {
            return None;
        }
        if self.parser.is_plain() {
            self.take_plain();
            return None;
        }
        let begin = Instant::now();
        if let Some(at) = self.parse_at.filter(|at| *at > begin) {
            return Some(at);
        }
        match self.parser.update(&self.text, true) {
            Ok(found) => self.push(found),
            // The next token may resolve what this one left open.
            Err(error) => tracing::debug!(%error, "the answer so far cannot be parsed"),
        }
        self.fresh = Fresh::Parsed;
        let took = begin.elapsed();
        self.parse_at = (took > PARSER_FAST).then(|| begin + took * PARSER_SHARE);
        None
    }

    fn parse_last(&mut self, reason: &task::FinishReason) {
        if self.parser.is_plain() {
            return self.take_plain();
        }
        // An answer that was cut off is not whole, and what is there of it counts.
        let partial = *reason == task::FinishReason::Length;
        match self.parser.update(&self.text, partial) {
            Ok(found) => return self.push(found),
            Err(error) => tracing::warn!(%error, "an answer is not as its template says"),
        }
        if let Ok(found) = self.parser.update(&self.text, true) {
            self.push(found);
        }
        // Better a text with the model's marks in it than none.
        if !self.builder.has_answer() {
            self.text = unexplained(&self.text, &self.reasoning).to_owned();
            self.take_plain();
        }
    }

    fn take_plain(&mut self) {
        let text = std::mem::take(&mut self.text);
        self.fresh = Fresh::Parsed;
        if !text.is_empty() {
            self.builder.push(Delta::Content(text), &mut self.deltas);
        }
    }

    fn push(&mut self, found: Vec<ChatDelta>) {
        for delta in found {
            let delta = match delta {
                ChatDelta::Reasoning(text) => {
                    self.reasoning.push_str(&text);
                    Delta::Reasoning(text)
                }
                ChatDelta::Content(text) => Delta::Content(text),
                ChatDelta::ToolCall {
                    index,
                    id,
                    name,
                    arguments,
                } => Delta::ToolCall {
                    index,
                    id: id.unwrap_or_default(),
                    name: name.unwrap_or_default(),
                    arguments,
                },
            };
            self.builder.push(delta, &mut self.deltas);
        }
    }

    /// The answer in one piece.
    pub(super) fn choice(self, index: usize) -> Choice {
        Choice {
            index,
            message: AssistantMessage::from_deltas(self.deltas),
            logprobs: self.logprobs.map(ChatLogprobs::new),
            finish_reason: self.finish.unwrap_or(FinishReason::Stop),
            stopping_word: self.stopping_word,
        }
    }

    /// How long the answer took.
    pub(super) fn timings(&self) -> Option<Timings> {
        Some(self.measured.into())
    }

    /// What all answers to one prompt used.
    pub(super) fn usage(answers: &[ChatAnswer]) -> Usage {
        let mut usage = Usage::default();
        if let Some(first) = answers.first() {
            usage.add_prompt(first.measured.prompt_tokens, first.measured.cached_tokens);
        }
        for answer in answers {
            usage.add_completion(answer.measured.completion_tokens, answer.measured.guesses.total());
        }
        usage
    }

    /// Log probabilities that were not yet sent.
    fn take_logprobs(&mut self) -> Option<ChatLogprobs> {
        let fresh = self.logprobs.as_mut().map(std::mem::take)?;
        (!fresh.is_empty()).then(|| ChatLogprobs::new(fresh))
    }
}

/// What comes after the reasoning.
fn unexplained<'a>(text: &'a str, reasoning: &str) -> &'a str {
    let reasoning = reasoning.trim();
    match text.find(reasoning) {
        Some(at) => &text[at + reasoning.len()..],
        None => text,
    }
}

/// Writes a chat's answers as a stream.
pub(super) struct ChatWriter {
    header: Header,
    answers: Vec<ChatAnswer>,
    usage: UsageReport,
    prompt: PromptReport,
}

impl ChatWriter {
    pub(super) fn new(
        header: Header,
        answers: Vec<ChatAnswer>,
        usage: UsageReport,
        prompt: PromptReport,
    ) -> Self {
        ChatWriter {
            header,
            answers,
            usage,
            prompt,
        }
    }

    fn chunk<'a>(&'a self, choices: &'a [ChunkChoice], timings: Option<Timings>) -> ChatChunk<'a> {
        let usage = match self.usage {
            UsageReport::Included => Some(None),
            UsageReport::Omitted => None,
        };
        ChatChunk::new(&self.header, choices, usage, timings)
    }

    fn write_deltas(&mut self, index: usize, out: &mut Vec<u8>) {
        for delta in std::mem::take(&mut self.answers[index].deltas) {
            // With the first delta go the log probabilities of all tokens since the last one.
            let logprobs = self.answers[index].take_logprobs();
            let choice = [ChunkChoice::more(index, delta, logprobs)];
            sse::write(out, &self.chunk(&choice, None));
        }
    }
}

impl Writer for ChatWriter {
    fn started(&mut self, index: usize, started: Started, out: &mut Vec<u8>) {
        let progress = match self.prompt {
            PromptReport::Omitted => None,
            PromptReport::Included => Some(PromptProgress {
                total: started.prompt_tokens.into(),
                cache: started.cached_tokens.into(),
                processed: started.cached_tokens.into(),
            }),
        };
        self.answers[index].started(started);
        let choice = [ChunkChoice::more(index, ChunkDelta::role(), None)];
        sse::write(out, &self.chunk(&choice, None).with_progress(progress));
    }

    fn text(&mut self, index: usize, piece: Piece) {
        self.answers[index].text(piece);
    }

    fn flush(&mut self, out: &mut Vec<u8>) -> Option<Instant> {
        let mut again: Option<Instant> = None;
        for index in 0..self.answers.len() {
            if let Some(at) = self.answers[index].parse() {
                again = Some(again.map_or(at, |other| other.min(at)));
            }
            self.write_deltas(index, out);
        }
        again
    }

    fn done(&mut self, index: usize, finish: Finish, out: &mut Vec<u8>) {
        self.answers[index].done(&finish);
        self.write_deltas(index, out);
        let answer = &mut self.answers[index];
        let (logprobs, timings) = (answer.take_logprobs(), answer.timings());
        let choice = [ChunkChoice {
            finish_reason: answer.finish,
            stopping_word: answer.stopping_word.take(),
            ..ChunkChoice::more(index, ChunkDelta::default(), logprobs)
        }];
        sse::write(out, &self.chunk(&choice, timings));
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        if self.usage == UsageReport::Included {
            let usage = ChatAnswer::usage(&self.answers);
            sse::write(out, &ChatChunk::new(&self.header, &[], Some(Some(usage)), None));
        }
        out.extend_from_slice(sse::DONE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_understood_is_not_repeated() {
        assert_eq!(unexplained("<think>hm</think><call>f", "hm\n"), "</think><call>f");
        assert_eq!(unexplained("<call>f", ""), "<call>f");
        assert_eq!(unexplained("<call>f", "other"), "<call>f");
    }
}
