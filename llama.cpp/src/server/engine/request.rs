//! A request while a slot works on it: chooses tokens and tells the client.

use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc;

use super::logprobs::{likeliest, log_probabilities};
use super::task::{
    Event, Failure, Finish, FinishReason, Generate, GrammarSource, Piece, Speculated, Started, Timings,
    TokenLogprob,
};
use super::text::{Assembled, Assembler};
use crate::llama::{Context, Error, Model, Sampler, Token, check_nesting};

/// How the next token is chosen.
#[derive(Debug)]
pub enum Chooser {
    /// The likeliest: what llama.cpp's chain comes to at temperature 0, without going through it.
    Greedy,
    /// llama.cpp's chain.
    Chain(Sampler),
}

impl Chooser {
    /// The chooser for a task.
    ///
    /// # Errors
    /// [`Error::Rejected`] where parameters or grammar make no sense.
    pub fn new(model: &Model, task: &Generate) -> Result<Self, Error> {
        let sampling = &task.sampling;
        let penalties = sampling.repeat_last_n != 0
            && (sampling.repeat_penalty != 1.0
                || sampling.frequency_penalty != 0.0
                || sampling.presence_penalty != 0.0);
        let plain = sampling.grammar.is_none()
            && sampling.logit_bias.is_empty()
            && !sampling.ignore_eos
            && !penalties
            && !model.suppresses_tokens();
        if sampling.temperature <= 0.0 && plain {
            return Ok(Self::Greedy);
        }
        if let Some(grammar) = sampling
            .grammar
            .as_ref()
            .filter(|grammar| grammar.source == GrammarSource::User)
        {
            check_nesting(&grammar.gbnf)?;
        }
        let mut sampler = Sampler::new(model, sampling)?;
        if penalties {
            for token in &task.prompt {
                sampler.accept(*token, false)?;
            }
        }
        Ok(Self::Chain(sampler))
    }

    fn choose(&mut self, context: &mut Context, row: usize) -> Result<Token, Error> {
        match self {
            Self::Greedy => context
                .logits(row)
                .map(likeliest)
                .ok_or_else(|| Error::Rejected(format!("row {row} of the step has no logits"))),
            Self::Chain(sampler) => {
                let token = sampler.sample(context, row)?;
                sampler.accept(token, true)?;
                Ok(token)
            }
        }
    }
}

/// A task with its way back to the client; it waits in the queue in this form.
#[derive(Debug)]
pub struct Request {
    /// What is asked for. The prompt moves into the slot's sequence.
    pub task: Generate,
    /// How tokens are chosen.
    pub chooser: Chooser,
    /// One of the places that slots and queue have together; given back when the request ends, before
    /// the client can see that by the end of `events`.
    pub _place: OwnedSemaphorePermit,
    /// The way back.
    pub events: mpsc::UnboundedSender<Event>,
    /// When it was asked.
    pub since: Instant,
}

impl Request {
    /// Whether the client went away.
    pub fn is_abandoned(&self) -> bool {
        self.events.is_closed()
    }

    /// Tells the client; one that went away is noticed by [`Self::is_abandoned`].
    fn tell(&self, event: Event) {
        let _ = self.events.send(event);
    }

    /// Ends the request without (more of) an answer.
    pub fn fail(self, failure: Failure) {
        self.tell(Event::Failed(failure));
    }

    /// Begins: the prompt has a slot.
    pub fn start(mut self, prompt_tokens: usize, cached_tokens: usize) -> Running {
        self.tell(Event::Started(Started {
            prompt_tokens: u32::try_from(prompt_tokens).unwrap_or(u32::MAX),
            cached_tokens: u32::try_from(cached_tokens).unwrap_or(u32::MAX),
        }));
        let assembler = Assembler::new(std::mem::take(&mut self.task.stop));
        let queued = self.since.elapsed();
        Running {
            request: self,
            assembler,
            queued,
            begun: Instant::now(),
            first_token: None,
            chosen_at_ns: 0,
            prompt_logprobs: Vec::new(),
        }
    }
}

/// A request that has a slot.
#[derive(Debug)]
pub struct Running {
    request: Request,
    assembler: Assembler,
    queued: Duration,
    begun: Instant,
    first_token: Option<Instant>,
    chosen_at_ns: u64,
    prompt_logprobs: Vec<TokenLogprob>,
}

/// Whether an answer goes on.
#[derive(Debug, Clone, PartialEq)]
pub enum Progress {
    /// With this token.
    Token(Token),
    /// Not; the last token chosen, if any, is not part of it.
    Ended(FinishReason),
}

impl Running {
    /// Whether the client went away.
    pub fn is_abandoned(&self) -> bool {
        self.request.is_abandoned()
    }

    /// Whether the prompt's own log probabilities are wanted.
    pub fn wants_prompt_logprobs(&self) -> bool {
        self.request.task.prompt_logprobs
    }

    /// The prompt is computed again: what was noted of it will be once more.
    pub fn restart_prompt(&mut self) {
        self.prompt_logprobs.clear();
    }

    /// The most tokens of the answer.
    pub fn max_tokens(&self) -> usize {
        self.request
            .task
            .max_tokens
            .map_or(usize::MAX, |most| most as usize)
    }

    /// Chooses the next token from row `row` of the step in `context`, and sends its text.
    ///
    /// # Errors
    /// Where llama.cpp's sampler fails.
    pub fn advance(&mut self, context: &mut Context, row: usize) -> Result<Progress, Error> {
        let token = self.request.chooser.choose(context, row)?;
        self.chosen_at_ns = monotonic_ns();
        self.first_token.get_or_insert_with(Instant::now);
        let model = context.model().clone();
        if model.is_end(token) {
            return Ok(Progress::Ended(FinishReason::EndOfText));
        }
        let logprob = match self.request.task.logprobs {
            Some(count) => Some(token_logprob(context, row, token, count)?),
            None => None,
        };
        let visible = self.request.task.visible_tokens.contains(&token);
        match self.assembler.push(&model.piece(token, visible), logprob) {
            Assembled::More(piece) => {
                self.send(piece);
                Ok(Progress::Token(token))
            }
            Assembled::Stopped(piece, stop) => {
                self.send(piece);
                Ok(Progress::Ended(FinishReason::StopText(stop)))
            }
        }
    }

    /// Takes note of how likely the prompt's token `token` was by row `row` of the step in `context`.
    ///
    /// # Errors
    /// Where the row has no logits.
    pub fn note_prompt(&mut self, context: &mut Context, row: usize, token: Token) -> Result<(), Error> {
        let count = self.request.task.logprobs.unwrap_or(0);
        let logprob = token_logprob(context, row, token, count)?;
        self.prompt_logprobs.push(logprob);
        Ok(())
    }

    fn send(&self, mut piece: Piece) {
        if !piece.text.is_empty() || !piece.tokens.is_empty() {
            piece.chosen_at_ns = self.chosen_at_ns;
            self.request.tell(Event::Text(piece));
        }
    }

    /// Ends the answer.
    pub fn finish(
        mut self,
        reason: FinishReason,
        completion_tokens: usize,
        speculated: Speculated,
    ) -> Timings {
        if !matches!(reason, FinishReason::StopText(_)) {
            let rest = self.assembler.finish();
            self.send(rest);
        }
        let first = self.first_token.unwrap_or_else(Instant::now);
        let timings = Timings {
            queued: self.queued,
            prefill: first - self.begun,
            decode: first.elapsed(),
        };
        self.request.tell(Event::Done(Finish {
            reason,
            completion_tokens: u32::try_from(completion_tokens).unwrap_or(u32::MAX),
            prompt_logprobs: std::mem::take(&mut self.prompt_logprobs),
            timings,
            speculated,
        }));
        timings
    }

    /// Ends the request without the rest of its answer.
    pub fn fail(self, failure: Failure) {
        self.request.fail(failure);
    }
}

fn token_logprob(context: &mut Context, row: usize, token: Token, count: u32) -> Result<TokenLogprob, Error> {
    let model = context.model().clone();
    let logits = context
        .logits(row)
        .ok_or_else(|| Error::Rejected(format!("row {row} of the step has no logits")))?;
    let (logprob, top) = log_probabilities(logits, token, count as usize);
    let top = top
        .into_iter()
        .map(|(token, logprob)| (token, model.piece(token, true), logprob))
        .collect();
    Ok(TokenLogprob {
        token,
        bytes: model.piece(token, true),
        logprob,
        top,
    })
}

fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    // The clock starts with the machine: neither part is negative.
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
