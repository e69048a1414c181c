//! Requests of other nodes.

use super::super::serve_peer;
use super::nodes::{OK, post, request};
use super::{EVENTS, gone, ready, rest, until};
use crate::engine::State;
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// A peer before an engine that has the model `own`.
struct Served {
    engine: TcpListener,
    state: watch::Sender<State>,
}

impl Served {
    async fn new() -> Served {
        let engine = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (state, _) = watch::channel(ready(&engine));
        Served { engine, state }
    }

    /// A peer that has opened a stream for a model and sent this.
    async fn peer(&self, wanted: &str, request: &str) -> DuplexStream {
        let (mut here, there) = duplex(1 << 16);
        tokio::spawn(serve_peer(there, self.state.borrow().clone(), wanted.to_owned()));
        here.write_all(request.as_bytes()).await.unwrap();
        here
    }

    /// The whole answer to a peer.
    async fn answer(&self, wanted: &str, request: &str) -> String {
        rest(&mut self.peer(wanted, request).await).await
    }
}

fn is_elsewhere(answer: &str) -> bool {
    let elsewhere = answer.contains("\r\nx-mesh-llm-elsewhere: 1\r\n");
    assert_eq!(elsewhere, answer.starts_with("HTTP/1.1 503 "), "{answer}");
    elsewhere
}

#[tokio::test]
async fn a_peer_s_request_is_answered_by_the_engine_and_nothing_follows() {
    let served = Served::new().await;
    for body in [r#"{"model":"own","x":"\u00e9"}"#, "{}", "not JSON"] {
        // Of an exchange that another is written behind, that one is not read.
        let asked = post("/v1/chat/completions", body).replace("connection: close\r\n", "");
        let mut peer = served.peer("own", &asked.repeat(2)).await;
        let (mut engine, _) = served.engine.accept().await.unwrap();
        let (head, sent) = request(&mut engine).await;
        assert!(
            head.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"),
            "{head}"
        );
        assert_eq!(sent, body);
        engine.write_all(OK.as_bytes()).await.unwrap();
        let answer = rest(&mut peer).await;
        assert!(
            answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok"),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn a_stream_is_passed_on_to_a_peer_as_it_comes_and_ends_when_the_peer_goes() {
    let served = Served::new().await;
    let mut peer = served.peer("own", &post("/v1/completions", "{}")).await;
    let (mut engine, _) = served.engine.accept().await.unwrap();
    request(&mut engine).await;
    engine.write_all(EVENTS.as_bytes()).await.unwrap();
    engine.write_all(b"9\r\ndata: 1\n\n\r\n").await.unwrap();
    until(&mut peer, "data: 1\n\n").await;
    drop(peer);
    gone(&mut engine).await;
}

#[tokio::test]
async fn peers_get_nothing_but_what_a_model_answers() {
    let served = Served::new().await;
    for path in [
        "/health",
        "/metrics",
        "/props",
        "/v1/models",
        "/v1/responses",
        "/api/chat",
        "/",
    ] {
        for asked in [post(path, "{}"), post(path, "").replace("POST", "GET")] {
            let answer = served.answer("own", &asked).await;
            assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
            assert!(!is_elsewhere(&answer));
        }
    }
    let asked = post("/v1/completions", "{}").replace("POST", "GET");
    assert!(served.answer("own", &asked).await.starts_with("HTTP/1.1 404 "));
}

#[tokio::test]
async fn a_stream_is_for_the_model_that_it_was_opened_for() {
    let served = Served::new().await;
    let answer = served
        .answer("own", &post("/v1/completions", r#"{"model":"other"}"#))
        .await;
    assert!(
        answer.starts_with("HTTP/1.1 400 ") && answer.contains("other"),
        "{answer}"
    );
    assert!(!is_elsewhere(&answer));
}

#[tokio::test]
async fn what_this_node_cannot_answer_is_sent_elsewhere() {
    let served = Served::new().await;
    let asked = post("/v1/completions", "{}");
    assert!(is_elsewhere(&served.answer("other", &asked).await));
    // The engine breaks off before it has answered.
    let mut peer = served.peer("own", &asked).await;
    drop(served.engine.accept().await.unwrap());
    assert!(is_elsewhere(&rest(&mut peer).await));
    served.state.send_replace(State::Loading { percent: 5 });
    let answer = served.answer("own", &asked).await;
    assert!(
        is_elsewhere(&answer) && answer.contains("model_loading"),
        "{answer}"
    );
}
