//! A model over two machines: what it costs that the split goes through the mesh and not by plain TCP.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::wait::until;
use crate::netlab::NetLab;
use crate::support::arguments::Arguments;
use crate::support::client::Question;
use crate::support::daemon::BINARY;
use crate::support::http::{Answer, Endpoint};
use crate::support::models::BenchModel;
use crate::support::report::{Metric, Report};
use crate::support::variants::in_turn;

const TOKEN: Metric = Metric::new("decode", "ms/token");
const MORE: Metric = Metric::new("decode, mesh more than TCP", "ms/token");
const RATIO: Metric = Metric::new("decode", "ratio");

/// Where the host of the split by TCP answers.
const BY_TCP: u16 = 9340;

/// Where the host of the split by the mesh answers.
const BY_MESH: u16 = 9341;

/// Where the worker of the split by TCP listens.
const WORKER: u16 = 7200;

/// What the machines of the split by TCP share.
const SECRET: &str = "a secret for one bench, which nobody else could use";

/// The name by which the model is asked for is that of its file.
const MODEL: &str = "half-billion";

/// A process on a host, killed when this is dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended by itself is neither there to kill nor to wait for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where processes run, and what they are given.
struct Ground<'a> {
    lab: &'a NetLab,
    folder: TempDir,
}

impl Ground<'_> {
    /// Starts the binary on a host and a core of its own, as far as there are cores.
    fn start(&self, host: usize, name: &str, words: &[&str], alone: bool) -> anyhow::Result<Process> {
        let mut command = Command::new(BINARY);
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("MESH_LLM_") {
                command.env_remove(variable);
            }
        }
        command
            .args(words)
            .args(["--threads", "1"])
            .env("MESH_LLM_HOME", self.folder.path().join(name))
            .env("MESH_LLM_MODELS", self.folder.path().join("models"))
            .env("MESH_LLM_NO_CONSOLE", "1")
            .env("MESH_LLM_SPECULATE", "off")
            .env("MESH_LLM_NO_MESH", if alone { "1" } else { "0" })
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(self.folder.path().join(format!("{name}.log")))?);
        let child = self.lab.within(host, || {
            let allowed = sched_getaffinity(None)?;
            let cores: Vec<usize> = (0..CpuSet::MAX_CPU)
                .filter(|core| allowed.is_set(*core))
                .collect();
            let mut only = CpuSet::new();
            if let Some(core) = cores.get(host).or(cores.last()) {
                only.set(*core);
                sched_setaffinity(None, &only)?;
            }
            command.spawn()
        });
        Ok(Process(
            child.with_context(|| format!("{BINARY} cannot be started"))?,
        ))
    }

    fn log(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(format!("{name}.log"))).unwrap_or_default()
    }

    /// Waits until the first host's API at this port serves the model.
    fn until_ready(&self, port: u16, name: &str) -> anyhow::Result<()> {
        let ready = self.lab.within(0, || {
            until("the split is ready", || {
                let mut answer =
                    Answer::to_get(&local(port), "/health", Some(Duration::from_secs(5))).ok()?;
                let _ = answer.read_to_end().ok()?;
                (answer.status() == 200).then_some(())
            })
        });
        ready.with_context(|| self.log(name))
    }

    /// Milliseconds a token.
    fn token_ms(&self, port: u16, tokens: usize) -> anyhow::Result<f64> {
        let question = Question::of_body(&body(tokens));
        let answered = self.lab.within(0, || question.answer(&local(port)))?;
        Ok(1e3 / answered.rate())
    }
}

fn body(tokens: usize) -> Value {
    json!({
        "model": MODEL,
        "messages": [{"role": "user", "content": "the time which each word"}],
        "max_tokens": tokens,
        "temperature": 0,
        "stream": true,
        "stream_options": {"include_usage": true},
    })
}

fn local(port: u16) -> Endpoint {
    Endpoint::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

/// Measures the round trip that the case's name ends with.
///
/// # Errors
/// Where a split does not come about.
pub fn measure(arguments: &Arguments, report: &mut Report, name: &str) -> anyhow::Result<()> {
    let milliseconds = name
        .rsplit('-')
        .next()
        .context("the name has a number")?
        .parse()?;
    let lab = NetLab::start(2)?;
    lab.set_rtt(Duration::from_millis(milliseconds));
    let ground = Ground {
        lab: &lab,
        folder: tempfile::Builder::new().prefix("bench-mesh").tempdir()?,
    };
    let models = ground.folder.path().join("models");
    fs::create_dir(&models)?;
    let model = models.join(format!("{MODEL}.gguf"));
    fs::copy(BenchModel::HalfBillion.path()?, &model)?;
    let tcp = by_tcp(&ground, &model)?;
    let mesh = by_mesh(&ground, &model)?;
    let tokens = arguments.amount(48, 128);
    let rounds = in_turn([BY_TCP, BY_MESH], arguments.amount(3, 10), |port, _| {
        ground.token_ms(port, tokens)
    })?;
    drop((tcp, mesh));
    let of = |way: usize| -> Vec<f64> { rounds.iter().map(|round| round[way]).collect() };
    let each = |compare: fn(f64, f64) -> f64| -> Vec<f64> {
        rounds.iter().map(|[tcp, mesh]| compare(*mesh, *tcp)).collect()
    };
    let mut rows = report.case(name);
    rows.row("plain TCP", TOKEN, &of(0));
    rows.row("mesh", TOKEN, &of(1));
    rows.row("mesh / TCP", MORE, &each(|mesh, tcp| mesh - tcp));
    rows.row("mesh / TCP", RATIO, &each(|mesh, tcp| mesh / tcp));
    Ok(())
}

/// What both hosts are told.
fn host_words<'a>(model: &'a Path, port: &'a str) -> anyhow::Result<Vec<&'a str>> {
    let model = model.to_str().context("the folder has a strange name")?;
    Ok(vec![
        "--model",
        model,
        "--port",
        port,
        "--ctx-size",
        "4096",
        "--parallel",
        "1",
    ])
}

fn by_tcp(ground: &Ground<'_>, model: &Path) -> anyhow::Result<[Process; 2]> {
    let secret = ground.folder.path().join("secret");
    fs::write(&secret, SECRET)?;
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
    let secret = secret.to_str().context("the folder has a strange name")?;
    let address = SocketAddr::new(ground.lab.address(1), WORKER).to_string();
    let words = ["rpc-server", "--listen", &address, "--secret-file", secret];
    let worker = ground.start(1, "tcp-worker", &words, true)?;
    let port = BY_TCP.to_string();
    let mut words = host_words(model, &port)?;
    words.extend([
        "--rpc",
        &address,
        "--rpc-secret-file",
        secret,
        "--tensor-split",
        "12,12",
    ]);
    let host = ground.start(0, "tcp-host", &words, true)?;
    ground.until_ready(BY_TCP, "tcp-host")?;
    Ok([worker, host])
}

fn by_mesh(ground: &Ground<'_>, model: &Path) -> anyhow::Result<[Process; 2]> {
    let port = BY_MESH.to_string();
    let mut words = host_words(model, &port)?;
    words.extend(["--split", "--no-relay"]);
    let host = ground.start(0, "mesh-host", &words, false)?;
    let token = until("a token is shown", || {
        let log = ground.log("mesh-host");
        let words = log.split_once("Invite token: ")?.1;
        Some(words.split_whitespace().next()?.to_owned())
    })?;
    let worker = ground.start(1, "mesh-worker", &["--join", &token, "--no-relay"], false)?;
    ground.until_ready(BY_MESH, "mesh-host")?;
    Ok([worker, host])
}
