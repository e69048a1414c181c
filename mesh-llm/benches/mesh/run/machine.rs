//! A machine of a mesh: the real binary on a host of a netlab.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::wait::until;
use crate::netlab::NetLab;
use crate::relay::Relay;
use crate::support::client::{Answered, Question};
use crate::support::clock::Moment;
use crate::support::daemon::BINARY;
use crate::support::http::{Answer, Endpoint};
use crate::support::models::BenchModel;

/// Where the API of each machine is.
pub const PORT: u16 = 9337;

/// A machine answers for itself within this, however busy the cores are.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);

/// What a machine does for the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Serves the model, by this name.
    Serves(&'static str),
    /// Only uses others.
    Client,
}

/// How a machine is started.
#[derive(Debug, Clone, Copy)]
pub struct Start<'a> {
    /// Its host.
    pub host: usize,
    /// What it does.
    pub part: Part,
    /// What it joins by; none: it founds a mesh.
    pub token: Option<&'a str>,
    /// Its relay, if it has one.
    pub relay: Option<&'a Relay>,
}

impl<'a> Start<'a> {
    /// Without a relay.
    pub fn new(host: usize, part: Part, token: Option<&'a str>) -> Self {
        Self {
            host,
            part,
            token,
            relay: None,
        }
    }
}

/// A machine on which mesh-llm runs. It is killed when this is dropped.
#[derive(Debug)]
pub struct Machine<'a> {
    lab: &'a NetLab,
    host: usize,
    process: Child,
    /// Its state directory, its model and its log.
    folder: TempDir,
    started: Moment,
}

impl<'a> Machine<'a> {
    /// Starts it, and does not wait for anything.
    ///
    /// # Errors
    /// Where the binary cannot be started.
    pub fn start(lab: &'a NetLab, start: Start<'_>) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("bench-mesh").tempdir()?;
        let mut command = Command::new(BINARY);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("MESH_LLM_") {
                command.env_remove(name);
            }
        }
        command
            .env("MESH_LLM_HOME", folder.path().join("home"))
            .env("MESH_LLM_NO_CONSOLE", "1")
            .args(["--port", &PORT.to_string()]);
        match start.part {
            Part::Serves(name) => {
                // A model is called what its file is called.
                let model = folder.path().join(format!("{name}.gguf"));
                fs::copy(BenchModel::Least.path()?, &model)?;
                command
                    .arg("--model")
                    .arg(&model)
                    .args(["--threads", "1", "--ctx-size", "16384", "--parallel", "2"])
                    // To compare with, others ask it without the mesh.
                    .args(["--host", "0.0.0.0"]);
            }
            Part::Client => {
                command.arg("--client");
            }
        }
        if let Some(token) = start.token {
            command.args(["--join", token]);
        }
        match start.relay {
            Some(relay) => command.args(["--relay", relay.url()]),
            None => command.arg("--no-relay"),
        };
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(folder.path().join("log"))?);
        let started = Moment::now();
        let process = lab
            .within(start.host, || command.spawn())
            .with_context(|| format!("{BINARY} cannot be started"))?;
        Ok(Self {
            lab,
            host: start.host,
            process,
            folder,
            started,
        })
    }

    /// Starts one that founds a mesh, and waits until it serves; with the token that it shows.
    ///
    /// # Errors
    /// Where it does not come that far.
    pub fn found(
        lab: &'a NetLab,
        host: usize,
        name: &'static str,
        relay: Option<&Relay>,
    ) -> anyhow::Result<(Self, String)> {
        let start = Start {
            relay,
            ..Start::new(host, Part::Serves(name), None)
        };
        let machine = Self::start(lab, start)?;
        machine.until_models(&[name])?;
        let token = until("a token is shown", || {
            Some(machine.status()?["mesh"]["invite"].as_str()?.to_owned())
        })?;
        Ok((machine, token))
    }

    /// When it was started.
    pub fn started(&self) -> Moment {
        self.started
    }

    /// The number of its process.
    pub fn process(&self) -> u32 {
        self.process.id()
    }

    /// What it knows, if it is there already.
    pub fn status(&self) -> Option<Value> {
        let folders = self.folder.path().join("home/run").read_dir().ok()?;
        let socket = folders
            .flatten()
            .map(|folder| folder.path().join("manage.sock"))
            .find(|path| path.exists())?;
        get(&Endpoint::Unix(socket), "/api/status")
    }

    /// How many other nodes it knows; none as long as it says nothing.
    pub fn others(&self) -> usize {
        let status = self.status();
        let nodes = status.as_ref().and_then(|status| status["nodes"].as_array());
        nodes.map_or(0, Vec::len)
    }

    /// Waits until so many other nodes are known; when that was.
    ///
    /// # Errors
    /// Where that takes too long.
    pub fn until_others(&self, count: usize) -> anyhow::Result<Moment> {
        until(&format!("{count} others are known"), || {
            (self.others() == count).then(Moment::now)
        })
    }

    /// Waits until all of these models can be asked for at its API; when that was.
    ///
    /// # Errors
    /// Where that takes too long.
    pub fn until_models(&self, names: &[&str]) -> anyhow::Result<Moment> {
        // Each look would be a thread of its own otherwise.
        self.lab.within(self.host, || {
            until(&format!("{names:?} can be asked for"), || {
                let models = get(&local(), "/v1/models")?;
                let models = models["data"].as_array()?;
                let is_there = |name: &&str| models.iter().any(|model| model["id"] == *name);
                names.iter().all(is_there).then(Moment::now)
            })
        })
    }

    /// Asks a model through its API.
    ///
    /// # Errors
    /// Where no whole answer comes.
    pub fn ask(&self, model: &str, tokens: usize) -> anyhow::Result<Answered> {
        self.ask_at(&local(), model, tokens)
    }

    /// Asks a model from here at the API of another machine, without the mesh.
    ///
    /// # Errors
    /// Where no whole answer comes.
    pub fn ask_directly(&self, other: &Machine<'_>, model: &str, tokens: usize) -> anyhow::Result<Answered> {
        let address = SocketAddr::new(self.lab.address(other.host), PORT);
        self.ask_at(&Endpoint::Tcp(address), model, tokens)
    }

    fn ask_at(&self, endpoint: &Endpoint, model: &str, tokens: usize) -> anyhow::Result<Answered> {
        let question = Question::of_body(&json!({
            "model": model,
            "messages": [{"role": "user", "content": "the time which each word"}],
            "max_tokens": tokens,
            "temperature": 0,
            "stream": true,
            "stream_options": {"include_usage": true},
        }));
        self.lab.within(self.host, || question.answer(endpoint))
    }

    /// Ends it as a failure of power does; when that was.
    ///
    /// # Errors
    /// Where it ended before.
    pub fn kill(mut self) -> anyhow::Result<Moment> {
        let killed = Moment::now();
        self.process.kill()?;
        Ok(killed)
    }
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        // One that was killed is neither there to kill nor to wait for.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The API of a host as it sees it itself.
fn local() -> Endpoint {
    Endpoint::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)))
}

/// A JSON answer, if there is one.
fn get(endpoint: &Endpoint, path: &str) -> Option<Value> {
    let mut answer = Answer::to_get(endpoint, path, Some(ANSWERS_WITHIN)).ok()?;
    let body = answer.read_to_end().ok()?;
    (answer.status() == 200)
        .then(|| serde_json::from_slice(&body).ok())
        .flatten()
}
