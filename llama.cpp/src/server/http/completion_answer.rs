//! From the engine's events to a text completion, whole or as a stream.

use tokio::time::Instant;

use super::super::{
    api::{
        completion::{Choice, CompletionChunk},
        generation::UsageReport,
        logprobs::CompletionLogprobsBuilder,
        response::{FinishReason, Header},
        sse,
        usage::{Measured, Timings, Usage},
    },
    engine::task::{self, Finish, Piece, Started, TokenLogprob},
};
use super::{prompt, stream::Writer};

/// What an answer begins with.
pub(super) enum Echoed {
    /// Only itself.
    Nothing,
    /// The prompt.
    Text(String),
    /// The prompt, and how likely it was. The engine says so at the end of the answer, so that
    /// nothing of it can be sent before.
    WithLogprobs {
        /// The prompt.
        text: String,
        /// Bytes of its first token, which nothing predicts.
        first: Vec<u8>,
    },
}

/// One of the answers, as far as it has come and was not yet sent.
pub(super) struct CompletionAnswer {
    echo: Echoed,
    text: String,
    tokens: Vec<TokenLogprob>,
    logprobs: Option<CompletionLogprobsBuilder>,
    /// Whether this is the first choice of its prompt: a prompt is counted once.
    counts_prompt: bool,
    measured: Measured,
    finish: Option<FinishReason>,
}

impl CompletionAnswer {
    pub(super) fn new(echo: Echoed, counts_prompt: bool, logprobs: bool) -> Self {
        CompletionAnswer {
            echo,
            text: String::new(),
            tokens: Vec::new(),
            logprobs: logprobs.then(CompletionLogprobsBuilder::default),
            counts_prompt,
            measured: Measured::default(),
            finish: None,
        }
    }

    pub(super) fn started(&mut self, started: Started) {
        self.measured.prompt_tokens = started.prompt_tokens.into();
        self.measured.cached_tokens = started.cached_tokens.into();
        if let Echoed::Text(text) = &mut self.echo {
            self.text = std::mem::take(text);
        }
    }

    pub(super) fn text(&mut self, piece: Piece) {
        self.text.push_str(&piece.text);
        self.tokens.extend(piece.tokens);
    }

    pub(super) fn done(&mut self, finish: Finish) {
        self.measured.completion_tokens = finish.completion_tokens.into();
        self.measured.queued = finish.timings.queued;
        self.measured.prefill = finish.timings.prefill;
        self.measured.decode = finish.timings.decode;
        self.measured.guesses = finish.speculated.guesses;
        self.measured.windows = finish.speculated.windows;
        self.finish = Some(match finish.reason {
            task::FinishReason::Length => FinishReason::Length,
            task::FinishReason::EndOfText | task::FinishReason::StopText(_) => FinishReason::Stop,
        });
        let echo = std::mem::replace(&mut self.echo, Echoed::Nothing);
        if let (Echoed::WithLogprobs { text, first }, Some(logprobs)) = (echo, &mut self.logprobs) {
            self.text.insert_str(0, &text);
            logprobs.push_unpredicted(&first);
            for token in finish.prompt_logprobs {
                logprobs.push(&prompt::logprob(token));
            }
        }
    }

    /// What came since the last time.
    fn take(&mut self, index: usize) -> Choice {
        let tokens = std::mem::take(&mut self.tokens);
        let logprobs = self.logprobs.as_mut().map(|logprobs| {
            for token in tokens {
                logprobs.push(&prompt::logprob(token));
            }
            logprobs.take()
        });
        Choice {
            text: std::mem::take(&mut self.text),
            index,
            logprobs,
            finish_reason: self.finish,
        }
    }

    /// The answer in one piece.
    pub(super) fn choice(mut self, index: usize) -> Choice {
        self.take(index)
    }

    /// How long the answer took.
    pub(super) fn timings(&self) -> Option<Timings> {
        Some(self.measured.into())
    }

    /// What all answers used.
    pub(super) fn usage(answers: &[CompletionAnswer]) -> Usage {
        let mut usage = Usage::default();
        for answer in answers {
            if answer.counts_prompt {
                usage.add_prompt(answer.measured.prompt_tokens, answer.measured.cached_tokens);
            }
            usage.add_completion(answer.measured.completion_tokens, answer.measured.guesses.total());
        }
        usage
    }
}

/// Writes text completions as a stream.
pub(super) struct CompletionWriter {
    header: Header,
    answers: Vec<CompletionAnswer>,
    usage: UsageReport,
}

impl CompletionWriter {
    pub(super) fn new(header: Header, answers: Vec<CompletionAnswer>, usage: UsageReport) -> Self {
        CompletionWriter {
            header,
            answers,
            usage,
        }
    }

    fn write(&self, choice: Choice, timings: Option<Timings>, out: &mut Vec<u8>) {
        let usage = match self.usage {
            UsageReport::Included => Some(None),
            UsageReport::Omitted => None,
        };
        sse::write(
            out,
            &CompletionChunk::new(&self.header, &[choice], usage, timings),
        );
    }
}

impl Writer for CompletionWriter {
    fn started(&mut self, index: usize, started: Started, _: &mut Vec<u8>) {
        self.answers[index].started(started);
    }

    fn text(&mut self, index: usize, piece: Piece) {
        self.answers[index].text(piece);
    }

    fn flush(&mut self, out: &mut Vec<u8>) -> Option<Instant> {
        for index in 0..self.answers.len() {
            let answer = &mut self.answers[index];
            // Tokens without a text wait for the text that they begin.
            if answer.text.is_empty() || matches!(answer.echo, Echoed::WithLogprobs { .. }) {
                continue;
            }
            let choice = answer.take(index);
            self.write(choice, None, out);
        }
        None
    }

    fn done(&mut self, index: usize, finish: Finish, out: &mut Vec<u8>) {
        let answer = &mut self.answers[index];
        answer.done(finish);
        let (timings, choice) = (answer.timings(), answer.take(index));
        self.write(choice, timings, out);
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        if self.usage == UsageReport::Included {
            let usage = CompletionAnswer::usage(&self.answers);
            sse::write(
                out,
                &CompletionChunk::new(&self.header, &[], Some(Some(usage)), None),
            );
        }
        out.extend_from_slice(sse::DONE);
    }
}
