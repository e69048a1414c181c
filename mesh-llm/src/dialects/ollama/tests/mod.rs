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

#[test]
fn the_paths_are_found_with_their_methods() {
    for (method, path, endpoint) in [
        (hyper::Method::GET, "/", super::Endpoint::Alive),
        (hyper::Method::HEAD, "/", super::Endpoint::Alive),
        (hyper::Method::GET, "/api/version", super::Endpoint::Version),
        (hyper::Method::HEAD, "/api/tags", super::Endpoint::Tags),
        (hyper::Method::GET, "/api/ps", super::Endpoint::Running),
        (hyper::Method::POST, "/api/show", super::Endpoint::Show),
        (hyper::Method::POST, "/api/chat", super::Endpoint::Chat),
        (hyper::Method::POST, "/api/generate", super::Endpoint::Generate),
        (hyper::Method::POST, "/api/embed", super::Endpoint::Embed),
        (
            hyper::Method::POST,
            "/api/embeddings",
            super::Endpoint::Embeddings,
        ),
        (hyper::Method::POST, "/api/pull", super::Endpoint::Manage),
        (hyper::Method::DELETE, "/api/delete", super::Endpoint::Manage),
        (
            hyper::Method::HEAD,
            "/api/blobs/sha256:00",
            super::Endpoint::Manage,
        ),
        (
            hyper::Method::GET,
            "/api/chat",
            super::Endpoint::WrongMethod("POST"),
        ),
        (
            hyper::Method::POST,
            "/api/tags",
            super::Endpoint::WrongMethod("GET, HEAD"),
        ),
        (
            hyper::Method::POST,
            "/api/delete",
            super::Endpoint::WrongMethod("DELETE"),
        ),
    ] {
        assert_eq!(super::route(&method, path), Some(endpoint), "{method} {path}");
    }
}
