//! From one command to an answer.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use crate::harness::{Client, DEADLINE, Daemon, Kind, Signal, Start, eventually, model};

/// A conversation that every model can have.
pub fn chat(text: &str) -> Value {
    json!({"messages": [{"role": "user", "content": text}]})
}

#[test]
fn a_user_without_anything_gets_an_answer_from_the_embedded_model_and_is_told_so() {
    let daemon = Start::bare().flag("--port", "0").ready();
    daemon.process.err.line("curl ", DEADLINE);
    let told = daemon.process.err.so_far();
    assert!(
        told[0].contains("tiny") && told[0].contains("none is in"),
        "{told:?}"
    );
    let curl = told
        .iter()
        .filter(|line| line.trim_start().starts_with("curl "))
        .count();
    assert_eq!(curl, 1, "what to do next is told once: {told:?}");

    let answer = daemon.post("/v1/chat/completions", &chat("Hello!")).ok();
    assert_eq!(answer["model"], "tiny");
    let message = &answer["choices"][0]["message"];
    assert!(
        message["content"]
            .as_str()
            .is_some_and(|content| !content.trim().is_empty()),
        "{answer}"
    );
    let mode = fs::metadata(daemon.home()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "the state directory is private to the user");
}

#[test]
fn the_line_that_is_printed_is_one_that_works() {
    let daemon = Start::model("tiny").ready();
    let line = daemon.process.err.line("curl http", DEADLINE);
    let (_, body) = line.split_once(" -d '").unwrap();
    let body: Value = serde_json::from_str(body.trim_end_matches('\'')).unwrap();
    daemon.post("/v1/chat/completions", &body).ok();
}

#[test]
fn the_list_of_models_has_what_is_served() {
    let daemon = Start::model(model(Kind::Endless)).ready();
    let list = daemon.get("/v1/models").ok();
    assert_eq!(list["object"], "list");
    assert_eq!(list["data"].as_array().unwrap().len(), 1);
    assert_eq!(list["data"][0]["id"], "endless");
    assert_eq!(daemon.get("/v1/models/endless").ok()["object"], "model");
    let error = daemon.get("/v1/models/gpt-5").error(404);
    assert!(
        error["message"].as_str().unwrap().contains("endless"),
        "the names that exist are told: {error}"
    );
    let error = daemon
        .post("/v1/chat/completions", &json!({"model": "gpt-5", "messages": []}))
        .json();
    assert!(error["error"].is_object(), "{error}");
}

#[test]
fn without_a_name_the_largest_model_is_served_then_the_last_one_again_and_that_is_told() {
    let start = Start::bare().flag("--port", "0").flag("--threads", "1");
    let folder = start.folder().join("models");
    fs::create_dir(&folder).unwrap();
    fs::copy(model(Kind::Least), folder.join("mine.gguf")).unwrap();
    let start = start.variable("MESH_LLM_MODELS", &folder);
    let served = |start: Start, words: &str| {
        let mut daemon = start.ready();
        let told = daemon.process.err.so_far();
        assert!(told[0].contains(words), "{told:?}");
        let served = daemon.get("/v1/models").ok()["data"][0]["id"].clone();
        daemon.process.signal(Signal::TERM);
        daemon.process.end(DEADLINE);
        served
    };
    assert_eq!(served(start.clone(), "the only one on disk"), "mine");
    fs::copy(model(Kind::Endless), folder.join("larger.gguf")).unwrap();
    assert_eq!(served(start.clone(), "the last one again"), "mine");
    fs::remove_file(folder.join("mine.gguf")).unwrap();
    assert_eq!(served(start, "the only one on disk"), "larger");
}

#[test]
fn a_flag_beats_a_variable_beats_the_file() {
    let start = Start::model("tiny").file_at_home("config.toml", "parallel = 1\nctx-size = 512\nqueue = 3");
    let start = start
        .variable("MESH_LLM_PARALLEL", "2")
        .variable("MESH_LLM_CTX_SIZE", "1024");
    let daemon = start.flag("--parallel", "3").ready();
    let props = daemon.get("/props").ok();
    assert_eq!(props["total_slots"], 3);
    assert_eq!(props["default_generation_settings"]["n_ctx"], 1024);
}

#[test]
fn a_configuration_file_can_be_named() {
    let start = Start::bare();
    let file = start.folder().join("mine.toml");
    fs::write(&file, "model = 'tiny'\nport = 0\nthreads = 1\nparallel = 5").unwrap();
    let daemon = start.flag("--config", file).ready();
    assert_eq!(daemon.get("/props").ok()["total_slots"], 5);
}

#[test]
fn ready_means_that_a_token_went_round() {
    let daemon = Start::model("tiny").ready();
    // Counters are told a moment after the token itself.
    daemon.until_metric("completion_tokens_total", 1.0);
    assert_eq!(
        daemon.metric("requests_total"),
        1.0,
        "that was the engine's own request"
    );
}

/// An engine that loads until it is told to end.
const LOADS: &str = r#"echo '{"status":"loading","percent":37}'; echo half done >&2; cat"#;

#[test]
fn the_api_answers_before_the_engine_does_and_says_how_far_it_is() {
    // The port is told only when the engine is ready, so it is chosen here.
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let start = Start::bare()
        .flag("--model", "tiny")
        .flag("--port", port.to_string())
        .engine_script(LOADS);
    let mut process = start.process();
    let client = Client::new(&format!("http://127.0.0.1:{port}"));
    let health = eventually("the API says that the model is being loaded", DEADLINE, || {
        client
            .try_get("/health")
            .ok()
            .filter(|answer| answer.json()["status"] == "loading")
    });
    assert_eq!(health.status, 503);
    assert_eq!(
        (&health.json()["status"], &health.json()["percent"]),
        (&json!("loading"), &json!(37))
    );
    let answer = client.post("/v1/chat/completions", &chat("Hello!"));
    assert_eq!(answer.error(503)["code"], "model_loading");
    assert!(answer.header("retry-after").is_some());

    let engine = process.children()[0];
    process.signal(Signal::TERM);
    assert_eq!(process.end(DEADLINE).code(), Some(0));
    assert!(!engine.runs());
}

#[test]
fn a_log_in_json_has_an_object_in_every_line() {
    let daemon = {
        let start = Start::bare()
            .flag("--model", "tiny")
            .flag("--log-format", "json")
            .flag("--port", "0");
        let mut process = start.process();
        let url = process.err.wait_for("URL", DEADLINE, |lines| {
            let ready = lines.iter().find(|line| line.contains("\"ready\""))?;
            serde_json::from_str::<Value>(ready).unwrap()["url"]
                .as_str()
                .map(str::to_owned)
        });
        let client = Client::new(&url.trim_end_matches("/v1").replace("localhost", "127.0.0.1"));
        client.post("/v1/chat/completions", &chat("Hello!")).ok();
        process.children()[0].signal(Signal::KILL);
        process.err.line("ready again", DEADLINE);
        process.signal(Signal::TERM);
        assert_eq!(process.end(DEADLINE).code(), Some(0));
        process.err.all(DEADLINE)
    };
    for line in daemon {
        let object: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(
            object["level"].is_string() && object["message"].is_string(),
            "{line}"
        );
    }
}

#[test]
fn what_changes_numbers_is_done_only_when_it_is_asked_for() {
    let cache_types = |daemon: &Daemon| {
        let words = daemon.engine().command_line();
        let after = |flag: &str| words[words.iter().position(|word| word == flag).unwrap() + 1].clone();
        [after("--cache-type-k"), after("--cache-type-v")]
    };
    assert_eq!(cache_types(&Start::model("tiny").ready()), ["f16", "f16"]);
    let start = Start::model("tiny")
        .flag("--cache-type-k", "q8_0")
        .flag("--cache-type-v", "q8_0");
    let daemon = start.ready();
    assert_eq!(cache_types(&daemon), ["q8_0", "q8_0"]);
    daemon.post("/v1/chat/completions", &chat("Hello!")).ok();
}

#[test]
fn an_engine_at_rest_computes_nothing() {
    let daemon = Start::model(model(Kind::Endless)).ready();
    daemon
        .post("/v1/completions", &json!({"prompt": "Once", "max_tokens": 100}))
        .ok();
    daemon.until_idle();
    let before = daemon.engine().ticks_besides("http");
    for _ in 0..200 {
        assert_eq!(daemon.get("/health").status, 200);
    }
    // A tick is 10 ms; all these requests take many.
    assert!(daemon.engine().ticks_besides("http") <= before + 1);
}
