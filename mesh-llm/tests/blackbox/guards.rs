//! Who may ask, and how much.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use serde_json::{Value, json};
use ureq::http::Request;

use crate::harness::{Answer, Client, DEADLINE, Daemon, Start};
use crate::starting::chat;

fn tiny() -> Daemon {
    Start::model("tiny").ready()
}

fn get(client: &Client, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::get(format!("{}{path}", client.base));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    client.try_send(request.body(()).unwrap()).unwrap()
}

#[test]
fn pages_of_this_machine_may_read_answers_and_others_may_not() {
    let daemon = tiny();
    for origin in ["http://localhost:3000", "http://127.0.0.1:5173", "https://[::1]"] {
        let answer = get(&daemon, "/v1/models", &[("origin", origin)]);
        assert_eq!(
            (answer.status, answer.header("access-control-allow-origin")),
            (200, Some(origin))
        );
    }
    for origin in ["https://example.com", "http://localhost.example.com", "null"] {
        let answer = get(&daemon, "/v1/models", &[("origin", origin)]);
        assert_eq!(answer.header("access-control-allow-origin"), None, "{origin}");
    }
}

#[test]
fn a_page_s_preflight_request_is_answered_by_origin() {
    let daemon = tiny();
    let preflight = |origin: &str| {
        let request = Request::options(format!("{}/v1/chat/completions", daemon.base))
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "content-type,authorization");
        daemon.try_send(request.body(()).unwrap()).unwrap()
    };
    let answer = preflight("http://localhost:8080");
    assert_eq!(
        answer.header("access-control-allow-origin"),
        Some("http://localhost:8080")
    );
    assert!(
        answer
            .header("access-control-allow-headers")
            .unwrap()
            .contains("content-type")
    );
    assert!(
        answer
            .header("access-control-allow-methods")
            .unwrap()
            .contains("POST")
    );
    assert_eq!(
        preflight("https://example.com").header("access-control-allow-origin"),
        None
    );
}

#[test]
fn a_foreign_name_for_this_machine_is_refused() {
    let daemon = tiny();
    for host in ["evil.example.com", "evil.example.com:9337", "127.0.0.1.nip.io"] {
        let error = get(&daemon, "/v1/models", &[("host", host)]).error(403);
        assert!(error["message"].as_str().unwrap().contains(host), "{error}");
    }
    for host in ["localhost", "127.0.0.1:1", "[::1]:9337"] {
        assert_eq!(
            get(&daemon, "/v1/models", &[("host", host)]).status,
            200,
            "{host}"
        );
    }
}

#[test]
fn a_server_that_is_open_to_others_may_be_called_by_any_name() {
    let daemon = Start::model("tiny").flag("--host", "0.0.0.0").ready();
    assert_eq!(
        get(&daemon, "/v1/models", &[("host", "pool.example.com")]).status,
        200
    );
    assert_eq!(
        get(&daemon, "/v1/models", &[("origin", "https://example.com")])
            .header("access-control-allow-origin"),
        None
    );
}

#[test]
fn a_client_that_asks_first_may_send_its_body() {
    let daemon = tiny();
    let address = daemon.base.trim_start_matches("http://");
    let body = chat("Hello!").to_string();
    let mut connection = BufReader::new(TcpStream::connect(address).unwrap());
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {address}\r\ncontent-length: {}\r\nexpect: 100-continue\r\n\r\n",
        body.len()
    );
    connection.get_mut().write_all(head.as_bytes()).unwrap();
    let mut line = String::new();
    connection.read_line(&mut line).unwrap();
    assert_eq!(line, "HTTP/1.1 100 Continue\r\n");
    connection.read_line(&mut line).unwrap();
    connection.get_mut().write_all(body.as_bytes()).unwrap();
    line.clear();
    connection.read_line(&mut line).unwrap();
    assert_eq!(line, "HTTP/1.1 200 OK\r\n");
}

#[test]
fn a_body_beyond_the_limit_is_refused_and_the_connection_s_answer_arrives() {
    let daemon = tiny();
    let request = json!({"messages": [{"role": "user", "content": "x".repeat(33 << 20)}]});
    let error = daemon.post("/v1/chat/completions", &request).error(413);
    assert!(error["message"].as_str().unwrap().contains("bytes"), "{error}");
    daemon.post("/v1/chat/completions", &chat("Hello!")).ok();
}

fn error(daemon: &Daemon, request: &Value, status: u16, param: &str) {
    let error = daemon.post("/v1/chat/completions", request).error(status);
    assert_eq!(error["param"], param, "{error}");
    assert_eq!(error["type"], "invalid_request_error");
}

#[test]
fn what_is_wrong_with_a_request_is_named() {
    let daemon = tiny();
    let with = |name: &str, value: Value| {
        let mut request = chat("Hello!");
        request[name] = value;
        request
    };
    error(&daemon, &with("model", json!("gpt-5")), 404, "model");
    error(&daemon, &with("temperature", json!("hot")), 400, "temperature");
    error(&daemon, &with("n", json!(0)), 400, "n");
    error(&daemon, &with("messages", json!("Hello!")), 400, "messages");
    error(&daemon, &with("grammar", json!("root ::= (")), 400, "grammar");
    assert_eq!(
        daemon
            .post("/v1/chat/completions", &with("no_such_thing", json!(1)))
            .status,
        200
    );
    daemon.get("/v1/no/such/path").error(404);
    daemon.get("/v1/chat/completions").error(405);
    let request = Request::post(format!("{}/v1/chat/completions", daemon.base))
        .header("content-type", "application/json");
    let answer = daemon
        .try_send(request.body("{\"messages\": [").unwrap())
        .unwrap();
    answer.error(400);
}

#[test]
fn each_answer_has_an_id_and_each_wrong_method_is_told_the_right_ones() {
    let daemon = Start::model("tiny").ready();
    for (path, header, allowed) in [
        ("/v1/chat/completions", Some("x-request-id"), "POST"),
        ("/v1/responses", Some("x-request-id"), "POST"),
        ("/v1/messages", Some("request-id"), "POST"),
        ("/api/chat", None, "POST"),
    ] {
        let refused = daemon.get(path);
        assert_eq!(
            (refused.status, refused.header("allow")),
            (405, Some(allowed)),
            "{path}"
        );
        for answer in [refused, daemon.post(path, &json!({}))] {
            for name in ["request-id", "x-request-id"] {
                let id = answer.header(name);
                assert_eq!(id.is_some(), header == Some(name), "{path}: {name}: {id:?}");
                assert!(id.is_none_or(|id| id.starts_with("req_")), "{id:?}");
            }
        }
    }
}

#[test]
fn a_request_is_one_line_of_the_log_with_its_timings_and_without_its_text() {
    let daemon = Start::model("tiny").word("-vv").ready();
    let body = json!({"messages": [{"role": "user", "content": "My word is Xylograph."}], "stop": ["Quux"]});
    daemon.post("/v1/chat/completions", &body).ok();
    let line = daemon
        .process
        .err
        .wait_for("the request's line", DEADLINE, |lines| {
            let of_request = |line: &&String| {
                line.contains("a request is answered") && !line.contains("completion_tokens=1 ")
            };
            lines.iter().rfind(of_request).cloned()
        });
    for field in [
        "prompt_tokens=",
        "completion_tokens=",
        "queued_ms=",
        "prefill_ms=",
        "decode_ms=",
    ] {
        assert!(line.contains(field), "{line}");
    }
    for line in daemon.process.err.so_far() {
        assert!(!line.contains("Xylograph") && !line.contains("Quux"), "{line}");
    }
}
