//! The child that lends this machine's devices to a host elsewhere, for as long as that wants them.

use super::cause;
use super::launch::Program;
use super::lines::Lines;
use llama_engine::rpc::door::{DOOR_VARIABLE, Door};
use llama_engine::server::options::{LogFormat, RPC_SECRET_VARIABLE, SECRET_VARIABLE};
use std::io;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::task::AbortHandle;
use tokio::time::timeout;

/// What the child says once hosts can come, before its address.
const LISTENING: &[u8] = b"listening at ";

/// How long it may take until it does: drivers of GPUs are slow.
const START_WITHIN: Duration = Duration::from_secs(60);

/// How such a child is started.
#[derive(Debug, Clone)]
pub struct WorkerLaunch {
    /// The program of this machine's engine, which is the child's, too.
    pub program: Program,
    /// What its hosts must know.
    pub secret: String,
    /// Where it reaches other workers.
    pub door: Door,
    /// Most bytes that it takes of the machine's own memory.
    pub max_memory: u64,
    /// Most bytes that it takes of GPUs; 0 where there are none.
    pub max_vram: u64,
    /// Most bytes that it takes in all.
    pub max_together: u64,
    /// Names of the devices that it offers; none: every GPU, else the CPU.
    pub devices: Vec<String>,
    /// Threads that compute; none: its choice.
    pub threads: Option<u32>,
    /// How its log looks.
    pub log: LogFormat,
    /// How much it logs.
    pub verbose: u8,
}

/// Such a child; it ends when this is dropped, and when this process ends in whatever way.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    address: SocketAddr,
    /// The child ends when it closes.
    _stdin: Option<ChildStdin>,
    log: AbortHandle,
    /// What it says beyond its address, so that it is never blocked.
    said: AbortHandle,
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.log.abort();
        self.said.abort();
    }
}

impl Worker {
    /// Starts it, and waits until hosts can come. `log` is given each line of its log.
    ///
    /// # Errors
    /// Where it cannot be started, or ends at once.
    pub async fn start(
        launch: &WorkerLaunch,
        mut log: impl FnMut(&[u8]) + Send + 'static,
    ) -> io::Result<Worker> {
        let mut child = command(launch).spawn()?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdout), Some(stderr)) = (stdout, stderr) else {
            return Err(io::Error::other("its standard streams are not pipes"));
        };
        let logging = tokio::spawn(async move {
            let mut lines = Lines::new(stderr);
            while let Some(line) = lines.next().await {
                log(&line);
            }
        });
        let mut stdout = Lines::new(stdout);
        let listening = timeout(START_WITHIN, listening(&mut stdout)).await;
        let address = match listening {
            Ok(Some(address)) => address,
            Ok(None) => {
                let status = child.wait().await?;
                return Err(io::Error::other(format!("it {}", cause::words(status))));
            }
            Err(_) => return Err(io::Error::new(io::ErrorKind::TimedOut, "it did not become ready")),
        };
        tracing::debug!(%address, pid = child.id(), "a worker process was started");
        Ok(Worker {
            child,
            address,
            _stdin: stdin,
            log: logging.abort_handle(),
            said: tokio::spawn(async move { while stdout.next().await.is_some() {} }).abort_handle(),
        })
    }

    /// Where hosts come to, on loopback.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits for its end, which is none that anybody wanted; "it …".
    pub async fn ended(&mut self) -> String {
        match self.child.wait().await {
            Ok(status) => cause::words(status),
            Err(error) => format!("cannot be watched: {error}"),
        }
    }
}

fn command(launch: &WorkerLaunch) -> tokio::process::Command {
    let mut command = launch.program.worker();
    command.args(["--listen", "127.0.0.1:0"]);
    for device in &launch.devices {
        command.args(["--device", device]);
    }
    if let Some(threads) = launch.threads {
        command.args(["--threads", &threads.to_string()]);
    }
    let limits = [
        ("--max-memory", launch.max_memory),
        ("--max-vram", launch.max_vram),
        ("--max-together", launch.max_together),
    ];
    for (flag, bytes) in limits.into_iter().filter(|(_, bytes)| *bytes > 0) {
        // Exact to the byte.
        let gigabytes = format!("{}.{:09}", bytes / 1_000_000_000, bytes % 1_000_000_000);
        command.args([flag, &gigabytes]);
    }
    command
        .args(["--log-format", launch.log.word()])
        .args(std::iter::repeat_n("-v", launch.verbose.into()))
        .env_remove(SECRET_VARIABLE)
        .env(RPC_SECRET_VARIABLE, &launch.secret)
        .env(DOOR_VARIABLE, launch.door.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    // Ctrl-C is for the daemon, which then ends the child.
    #[cfg(unix)]
    command.process_group(0);
    command
}

/// The address that it says it listens at; none: it has ended.
async fn listening(stdout: &mut Lines<ChildStdout>) -> Option<SocketAddr> {
    loop {
        let line = stdout.next().await?;
        let address = line
            .strip_prefix(LISTENING)
            .and_then(|rest| str::from_utf8(rest).ok());
        if let Some(address) = address.and_then(|words| words.trim().parse().ok()) {
            return Some(address);
        }
    }
}
