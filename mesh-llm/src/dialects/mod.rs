//! What agents speak besides OpenAI's chat: each dialect is translated to a chat request, and the
//! answer back. Pure: bytes in, bytes out.
//!
//! A dialect reads a request into an [`Exchange`]: what the engine is asked, and an [`Answer`] that
//! puts the engine's answer, or each event of its stream, into the dialect's words. [`route`] says
//! which paths belong to which dialect; the room `api` does the reading and writing. [`chat`] has
//! the engine's own dialect, [`sse`] the form of its streams, [`problem`] what can go wrong.

pub mod anthropic;
pub mod chat;
pub mod ollama;
pub mod problem;
pub mod responses;
pub mod route;
pub mod sse;

pub use problem::Problem;
pub use route::{Route, route};

use serde_json::Value;

/// What the engine is asked for a client.
#[derive(Debug)]
pub struct Exchange {
    /// The engine's path, such as [`chat::PATH`].
    pub path: &'static str,
    /// The body of a `POST`.
    pub body: Vec<u8>,
    /// Whether the engine is asked for a stream of events, or for one answer.
    pub form: Form,
    /// Puts what the engine answers into the dialect's words.
    pub answer: Box<dyn Answer>,
}

/// How an answer comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// In one piece: [`Answer::whole`] is called once.
    Whole,
    /// As it is made: [`Answer::event`] for each event and [`Answer::end`] after the last.
    Stream,
}

/// Translates one answer. Of an exchange whose [`Form`] is `Whole` only [`Answer::whole`] is called,
/// of one that streams only the other methods.
pub trait Answer: Send + std::fmt::Debug {
    /// The `Content-Type` of what is written.
    fn content_type(&self) -> &'static str;

    /// The whole answer.
    ///
    /// # Errors
    /// Where the engine's answer is not what was asked for.
    fn whole(&mut self, answer: &[u8]) -> Result<Vec<u8>, Problem>;

    /// Writes what comes before the engine's first event, and what one event of the engine is in the
    /// dialect: nothing, an event or several. `data` is the event's JSON; `[DONE]` is left out.
    fn event(&mut self, data: &[u8], out: &mut Vec<u8>);

    /// Writes a sign of life: nothing has come for a while.
    fn keep_alive(&mut self, out: &mut Vec<u8>);

    /// Writes what a stream ends with that was broken off by a problem. Nothing follows.
    fn broken(&mut self, problem: &Problem, out: &mut Vec<u8>);

    /// Writes what a stream ends with that came whole.
    fn end(&mut self, out: &mut Vec<u8>);
}
/// Reads a JSON object.
///
/// # Errors
/// A problem that says where the JSON is broken.
fn object(body: &[u8]) -> Result<serde_json::Map<String, Value>, Problem> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Problem::invalid(None, "the body must be a JSON object")),
        Err(error) => Err(Problem::invalid(None, format!("the body is not JSON: {error}"))),
    }
}
