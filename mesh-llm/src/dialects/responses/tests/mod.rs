//! What the dialect promises, seen from outside: JSON in, JSON out.

mod examples;
mod properties;
mod streams;

use super::*;
use crate::dialects::chat;
use serde_json::Value;

/// Asks with what is known.
fn ask(body: &Value, known: &Known) -> Result<Asked, Problem> {
    let origin = Origin {
        seed: "5eed".to_owned(),
        now: 1_700_000_000,
    };
    Draft::read(body.to_string().as_bytes())?.ask(known, origin)
}

/// The chat that a request becomes.
fn chat(body: &Value, known: &Known) -> chat::Request {
    serde_json::from_slice(&ask(body, known).unwrap().body).unwrap()
}

/// What is wrong with a request.
fn refused(body: &Value) -> Problem {
    ask(body, &Known::default()).unwrap_err()
}
