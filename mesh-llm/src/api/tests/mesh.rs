//! Requests that other nodes answer.

use super::nodes::{Node, OK, post};
use super::{EVENTS, GET, Stage, gone, rest, until};
use crate::engine::State;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

fn get(path: &str) -> String {
    GET.replace("/v1/models?x=%20", path)
}

/// The JSON of an answer, which has this status.
fn json_of(answer: &str, status: u16) -> Value {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"))
}

fn ids(list: &Value) -> Vec<&str> {
    let models = list["data"].as_array().unwrap();
    models.iter().map(|model| model["id"].as_str().unwrap()).collect()
}

/// An answer that has this body.
fn with_body(body: &Value) -> String {
    let body = body.to_string();
    let length = body.len();
    let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: application/json";
    format!("{head}\r\ncontent-length: {length}\r\n\r\n{body}")
}

fn own_list() -> String {
    let meta = json!({"architecture": "llama", "n_ctx": 1, "n_params": 5, "size": 6, "file_type": 7});
    with_body(
        &json!({"object": "list", "data": [{"id": "own", "object": "model", "created": 7, "meta": meta}]}),
    )
}

const ELSEWHERE: &str =
    "HTTP/1.1 503 Service Unavailable\r\nx-mesh-llm-elsewhere: 1\r\ncontent-length: 0\r\n\r\n";

#[tokio::test]
async fn a_request_goes_where_its_model_is_served_with_the_same_bytes() {
    let stage = Stage::ready().await;
    let (mut a, mut b) = (Node::new("a"), Node::new("b"));
    stage.others([a.serves(&["m"], 1), b.serves(&["n", "own"], 1)]);
    for body in [r#"{"model":"m" ,"x":"\u00e9"}"#, r#"{"x":1,"model":"n"}"#] {
        let node = if body.contains("\"m\"") { &mut a } else { &mut b };
        let mut client = stage.chat(body).await;
        let (head, sent) = node.answers(OK).await;
        assert!(
            head.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"),
            "{head}"
        );
        assert!(head.contains("x-own: 1\r\n"), "{head}");
        // The client's key is for this machine.
        assert!(
            !head.contains("authorization") && !head.contains("localhost"),
            "{head}"
        );
        assert_eq!(sent, body);
        assert!(rest(&mut client).await.ends_with("\r\n\r\nok"));
    }
    // This machine is nearer than any node, and has what no model is asked of.
    for body in [r#"{"model":"own"}"#, "{}", r#"{"model":""}"#, "not JSON"] {
        let mut client = stage.chat(body).await;
        let (head, sent) = stage.engine_answers(OK).await;
        assert!(head.contains("authorization: Bearer k\r\n"), "{head}");
        assert_eq!(sent, body);
        assert!(rest(&mut client).await.ends_with("ok"));
    }
    assert!(a.was_not_asked() && b.was_not_asked());
}

#[tokio::test]
async fn a_node_s_stream_is_passed_on_as_it_comes_and_its_end_is_told() {
    let stage = Stage::ready().await;
    let (mut a, mut b) = (Node::new("a"), Node::new("b"));
    stage.others([a.serves(&["m"], 1), b.serves(&["m"], 9)]);
    let mut client = stage.chat(r#"{"model":"m"}"#).await;
    let (mut stream, ..) = a.exchange().await;
    stream.write_all(EVENTS.as_bytes()).await.unwrap();
    for event in ["data: 1\n\n", "data: 2\n\n"] {
        let chunk = format!("9\r\n{event}\r\n");
        stream.write_all(chunk.as_bytes()).await.unwrap();
        until(&mut client, event).await;
    }
    drop(stream);
    let last = rest(&mut client).await;
    assert!(
        last.contains(r#"data: {"error":{"#) && last.contains(r#""code":"node_lost""#),
        "{last}"
    );
    assert!(last.ends_with("0\r\n\r\n"), "{last}");
    assert!(b.was_not_asked(), "after the head nothing is tried again");
}

#[tokio::test]
async fn a_client_that_goes_away_ends_the_exchange_with_the_node() {
    let stage = Stage::ready().await;
    let mut a = Node::new("a");
    stage.others([a.serves(&["m"], 1)]);
    let client = stage.chat(r#"{"model":"m"}"#).await;
    let (mut stream, ..) = a.exchange().await;
    drop(client);
    gone(&mut stream).await;
}

#[tokio::test]
async fn what_gives_no_answer_is_passed_over_for_the_next_place() {
    let stage = Stage::ready().await;
    let (mut a, mut b, mut c) = (Node::new("a"), Node::new("b"), Node::new("c"));
    let gone = Node::new("gone");
    let remotes = [
        gone.serves(&["m"], 0),
        a.serves(&["m"], 1),
        b.serves(&["m"], 2),
        c.serves(&["m"], 3),
    ];
    drop(gone);
    stage.others(remotes);
    let body = r#"{"model":"m","messages":[{"role":"user","content":"?"}]}"#;
    let mut client = stage.chat(body).await;
    // One cannot be reached, one breaks off, one has the model no more.
    drop(a.exchange().await);
    b.answers(ELSEWHERE).await;
    assert_eq!(c.answers(OK).await.1, body);
    assert!(rest(&mut client).await.ends_with("ok"));
    // Who failed is not asked again at once.
    let mut client = stage.chat(r#"{"model":"m"}"#).await;
    c.answers(OK).await;
    assert!(rest(&mut client).await.ends_with("ok"));
    assert!(a.was_not_asked() && b.was_not_asked());
}

#[tokio::test]
async fn where_no_place_is_left_the_client_is_told_to_come_again() {
    let stage = Stage::ready().await;
    let mut a = Node::new("a");
    stage.others([a.serves(&["m", "own"], 1)]);
    let mut client = stage.chat(r#"{"model":"m"}"#).await;
    drop(a.exchange().await);
    let answer = rest(&mut client).await;
    assert!(answer.contains("\r\nretry-after: 1\r\n"), "{answer}");
    assert_eq!(json_of(&answer, 503)["error"]["code"], "no_node_answers");
    // The own engine crashes, another node serves its model, too.
    let mut client = stage.chat(r#"{"model":"own"}"#).await;
    drop(stage.exchange().await);
    a.answers(OK).await;
    assert!(rest(&mut client).await.ends_with("ok"));
}

#[tokio::test]
async fn a_conversation_stays_where_it_began() {
    let stage = Stage::without_engine().await;
    let (mut near, mut far) = (Node::new("near"), Node::new("far"));
    stage.others([near.serves(&["m"], 1), far.serves(&["m"], 9)]);
    let chat = |text: &str, more: &str| {
        format!(r#"{{"model":"m","messages":[{{"role":"user","content":"{text}"}}{more}]}}"#)
    };
    // While the near one answers somebody, the far one has less to do.
    let other = stage.chat(&chat("other", "")).await;
    let (mut busy, ..) = near.exchange().await;
    let mut client = stage.chat(&chat("first", "")).await;
    far.answers(OK).await;
    assert!(rest(&mut client).await.ends_with("ok"));
    drop(other);
    gone(&mut busy).await;
    let mut client = stage
        .chat(&chat("first", r#",{"role":"assistant","content":"So."}"#))
        .await;
    far.answers(OK).await;
    assert!(rest(&mut client).await.ends_with("ok"));
    assert!(near.was_not_asked());
}

#[tokio::test]
async fn a_model_that_nobody_has_is_not_found() {
    let stage = Stage::ready().await;
    let a = Node::new("a");
    stage.others([a.serves(&["m"], 1)]);
    let request = post("/v1/embeddings", r#"{"model":"gpt-4"}"#);
    let error = &json_of(&stage.answer(&request).await, 404)["error"];
    assert_eq!(
        (&error["code"], &error["param"]),
        (&json!("model_not_found"), &json!("model"))
    );
    assert_eq!(
        error["message"],
        r#"there is no model "gpt-4" here; there are "m", "own""#
    );
    let answer = stage.answer(&get("/v1/models/gpt-4")).await;
    assert_eq!(json_of(&answer, 404)["error"]["code"], "model_not_found");
    // While the own engine is not ready, that may be its model.
    stage.state.send_replace(State::Loading { percent: 37 });
    let answer = stage.answer(&request).await;
    assert_eq!(json_of(&answer, 503)["error"]["code"], "model_loading");
}

#[tokio::test]
async fn what_all_serve_is_listed_once() {
    let stage = Stage::ready().await;
    let (a, b) = (Node::new("a"), Node::new("b"));
    stage.others([a.serves(&["m", "own"], 1), b.serves(&["m", "org/n"], 1)]);
    for path in ["/v1/models", "/models"] {
        let mut client = stage.client(&get(path)).await;
        stage.engine_answers(&own_list()).await;
        let list = json_of(&rest(&mut client).await, 200);
        assert_eq!(ids(&list), ["own", "m", "org/n"]);
        assert_eq!(list["data"][0]["created"], 7);
        assert_eq!(list["data"][1]["meta"]["n_ctx"], 512);
    }
    let mut client = stage.client(&get("/api/tags")).await;
    stage.engine_answers(&own_list()).await;
    let tags = json_of(&rest(&mut client).await, 200);
    assert_eq!(tags["models"][2]["name"], "org/n:latest");
    let one = stage.answer(&get("/v1/models/org%2Fn")).await;
    assert_eq!(json_of(&one, 200)["id"], "org/n");
    let mut client = stage.client(&get("/v1/models/own")).await;
    stage.engine_answers(&own_list()).await;
    assert_eq!(json_of(&rest(&mut client).await, 200)["created"], 7);
    // What this machine serves is not known yet.
    stage.state.send_replace(State::Starting);
    let list = json_of(&stage.answer(&get("/v1/models")).await, 200);
    assert_eq!(ids(&list), ["m", "own", "org/n"]);
}

#[tokio::test]
async fn dialects_are_answered_where_the_model_is_served() {
    let stage = Stage::ready().await;
    let mut a = Node::new("a");
    stage.others([a.serves(&["m"], 1)]);
    for (path, model) in [("/v1/messages", "m"), ("/api/chat", "m:latest")] {
        let body = json!({
            "model": model, "max_tokens": 5, "stream": false,
            "messages": [{"role": "user", "content": "?"}],
        });
        let mut client = stage.client(&post(path, &body.to_string())).await;
        let completion = json!({
            "id": "c", "created": 1, "model": "m", "usage": {"prompt_tokens": 1, "completion_tokens": 1},
            "choices": [{"message": {"role": "assistant", "content": "So."}, "finish_reason": "stop"}],
        });
        let (head, sent) = a.answers(&with_body(&completion)).await;
        assert!(head.starts_with("POST /v1/chat/completions "), "{head}");
        assert_eq!(serde_json::from_str::<Value>(&sent).unwrap()["model"], "m");
        let answer = json_of(&rest(&mut client).await, 200);
        assert!(answer.to_string().contains("So."), "{answer}");
    }
}

#[tokio::test]
async fn a_client_lives_by_what_others_serve() {
    let stage = Stage::without_engine().await;
    let waiting = json_of(&stage.answer(&get("/health")).await, 503);
    assert_eq!(
        (&waiting["status"], &waiting["error"]["code"]),
        (&json!("waiting"), &json!("no_node"))
    );
    assert_eq!(
        waiting["error"]["message"],
        "no node of the mesh serves a model yet"
    );
    let chat = post("/v1/chat/completions", "{}");
    assert_eq!(
        json_of(&stage.answer(&chat).await, 503)["error"]["code"],
        "no_node"
    );

    let (mut near, far) = (Node::new("near"), Node::new("far"));
    stage.others([far.serves(&["n"], 9), near.serves(&["m"], 1)]);
    assert_eq!(json_of(&stage.answer(&get("/health")).await, 200)["status"], "ok");
    assert_eq!(
        ids(&json_of(&stage.answer(&get("/v1/models")).await, 200)),
        ["n", "m"]
    );
    let mut client = stage.client(&chat).await;
    assert_eq!(near.answers(OK).await.1, "{}");
    assert!(rest(&mut client).await.ends_with("ok"));
    for path in ["/metrics", "/props", "/v1/images"] {
        let answer = stage.answer(&get(path)).await;
        assert_eq!(json_of(&answer, 404)["error"]["code"], "unknown_url");
    }
    stage.others([far.serves(&[], 9)]);
    json_of(&stage.answer(&get("/health")).await, 503);
}

#[tokio::test]
async fn a_request_that_is_too_large_to_be_kept_is_refused() {
    let stage = Stage::ready().await;
    let a = Node::new("a");
    stage.others([a.serves(&["m"], 1)]);
    let length = (32 << 20) + 1;
    let head = post("/v1/chat/completions", "").replace("length: 0", &format!("length: {length}"));
    let mut client = stage.client(&head).await;
    client.write_all(&vec![b' '; length]).await.unwrap();
    assert_eq!(
        json_of(&rest(&mut client).await, 413)["error"]["code"],
        "request_too_large"
    );
}
