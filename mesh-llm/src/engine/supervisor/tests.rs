//! Supervising `fake-llama-server.sh`.

use super::*;
use crate::engine::Program;
use llama_engine::server::options::{Listen, Options};
use std::future::{pending, ready};
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Instant;

struct Supervised {
    engine: Engine,
    log: mpsc::Receiver<String>,
    _folder: tempfile::TempDir,
}

/// Supervises `fake-llama-server.sh`, which does what the model's name says.
fn start(name: &str) -> Supervised {
    let folder = tempfile::tempdir().unwrap();
    let socket = Listen::Unix(folder.path().join("s"));
    // The one that crashes once takes note of it in the file of its model.
    let model = folder.path().join("crashed-once");
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/engine/fake-llama-server.sh");
    let launch = Launch {
        program: Program::At(script),
        options: Options::new(socket, model, name.to_owned()),
    };
    let (sender, log) = mpsc::channel();
    let engine = Engine::start(launch, watch::Sender::new(State::Starting), move |line| {
        let _ = sender.send(String::from_utf8_lossy(line).into_owned());
    });
    Supervised {
        engine,
        log,
        _folder: folder,
    }
}

async fn until(engine: &Engine, wanted: impl FnMut(&State) -> bool) -> State {
    engine.state().wait_for(wanted).await.unwrap().clone()
}

async fn failure(engine: &Engine) -> Failure {
    match until(engine, |state| matches!(state, State::Failed(_))).await {
        State::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_engine_serves_until_it_is_stopped() {
    let supervised = start("serves");
    until(&supervised.engine, |state| matches!(state, State::Ready(_))).await;
    let state = supervised.engine.state();
    supervised.engine.stop(pending()).await;
    assert!(matches!(*state.borrow(), State::Stopping));
}

#[tokio::test]
async fn an_engine_that_loads_is_stopped_at_once_by_the_closed_pipe() {
    let supervised = start("loads");
    until(&supervised.engine, |state| {
        matches!(state, State::Loading { percent: 50 })
    })
    .await;
    let before = Instant::now();
    supervised.engine.stop(pending()).await;
    assert!(before.elapsed() < Duration::from_secs(4), "it had to be killed");
}

#[tokio::test]
async fn an_engine_that_does_not_end_is_killed_at_once_for_the_impatient() {
    let supervised = start("lingers");
    until(&supervised.engine, |state| matches!(state, State::Ready(_))).await;
    let state = supervised.engine.state();
    assert!(supervised.engine.stop(ready(())).await, "it was cut short");
    assert!(matches!(*state.borrow(), State::Stopping));
}

#[tokio::test]
async fn three_crashes_in_a_row_are_told_with_cause_and_last_lines() {
    let supervised = start("aborts");
    let failure = failure(&supervised.engine).await;
    assert_eq!(failure.exit, Exit::CRASHED);
    assert!(
        failure.message.contains("3 times in a row") && failure.message.contains("SIGABRT"),
        "{failure:?}"
    );
    assert_eq!(failure.last_lines, ["GGML_ASSERT(x) failed"]);
    assert_eq!(supervised.log.try_iter().count(), 3);
    supervised.engine.stop(pending()).await;
}

#[tokio::test]
async fn an_engine_that_crashed_is_started_again() {
    let supervised = start("crashes-once");
    let restarting = until(&supervised.engine, |state| {
        matches!(state, State::Restarting { .. })
    })
    .await;
    match restarting {
        State::Restarting {
            crashes: 1, cause, ..
        } => assert!(cause.contains("SIGKILL"), "{cause}"),
        other => panic!("{other:?}"),
    }
    until(&supervised.engine, |state| matches!(state, State::Ready(_))).await;
    supervised.engine.stop(pending()).await;
}

#[tokio::test]
async fn an_engine_that_lost_a_node_is_tried_until_the_node_is_back() {
    let supervised = start("loses-a-node");
    let engine = &supervised.engine;
    let lost = until(engine, |state| matches!(state, State::Lost { .. })).await;
    match lost {
        State::Lost { message } => assert_eq!(message, "worker 10.0.0.2:9338: connection reset"),
        other => panic!("{other:?}"),
    }
    // More ends in a row than crashes would be forgiven; and nothing else is told meanwhile.
    let waiting = until(engine, |state| !matches!(state, State::Lost { .. })).await;
    match waiting {
        State::Waiting { message } => assert_eq!(message, "worker 10.0.0.2:9338: connection refused"),
        other => panic!("{other:?}"),
    }
    let back = until(engine, |state| !matches!(state, State::Waiting { .. })).await;
    assert!(
        matches!(back, State::Loading { .. } | State::Ready(_)),
        "{back:?}"
    );
    until(engine, |state| matches!(state, State::Ready(_))).await;
    supervised.engine.stop(pending()).await;
}

#[tokio::test]
async fn an_engine_that_does_not_end_after_a_loss_is_no_obstacle_to_a_stop() {
    let supervised = start("hangs-after-a-loss");
    until(&supervised.engine, |state| matches!(state, State::Lost { .. })).await;
    let state = supervised.engine.state();
    supervised.engine.stop(pending()).await;
    assert!(matches!(*state.borrow(), State::Stopping));
}

#[tokio::test]
async fn waiting_for_a_worker_ends_with_a_stop() {
    let supervised = start("waits-for-a-worker");
    until(&supervised.engine, |state| matches!(state, State::Waiting { .. })).await;
    let state = supervised.engine.state();
    supervised.engine.stop(pending()).await;
    assert!(matches!(*state.borrow(), State::Stopping));
}

#[tokio::test]
async fn an_engine_that_refuses_is_left_alone() {
    let failure = failure(&start("refuses").engine).await;
    assert_eq!(
        (failure.message.as_str(), failure.exit),
        ("needs 43.1 GB, 24.0 GB free", Exit(71))
    );
}

#[tokio::test]
async fn an_engine_that_does_not_know_its_arguments_is_left_alone() {
    let failure = failure(&start("misunderstands").engine).await;
    assert_eq!(failure.exit, Exit::CONFIGURATION);
    assert_eq!(failure.last_lines, ["unexpected argument"]);
}

#[tokio::test]
async fn an_address_that_nobody_understands_counts_as_a_crash() {
    let failure = failure(&start("confuses").engine).await;
    assert!(failure.message.contains("`here`"), "{failure:?}");
}

#[tokio::test]
async fn a_program_that_is_not_there_is_told_at_once() {
    let options = Options::new(Listen::Unix("/nowhere/s".into()), "m".into(), "m".to_owned());
    let program = Program::At("/nowhere/llama-server".into());
    let engine = Engine::start(
        Launch { program, options },
        watch::Sender::new(State::Starting),
        |_| {},
    );
    assert_eq!(failure(&engine).await.exit, Exit::FILE);
}
