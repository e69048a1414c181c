//! What this machine computes with, as the engine's program says: drivers of GPUs are not let into this process.

use super::cause;
use super::launch::Program;
use super::lines::Lines;
use llama_engine::rpc::devices::DeviceReport;
use std::io;
use std::ops::ControlFlow;
use std::process::Stdio;
use std::time::Duration;
use tokio::time::timeout;

/// How long that may take: drivers of GPUs are slow.
const WITHIN: Duration = Duration::from_secs(30);

/// Tells `tell` of the GPUs with these names, or all where none are named, and of the processor, on which so many
/// threads compute: first what they are, then what they read as well, if it goes on.
///
/// # Errors
/// Where the program cannot be run, or does not know.
pub async fn ask(
    program: &Program,
    names: &[String],
    threads: Option<u32>,
    tell: impl FnMut(Vec<DeviceReport>) -> ControlFlow<()>,
) -> io::Result<()> {
    let asking = timeout(WITHIN, listen(program, names, threads, tell));
    asking.await.unwrap_or_else(|_| {
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "a driver does not answer",
        ))
    })
}

/// How much is asked of devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// What they are.
    Listed,
    /// What they read as well, which takes its time.
    Measured,
}

/// What is known of the GPUs with these names, or all where none are named, and of the processor; and why no more is, if
/// something went wrong. It blocks.
pub fn look(program: &Program, names: &[String], depth: Depth) -> (Vec<DeviceReport>, io::Result<()>) {
    let mut reports = Vec::new();
    let tell = |known| {
        reports = known;
        match depth {
            Depth::Listed => ControlFlow::Break(()),
            Depth::Measured => ControlFlow::Continue(()),
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let end = runtime.and_then(|runtime| runtime.block_on(ask(program, names, None, tell)));
    (reports, end)
}

async fn listen(
    program: &Program,
    names: &[String],
    threads: Option<u32>,
    mut tell: impl FnMut(Vec<DeviceReport>) -> ControlFlow<()>,
) -> io::Result<()> {
    let mut command = program.worker();
    command.arg("--list-devices");
    for name in names {
        command.args(["--device", name]);
    }
    if let Some(threads) = threads {
        command.args(["--threads", &threads.to_string()]);
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let stdout = child.stdout.take();
    let mut lines = Lines::new(stdout.ok_or_else(|| io::Error::other("its standard output is no pipe"))?);
    let mut has_told = false;
    while let Some(line) = lines.next().await {
        has_told = true;
        if tell(serde_json::from_slice(&line)?).is_break() {
            return Ok(());
        }
    }
    let status = child.wait().await?;
    if status.success() && has_told {
        return Ok(());
    }
    let told = cause::words(status);
    Err(io::Error::other(format!(
        "it {told}; `rpc-server --list-devices` says why"
    )))
}
