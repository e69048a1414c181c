//! A client of the chat API that takes note of when each piece of an answer came.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use serde_json::json;

use super::clock::Moment;
use super::http::{Answer, Endpoint, find};
use super::models::BenchModel;

const CHAT: &str = "/v1/chat/completions";

/// The header that makes a stream tell when its tokens were chosen, in comments before each event.
const TRACE: (&str, &str) = ("x-mesh-llm-trace", "chosen");

/// How such a comment begins; nanoseconds of the system's monotonic clock follow.
const CHOSEN: &str = ": chosen ";

/// What hangs is not measured: no silence in an answer is this long.
pub const LONGEST_SILENCE: Duration = Duration::from_secs(180);

/// A request for an answer that streams.
#[derive(Debug, Clone)]
pub struct Question {
    body: String,
    header: Option<(&'static str, &'static str)>,
    ending: Ending,
}

/// Where an answer may end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// After as many tokens as were asked for.
    AfterAll,
    /// Anywhere.
    Anywhere,
}

impl Question {
    /// Asks with this body, whose answer may end anywhere. It has to ask for a stream that tells its usage.
    pub fn of_body(body: &serde_json::Value) -> Self {
        Self {
            body: body.to_string(),
            header: None,
            ending: Ending::Anywhere,
        }
    }

    /// Asks `model` to go on after one message of the user: greedily, and for exactly so many tokens.
    pub fn new(model: BenchModel, message: &str, tokens: usize) -> Self {
        Self::of_chat(model, &[message], tokens)
    }

    /// Asks `model` to go on after messages of the user and the assistant in turn.
    pub fn of_chat(model: BenchModel, messages: &[&str], tokens: usize) -> Self {
        let roles = ["user", "assistant"].into_iter().cycle();
        let messages: Vec<_> = messages
            .iter()
            .zip(roles)
            .map(|(content, role)| json!({"role": role, "content": content}))
            .collect();
        let mut body = json!({
            "messages": messages,
            "max_tokens": tokens,
            "temperature": 0,
            "stream": true,
            "stream_options": {"include_usage": true},
        });
        if model.ends_answers() {
            body["ignore_eos"] = true.into();
        }
        Self {
            body: body.to_string(),
            header: None,
            ending: Ending::AfterAll,
        }
    }

    /// Asks to be told, too, when tokens were chosen: [`Piece::chosen`].
    pub fn traced(self) -> Self {
        Self {
            header: Some(TRACE),
            ..self
        }
    }

    /// Asks, and waits for the answer to begin. No wait takes longer than `timeout`.
    ///
    /// # Errors
    /// Where there is no answer, or one that refuses.
    pub fn ask(&self, endpoint: &Endpoint, timeout: Option<Duration>) -> anyhow::Result<Stream> {
        let mut answer = Answer::to_post(endpoint, CHAT, self.header, &self.body, timeout)?;
        if answer.status() != 200 {
            let body = answer.read_to_end()?;
            bail!("status {}: {}", answer.status(), String::from_utf8_lossy(&body));
        }
        Ok(Stream {
            answer,
            body: Vec::new(),
            events: VecDeque::new(),
        })
    }

    /// Asks, and reads the whole answer.
    ///
    /// # Errors
    /// Where it does not come whole.
    pub fn answer(&self, endpoint: &Endpoint) -> anyhow::Result<Answered> {
        let mut stream = self.ask(endpoint, Some(LONGEST_SILENCE))?;
        let mut answered = Answered::new(stream.sent());
        answered.ending = self.ending;
        while let Some(event) = stream.next()? {
            answered.add(&event)?;
        }
        answered.check()?;
        Ok(answered)
    }
}

/// Whether an error says that a wait took longer than it was allowed to.
pub fn is_timeout(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
    matches!(kind, Some(io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut))
}

/// An event of a stream, not yet read: that can wait until nothing is measured.
#[derive(Debug)]
pub struct Event {
    came: Moment,
    lines: Vec<u8>,
}

/// An answer that streams. Dropping it breaks it off.
#[derive(Debug)]
pub struct Stream {
    answer: Answer,
    body: Vec<u8>,
    events: VecDeque<Event>,
}

impl Stream {
    /// When the question was sent.
    pub fn sent(&self) -> Moment {
        self.answer.sent()
    }

    /// Waits for the next event; `None` at the end.
    ///
    /// # Errors
    /// Where the connection breaks off or times out.
    pub fn next(&mut self) -> anyhow::Result<Option<Event>> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            let Some(came) = self.answer.read(&mut self.body)? else {
                return Ok(None);
            };
            while let Some(end) = find(&self.body, b"\n\n") {
                let lines: Vec<u8> = self.body.drain(..end + 2).take(end).collect();
                // Comments alone keep the connection open and mean nothing.
                if find(&lines, b"data: {").is_some() {
                    self.events.push_back(Event { came, lines });
                }
            }
        }
    }
}

/// A part of an answer's text.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    /// When its bytes had come.
    pub came: Moment,
    /// When its tokens had been chosen, where the question was [`Question::traced`].
    pub chosen: Vec<Moment>,
}

/// What came of an answer.
#[derive(Debug, Clone)]
pub struct Answered {
    /// When the question was sent.
    pub sent: Moment,
    /// The text's parts.
    pub pieces: Vec<Piece>,
    /// The text.
    pub text: String,
    /// When its end came.
    pub ended: Moment,
    /// What became of tokens that were guessed.
    pub guesses: Guesses,
    ending: Ending,
    usage: Option<Usage>,
}

/// Of `timings`: tokens that were guessed and sent to be verified.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
pub struct Guesses {
    /// All.
    #[serde(rename = "draft_n")]
    pub sent: usize,
    /// Those that were right.
    #[serde(rename = "draft_n_accepted")]
    pub right: usize,
    /// Windows of them on their way at once.
    #[serde(rename = "draft_windows")]
    pub windows: Windows,
}

/// Windows of guesses on their way at once.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub struct Windows {
    /// On average.
    pub mean: f64,
}

/// How many tokens there were.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Usage {
    /// In the prompt.
    pub prompt_tokens: usize,
    /// In the answer.
    pub completion_tokens: usize,
    /// Of the prompt's.
    pub prompt_tokens_details: PromptDetails,
}

/// How many of a prompt's tokens needed no computation.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct PromptDetails {
    /// Found in a cache.
    pub cached_tokens: usize,
}

#[derive(Debug, Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<Usage>,
    timings: Option<Guesses>,
    error: Option<serde_json::Value>,
}

#[derive(Debug, Deserialize)]
struct Choice {
    #[serde(default)]
    delta: Delta,
    finish_reason: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Delta {
    content: Option<String>,
}

impl Answered {
    /// Nothing yet, to a question sent at that moment.
    pub fn new(sent: Moment) -> Self {
        Self {
            sent,
            pieces: Vec::new(),
            text: String::new(),
            ended: sent,
            guesses: Guesses::default(),
            ending: Ending::AfterAll,
            usage: None,
        }
    }

    /// Reads the next event.
    ///
    /// # Errors
    /// Where it tells of an error, or of an end before all tokens were there.
    pub fn add(&mut self, event: &Event) -> anyhow::Result<()> {
        let lines = std::str::from_utf8(&event.lines)?;
        let data: String = lines
            .lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .collect();
        let chosen: Vec<Moment> = lines
            .lines()
            .filter_map(|line| line.strip_prefix(CHOSEN)?.parse().ok())
            .map(Moment::from_nanoseconds)
            .collect();
        let chunk: Chunk =
            serde_json::from_str(&data).with_context(|| format!("not a chunk of a chat: {data}"))?;
        if let Some(error) = chunk.error {
            bail!("the stream ended with an error: {error}");
        }
        self.usage = chunk.usage.or(self.usage);
        self.guesses = chunk.timings.unwrap_or(self.guesses);
        for choice in chunk.choices {
            if let Some(reason) = choice.finish_reason {
                ensure!(
                    reason == "length" || self.ending == Ending::Anywhere,
                    "the answer ended by itself ({reason})"
                );
                self.ended = event.came;
            }
            let Some(content) = choice.delta.content.filter(|content| !content.is_empty()) else {
                continue;
            };
            self.text.push_str(&content);
            self.pieces.push(Piece {
                came: event.came,
                chosen: chosen.clone(),
            });
        }
        Ok(())
    }

    fn check(&self) -> anyhow::Result<()> {
        ensure!(self.usage.is_some(), "the stream did not tell its usage");
        ensure!(!self.pieces.is_empty(), "the answer is empty");
        Ok(())
    }

    /// How many tokens there were. An answer is read whole before it is asked.
    pub fn usage(&self) -> Usage {
        self.usage.expect("checked when the answer was read")
    }

    /// When its text began to come.
    pub fn first(&self) -> Moment {
        self.pieces.first().map_or(self.sent, |piece| piece.came)
    }

    /// When its text ended.
    pub fn last(&self) -> Moment {
        self.pieces.last().map_or(self.sent, |piece| piece.came)
    }

    /// From the question to the first of its text.
    pub fn time_to_first(&self) -> Duration {
        self.first().since(self.sent)
    }

    /// Tokens a second, from the first piece to the last.
    pub fn rate(&self) -> f64 {
        (self.usage().completion_tokens - 1) as f64 / self.last().since(self.first()).as_secs_f64()
    }

    /// Tokens that came after `from`, and not after `to`. Where pieces hold several tokens, all are
    /// taken to hold equally many.
    pub fn tokens_between(&self, from: Moment, to: Moment) -> f64 {
        let pieces = self
            .pieces
            .iter()
            .filter(|piece| piece.came > from && piece.came <= to)
            .count();
        pieces as f64 * self.usage().completion_tokens as f64 / self.pieces.len() as f64
    }
}
