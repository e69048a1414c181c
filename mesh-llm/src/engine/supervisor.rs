//! The task that owns the child: starts it, and starts it again after a crash.

use super::launch::Launch;
use super::restarts::{MAX_CRASHES, Restarts, Verdict};
use super::run::{End, Reports, Run, Wish, beyond};
use super::{Failure, State};
use crate::exit::Exit;
use std::io::{self, ErrorKind};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A supervised llama-server.
#[derive(Debug)]
pub struct Engine {
    wish: watch::Sender<Wish>,
    state: watch::Receiver<State>,
    task: JoinHandle<()>,
}

impl Engine {
    /// Starts the child and keeps it running. `state` is told what it does, `log` is given each line
    /// of its log.
    pub fn start(
        launch: Launch,
        state: watch::Sender<State>,
        log: impl FnMut(&[u8]) + Send + 'static,
    ) -> Engine {
        let (wish, wishes) = watch::channel(Wish::Serve);
        let states = state.subscribe();
        let supervisor = Supervisor {
            launch,
            wishes,
            outside: Outside { state, log },
            restarts: Restarts::default(),
        };
        Engine {
            wish,
            state: states,
            task: tokio::spawn(supervisor.run()),
        }
    }

    /// The engine's state, now and whenever it changes.
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// Ends the child, which finishes what it does, and waits for its end. What the child does is cut
    /// short when `impatience` is over first; returns whether it was.
    pub async fn stop(self, impatience: impl Future<Output = ()>) -> bool {
        let Self { wish, mut task, .. } = self;
        wish.send_replace(Wish::Finish);
        let (ended, cut_short) = tokio::select! {
            ended = &mut task => (ended, false),
            () = impatience => {
                wish.send_replace(Wish::Die);
                (task.await, true)
            }
        };
        if let Err(error) = ended {
            tracing::error!(%error, "the engine's supervisor failed");
        }
        cut_short
    }
}

/// Where the state and the log go.
struct Outside<L> {
    state: watch::Sender<State>,
    log: L,
}

impl<L: FnMut(&[u8])> Reports for Outside<L> {
    fn state(&mut self, state: State) {
        self.state.send_replace(state);
    }

    fn log(&mut self, line: &[u8]) {
        (self.log)(line);
    }
}

struct Supervisor<L> {
    launch: Launch,
    wishes: watch::Receiver<Wish>,
    outside: Outside<L>,
    restarts: Restarts,
}

impl<L: FnMut(&[u8])> Supervisor<L> {
    async fn run(mut self) {
        loop {
            let (cause, served, last_lines) = match self.run_once().await {
                Ok(End::Stopped) => return,
                Ok(End::Refused {
                    message,
                    last_lines,
                    exit,
                }) => {
                    return self.fail(Failure {
                        message,
                        last_lines,
                        exit,
                    });
                }
                Ok(End::Crashed {
                    cause,
                    served,
                    last_lines,
                }) => (cause, served, last_lines),
                Err(error) if missing(&error) => {
                    return self.fail(Failure {
                        message: format!("{} cannot be run: {error}", self.launch.program.path().display()),
                        last_lines: Vec::new(),
                        exit: Exit::FILE,
                    });
                }
                Err(error) => (format!("could not be started: {error}"), None, Vec::new()),
            };
            match self.restarts.crashed(served) {
                Verdict::GiveUp => {
                    return self.fail(Failure {
                        message: format!(
                            "the engine crashed {MAX_CRASHES} times in a row, the last time it {cause}; -v shows more of what it did"
                        ),
                        last_lines,
                        exit: Exit::CRASHED,
                    });
                }
                Verdict::Restart { crashes, delay } => {
                    self.outside.state(State::Restarting {
                        crashes,
                        cause,
                        delay,
                    });
                    if self.stopped_within(delay).await {
                        return self.outside.state(State::Stopping);
                    }
                }
            }
        }
    }

    async fn run_once(&mut self) -> io::Result<End> {
        let run = Run::start(&self.launch)?;
        self.outside.state(State::Starting);
        run.follow(&self.launch, &mut self.wishes, &mut self.outside)
            .await
    }

    /// Whether a stop came before the pause was over.
    async fn stopped_within(&mut self, pause: Duration) -> bool {
        tokio::time::timeout(pause, beyond(Wish::Serve, &mut self.wishes))
            .await
            .is_ok()
    }

    fn fail(&mut self, failure: Failure) {
        self.outside.state(State::Failed(failure));
    }
}

/// Whether trying again is pointless, as the program is not there or may not be run.
fn missing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied)
}

#[cfg(all(test, unix))]
mod tests {
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
}
