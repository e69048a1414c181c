//! One run of the child, from its start to its end.

use super::cause;
use super::launch::Launch;
use super::lines::{Lines, Tail};
use super::upstream::Upstream;
use super::wish::Wish;
use super::{Serving, State};
use crate::exit::Exit;
use hyper::header::HeaderValue;
use llama_engine::rpc::door::shown;
use llama_engine::server::options::Listen;
use llama_engine::status::{LOST_EXIT_CODE, Refusal, Status};
use std::io;
use std::process::ExitStatus;
use std::time::Duration;
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

/// How long a child that should end may take before it is killed.
const END_WITHIN: Duration = Duration::from_secs(5);

/// The same, of one that writes its slots' caches to disk.
const SAVE_WITHIN: Duration = Duration::from_secs(60);

/// How long the last lines of a child that ended are waited for. They are in the pipes already;
/// only a process that inherited them could keep them open.
const LAST_LINES_WITHIN: Duration = Duration::from_millis(500);

/// The exit code of a child that did not understand its arguments.
const BAD_ARGUMENTS: i32 = 2;

/// The next wish that goes further. If nobody is left who could wish, the child is to finish.
pub(super) async fn beyond(heard: Wish, wishes: &mut watch::Receiver<Wish>) -> Wish {
    let further = wishes.wait_for(|wish| *wish > heard).await.map(|wish| *wish);
    match further {
        Ok(wish) => wish,
        Err(_) if heard < Wish::Finish => Wish::Finish,
        Err(_) => std::future::pending().await,
    }
}

/// How a run ended.
#[derive(Debug)]
pub(super) enum End {
    /// As it was told to.
    Stopped,
    /// It said that it will not run, or cannot.
    Refused {
        message: String,
        last_lines: Vec<String>,
        exit: Exit,
    },
    /// It lost a node of its split.
    Lost {
        message: String,
        served: Option<Duration>,
    },
    /// It cannot use a worker of its split.
    Unreached { message: String },
    /// By itself; "the engine …".
    Crashed {
        cause: String,
        served: Option<Duration>,
        last_lines: Vec<String>,
    },
}

/// What a child reports, and where its log goes.
pub(super) trait Reports {
    /// The state changed.
    fn state(&mut self, state: State);
    /// The child wrote a line of log.
    fn log(&mut self, line: &[u8]);
}

/// Why a child that still runs is on its way out.
enum Leaving {
    Stopped,
    Refused {
        message: String,
        exit: Exit,
    },
    /// It ends by itself, once it has answered what was asked.
    Lost {
        message: String,
    },
    Unreached {
        message: String,
    },
    Confused {
        cause: String,
    },
}

/// A running child.
pub(super) struct Run {
    child: Child,
    /// The child ends when this closes, however the daemon ends.
    stdin: Option<ChildStdin>,
    stdout: Lines<ChildStdout>,
    stderr: Lines<ChildStderr>,
    tail: Tail,
    ready_since: Option<Instant>,
    leaving: Option<(Leaving, Instant)>,
    end_within: Duration,
}

impl Run {
    /// Starts the child.
    pub(super) fn start(launch: &Launch) -> io::Result<Run> {
        if let Listen::Unix(path) = &launch.options.listen {
            // The socket of a child that was killed is in the way of the next.
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        let mut child = launch.start()?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdout), Some(stderr)) = (stdout, stderr) else {
            return Err(io::Error::other("its standard streams are not pipes"));
        };
        tracing::debug!(program = %launch.program.path().display(), pid = child.id(), "engine started");
        Ok(Run {
            child,
            stdin,
            stdout: Lines::new(stdout),
            stderr: Lines::new(stderr),
            tail: Tail::default(),
            ready_since: None,
            leaving: None,
            end_within: match launch.options.slot_save {
                None => END_WITHIN,
                Some(_) => SAVE_WITHIN,
            },
        })
    }

    /// Follows the child to its end, which a wish brings about.
    pub(super) async fn follow(
        mut self,
        launch: &Launch,
        wishes: &mut watch::Receiver<Wish>,
        reports: &mut impl Reports,
    ) -> io::Result<End> {
        let mut heard = Wish::Serve;
        let status = loop {
            let deadline = self.leaving.as_ref().map(|(_, deadline)| *deadline);
            tokio::select! {
                line = self.stdout.next(), if !self.stdout.ended() => {
                    if let Some(line) = line {
                        self.hear(&line, launch, reports);
                    }
                }
                line = self.stderr.next(), if !self.stderr.ended() => {
                    if let Some(line) = line {
                        self.log(&line, reports);
                    }
                }
                status = self.child.wait() => break status?,
                wish = beyond(heard, wishes) => {
                    heard = wish;
                    reports.state(State::Stopping);
                    self.leave(Leaving::Stopped);
                    if wish == Wish::Die {
                        self.child.start_kill()?;
                    }
                }
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    tracing::warn!("the engine did not end within {:?} and is killed", self.end_within);
                    self.child.start_kill()?;
                    self.leaving = self.leaving.map(|(why, _)| (why, Instant::now() + END_WITHIN));
                }
            }
        };
        let served = self.ready_since.map(|since| since.elapsed());
        tracing::debug!(%status, ?served, "engine ended");
        // At the limit, what was read until then is all there is.
        let _ = timeout(LAST_LINES_WITHIN, self.read_to_the_end(launch, reports)).await;
        Ok(self.end(status, served))
    }

    async fn read_to_the_end(&mut self, launch: &Launch, reports: &mut impl Reports) {
        while let Some(line) = self.stdout.next().await {
            self.hear(&line, launch, reports);
        }
        while let Some(line) = self.stderr.next().await {
            self.log(&line, reports);
        }
    }

    fn log(&mut self, line: &[u8], reports: &mut impl Reports) {
        self.tail.push(line);
        reports.log(line);
    }

    /// Takes a line of the child's standard output.
    fn hear(&mut self, line: &[u8], launch: &Launch, reports: &mut impl Reports) {
        let status = match serde_json::from_slice(line) {
            Ok(status) => status,
            Err(error) => {
                let line = String::from_utf8_lossy(line);
                return tracing::warn!(%line, %error, "the engine said something unknown");
            }
        };
        if self.leaving.is_some() {
            return;
        }
        match status {
            Status::Checking => reports.state(State::Starting),
            Status::Loading { percent } => reports.state(State::Loading {
                percent: percent.min(100),
            }),
            Status::Ready(ready) => match upstream(&ready.address, launch) {
                Ok(upstream) => {
                    self.ready_since = Some(Instant::now());
                    let model = launch.options.model_name.clone();
                    let workers = launch.options.rpc.iter().map(|worker| shown(worker).to_owned());
                    reports.state(State::Ready(Serving {
                        model,
                        ready,
                        upstream,
                        workers: workers.collect(),
                    }));
                }
                Err(cause) => self.leave(Leaving::Confused { cause }),
            },
            Status::Lost { message } => {
                // Requests from now on are for its successor.
                reports.state(State::Lost {
                    message: message.clone(),
                });
                self.leaving = Some((Leaving::Lost { message }, Instant::now() + END_WITHIN));
            }
            Status::Refused {
                reason: Refusal::Worker,
                message,
            } => self.leave(Leaving::Unreached { message }),
            Status::Refused { reason, message } => {
                self.leave(Leaving::Refused {
                    message,
                    exit: Exit(reason.exit_code()),
                });
            }
        }
    }

    /// Sees to it that the child ends.
    fn leave(&mut self, why: Leaving) {
        // One that has not begun to serve has nothing to finish: the closed pipe ends it at once.
        if self.ready_since.is_none() || !terminate(&self.child) {
            self.stdin = None;
        }
        self.leaving = Some((why, Instant::now() + self.end_within));
    }

    fn end(self, status: ExitStatus, served: Option<Duration>) -> End {
        let last_lines = self.tail.into_lines();
        match self.leaving {
            Some((Leaving::Stopped, _)) => End::Stopped,
            Some((Leaving::Refused { message, exit }, _)) => {
                End::Refused { message, last_lines: Vec::new(), exit }
            }
            Some((Leaving::Lost { message }, _)) => {
                // It should have ended in order; what made it crash is the node all the same.
                if status.code() != Some(LOST_EXIT_CODE.into()) {
                    tracing::warn!(%status, "an engine that lost a node did not end as it should");
                }
                End::Lost { message, served }
            }
            Some((Leaving::Unreached { message }, _)) => End::Unreached { message },
            Some((Leaving::Confused { cause }, _)) => End::Crashed { cause, served, last_lines },
            None if served.is_none() && status.code() == Some(BAD_ARGUMENTS) => End::Refused {
                message: "the engine does not understand its arguments: is the llama-server of --bin-dir another version?".to_owned(),
                last_lines,
                exit: Exit::CONFIGURATION,
            },
            // Its last words may have been lost.
            None if status.code() == Some(LOST_EXIT_CODE.into()) => {
                End::Lost { message: "a node of the split was lost".to_owned(), served }
            }
            None => End::Crashed { cause: cause::words(status), served, last_lines },
        }
    }
}

/// The way to a child that listens at `address`.
fn upstream(address: &str, launch: &Launch) -> Result<Upstream, String> {
    let listen: Listen = address
        .parse()
        .map_err(|error| format!("is ready, but {error}"))?;
    let secret = launch.options.secret.as_ref().map(|secret| {
        let mut value = HeaderValue::try_from(format!("Bearer {secret}"))
            .map_err(|_| "has a secret that no header can carry".to_owned())?;
        value.set_sensitive(true);
        Ok::<_, String>(value)
    });
    Ok(Upstream::new(listen, secret.transpose()?))
}

/// Asks the child to finish and end; whether it was asked.
#[cfg(unix)]
fn terminate(child: &Child) -> bool {
    use rustix::process::{Pid, Signal, kill_process};
    // The number is the child's as long as nobody waited for its end.
    let pid = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
    pid.is_some_and(|pid| kill_process(pid, Signal::TERM).is_ok())
}

#[cfg(not(unix))]
fn terminate(_child: &Child) -> bool {
    false
}
