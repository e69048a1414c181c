//! llama.cpp's own RPC: the program beside this bench (`llama.cpp/benches/stock-rpc`), built when it is first needed.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::engine::{CONTEXT, Engine, PerToken, STREAMS};
use crate::lab::nodes::{HOST, Nodes};

/// How long a server may take to listen.
const STARTS_WITHIN: Duration = Duration::from_secs(30);

/// What hangs is not measured: nothing that it is told takes this long.
const WORKS_WITHIN: Duration = Duration::from_secs(300);

/// Between two looks at whether it listens.
const LOOKS_EVERY: Duration = Duration::from_millis(20);

/// Tokens of a stream's prompt where only its answer is measured, as of the HTTP clients' questions.
const PROMPT_TOKENS: usize = 24;

/// How its layers are spread, and the name of that in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    /// The host computes the first layers itself.
    HostAndServers,
    /// All layers are servers', one of them on the host: the only way in which llama.cpp's scheduler
    /// pipelines a prompt.
    ServersOnly,
}

impl Spread {
    /// As rows call it.
    pub fn name(self) -> &'static str {
        match self {
            Spread::HostAndServers => "stock",
            Spread::ServersOnly => "stock, host by RPC too",
        }
    }

    /// Where its servers listen on their nodes: a server has one host at a time, so each spread has its own.
    fn port(self) -> u16 {
        match self {
            Spread::HostAndServers => 7100,
            Spread::ServersOnly => 7101,
        }
    }

    fn servers(self, nodes: &Nodes) -> Vec<usize> {
        match self {
            Spread::HostAndServers => nodes.workers().collect(),
            Spread::ServersOnly => (HOST..nodes.count()).collect(),
        }
    }
}

/// The program, built if its sources are newer.
///
/// # Errors
/// Where it does not compile.
pub fn program() -> anyhow::Result<PathBuf> {
    let cache = match std::env::var_os("XDG_CACHE_HOME") {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(std::env::var_os("HOME").context("no HOME")?).join(".cache"),
    };
    // Outside the checkout, as llama.cpp takes minutes to compile.
    let target = cache.join("mesh-llm/stock-rpc-target");
    eprintln!("building stock-rpc in {}", target.display());
    let status = Command::new(env!("CARGO"))
        .args(["build", "--release", "--quiet", "--locked", "--target-dir"])
        .arg(&target)
        // Its `.cargo/config.toml` counts only where cargo is started.
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../llama.cpp/benches/stock-rpc"))
        .status()?;
    ensure!(status.success(), "stock-rpc does not compile");
    Ok(target.join("release/stock-rpc"))
}

/// Killed when it is dropped: it holds nothing that it would have to put in order.
#[derive(Debug)]
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Servers on their nodes.
#[derive(Debug)]
pub struct Servers {
    addresses: Vec<String>,
    _processes: Vec<Killed>,
    _logs: TempDir,
}

impl Servers {
    /// Starts those that this spread needs, and waits until they listen.
    ///
    /// # Errors
    /// Where one does not.
    pub fn start(program: &Path, nodes: &Nodes, spread: Spread) -> anyhow::Result<Self> {
        let logs = tempfile::Builder::new().prefix("stock-rpc").tempdir()?;
        let mut processes = Vec::new();
        let mut addresses = Vec::new();
        for node in spread.servers(nodes) {
            let address = nodes.address(node, spread.port());
            let log = logs.path().join(node.to_string());
            let mut command = Command::new(program);
            command.args(["server", &address.to_string(), "--threads", "1"]);
            command
                // Held by `Killed`: its end is the server's.
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(File::create(&log)?);
            processes.push(Killed(nodes.on(node, || command.spawn())?));
            let began = Instant::now();
            while nodes.on(node, || TcpStream::connect(address)).is_err() {
                let ended = processes
                    .last_mut()
                    .map(|server: &mut Killed| server.0.try_wait());
                if matches!(ended, Some(Ok(Some(_)))) || began.elapsed() > STARTS_WITHIN {
                    bail!("no server at {address}: {}", std::fs::read_to_string(&log)?);
                }
                thread::sleep(LOOKS_EVERY);
            }
            addresses.push(address.to_string());
        }
        Ok(Self {
            addresses,
            _processes: processes,
            _logs: logs,
        })
    }
}

/// Which layers are whose.
#[derive(Debug, Clone)]
pub struct Layers {
    /// Of each node that computes, in order; the head counts as one more of the last.
    pub of_nodes: Vec<u32>,
    pub spread: Spread,
}

#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum Work {
    Prefill { streams: usize, tokens: usize },
    Decode { tokens: usize },
}

#[derive(Debug, Deserialize)]
struct Done {
    nanoseconds: u64,
}

/// A host that has loaded.
#[derive(Debug)]
pub struct Stock {
    _process: Killed,
    orders: ChildStdin,
    results: Receiver<String>,
    loaded: Duration,
    /// Dropped last: a host whose server goes ends with a complaint.
    _servers: Option<Servers>,
}

impl Stock {
    /// Loads a model over servers; over none: alone.
    ///
    /// # Errors
    /// Where it does not load.
    pub fn start(
        program: &Path,
        nodes: &Nodes,
        model: &Path,
        split: Option<(Servers, Layers)>,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        command.args(["host", "--threads", "1", "--model"]).arg(model);
        command.args([
            "--context",
            &CONTEXT.to_string(),
            "--streams",
            &STREAMS.to_string(),
        ]);
        if let Some((servers, layers)) = &split {
            let own = usize::from(layers.spread == Spread::HostAndServers);
            let theirs = &layers.of_nodes[own..];
            let shares: Vec<String> = theirs.iter().map(u32::to_string).collect();
            command
                .args(["--rpc", &servers.addresses.join(",")])
                .args(["--gpu-layers", &theirs.iter().sum::<u32>().to_string()])
                .args(["--tensor-split", &shares.join(",")]);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Killed(nodes.on(HOST, || command.spawn())?);
        let orders = process.0.stdin.take().context("no way to stock-rpc")?;
        let results = process.0.stdout.take().context("no way from stock-rpc")?;
        let mut stock = Self {
            _process: process,
            orders,
            results: lines_of(results),
            loaded: Duration::ZERO,
            _servers: split.map(|(servers, _)| servers),
        };
        stock.loaded = stock.result()?;
        Ok(stock)
    }

    /// How long loading took.
    pub fn loaded(&self) -> Duration {
        self.loaded
    }

    fn run(&mut self, work: Work) -> anyhow::Result<Duration> {
        let mut line = serde_json::to_string(&work)?;
        line.push('\n');
        self.orders.write_all(line.as_bytes())?;
        self.result()
    }

    fn result(&mut self) -> anyhow::Result<Duration> {
        let line = self.results.recv_timeout(WORKS_WITHIN);
        let line = line.map_err(|error| match error {
            RecvTimeoutError::Disconnected => anyhow!("stock-rpc ended"),
            RecvTimeoutError::Timeout => anyhow!("stock-rpc did nothing for {WORKS_WITHIN:?}"),
        })?;
        let done: Done = serde_json::from_str(&line)?;
        Ok(Duration::from_nanos(done.nanoseconds))
    }
}

/// What comes of an output, read by a thread of its own: a pipe has no timeout.
fn lines_of(output: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                // The host is dropped.
                return;
            }
        }
    });
    receiver
}

impl Engine for Stock {
    fn decode(&mut self, _nodes: &Nodes, streams: usize, tokens: usize) -> anyhow::Result<f64> {
        self.run(Work::Prefill {
            streams,
            tokens: PROMPT_TOKENS,
        })?;
        let time = self.run(Work::Decode { tokens })?;
        Ok(time.as_secs_f64() * 1e3 / (streams * tokens) as f64)
    }

    fn prefill(&mut self, _nodes: &Nodes, tokens: usize) -> anyhow::Result<f64> {
        let time = self.run(Work::Prefill { streams: 1, tokens })?;
        Ok(time.as_secs_f64() * 1e3 / tokens as f64)
    }

    fn traffic(&mut self, nodes: &Nodes, prompt_tokens: usize, tokens: usize) -> anyhow::Result<PerToken> {
        self.run(Work::Prefill {
            streams: 1,
            tokens: prompt_tokens,
        })?;
        // The first token after a prompt has its graph sent.
        self.run(Work::Decode { tokens: 4 })?;
        let before = nodes.traffic();
        self.run(Work::Decode { tokens })?;
        Ok(PerToken::of(nodes.traffic() - before, tokens as f64))
    }
}
