//! The real binary, started to be measured.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use sysinfo::{ProcessRefreshKind, ProcessesToUpdate, System};
use tempfile::TempDir;

use super::http::Endpoint;

/// The binary.
pub const BINARY: &str = env!("CARGO_BIN_EXE_mesh-llm");

/// Lines of log that are kept, to say why a daemon did not start.
const LOG_LINES: usize = 20;

/// How long the daemon may take to start.
const START_WITHIN: Duration = Duration::from_secs(60);

/// The name and the value of a variable of the environment.
pub type Variable = (&'static str, String);

/// How the daemon is started.
#[derive(Debug, Clone)]
pub struct DaemonOptions {
    /// `--model`
    pub model: PathBuf,
    /// `--ctx-size`
    pub context: u32,
    /// `--parallel`
    pub slots: u32,
    /// `--queue`
    pub queue: u32,
    /// Whatever else it is told.
    pub more: Vec<OsString>,
    /// What it finds in its environment.
    pub variables: Vec<Variable>,
}

impl DaemonOptions {
    /// With this model, context and number of slots, a queue as long, and nothing else.
    pub fn new(model: PathBuf, context: u32, slots: u32) -> Self {
        Self {
            model,
            context,
            slots,
            queue: slots,
            more: Vec::new(),
            variables: Vec::new(),
        }
    }
}

/// A running daemon; its child ends with it.
#[derive(Debug)]
pub struct Daemon {
    process: Process,
    address: SocketAddr,
    home: TempDir,
    /// Ended when it is dropped, and the process with it.
    _log: thread::JoinHandle<()>,
}

/// Bytes of memory that is resident.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// The daemon's.
    pub daemon: u64,
    /// Its child's, the mapped model included.
    pub child: u64,
}

impl Daemon {
    /// Starts it, with a state directory of its own, and waits until it answers.
    ///
    /// # Errors
    /// With its last words, where it does not.
    pub fn start(options: &DaemonOptions) -> anyhow::Result<Self> {
        let arguments = [
            ("--ctx-size", options.context.to_string()),
            ("--parallel", options.slots.to_string()),
            ("--queue", options.queue.to_string()),
        ];
        let mut command = command(options.model.as_os_str())?;
        command
            .0
            .args(arguments.iter().flat_map(|(flag, value)| [*flag, value]))
            .args(&options.more)
            .envs(options.variables.iter().map(|(name, value)| (name, value)));
        Self::run(command)
    }

    /// Starts it as a user does who says nothing but the model's name.
    ///
    /// # Errors
    /// With its last words, where it does not answer.
    pub fn start_plainly(model: &str) -> anyhow::Result<Self> {
        Self::run(command(model.as_ref())?)
    }

    fn run((mut command, home): (Command, TempDir)) -> anyhow::Result<Self> {
        let process = command
            .spawn()
            .with_context(|| format!("{BINARY} cannot be started"))?;
        let mut process = Process(process);
        let stderr = process
            .0
            .stderr
            .take()
            .context("its standard error is not a pipe")?;
        let (log, port) = follow(stderr);
        match port.recv_timeout(START_WITHIN) {
            Ok(Ok(port)) => {
                let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
                Ok(Self {
                    process,
                    address,
                    home,
                    _log: log,
                })
            }
            Ok(Err(last_lines)) => {
                let status = process.0.wait()?;
                bail!("the daemon did not start ({status}): {}", last_lines.join("\n"))
            }
            Err(_) => bail!("the daemon did not say within {START_WITHIN:?} that it is ready"),
        }
    }

    /// Where clients reach it.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::Tcp(self.address)
    }

    /// Where it reaches its child.
    ///
    /// # Errors
    /// Where there is no such socket.
    pub fn child_endpoint(&self) -> anyhow::Result<Endpoint> {
        let folders = self
            .home
            .path()
            .join("run")
            .read_dir()
            .context("no folder of running daemons")?;
        let socket = folders
            .flatten()
            .map(|folder| folder.path().join("llama-server.sock"))
            .find(|path| path.exists());
        Ok(Endpoint::Unix(socket.context("the child's socket is not there")?))
    }

    /// What it takes now.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn memory(&self) -> anyhow::Result<Memory> {
        let mut system = System::new()?;
        system.refresh_processes_specifics(
            ProcessesToUpdate::All,
            true,
            ProcessRefreshKind::nothing().with_memory(),
        );
        let daemon = sysinfo::Pid::from_u32(self.process.0.id());
        // Threads have entries of their own, with the memory of their process.
        let children = system
            .processes()
            .values()
            .filter(|process| process.thread_kind().is_none());
        let child: u64 = children
            .filter(|process| process.parent() == Some(daemon))
            .map(sysinfo::Process::memory)
            .sum();
        let daemon = system.process(daemon).context("the daemon has ended")?.memory();
        ensure!(child > 0, "the daemon has no child");
        Ok(Memory { daemon, child })
    }

    /// Ends it in order.
    ///
    /// # Errors
    /// Where it ended in disorder.
    pub fn stop(mut self) -> anyhow::Result<()> {
        let pid = Pid::from_raw(self.process.0.id().try_into()?).context("it has no number")?;
        kill_process(pid, Signal::TERM)?;
        let status = self.process.0.wait()?;
        ensure!(status.success(), "the daemon ended with {status}");
        Ok(())
    }
}

/// Killed when it is dropped.
#[derive(Debug)]
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // One that has been stopped is neither there to kill nor to wait for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The binary with a home of its own, and nothing of the user's settings.
fn command(model: &std::ffi::OsStr) -> anyhow::Result<(Command, TempDir)> {
    let home = tempfile::Builder::new().prefix("bench").tempdir()?;
    let mut command = Command::new(BINARY);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MESH_LLM_") {
            command.env_remove(name);
        }
    }
    command.env("MESH_LLM_HOME", home.path());
    // What is measured is not the mesh.
    command
        .env("MESH_LLM_NO_MESH", "1")
        .env("MESH_LLM_NO_CONSOLE", "1");
    command
        .args(["--port", "0", "--log-format", "json", "--model"])
        .arg(model);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    Ok((command, home))
}

/// Reads the log to its end. The receiver gets the port that is served, or the last lines before the
/// end.
fn follow(stderr: ChildStderr) -> (thread::JoinHandle<()>, Receiver<Result<u16, Vec<String>>>) {
    let (sender, receiver) = channel();
    let thread = thread::spawn(move || {
        let mut last_lines = VecDeque::new();
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            if let Some(port) = served_port(&line) {
                // Nobody listens any more once it is served.
                let _ = sender.send(Ok(port));
            }
            if last_lines.len() == LOG_LINES {
                last_lines.pop_front();
            }
            last_lines.push_back(line);
        }
        let _ = sender.send(Err(last_lines.into()));
    });
    (thread, receiver)
}

/// The port, if this is the line of log that tells it.
fn served_port(line: &str) -> Option<u16> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    if line.get("message")? != "ready" {
        return None;
    }
    let url = line.get("url")?.as_str()?;
    url.trim_end_matches("/v1").rsplit(':').next()?.parse().ok()
}
