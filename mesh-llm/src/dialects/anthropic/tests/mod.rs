//! The dialect as a whole: requests in, what the engine is asked out, and answers back.

mod answers;
mod properties;
mod requests;

use super::super::sse::{Item, Reader};
use super::super::{Exchange, Problem, chat};
use serde_json::{Value, json};

/// A request that says hello, with these fields on top.
fn hello(fields: Value) -> Value {
    let mut body = json!({
        "model": "tiny",
        "max_tokens": 100,
        "messages": [{"role": "user", "content": "Hello"}],
    });
    for (key, value) in fields.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

fn exchange(fields: Value) -> Result<Exchange, Problem> {
    super::messages(hello(fields).to_string().as_bytes())
}

/// What the engine is asked.
fn asked(fields: Value) -> chat::Request {
    serde_json::from_slice(&exchange(fields).unwrap().body).unwrap()
}

/// The parameter that is at fault, once it is seen to be in the message, too.
fn refused(fields: Value) -> String {
    let problem = exchange(fields).unwrap_err();
    assert_eq!(problem.status, 400);
    let param = problem.param.unwrap();
    assert!(problem.message.starts_with(&param), "{}", problem.message);
    param
}

/// The engine's answer in one piece.
fn completion(message: Value, finish_reason: &str, completion_tokens: u64) -> Value {
    json!({
        "id": "chatcmpl-abc", "object": "chat.completion", "created": 7, "model": "tiny",
        "choices": [{"index": 0, "message": message, "finish_reason": finish_reason}],
        "usage": {
            "prompt_tokens": 30, "completion_tokens": completion_tokens, "total_tokens": 0,
            "prompt_tokens_details": {"cached_tokens": 20},
        },
    })
}

fn whole(fields: Value, completion: &Value) -> Value {
    let mut exchange = exchange(fields).unwrap();
    let answer = exchange.answer.whole(completion.to_string().as_bytes()).unwrap();
    serde_json::from_slice(&answer).unwrap()
}

/// One event of the engine's stream.
fn chunk(fields: Value) -> Value {
    let mut chunk = json!({
        "id": "chatcmpl-abc", "object": "chat.completion.chunk", "created": 7, "model": "tiny", "choices": [],
    });
    for (key, value) in fields.as_object().unwrap() {
        chunk[key] = value.clone();
    }
    chunk
}

fn delta(delta: Value) -> Value {
    chunk(json!({"choices": [{"index": 0, "delta": delta, "finish_reason": null}]}))
}

/// What a stream begins with.
fn first() -> Value {
    let mut first = delta(json!({"role": "assistant", "content": ""}));
    first["prompt_progress"] = json!({"total": 30, "cache": 20, "processed": 20});
    first
}

/// The events of a stream that is fed these of the engine and then, by `end`, brought to its end.
fn events(exchange: &mut Exchange, chunks: &[Value]) -> Vec<Value> {
    let mut out = Vec::new();
    for chunk in chunks {
        exchange.answer.event(chunk.to_string().as_bytes(), &mut out);
    }
    exchange.answer.end(&mut out);
    read(&out)
}

/// Each event's data, once it is seen to have its event's name.
fn read(out: &[u8]) -> Vec<Value> {
    let mut events = Vec::new();
    Reader::default().read(out, |item| {
        let Item::Data(data) = item else {
            panic!("a comment")
        };
        events.push(serde_json::from_slice::<Value>(&data).unwrap());
    });
    let text = std::str::from_utf8(out).unwrap();
    let names: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("event: "))
        .collect();
    let types: Vec<&str> = events
        .iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect();
    assert_eq!(names, types);
    events
}
