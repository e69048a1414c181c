//! The task that owns the child: starts it, and starts it again after a crash, or when a node of its split
//! was lost.

use super::launch::Launch;
use super::restarts::{MAX_CRASHES, Restarts, Verdict};
use super::run::{End, Reports, Run, beyond};
use super::wish::{Wish, Wished};
use super::{Failure, State};
use crate::exit::Exit;
use std::io::{self, ErrorKind};
use std::time::Duration;
use tokio::sync::watch;

/// A supervised llama-server.
#[derive(Debug)]
pub struct Engine {
    state: watch::Receiver<State>,
    task: Wished<()>,
}

impl Engine {
    /// Starts the child and keeps it running. `state` is told what it does, `log` is given each line
    /// of its log.
    pub fn start(
        launch: Launch,
        state: watch::Sender<State>,
        log: impl FnMut(&[u8]) + Send + 'static,
    ) -> Engine {
        let states = state.subscribe();
        let outside = Outside {
            state,
            log,
            trouble: None,
        };
        let task = Wished::start(|wishes| {
            let supervisor = Supervisor {
                launch,
                wishes,
                outside,
                restarts: Restarts::default(),
            };
            supervisor.run()
        });
        Engine { state: states, task }
    }

    /// The engine's state, now and whenever it changes.
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// Ends the child, which finishes what it does, and waits for its end. What the child does is cut
    /// short when `impatience` is over first; returns whether it was.
    pub async fn stop(self, impatience: impl Future<Output = ()>) -> bool {
        let (_, cut_short) = self.task.end(impatience).await;
        cut_short
    }
}

/// Where the state and the log go.
struct Outside<L> {
    state: watch::Sender<State>,
    log: L,
    /// What is wrong with the split. Each try begins with a start, which says nothing new.
    trouble: Option<State>,
}

impl<L> Outside<L> {
    fn publish(&mut self, state: State) {
        match &state {
            State::Lost { .. } | State::Waiting { .. } => self.trouble = Some(state.clone()),
            State::Starting => {}
            _ => self.trouble = None,
        }
        let told = match (&state, &self.trouble) {
            (State::Starting, Some(trouble)) => trouble.clone(),
            _ => state,
        };
        self.state.send_replace(told);
    }
}

impl<L: FnMut(&[u8])> Reports for Outside<L> {
    fn state(&mut self, state: State) {
        self.publish(state);
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
                Ok(End::Lost { message, served }) => {
                    self.outside.publish(State::Lost { message });
                    let delay = self.restarts.lost(served);
                    if self.stopped_within(delay).await {
                        return;
                    }
                    continue;
                }
                Ok(End::Unreached { message }) => {
                    self.outside.publish(State::Waiting { message });
                    let delay = self.restarts.unreached();
                    if self.stopped_within(delay).await {
                        return;
                    }
                    continue;
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
                    self.outside.publish(State::Restarting {
                        crashes,
                        cause,
                        delay,
                    });
                    if self.stopped_within(delay).await {
                        return;
                    }
                }
            }
        }
    }

    async fn run_once(&mut self) -> io::Result<End> {
        let run = Run::start(&self.launch)?;
        self.outside.publish(State::Starting);
        run.follow(&self.launch, &mut self.wishes, &mut self.outside)
            .await
    }

    /// Whether a stop came before the pause was over.
    async fn stopped_within(&mut self, pause: Duration) -> bool {
        let wished = beyond(Wish::Serve, &mut self.wishes);
        let stopped = tokio::time::timeout(pause, wished).await.is_ok();
        if stopped {
            self.outside.publish(State::Stopping);
        }
        stopped
    }

    fn fail(&mut self, failure: Failure) {
        self.outside.publish(State::Failed(failure));
    }
}

/// Whether trying again is pointless, as the program is not there or may not be run.
fn missing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied)
}

#[cfg(all(test, unix))]
mod tests;
