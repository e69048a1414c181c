//! One model over several machines, here several processes of one.

use std::fs;
use std::net::TcpListener;
use std::thread;

use serde_json::{Value, json};

use crate::harness::{
    Answer, Client, DEADLINE, Daemon, Kind, Known, Process, Signal, Start, Worker, eventually, model,
};
use crate::split::SplitLab;

/// Workers that find the models of these tests.
fn lab(workers: usize) -> SplitLab {
    SplitLab::on_loopback(workers, model(Kind::Endless).parent().unwrap())
}

/// Serves from a small cache.
fn small(start: Start) -> Start {
    start.flag("--ctx-size", "2048").flag("--parallel", "2")
}

/// A daemon over all workers of a lab.
fn over(lab: &SplitLab, shares: &str) -> Start {
    small(lab.host(model(Kind::Endless))).flag("--tensor-split", shares)
}

/// Where nobody listens.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

fn chat(text: &str) -> Value {
    json!({"messages": [{"role": "user", "content": text}]})
}

/// Greedy answers, the later ones with a cache.
fn answers(client: &Client) -> Vec<Value> {
    let long = "Once upon a time there was a dog. ".repeat(40);
    ["Once upon a time", long.as_str(), "Once upon a time there"]
        .iter()
        .map(|prompt| {
            let request = json!({"prompt": prompt, "temperature": 0, "max_tokens": 24});
            let answer = client.post("/v1/completions", &request).ok();
            assert_eq!(answer["usage"]["completion_tokens"], 24, "{answer}");
            answer["choices"][0]["text"].clone()
        })
        .collect()
}

fn health(client: &Client) -> Option<Answer> {
    client.try_get("/health").ok()
}

/// Waits until `/health` has this status, and returns what it says.
fn until_health(client: &Client, status: &str) -> Value {
    eventually(&format!("the health is {status}"), DEADLINE, || {
        let health = health(client)?.json();
        (health["status"] == status).then_some(health)
    })
}

#[test]
fn greedy_answers_over_one_and_two_workers_are_those_of_one_machine() {
    let expected = answers(&small(Start::model(model(Kind::Endless))).ready());
    let lab = lab(2);
    let address = |worker| lab.address(worker).to_string();
    for (workers, shares) in [
        (address(0), "2,2"),
        (address(0), "0,4"),
        (format!("{},{}", address(0), address(1)), "1,2,1"),
        (format!("{},{}", address(1), address(0)), "0,1,3"),
    ] {
        let daemon = lab.ready(&over(&lab, shares).flag("--rpc", &workers));
        assert_eq!(answers(&daemon), expected, "{workers}, layers {shares}");
    }
}

#[test]
fn two_processes_of_one_user_need_nothing_said_and_the_embedded_model_is_there() {
    let plain = Worker::plain();
    let worker = Worker::start(&plain);
    let solo = Start::model("tiny").ready();
    let mut request = chat("Hello!");
    request["temperature"] = json!(0);
    let answer = |daemon: &Daemon| {
        let answer = daemon.post("/v1/chat/completions", &request).ok();
        answer["choices"][0]["message"]["content"].clone()
    };
    let daemon = Start::model("tiny")
        .home(plain.home_path())
        .flag("--rpc", &worker.address)
        .flag("--tensor-split", "3,3")
        .ready();
    assert_eq!(answer(&daemon), answer(&solo));
    let told = daemon.process.err.so_far().join("\n");
    assert!(told.contains(&format!("with {}", worker.address)), "{told}");
    let line = daemon.engine().command_line().join(" ");
    let secret = fs::read_to_string(plain.home_path().join("rpc-secret")).unwrap();
    assert!(!line.contains(secret.trim()), "other users see arguments: {line}");
}

#[test]
fn a_worker_that_is_killed_ends_requests_with_its_name_and_is_used_again_when_it_is_back() {
    let mut lab = lab(1);
    let address = lab.address(0).to_string();
    let daemon = lab.ready(&over(&lab, "2,2"));
    let expected = answers(&daemon);
    let pid = daemon.process.id();
    let first = daemon.engine();

    let endless = json!({"prompt": "Once", "max_tokens": 1900, "temperature": 0});
    let mut stream = daemon.stream("/v1/completions", &endless);
    stream.next_text();
    lab.kill_worker(0);
    let outcome = stream.outcome();
    let error = outcome.error.expect("an event with the error");
    assert!(error["message"].as_str().unwrap().contains(&address), "{error}");
    assert!(!outcome.done && outcome.finish_reason.is_none());
    assert_eq!(outcome.broken, None);

    let health = until_health(&daemon, "waiting");
    assert_eq!(health["error"]["code"], "worker_unreachable");
    let message = health["error"]["message"].as_str().unwrap();
    assert!(
        message.starts_with(&format!("Waiting for worker {address}: ")),
        "{message}"
    );
    let refused = daemon.post("/v1/completions", &json!({"prompt": "Once"}));
    assert_eq!(refused.error(503)["message"], message);
    assert!(refused.header("retry-after").is_some());

    lab.start_worker(0, &[]);
    until_health(&daemon, "ok");
    assert_eq!(answers(&daemon), expected);
    assert_eq!(daemon.process.id(), pid);
    assert!(!first.runs() && daemon.engine() != first);
    let told = daemon.process.err.so_far();
    let count = |words: &str| told.iter().filter(|line| line.contains(words)).count();
    assert_eq!(count("Waiting for worker"), 1, "it is told once: {told:#?}");
    assert_eq!(count("the engine answers again"), 1, "{told:#?}");
}

#[test]
fn an_answer_that_is_no_stream_names_the_lost_worker_too() {
    let mut lab = lab(1);
    let address = lab.address(0).to_string();
    let daemon = lab.ready(&over(&lab, "2,2"));
    let long = json!({"prompt": "Once", "max_tokens": 1900, "temperature": 0});
    let answer = thread::scope(|scope| {
        let client = &daemon.client;
        let answer = scope.spawn(move || client.post("/v1/completions", &long));
        daemon.until_metric("slots_busy", 1.0);
        lab.kill_worker(0);
        answer.join().unwrap()
    });
    let error = answer.error(503);
    assert!(error["message"].as_str().unwrap().contains(&address), "{error}");
    assert!(answer.header("retry-after").is_some());
}

#[test]
fn a_worker_that_is_told_to_end_does_so_although_a_host_uses_it() {
    let lab = lab(1);
    let daemon = lab.ready(&over(&lab, "2,2"));
    let worker = Known::new(lab.worker(0).id()).unwrap();
    let mut stream = daemon.stream(
        "/v1/completions",
        &json!({"prompt": "Once", "max_tokens": 1900, "temperature": 0}),
    );
    stream.next_text();
    worker.signal(Signal::TERM);
    eventually("the worker ends", DEADLINE, || (!worker.runs()).then_some(()));
    assert!(stream.outcome().error.is_some());
}

#[test]
fn a_worker_that_is_restarted_again_and_again_is_no_crash() {
    let mut lab = lab(1);
    let daemon = lab.ready(&over(&lab, "2,2"));
    let expected = answers(&daemon);
    // Crashes are given up at the third.
    for _ in 0..4 {
        let engine = daemon.engine();
        lab.start_worker(0, &[]);
        eventually("another engine is ready", DEADLINE, || {
            let other = daemon
                .process
                .children()
                .into_iter()
                .find(|child| *child != engine);
            other.filter(|_| health(&daemon).is_some_and(|health| health.status == 200))
        });
    }
    assert_eq!(answers(&daemon), expected);
}

/// What both sides share where the lab does not say so.
const SECRET: &str = "sixteen characters at least";

/// A daemon that is not ready, with a client for its port. Its files live as long as `start`.
fn unready(start: &Start) -> (Process, Client) {
    let address = nobody();
    let (_, port) = address.rsplit_once(':').unwrap();
    let process = start.clone().flag("--port", port).process();
    (process, Client::new(&format!("http://{address}")))
}

#[test]
fn a_worker_may_be_started_after_the_daemon() {
    let away = nobody();
    let start = Start::model("tiny")
        .flag("--rpc", &away)
        .flag("--tensor-split", "3,3")
        .variable("MESH_LLM_RPC_SECRET", SECRET);
    let (mut process, client) = unready(&start);
    process
        .err
        .line(&format!("Waiting for worker {away}: "), DEADLINE);
    let health = until_health(&client, "waiting");
    let message = health["error"]["message"].as_str().unwrap();
    assert!(message.contains(&away) && message.contains("refused"), "{health}");
    let answer = client.post("/v1/chat/completions", &chat("Hello!"));
    assert_eq!(answer.error(503)["message"], message);
    assert!(answer.header("retry-after").is_some());

    let worker = Worker::plain()
        .flag("--listen", &away)
        .variable("MESH_LLM_RPC_SECRET", SECRET);
    let _worker = Worker::start(&worker);
    until_health(&client, "ok");
    client.post("/v1/chat/completions", &chat("Hello!")).ok();
    process.signal(Signal::TERM);
    assert_eq!(process.end(DEADLINE).code(), Some(0));
}

#[test]
fn a_daemon_that_waits_for_a_worker_ends_when_it_is_told_to() {
    let away = nobody();
    let start = Start::model("tiny")
        .flag("--rpc", &away)
        .variable("MESH_LLM_RPC_SECRET", SECRET);
    let (mut process, client) = unready(&start);
    until_health(&client, "waiting");
    process.signal(Signal::TERM);
    assert_eq!(process.end(DEADLINE).code(), Some(0));
}

#[test]
fn another_secret_is_told_by_both_sides() {
    let lab = lab(1);
    let other = lab.secret().with_extension("other");
    fs::write(&other, "another one, as long as that").unwrap();
    let start = over(&lab, "2,2").flag("--rpc-secret-file", other);
    let (process, client) = unready(&start);
    let told = process
        .err
        .line(&format!("Waiting for worker {}: ", lab.address(0)), DEADLINE);
    assert!(told.contains("the secret is another one"), "{told}");
    let health = until_health(&client, "waiting");
    assert!(
        health.to_string().contains("the secret is another one"),
        "{health}"
    );
    lab.worker(0).err.line("the secret is another one", DEADLINE);
}

#[test]
fn without_a_secret_or_workers_a_split_is_refused_with_what_to_do() {
    let rpc = || Start::model("tiny").flag("--rpc", "127.0.0.1:1");
    for (start, words) in [
        (rpc(), "mesh-llm rpc-server"),
        (
            Start::model("tiny").flag("--tensor-split", "3,3"),
            "name those with --rpc",
        ),
        (
            rpc()
                .flag("--tensor-split", "6")
                .variable("MESH_LLM_RPC_SECRET", SECRET),
            "1 number for 1 worker",
        ),
    ] {
        let ended = start.ended();
        let told = ended.err.join("\n");
        assert!(
            ended.code == Some(64) && told.contains(words),
            "{:?}: {told}",
            ended.code
        );
    }
}

/// Loses a node, and waits for it twice before it serves.
const LOSES: &str = r#"
count="$(dirname "$0")/starts"
echo start >>"$count"
ready='{"status":"ready","address":"unix:/nowhere","context":1,"slots":1,"gpu_layers":0,"model_bytes":0,"context_bytes":0}'
case $(($(wc -l <"$count"))) in
1) echo '{"status":"lost","message":"10.0.0.2:9338 is lost: reset"}'; exit 75 ;;
2|3) echo '{"status":"refused","reason":"worker","message":"worker 10.0.0.2:9338: refused"}'; exit 76 ;;
*) echo "$ready"; exec cat >/dev/null ;;
esac"#;

#[test]
fn an_engine_that_says_that_it_lost_a_node_is_started_again_until_it_serves() {
    let start = Start::model("tiny").engine_script(LOSES);
    let mut process = start.process();
    process.err.line("answers at http", DEADLINE);
    let told = process.err.so_far();
    let at = |words: &str| {
        let found = told.iter().position(|line| line.contains(words));
        found.unwrap_or_else(|| panic!("no `{words}` in {told:#?}"))
    };
    let lost = at("10.0.0.2:9338 is lost: reset; loading tiny again");
    let waiting = at("Waiting for worker 10.0.0.2:9338: refused");
    assert!(lost < waiting && waiting < at("answers at http"), "{told:#?}");
    process.signal(Signal::TERM);
    assert_eq!(process.end(DEADLINE).code(), Some(0));
}
