//! Chats that go on after a restart without computing their prompts again.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::harness::{DEADLINE, Daemon, Kind, Signal, Start, model};

fn start() -> Start {
    Start::model(model(Kind::Endless))
        .flag("--ctx-size", "2048")
        .flag("--parallel", "2")
        .flag("--slot-save", "1")
}

/// Ends a daemon as its user does.
fn end(mut daemon: Daemon) {
    daemon.process.signal(Signal::TERM);
    assert_eq!(daemon.process.end(DEADLINE).code(), Some(0));
}

/// An answer to a long prompt: its text, and how much of the prompt was in the cache.
fn ask(daemon: &Daemon) -> (String, u64) {
    let words: Vec<String> = (0..200).map(|number| format!("word{number}")).collect();
    let body = json!({
        "messages": [{"role": "user", "content": words.join(" ")}],
        "max_tokens": 20,
        "temperature": 0,
    });
    let answer: Value = daemon.post("/v1/chat/completions", &body).ok();
    let cached = &answer["usage"]["prompt_tokens_details"]["cached_tokens"];
    let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
    (text.to_owned(), cached.as_u64().unwrap())
}

fn saved(start: &Start) -> Vec<PathBuf> {
    let folder = start.home_path().join("slots");
    fs::read_dir(folder)
        .map(|entries| entries.map(|entry| entry.unwrap().path()).collect())
        .unwrap_or_default()
}

#[test]
fn a_chat_goes_on_after_a_restart_with_its_prompt_in_the_cache() {
    let start = start();
    let daemon = start.ready();
    let (text, cached) = ask(&daemon);
    assert!(cached < 20, "{cached} tokens were in the cache of a new daemon");
    end(daemon);
    assert!(!saved(&start).is_empty());
    let daemon = start.ready();
    let (again, cached) = ask(&daemon);
    assert!(cached > 200, "only {cached} tokens were in the cache");
    assert_eq!(again, text);
}

#[test]
fn what_is_torn_or_of_another_kind_is_not_used() {
    let start = start();
    let daemon = start.ready();
    let (text, _) = ask(&daemon);
    end(daemon);
    let other = start.clone().flag("--cache-type-k", "f32").ready();
    assert!(ask(&other).1 < 20);
    // It is killed, so that it saves nothing.
    drop(other);
    assert!(!saved(&start).is_empty());
    for path in saved(&start) {
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 9]).unwrap();
    }
    let daemon = start.ready();
    let (again, cached) = ask(&daemon);
    assert!(cached < 20, "{cached} tokens came from a torn file");
    assert_eq!(again, text);
}

#[test]
fn nothing_is_saved_unless_it_was_asked_for() {
    let start = Start::model(model(Kind::Endless)).flag("--ctx-size", "2048");
    let daemon = start.ready();
    ask(&daemon);
    end(daemon);
    assert_eq!(saved(&start), Vec::<PathBuf>::new());
}

#[test]
fn a_second_signal_ends_the_saving_at_once_and_says_what_is_lost() {
    for second in [Signal::TERM, Signal::INT] {
        let start = start();
        let mut daemon = start.ready();
        ask(&daemon);
        let engine = daemon.engine();
        // A disk that takes for ever.
        engine.signal(Signal::STOP);
        daemon.process.signal(Signal::TERM);
        daemon.process.err.line("a second Ctrl-C ends at once", DEADLINE);
        daemon.process.signal(second);
        assert_eq!(daemon.process.end(DEADLINE).code(), Some(0));
        assert!(!engine.runs());
        let lines = daemon.process.err.all(DEADLINE).join("\n");
        assert!(lines.contains("are lost"), "{lines}");
        assert!(
            !lines.contains("did not end within"),
            "it was waited for: {lines}"
        );
        assert_eq!(saved(&start), Vec::<PathBuf>::new());
    }
}
