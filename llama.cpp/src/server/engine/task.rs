//! What the API asks of the engine, and what the engine answers.

use std::time::Duration;

use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use crate::llama::{GrammarTrigger, Token};
use crate::server::guesses::{BySource, Windows};

/// A prompt to continue, ready for a slot: nothing in it needs the model to be checked.
#[derive(Debug, Clone)]
pub struct Generate {
    /// At least one token; the context must hold one more.
    pub prompt: Vec<Token>,
    /// The most tokens to generate; `None` is as many as the context holds.
    pub max_tokens: Option<u32>,
    /// How a token is chosen.
    pub sampling: Sampling,
    /// Texts that end the answer and are not part of it.
    pub stop: Vec<String>,
    /// Report log probabilities, with this many alternatives a token.
    pub logprobs: Option<u32>,
    /// Report log probabilities of the prompt's tokens, too (`echo` with `logprobs`).
    pub prompt_logprobs: bool,
    /// Special tokens that appear in the text, as tool-call markers do; all others are left out.
    pub visible_tokens: Vec<Token>,
    /// What the answer may well say, as the client thinks (OpenAI's `prediction`); empty if it said nothing.
    pub prediction: Vec<Token>,
}

/// How a token is chosen: the fields of llama.cpp's `common_params_sampling` that a request can set.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sampling {
    /// Seed of the random choice; the same request with the same seed gives the same answer.
    pub seed: u32,
    /// 0 is greedy.
    pub temperature: f32,
    /// Keep the k likeliest tokens; 0 keeps all.
    pub top_k: i32,
    /// Keep the likeliest tokens that make up this probability; 1 keeps all.
    pub top_p: f32,
    /// Keep tokens at least this likely relative to the likeliest; 0 keeps all.
    pub min_p: f32,
    /// Locally typical sampling; 1 is off.
    pub typical_p: f32,
    /// Tokens looked back at by the penalties; 0 is off, -1 the whole context.
    pub repeat_last_n: i32,
    /// Divides the logits of tokens that were seen; 1 is off.
    pub repeat_penalty: f32,
    /// Subtracted for each time a token was seen; 0 is off.
    pub frequency_penalty: f32,
    /// Subtracted once for a token that was seen; 0 is off.
    pub presence_penalty: f32,
    /// Added to the logits of these tokens. Negative infinity bans one.
    pub logit_bias: Vec<(Token, f32)>,
    /// Never choose a token that ends the text.
    pub ignore_eos: bool,
    /// What the answer may be.
    pub grammar: Option<Grammar>,
    /// Text that the template already began the answer with; a grammar is advanced past it.
    pub generation_prompt: String,
    /// Tokens that the lazy grammar's triggers and the parser must see as text.
    pub preserved_tokens: Vec<Token>,
    /// Start of a thinking block, in tokens: a lazy grammar sleeps inside it. Empty if there is none.
    pub thinking_start: Vec<Token>,
    /// Ends of a thinking block, in tokens.
    pub thinking_ends: Vec<Vec<Token>>,
}

impl Sampling {
    /// The likeliest token every time, and nothing else.
    pub fn greedy() -> Self {
        Self {
            seed: 0,
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            typical_p: 1.0,
            repeat_last_n: 0,
            repeat_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            logit_bias: Vec::new(),
            ignore_eos: false,
            grammar: None,
            generation_prompt: String::new(),
            preserved_tokens: Vec::new(),
            thinking_start: Vec::new(),
            thinking_ends: Vec::new(),
        }
    }
}

/// A grammar in llama.cpp's GBNF.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Grammar {
    /// Whose grammar it is: the user's own is not advanced past the generation prompt.
    pub source: GrammarSource,
    /// The rules.
    pub gbnf: String,
    /// Asleep until a trigger is seen.
    pub lazy: bool,
    /// What wakes a lazy grammar.
    pub triggers: Vec<GrammarTrigger>,
}

/// Whose grammar it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GrammarSource {
    /// The request's `grammar`.
    User,
    /// Made from a JSON schema.
    Schema,
    /// Made by the chat template's tool calls.
    ToolCalls,
}

/// The answer to [`Generate`], in this order: one `Started`, any number of `Text`, one `Done`.
/// `Failed` can come at any time and is the last.
#[derive(Debug)]
pub enum Event {
    /// The prompt has a slot.
    Started(Started),
    /// More of the answer.
    Text(Piece),
    /// The answer is complete.
    Done(Finish),
    /// There will be no (more) answer.
    Failed(Failure),
}

/// The prompt has a slot.
#[derive(Debug, Clone, PartialEq)]
pub struct Started {
    /// Length of the prompt in tokens.
    pub prompt_tokens: u32,
    /// How many of them were found in a KV cache.
    pub cached_tokens: u32,
}

/// More of the answer: whole characters, never part of one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Piece {
    /// Text; may be empty where a token has none.
    pub text: String,
    /// The tokens that it came from, if log probabilities were asked for.
    pub tokens: Vec<TokenLogprob>,
    /// When its last token was chosen, in nanoseconds of the system's monotonic clock, which all
    /// processes share.
    pub chosen_at_ns: u64,
}

/// A token and how likely it was.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprob {
    /// The token that was chosen.
    pub token: Token,
    /// Its bytes, which need not be whole characters.
    pub bytes: Vec<u8>,
    /// Natural logarithm of its probability under the model, before any sampler.
    pub logprob: f32,
    /// The likeliest tokens, likeliest first: as many as were asked for.
    pub top: Vec<(Token, Vec<u8>, f32)>,
}

/// The answer is complete.
#[derive(Debug, Clone, PartialEq)]
pub struct Finish {
    /// Why.
    pub reason: FinishReason,
    /// Length of the answer in tokens.
    pub completion_tokens: u32,
    /// Of the prompt, where asked for: one for each prompt token but the first.
    pub prompt_logprobs: Vec<TokenLogprob>,
    /// How long it took.
    pub timings: Timings,
    /// What was guessed of it.
    pub speculated: Speculated,
}

/// What was guessed of an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Speculated {
    /// Tokens, by where the guesses came from.
    pub guesses: BySource,
    /// How many windows of them were on their way.
    pub windows: Windows,
}

/// Why an answer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended it.
    EndOfText,
    /// A stop text came up.
    StopText(String),
    /// `max_tokens`, or the context is full.
    Length,
}

/// How long the parts of a request took.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Timings {
    /// Waiting for a slot.
    pub queued: Duration,
    /// From the slot to the first token.
    pub prefill: Duration,
    /// From the first token to the last.
    pub decode: Duration,
}

/// Why a request got no (complete) answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Failure {
    /// All slots are taken and the queue is full.
    #[error("all {slots} slots are busy and {waiting} requests are waiting; try again in {} s", retry_after.as_secs())]
    Busy {
        /// Slots that there are.
        slots: u32,
        /// Requests in the queue.
        waiting: u32,
        /// When a slot should be free.
        retry_after: Duration,
    },
    /// The prompt can never fit.
    #[error(
        "the prompt has {prompt_tokens} tokens, but the context holds {context} and the answer needs at least one"
    )]
    TooLong {
        /// Length of the prompt.
        prompt_tokens: u32,
        /// Tokens that the context holds.
        context: u32,
    },
    /// The request's parameters make no sampler (a grammar that does not parse, say).
    #[error("{0}")]
    Invalid(String),
    /// The server ends.
    #[error("the server is shutting down; try again in a moment")]
    ShuttingDown,
    /// A node of the split is lost, and with it what was computed.
    #[error("{0}; try again in a moment")]
    Lost(String),
    /// llama.cpp failed in the middle of it.
    #[error("the engine failed: {0}; try again")]
    Engine(String),
}

/// Texts to turn into vectors.
#[derive(Debug)]
pub struct Embed {
    /// One sequence; at most the engine's micro-batch of tokens.
    pub tokens: Vec<Token>,
    /// Where the vector goes: as long as the model is wide, normalised to length 1 where pooled.
    pub reply: oneshot::Sender<Result<Vec<f32>, Failure>>,
}

/// Where the events of one [`Generate`] arrive. Dropping it frees the slot within one step.
pub type Events = mpsc::UnboundedReceiver<Event>;
