//! What dies, and what happens then.

use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{
    DEADLINE, Daemon, Kind, Known, Outcome, Signal, Start, eventually, model, pipes, run_folders,
};
use crate::starting::chat;

/// How soon a child must be gone after its daemon was killed.
const ORPHANED: Duration = Duration::from_secs(1);

/// A request whose answer takes longer than any test.
pub fn endless(prompt: &str) -> Value {
    json!({"prompt": prompt, "max_tokens": 30_000, "temperature": 0})
}

fn endless_model() -> Daemon {
    Start::model(model(Kind::Endless)).flag("--parallel", "8").ready()
}

/// What a daemon that runs has in its state directory and among the processes: one folder with a
/// lock and a socket, one child that is alive.
fn nothing_but_one_engine(daemon: &Daemon) {
    assert!(daemon.engine().runs());
    let folders = daemon.run_folders();
    assert_eq!(folders.len(), 1, "{folders:?}");
    let mut names: Vec<_> = std::fs::read_dir(&folders[0])
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["llama-server.sock", "lock", "manage.sock"]);
}

#[test]
fn an_engine_killed_during_eight_streams_ends_each_with_an_error_and_answers_the_next_request() {
    let daemon = endless_model();
    let first = daemon.engine();
    let pipes_before = pipes(daemon.process.id());
    let all_run = Barrier::new(9);
    let outcomes: Vec<Outcome> = thread::scope(|scope| {
        let streams: Vec<_> = (0..8)
            .map(|number| {
                let (daemon, all_run) = (&daemon, &all_run);
                scope.spawn(move || {
                    let mut stream = daemon.stream("/v1/completions", &endless(&format!("Story {number}:")));
                    stream.next_text();
                    all_run.wait();
                    stream.outcome()
                })
            })
            .collect();
        all_run.wait();
        first.signal(Signal::KILL);
        streams.into_iter().map(|stream| stream.join().unwrap()).collect()
    });
    for outcome in &outcomes {
        let error = outcome
            .error
            .as_ref()
            .unwrap_or_else(|| panic!("no error, but {:?}", outcome.broken));
        assert_eq!(error["code"], "engine_crashed", "{error}");
        assert!(error["message"].as_str().unwrap().contains("crash"), "{error}");
        assert!(
            !outcome.done && outcome.finish_reason.is_none(),
            "a cut answer does not look complete"
        );
        assert_eq!(outcome.broken, None);
    }
    // The next request is answered: at once or, as told, a moment later.
    eventually("the next request is answered", DEADLINE, || {
        let answer = daemon.post("/v1/completions", &json!({"prompt": "Once", "max_tokens": 4}));
        if answer.status == 503 {
            assert!(answer.header("retry-after").is_some(), "{}", answer.text);
            return None;
        }
        Some(answer.ok())
    });
    assert!(!first.runs() && daemon.engine() != first);
    nothing_but_one_engine(&daemon);
    assert_eq!(
        pipes(daemon.process.id()),
        pipes_before,
        "the dead engine's are closed"
    );
}

#[test]
fn an_engine_killed_before_the_first_token_is_an_error_too() {
    let daemon = endless_model();
    thread::scope(|scope| {
        let request = json!({"prompt": vec![400; 20_000]});
        let daemon = &daemon;
        let stream = scope.spawn(move || daemon.try_stream("/v1/completions", &request));
        daemon.until_metric("slots_busy", 1.0);
        daemon.engine().signal(Signal::KILL);
        let error = match stream.join().unwrap() {
            Ok(stream) => stream.outcome().error.expect("an event with the error"),
            Err(answer) => answer.error(503),
        };
        assert_eq!(error["code"], "engine_crashed");
    });
}

#[test]
fn an_answer_that_is_no_stream_is_an_error_when_the_engine_is_killed() {
    let daemon = endless_model();
    let answer = thread::scope(|scope| {
        let answer = scope.spawn(|| daemon.post("/v1/completions", &endless("Once upon a time")));
        daemon.until_metric("slots_busy", 1.0);
        daemon.engine().signal(Signal::KILL);
        answer.join().unwrap()
    });
    assert_eq!(answer.error(503)["code"], "engine_crashed");
    assert!(answer.header("retry-after").is_some());
}

#[test]
fn an_engine_that_dies_three_times_in_a_row_is_given_up_with_its_last_lines_and_the_cause() {
    let script = "echo reading the weights >&2; echo 'GGML_ASSERT(rows > 0) failed' >&2; kill -ABRT $$";
    let start = Start::model("tiny").engine_script(script);
    let ended = start.ended();
    assert_eq!(ended.code, Some(70), "{:#?}", ended.err);
    let told = ended.err.join("\n");
    for words in ["SIGABRT", "3 times in a row", "  GGML_ASSERT(rows > 0) failed"] {
        assert!(told.contains(words), "`{words}` is not in:\n{told}");
    }
    assert_eq!(run_folders(start.home_path()).len(), 0);
}

#[test]
fn a_real_engine_that_is_killed_three_times_in_a_row_is_given_up() {
    let mut daemon = Start::model("tiny").ready();
    for _ in 0..2 {
        let engine = daemon.engine();
        engine.signal(Signal::KILL);
        eventually("another engine answers", DEADLINE, || {
            let other = daemon
                .process
                .children()
                .into_iter()
                .find(|child| *child != engine && child.runs());
            other.filter(|_| daemon.get("/health").status == 200)
        });
        daemon.post("/v1/chat/completions", &chat("Hello!")).ok();
    }
    daemon.engine().signal(Signal::KILL);
    assert_eq!(daemon.process.end(DEADLINE).code(), Some(70));
    let told = daemon.process.err.all(DEADLINE).join("\n");
    assert!(
        told.contains("SIGKILL") && told.contains("3 times in a row"),
        "{told}"
    );
    assert_eq!(daemon.run_folders().len(), 0);
}

/// Kills the daemon and makes sure that nothing survives it, and that the next start cleans up.
fn kill_and_start_again(mut daemon: Daemon) {
    let engine: Known = daemon.engine();
    daemon.process.signal(Signal::KILL);
    eventually("the child is gone", ORPHANED, || (!engine.runs()).then_some(()));
    daemon.process.end(DEADLINE);
    let left = daemon.run_folders();
    assert_eq!(left.len(), 1, "a killed daemon cannot remove its folder");
    let next = daemon.start().ready();
    assert!(!left[0].exists(), "the next start removes it");
    nothing_but_one_engine(&next);
    next.post("/v1/completions", &json!({"prompt": "Once", "max_tokens": 4}))
        .ok();
}

#[test]
fn no_child_outlives_a_killed_daemon() {
    kill_and_start_again(endless_model());
}

#[test]
fn no_child_outlives_a_killed_daemon_even_in_the_middle_of_a_step() {
    let daemon = endless_model();
    // Long prompts in many steps of many milliseconds, and a running answer.
    let mut stream = daemon.stream("/v1/completions", &endless("Once"));
    stream.next_text();
    let client = daemon.client.clone();
    let long = vec![400; 20_000];
    let waits = thread::spawn(move || {
        client
            .try_post("/v1/completions", &json!({"prompt": long}))
            .is_ok()
    });
    daemon.until_metric("slots_busy", 2.0);
    kill_and_start_again(daemon);
    assert!(
        stream.outcome().broken.is_some(),
        "a killed daemon cannot say more"
    );
    assert!(!waits.join().unwrap());
}

#[test]
fn two_daemons_share_a_home_and_leave_each_other_alone() {
    let first = Start::model("tiny").ready();
    let second = first.start().ready();
    assert_eq!(first.run_folders().len(), 2);
    drop(second);
    let third = first.start().ready();
    assert_eq!(
        first.run_folders().len(),
        2,
        "the killed one's folder is removed, the first one's is not"
    );
    for daemon in [&first, &third] {
        daemon.post("/v1/chat/completions", &chat("Hello!")).ok();
    }
}
