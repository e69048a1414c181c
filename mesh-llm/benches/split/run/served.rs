//! mesh-llm, measured through its API: alone, or split over workers.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tempfile::TempDir;

use super::engine::{CONTEXT, Engine, PerToken, STREAMS};
use super::nodes::{HOST, Nodes};
use crate::support::client::{Answered, LONGEST_SILENCE, Question};
use crate::support::daemon::{BINARY, Daemon, DaemonOptions};
use crate::support::models::BenchModel;
use crate::support::prompts;
use crate::support::streams::{questions, rate, together};

/// Where a worker listens on its node.
const PORT: u16 = 7200;

/// How long a worker may take to listen.
const STARTS_WITHIN: Duration = Duration::from_secs(30);

/// Between two looks at whether it listens.
const LOOKS_EVERY: Duration = Duration::from_millis(20);

/// What host and workers share.
const SECRET: &str = "a secret for one bench, which nobody else could use";

/// Tokens that the template adds to a prompt, about.
const TEMPLATE_TOKENS: usize = 20;

/// `mesh-llm rpc-server` on each node that is not the host.
#[derive(Debug)]
pub struct Workers {
    processes: Vec<Child>,
    folder: TempDir,
    addresses: Vec<String>,
}

impl Drop for Workers {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // One that has ended by itself is neither there to kill nor to wait for.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Workers {
    /// Starts them, with this model's folder to read, and waits until they listen.
    ///
    /// # Errors
    /// With its last words, where one does not.
    pub fn start(nodes: &Nodes, model: &Path) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("bench-split").tempdir()?;
        let mut workers = Self {
            processes: Vec::new(),
            addresses: Vec::new(),
            folder,
        };
        fs::write(workers.secret(), SECRET)?;
        fs::set_permissions(workers.secret(), fs::Permissions::from_mode(0o600))?;
        for node in nodes.workers() {
            workers.add(nodes, node, model)?;
        }
        Ok(workers)
    }

    fn secret(&self) -> PathBuf {
        self.folder.path().join("secret")
    }

    fn add(&mut self, nodes: &Nodes, node: usize, model: &Path) -> anyhow::Result<()> {
        let address = nodes.address(node, PORT);
        let log = self.folder.path().join(format!("worker-{node}.log"));
        let mut command = Command::new(BINARY);
        command
            .args(["rpc-server", "--listen", &address.to_string(), "--secret-file"])
            .arg(self.secret())
            .arg("--model-dir")
            .arg(model.parent().context("the model is in no folder")?)
            .args(["--threads", "1"])
            .env("MESH_LLM_HOME", self.folder.path().join(format!("home-{node}")))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?);
        self.processes.push(nodes.on(node, || command.spawn())?);
        let began = Instant::now();
        while nodes.on(node, || TcpStream::connect(address)).is_err() {
            let ended = self
                .processes
                .last_mut()
                .map(Child::try_wait)
                .transpose()?
                .flatten();
            if ended.is_some() || began.elapsed() > STARTS_WITHIN {
                let log = fs::read_to_string(&log)?;
                let words = log.lines().find(|line| !line.is_empty()).unwrap_or("no word");
                bail!("no worker at {address}: {words}");
            }
            thread::sleep(LOOKS_EVERY);
        }
        self.addresses.push(address.to_string());
        Ok(())
    }
}

/// A daemon on the host.
#[derive(Debug)]
pub struct Served {
    daemon: Daemon,
    started: Duration,
    /// Questions so far: each is another one, so that no cache helps.
    asked: usize,
}

impl Served {
    /// Starts one that computes everything itself.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn solo(nodes: &Nodes, model: &Path) -> anyhow::Result<Self> {
        Self::start(nodes, model, Vec::new())
    }

    /// Starts one over workers, with so many layers for each node in order; the head is the host's.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn split(nodes: &Nodes, model: &Path, workers: &Workers, layers: &[u32]) -> anyhow::Result<Self> {
        let layers: Vec<String> = layers.iter().map(u32::to_string).collect();
        let more: [OsString; 6] = [
            "--rpc".into(),
            workers.addresses.join(",").into(),
            "--rpc-secret-file".into(),
            workers.secret().into(),
            "--tensor-split".into(),
            layers.join(",").into(),
        ];
        Self::start(nodes, model, more.into())
    }

    fn start(nodes: &Nodes, model: &Path, more: Vec<OsString>) -> anyhow::Result<Self> {
        let mut options = DaemonOptions::new(model.to_owned(), CONTEXT, STREAMS);
        options.more = more;
        options.more.extend(["--threads".into(), "1".into()]);
        let began = Instant::now();
        let daemon = nodes.on(HOST, || Daemon::start(&options))?;
        Ok(Self {
            daemon,
            started: began.elapsed(),
            asked: 0,
        })
    }

    /// How long it took until it answered requests.
    pub fn started(&self) -> Duration {
        self.started
    }

    /// Ends it in order.
    ///
    /// # Errors
    /// Where it ended in disorder.
    pub fn stop(self) -> anyhow::Result<()> {
        self.daemon.stop()
    }

    /// A prompt of about so many tokens, and an answer of so many.
    fn question(&mut self, prompt_tokens: usize, tokens: usize) -> Question {
        self.asked += 1;
        let words = prompt_tokens.saturating_sub(TEMPLATE_TOKENS);
        Question::new(BenchModel::HalfBillion, &prompts::text(self.asked, words), tokens)
    }
}

impl Engine for Served {
    fn decode(&mut self, nodes: &Nodes, streams: usize, tokens: usize) -> anyhow::Result<f64> {
        self.asked += 1;
        let questions = questions(BenchModel::HalfBillion, streams, self.asked, tokens + 1);
        let endpoint = self.daemon.endpoint();
        let answers = nodes.as_client(|| together(&endpoint, &questions))?;
        Ok(1e3 / rate(&answers))
    }

    fn prefill(&mut self, nodes: &Nodes, tokens: usize) -> anyhow::Result<f64> {
        let question = self.question(tokens, 1);
        let endpoint = self.daemon.endpoint();
        let answered = nodes.as_client(|| question.answer(&endpoint))?;
        let usage = answered.usage();
        let computed = usage.prompt_tokens - usage.prompt_tokens_details.cached_tokens;
        Ok(answered.time_to_first().as_secs_f64() * 1e3 / computed as f64)
    }

    fn traffic(&mut self, nodes: &Nodes, prompt_tokens: usize, tokens: usize) -> anyhow::Result<PerToken> {
        // Those of the first tokens are not counted: their graph is sent.
        let skipped = 4;
        let question = self.question(prompt_tokens, skipped + tokens + 1);
        let endpoint = self.daemon.endpoint();
        nodes.as_client(|| {
            let mut stream = question.ask(&endpoint, Some(LONGEST_SILENCE))?;
            let mut answered = Answered::new(stream.sent());
            let mut ends = None;
            while let Some(event) = stream.next()? {
                answered.add(&event)?;
                if answered.pieces.len() > skipped {
                    let (_, last) = ends.get_or_insert_with(|| {
                        let before = (nodes.traffic(), answered.pieces.len());
                        (before, before)
                    });
                    if answered.pieces.len() > last.1 {
                        *last = (nodes.traffic(), answered.pieces.len());
                    }
                }
            }
            let (first, last) = ends.context("the answer was too short")?;
            // A piece may hold several tokens.
            let tokens_a_piece = answered.usage().completion_tokens as f64 / answered.pieces.len() as f64;
            Ok(PerToken::of(
                last.0 - first.0,
                (last.1 - first.1) as f64 * tokens_a_piece,
            ))
        })
    }
}
