//! Slots and the queue before them.

use std::io::Write;
use std::net::TcpStream;
use std::thread;

use llama_engine::server::engine::task::{Event, Generate, Sampling};
use serde_json::{Value, json};

use crate::crashes::endless;
use crate::harness::{Client, DEADLINE, Daemon, Kind, Start, bare, eventually, model};

fn endless_model(slots: u32, queue: u32) -> Daemon {
    let start = Start::model(model(Kind::Endless)).flag("--parallel", slots.to_string());
    start.flag("--queue", queue.to_string()).ready()
}

#[test]
fn slots_and_queue_take_so_many_requests_and_the_next_is_told_when_to_come_back() {
    let daemon = endless_model(2, 2);
    let short = json!({"prompt": "Three", "max_tokens": 4});
    thread::scope(|scope| {
        let mut running: Vec<_> = ["One", "Two"]
            .iter()
            .map(|prompt| {
                let mut stream = daemon.stream("/v1/completions", &endless(prompt));
                stream.next_text();
                stream
            })
            .collect();
        let waiting: Vec<_> = (0..2)
            .map(|_| scope.spawn(|| daemon.post("/v1/completions", &short).ok()))
            .collect();
        daemon.until_metric("requests_waiting", 2.0);

        for request in [&short, &endless("Five")] {
            let answer = daemon
                .try_stream("/v1/completions", request)
                .err()
                .expect("no place is left");
            assert_eq!(answer.error(429)["code"], "rate_limit_exceeded");
            let seconds: u32 = answer.header("retry-after").unwrap().parse().unwrap();
            assert!((1..=60).contains(&seconds));
        }
        // Those that were taken lose nothing by it, and those that wait are served.
        running.iter_mut().for_each(|stream| drop(stream.next_text()));
        drop(running);
        for answer in waiting {
            assert_eq!(answer.join().unwrap()["usage"]["completion_tokens"], 4);
        }
    });
    daemon.until_idle();
    daemon
        .post("/v1/completions", &json!({"prompt": "Six", "max_tokens": 4}))
        .ok();
}

#[test]
fn without_a_queue_a_busy_slot_means_no() {
    let daemon = endless_model(1, 0);
    let mut stream = daemon.stream("/v1/completions", &endless("One"));
    stream.next_text();
    daemon
        .post("/v1/completions", &json!({"prompt": "Two", "max_tokens": 1}))
        .error(429);
    drop(stream);
    eventually("the slot is free", DEADLINE, || {
        (daemon
            .post("/v1/completions", &json!({"prompt": "Two", "max_tokens": 1}))
            .status
            == 200)
            .then_some(())
    });
}

#[test]
fn more_requests_than_slots_are_all_served_in_the_end() {
    let daemon = Start::model("tiny").flag("--parallel", "2").ready();
    thread::scope(|scope| {
        for number in 0..24 {
            let request = json!({"prompt": format!("Story {number}:"), "max_tokens": 8});
            let daemon = &daemon;
            scope.spawn(move || daemon.post("/v1/completions", &request).ok());
        }
    });
    let several = json!({"prompt": "Stories:", "max_tokens": 8, "n": 5});
    let answer = daemon.post("/v1/completions", &several).ok();
    assert_eq!(answer["choices"].as_array().unwrap().len(), 5);
    // One more is the token that went round before the daemon was ready.
    daemon.until_metric("requests_total", 30.0);
    assert_eq!(daemon.metric("requests_failed_total"), 0.0);
}

/// A connection with a request whose answer nobody has read yet.
fn sent(client: &Client, request: &Value) -> TcpStream {
    let address = client.base.trim_start_matches("http://");
    let body = request.to_string();
    let length = body.len();
    let head =
        format!("POST /v1/completions HTTP/1.1\r\nhost: {address}\r\ncontent-length: {length}\r\n\r\n");
    let mut connection = TcpStream::connect(address).unwrap();
    connection.write_all((head + &body).as_bytes()).unwrap();
    connection
}

#[test]
fn clients_that_go_away_free_their_places() {
    let daemon = endless_model(1, 1);
    let mut running = daemon.stream("/v1/completions", &endless("One"));
    running.next_text();
    // The second waits in the queue.
    let waiting = sent(&daemon, &endless("Two"));
    daemon.until_metric("requests_waiting", 1.0);
    drop(waiting);
    daemon.until_metric("requests_waiting", 0.0);
    assert_eq!(daemon.metric("requests_cancelled_total"), 1.0);

    drop(running);
    daemon.until_metric("slots_busy", 0.0);
    assert_eq!(daemon.metric("requests_cancelled_total"), 2.0);
    // So does one that waits for a whole answer.
    let whole = sent(&daemon, &endless("Three"));
    daemon.until_metric("slots_busy", 1.0);
    drop(whole);
    daemon.until_metric("slots_busy", 0.0);
    assert_eq!(daemon.metric("requests_cancelled_total"), 3.0);
    let (steps, tokens) = (
        daemon.metric("steps_total"),
        daemon.metric("completion_tokens_total"),
    );
    daemon
        .post("/v1/completions", &json!({"prompt": "Three", "max_tokens": 1}))
        .ok();
    daemon.until_metric("completion_tokens_total", tokens + 1.0);
    assert_eq!(
        daemon.metric("steps_total"),
        steps + 1.0,
        "nothing is computed for those who left"
    );
}

/// From outside, a step cannot be seen; from beside the engine, it can.
#[test]
fn a_request_that_nobody_listens_to_is_dropped_within_a_step() {
    let model = bare::load(&model(Kind::Endless));
    let engine = bare::engine(&model, bare::context_params(32_768, 1), 0);
    for _ in 0..10 {
        let cancelled = engine.state().cancelled_total;
        let task = Generate {
            prompt: vec![1, 400, 401],
            max_tokens: None,
            sampling: Sampling::greedy(),
            stop: Vec::new(),
            logprobs: None,
            prompt_logprobs: false,
            visible_tokens: Vec::new(),
            prediction: Vec::new(),
        };
        let mut events = engine.generate(task).unwrap();
        let texts =
            std::iter::from_fn(|| events.blocking_recv()).filter(|event| matches!(event, Event::Text(_)));
        assert_eq!(texts.take(10).count(), 10);
        drop(events);
        let at_most = engine.state().steps_total + 1;
        let after = eventually("the slot is free", DEADLINE, || {
            Some(engine.state()).filter(|state| state.cancelled_total > cancelled)
        });
        assert!(
            after.steps_total <= at_most,
            "{} steps, at most {at_most} expected",
            after.steps_total
        );
        assert_eq!(after.busy_slots, 0);
    }
}
