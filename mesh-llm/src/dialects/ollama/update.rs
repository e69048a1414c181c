//! What the engine says: whole chats, events of their streams, and text completions, in one form.

use super::super::Problem;
use super::super::chat::{
    self, Completion, Delta, FinishReason, FunctionDelta, Timings, ToolCallDelta, Usage,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What is new of an answer, whatever the engine was asked for.
#[derive(Debug, Default)]
pub(super) struct Update {
    pub(super) created: u64,
    pub(super) delta: Delta,
    pub(super) logprobs: Option<Vec<Logprob>>,
    pub(super) finish: Option<FinishReason>,
    pub(super) usage: Option<Usage>,
    pub(super) timings: Option<Timings>,
}

/// How likely a token was: OpenAI's object and Ollama's are the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Logprob {
    pub(super) token: String,
    pub(super) logprob: f64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) bytes: Vec<u8>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) top_logprobs: Vec<Logprob>,
}

impl Update {
    pub(super) fn of_event(data: &[u8]) -> Result<Self, Problem> {
        let chunk = match chat::Event::read(data) {
            chat::Event::Chunk(chunk) => chunk,
            chat::Event::Problem(problem) => return Err(problem),
        };
        let mut update = Self {
            created: chunk.created,
            usage: chunk.usage,
            timings: chunk.timings,
            ..Self::default()
        };
        if let Some(choice) = chunk.choices.into_iter().next() {
            update.delta = choice.delta;
            update.logprobs = choice.logprobs.map(chat_logprobs).transpose()?;
            update.finish = choice.finish_reason;
        }
        Ok(update)
    }

    pub(super) fn of_completion(answer: &[u8]) -> Result<Self, Problem> {
        let completion: Completion = serde_json::from_slice(answer).map_err(unreadable)?;
        let mut choices = completion.choices.into_iter();
        let choice = choices
            .next()
            .ok_or_else(|| Problem::engine("the engine gave no answer"))?;
        let calls = choice.message.tool_calls.into_iter().enumerate();
        let tool_calls = calls.map(|(index, call)| ToolCallDelta {
            index,
            id: Some(call.id),
            function: FunctionDelta {
                name: Some(call.function.name),
                arguments: Some(call.function.arguments),
            },
        });
        Ok(Self {
            created: completion.created,
            delta: Delta {
                content: choice.message.content,
                reasoning_content: choice.message.reasoning_content,
                tool_calls: tool_calls.collect(),
            },
            logprobs: choice.logprobs.map(chat_logprobs).transpose()?,
            finish: Some(choice.finish_reason),
            usage: Some(completion.usage),
            timings: completion.timings,
        })
    }

    /// A text completion, or an event of its stream.
    pub(super) fn of_text(data: &[u8]) -> Result<Self, Problem> {
        let text: TextCompletion = serde_json::from_slice(data).map_err(unreadable)?;
        let mut update = Self {
            created: text.created,
            usage: text.usage,
            timings: text.timings,
            ..Self::default()
        };
        if let Some(choice) = text.choices.into_iter().next() {
            update.delta.content = Some(choice.text);
            update.logprobs = choice.logprobs.map(TextLogprobs::tokens);
            update.finish = choice.finish_reason;
        }
        Ok(update)
    }
}

fn unreadable(error: serde_json::Error) -> Problem {
    Problem::engine(format!("the engine's answer cannot be read: {error}"))
}

fn chat_logprobs(logprobs: Value) -> Result<Vec<Logprob>, Problem> {
    #[derive(Deserialize)]
    struct Logprobs {
        content: Vec<Logprob>,
    }
    let logprobs: Logprobs = serde_json::from_value(logprobs).map_err(unreadable)?;
    Ok(logprobs.content)
}

#[derive(Debug, Deserialize)]
struct TextCompletion {
    created: u64,
    choices: Vec<TextChoice>,
    usage: Option<Usage>,
    timings: Option<Timings>,
}

#[derive(Debug, Deserialize)]
struct TextChoice {
    text: String,
    finish_reason: Option<FinishReason>,
    logprobs: Option<TextLogprobs>,
}

/// A text completion has columns where a chat has tokens.
#[derive(Debug, Deserialize)]
struct TextLogprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<f64>,
    top_logprobs: Vec<Map<String, Value>>,
}

impl TextLogprobs {
    fn tokens(self) -> Vec<Logprob> {
        let plain = |token: String, logprob: f64, top_logprobs: Vec<Logprob>| Logprob {
            token,
            logprob,
            bytes: Vec::new(),
            top_logprobs,
        };
        let columns = self
            .tokens
            .into_iter()
            .zip(self.token_logprobs)
            .zip(self.top_logprobs);
        let tokens = columns.map(|((token, logprob), top)| {
            let top = top.into_iter();
            let top = top.filter_map(|(token, logprob)| Some(plain(token, logprob.as_f64()?, Vec::new())));
            plain(token, logprob, top.collect())
        });
        tokens.collect()
    }
}
