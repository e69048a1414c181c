//! The endpoint between a client and an engine that are both played by the test, byte by byte.

mod mesh;
mod nodes;
mod peers;

use super::{Own, Remotes, Server};
use crate::engine::{Serving, State, Upstream};
use crate::http::testing::until;
use crate::http::{End, Shutdown};
use llama_engine::server::options::Listen;
use llama_engine::status::Ready;
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A server before an engine.
struct Stage {
    address: SocketAddr,
    state: watch::Sender<State>,
    remotes: watch::Sender<Remotes>,
    engine: TcpListener,
    end: End,
    served: JoinHandle<()>,
}

impl Stage {
    /// One whose engine is ready.
    async fn ready() -> Stage {
        let engine = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (state, states) = watch::channel(ready(&engine));
        Stage::new(Own::Engine(states), state, engine).await
    }

    /// One that has no engine.
    async fn without_engine() -> Stage {
        let engine = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (state, _) = watch::channel(State::Starting);
        Stage::new(Own::None, state, engine).await
    }

    /// One whose engine is in this state.
    async fn not_ready(state: State) -> Stage {
        let (state, states) = watch::channel(state);
        let engine = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Stage::new(Own::Engine(states), state, engine).await
    }

    async fn new(own: Own, state: watch::Sender<State>, engine: TcpListener) -> Stage {
        let server = Server::bind("127.0.0.1", 0).await.unwrap();
        let address = server.address();
        let (remotes, others) = watch::channel(Remotes::default());
        let (end, shutdown) = Shutdown::when_told();
        let served = tokio::spawn(server.serve(own, others, super::Keys::default(), 100, shutdown));
        Stage {
            address,
            state,
            remotes,
            engine,
            end,
            served,
        }
    }

    /// A client that has sent this.
    async fn client(&self, request: &str) -> TcpStream {
        let mut client = TcpStream::connect(self.address).await.unwrap();
        client.write_all(request.as_bytes()).await.unwrap();
        client
    }

    /// The whole answer to a request, up to the end of the connection.
    async fn answer(&self, request: &str) -> String {
        rest(&mut self.client(request).await).await
    }

    /// The engine's side of the next exchange, and the head of its request.
    async fn exchange(&self) -> (TcpStream, String) {
        let (mut stream, _) = self.engine.accept().await.unwrap();
        let head = until(&mut stream, "\r\n\r\n").await;
        (stream, head)
    }
}

/// An engine that listens there, and has the model `own`.
fn ready(engine: &TcpListener) -> State {
    State::Ready(Serving {
        model: "own".to_owned(),
        ready: Ready {
            address: String::new(),
            context: 1,
            slots: 1,
            gpu_layers: 0,
            model_bytes: 0,
            context_bytes: 0,
            node_layers: Vec::new(),
        },
        upstream: Upstream::new(Listen::Tcp(engine.local_addr().unwrap()), None),
        workers: Vec::new(),
    })
}

async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut read = String::new();
    stream.read_to_string(&mut read).await.unwrap();
    read
}

/// Waits until the other side is gone.
async fn gone(stream: &mut (impl AsyncRead + Unpin)) {
    let mut byte = [0];
    assert!(
        matches!(stream.read(&mut byte).await, Ok(0) | Err(_)),
        "it says something"
    );
}

const GET: &str = "GET /v1/models?x=%20 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

const EVENTS: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

#[tokio::test]
async fn an_exchange_is_passed_on_both_ways() {
    let stage = Stage::ready().await;
    let request = "POST /v1/x?a=%20b HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer k\r\n\
                   Content-Length: 5\r\nConnection: close\r\n\r\n{\0x\u{e9}";
    let mut client = stage.client(request).await;
    let (mut engine, head) = stage.exchange().await;
    assert!(head.starts_with("POST /v1/x?a=%20b HTTP/1.1\r\n"), "{head}");
    assert!(
        head.contains("authorization: Bearer k\r\n") && head.contains("content-length: 5\r\n"),
        "{head}"
    );
    assert!(!head.contains("connection"), "{head}");
    assert_eq!(until(&mut engine, "\u{e9}").await, "{\0x\u{e9}");
    engine
        .write_all(b"HTTP/1.1 404 Not Found\r\nx-own: 1\r\ncontent-length: 3\r\n\r\nabc")
        .await
        .unwrap();
    let answer = rest(&mut client).await;
    assert!(
        answer.starts_with("HTTP/1.1 404 Not Found\r\nx-own: 1\r\n"),
        "{answer}"
    );
    assert!(answer.ends_with("\r\n\r\nabc"), "{answer}");
}

#[tokio::test]
async fn an_event_is_passed_on_before_the_next_one_is_there() {
    let stage = Stage::ready().await;
    let mut client = stage.client(GET).await;
    let (mut engine, _) = stage.exchange().await;
    engine.write_all(EVENTS.as_bytes()).await.unwrap();
    for event in ["data: 1\n\n", "data: 2\n\n"] {
        engine
            .write_all(format!("9\r\n{event}\r\n").as_bytes())
            .await
            .unwrap();
        until(&mut client, event).await;
    }
    engine.write_all(b"0\r\n\r\n").await.unwrap();
    assert_eq!(rest(&mut client).await, "\r\n0\r\n\r\n");
}

#[tokio::test]
async fn an_upload_is_passed_on_before_its_end_is_there() {
    let stage = Stage::ready().await;
    let head = "POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut client = stage.client(head).await;
    client.write_all(b"3\r\none\r\n").await.unwrap();
    let (mut engine, _) = stage.exchange().await;
    until(&mut engine, "one\r\n").await;
    client.write_all(b"3\r\ntwo\r\n").await.unwrap();
    until(&mut engine, "two\r\n").await;
}

#[tokio::test]
async fn a_client_that_goes_away_ends_the_exchange() {
    let stage = Stage::ready().await;
    let client = stage.client(GET).await;
    let (mut engine, _) = stage.exchange().await;
    drop(client);
    gone(&mut engine).await;

    let mut client = stage.client(GET).await;
    let (mut engine, _) = stage.exchange().await;
    engine.write_all(EVENTS.as_bytes()).await.unwrap();
    until(&mut client, "\r\n\r\n").await;
    drop(client);
    gone(&mut engine).await;
}

#[tokio::test]
async fn a_crash_before_the_answer_is_told_by_an_error() {
    let stage = Stage::ready().await;
    let mut client = stage.client(GET).await;
    drop(stage.exchange().await);
    let answer = rest(&mut client).await;
    assert!(
        answer.starts_with("HTTP/1.1 503 ") && answer.contains("\r\nretry-after: 1\r\n"),
        "{answer}"
    );
    assert!(answer.contains(r#""code":"engine_crashed""#), "{answer}");
}

#[tokio::test]
async fn an_engine_that_is_not_there_is_told_by_an_error() {
    let Stage {
        address,
        state: _state,
        engine,
        end: _end,
        ..
    } = Stage::ready().await;
    drop(engine);
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(GET.as_bytes()).await.unwrap();
    assert!(rest(&mut client).await.contains(r#""code":"engine_crashed""#));
}

#[tokio::test]
async fn a_crash_within_a_stream_is_told_by_its_last_event() {
    let stage = Stage::ready().await;
    let mut client = stage.client(GET).await;
    let (mut engine, _) = stage.exchange().await;
    engine
        .write_all(format!("{EVENTS}9\r\ndata: 1\n\n\r\n").as_bytes())
        .await
        .unwrap();
    drop(engine);
    let answer = rest(&mut client).await;
    let (_, last) = answer.split_once("data: 1\n\n").unwrap();
    assert!(
        last.contains(r#"data: {"error":{"#) && last.contains("engine_crashed"),
        "{answer}"
    );
    assert!(
        last.ends_with("}\n\n\r\n0\r\n\r\n"),
        "the answer was not ended: {answer}"
    );
}

#[tokio::test]
async fn a_crash_within_another_answer_breaks_it_off() {
    let stage = Stage::ready().await;
    let mut client = stage.client(GET).await;
    let (mut engine, _) = stage.exchange().await;
    let begun = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{\"a\":";
    engine.write_all(begun.as_bytes()).await.unwrap();
    until(&mut client, "{\"a\":").await;
    drop(engine);
    gone(&mut client).await;
}

#[tokio::test]
async fn while_the_model_is_loaded_clients_are_told_to_come_again() {
    let stage = Stage::not_ready(State::Loading { percent: 37 }).await;
    let answer = stage.answer(GET).await;
    assert!(
        answer.starts_with("HTTP/1.1 503 ") && answer.contains("\r\nretry-after: 1\r\n"),
        "{answer}"
    );
    assert!(
        answer.contains(r#""code":"model_loading""#) && !answer.contains("percent"),
        "{answer}"
    );
    let health = stage.answer(&GET.replace("/v1/models", "/health")).await;
    assert!(
        health.contains(r#""status":"loading""#) && health.contains(r#""percent":37"#),
        "{health}"
    );
    stage.state.send_replace(State::Stopping);
    assert!(stage.answer(GET).await.contains("shutting_down"));
}

#[tokio::test]
async fn other_names_are_refused_and_local_pages_let_in() {
    let stage = Stage::not_ready(State::Starting).await;
    let answer = stage.answer(&GET.replace("localhost", "evil.com")).await;
    assert!(
        answer.starts_with("HTTP/1.1 403 ") && answer.contains("`evil.com`"),
        "{answer}"
    );
    for (origin, allowed) in [("http://localhost:3000", true), ("http://evil.com", false)] {
        let preflight = GET.replace("GET", "OPTIONS").replace(
            "connection",
            &format!("origin: {origin}\r\naccess-control-request-method: POST\r\nconnection"),
        );
        let answer = stage.answer(&preflight).await;
        assert_eq!(
            answer.contains("access-control-allow-origin"),
            allowed,
            "{answer}"
        );
    }
}

#[tokio::test]
async fn a_drained_server_finishes_what_runs_and_takes_nothing_new() {
    let stage = Stage::ready().await;
    let mut idle = TcpStream::connect(stage.address).await.unwrap();
    let mut client = stage.client(&GET.replace("connection: close\r\n", "")).await;
    let (mut engine, _) = stage.exchange().await;
    stage.end.drain.send(()).unwrap();
    gone(&mut idle).await;
    assert!(TcpStream::connect(stage.address).await.is_err());
    engine
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        .await
        .unwrap();
    assert!(rest(&mut client).await.ends_with("ok"));
    stage.served.await.unwrap();
}

#[tokio::test]
async fn a_cut_server_breaks_off_what_runs() {
    let stage = Stage::ready().await;
    let mut client = stage.client(GET).await;
    let (mut engine, _) = stage.exchange().await;
    stage.end.drain.send(()).unwrap();
    stage.end.cut.send(()).unwrap();
    stage.served.await.unwrap();
    gone(&mut client).await;
    gone(&mut engine).await;
}

#[tokio::test]
async fn a_request_that_nobody_reads_does_not_cost_the_client_its_answer() {
    let stage = Stage::not_ready(State::Starting).await;
    let length = 8 << 20;
    let head = format!(
        "POST / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
    );
    let mut client = stage.client(&head).await;
    client.write_all(&vec![0; length]).await.unwrap();
    assert!(rest(&mut client).await.starts_with("HTTP/1.1 503 "));
}
