//! The handlers over a real engine with the trained tiny model.

mod chat;
mod completion;
mod errors;
mod others;

use std::sync::{Mutex, OnceLock};
use std::thread;

use axum::{
    Router,
    body::{self, Body},
    http::{Request, Response, StatusCode, header::CONTENT_TYPE},
};
use serde_json::Value;
use tower::ServiceExt;

use super::super::{
    engine::Engine,
    load::load,
    options::{Listen, Options},
};

/// The context of the tests' engine.
const CONTEXT: u32 = 2048;

/// The engine that all tests share: two slots, so that requests do run beside each other.
fn engine() -> Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| start(2, 64)).clone()
}

fn start(slots: u32, queue: u32) -> Engine {
    // A llama-server loads one model in its life, and llama.cpp's loading is not made for two at once.
    static LOADING: Mutex<()> = Mutex::new(());
    let _loading = LOADING.lock().unwrap();
    let listen = Listen::Tcp(([127, 0, 0, 1], 0).into());
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../mesh-llm/assets/mesh-tiny.gguf");
    let options = Options {
        context: Some(CONTEXT),
        slots: Some(slots),
        threads: Some(1),
        queue: Some(queue),
        ..Options::new(listen, model.into(), "tiny".into())
    };
    // It blocks, and this thread may belong to a runtime.
    let loaded = thread::scope(|scope| scope.spawn(|| load(&options)).join().unwrap());
    loaded
        .unwrap_or_else(|refused| panic!("{}", refused.message))
        .engine
}

fn router() -> Router {
    super::router(engine(), None)
}

async fn call(request: Request<Body>) -> Response<Body> {
    router().oneshot(request).await.unwrap()
}

fn post(path: &str, body: &Value) -> Request<Body> {
    Request::post(path)
        .header(CONTENT_TYPE, "application/json")
        .body(body.to_string().into())
        .unwrap()
}

async fn bytes(response: Response<Body>) -> Vec<u8> {
    body::to_bytes(response.into_body(), usize::MAX)
        .await
        .unwrap()
        .to_vec()
}

async fn json(response: Response<Body>) -> (StatusCode, Value) {
    let status = response.status();
    let bytes = bytes(response).await;
    (
        status,
        serde_json::from_slice(&bytes).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&bytes))),
    )
}

/// What is answered with a 200.
async fn ask(path: &str, body: Value) -> Value {
    let (status, answer) = json(call(post(path, &body)).await).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    answer
}

/// What is answered with an error: status, parameter, code and message.
async fn refused(path: &str, body: Value) -> (u16, String, String, String) {
    let (status, answer) = json(call(post(path, &body)).await).await;
    let text = |field: &str| answer["error"][field].as_str().unwrap_or_default().to_owned();
    (status.as_u16(), text("param"), text("code"), text("message"))
}

/// The events of a stream that ends as it should.
async fn events(path: &str, mut body: Value) -> Vec<Value> {
    body["stream"] = true.into();
    let response = call(post(path, &body)).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()[CONTENT_TYPE], "text/event-stream");
    let text = String::from_utf8(bytes(response).await).unwrap();
    let mut events: Vec<&str> = text
        .split("\n\n")
        .filter(|event| !event.is_empty() && !event.starts_with(':'))
        .map(|event| event.strip_prefix("data: ").unwrap())
        .collect();
    assert_eq!(events.pop(), Some("[DONE]"));
    events
        .into_iter()
        .map(|event| serde_json::from_str(event).unwrap())
        .collect()
}

/// The texts at a path of each event's choice, put together.
fn concat(events: &[Value], index: u64, pointer: &str) -> String {
    events
        .iter()
        .flat_map(|event| event["choices"].as_array().unwrap())
        .filter(|choice| choice["index"] == index)
        .filter_map(|choice| choice.pointer(pointer)?.as_str())
        .collect()
}
