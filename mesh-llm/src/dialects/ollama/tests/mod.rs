//! What the dialect makes of requests and answers.

mod answers;
mod lists;
mod requests;
mod round_trip;

use super::super::{Exchange, Problem};
use super::*;
use serde_json::Value;

fn body(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn read(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(bytes)))
}

fn text(asked: Result<Asked, Problem>) -> Exchange {
    match asked.unwrap() {
        Asked::Text(exchange) => exchange,
        Asked::Load(load) => panic!("{load:?}"),
    }
}

/// What the engine is asked for a request to `/api/chat`.
fn chat(request: &Value) -> Value {
    let exchange = text(chat::asked(&body(request)));
    assert_eq!(exchange.path, "/v1/chat/completions");
    read(&exchange.body)
}

/// What the engine is asked for a request to `/api/generate`, and where.
fn generate(request: &Value) -> (&'static str, Value) {
    let exchange = text(generate::asked(&body(request)));
    (exchange.path, read(&exchange.body))
}
