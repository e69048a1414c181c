//! The daemon, started as a user would start it.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use tempfile::TempDir;

use super::proc::Known;
use super::{Client, Namespace, Process, eventually, wait::DEADLINE};

/// The program.
pub const BINARY: &str = env!("CARGO_BIN_EXE_mesh-llm");

/// A start of the daemon: its flags, its environment, its files.
#[derive(Debug, Clone)]
pub struct Start {
    arguments: Vec<OsString>,
    variables: Vec<(String, OsString)>,
    folder: Arc<TempDir>,
    home: PathBuf,
    namespace: Option<Namespace>,
}

/// A daemon that ended by itself.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code.
    pub code: Option<i32>,
    /// The lines of its standard error.
    pub err: Vec<String>,
    /// The lines of its standard output.
    pub out: Vec<String>,
}

impl Start {
    /// With nothing said: for a user who has no files at all.
    pub fn bare() -> Self {
        let folder = TempDir::with_prefix("mesh-llm-").unwrap();
        let home = folder.path().join("home");
        Self {
            arguments: Vec::new(),
            variables: Vec::new(),
            folder: Arc::new(folder),
            home,
            namespace: None,
        }
    }

    /// A model on one thread, at a free port.
    pub fn model(model: impl AsRef<OsStr>) -> Self {
        Self::bare()
            .flag("--model", model)
            .flag("--port", "0")
            .flag("--threads", "1")
    }

    /// Adds a flag with its value, in place of one that is there.
    pub fn flag(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        if let Some(at) = self.arguments.iter().position(|word| word == name) {
            self.arguments.drain(at..at + 2);
        }
        self.word(name).word(value)
    }

    /// Adds a word to the arguments.
    pub fn word(mut self, word: impl AsRef<OsStr>) -> Self {
        self.arguments.push(word.as_ref().to_owned());
        self
    }

    /// Sets a variable of the environment.
    pub fn variable(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.variables.push((name.to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Uses another state directory.
    pub fn home(mut self, home: impl Into<PathBuf>) -> Self {
        self.home = home.into();
        self
    }

    /// Starts it in a namespace.
    pub fn within(mut self, namespace: Namespace) -> Self {
        self.namespace = Some(namespace);
        self
    }

    /// The state directory.
    pub fn home_path(&self) -> &Path {
        &self.home
    }

    /// A folder for the test's own files, beside the state directory.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file into the state directory before the start.
    pub fn file_at_home(self, name: &str, text: &str) -> Self {
        fs::create_dir_all(&self.home).unwrap();
        fs::write(self.home.join(name), text).unwrap();
        self
    }

    /// A folder for `--bin-dir` whose `llama-server` is this shell script.
    pub fn engine_script(self, script: &str) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let folder = self.folder.path().join("bin");
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("llama-server");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        self.flag("--bin-dir", folder)
    }

    /// The command, with nothing of the tester's own environment that the program looks at.
    pub fn command(&self) -> Command {
        let mut command = match &self.namespace {
            Some(namespace) => namespace.command(Path::new(BINARY)),
            None => Command::new(BINARY),
        };
        for (name, _) in std::env::vars_os() {
            if ["MESH_LLM_", "XDG_", "LLAMA_", "GGML_", "HF_", "OLLAMA_"]
                .iter()
                .any(|own| name.to_string_lossy().starts_with(own))
            {
                command.env_remove(name);
            }
        }
        let user = self.folder.path().join("user");
        fs::create_dir_all(&user).unwrap();
        command.env("HOME", user).env("MESH_LLM_HOME", &self.home);
        // What is not about the mesh is tested without one; nobody outside this machine is ever called.
        command
            .env("MESH_LLM_NO_MESH", "1")
            .env("MESH_LLM_NO_CONSOLE", "1")
            .env("MESH_LLM_NO_RELAY", "1");
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.args(&self.arguments).stdin(Stdio::null());
        command
    }

    /// Starts it, whatever becomes of it.
    pub fn process(&self) -> Process {
        Process::start(&mut self.command())
    }

    /// Starts it and waits until it answers requests.
    pub fn ready(&self) -> Daemon {
        self.daemon(self.process(), |port| {
            SocketAddr::from((Ipv4Addr::LOCALHOST, port))
        })
    }

    /// Waits until a process that was started like this answers requests. `reach` says where its port on
    /// its own localhost is reached from here.
    pub fn daemon(&self, process: Process, reach: impl FnOnce(u16) -> SocketAddr) -> Daemon {
        let port = process.err.wait_for("URL", DEADLINE, |lines| {
            let line = lines.iter().find(|line| line.contains(" answers at http://"))?;
            let (_, port) = line.trim_end_matches("/v1").rsplit_once(':')?;
            Some(port.parse().unwrap())
        });
        Daemon {
            client: Client::new(&format!("http://{}", reach(port))),
            process,
            start: self.clone(),
        }
    }

    /// Starts it and waits until it ended by itself.
    pub fn ended(&self) -> Ended {
        let mut process = self.process();
        let code = process.end(DEADLINE).code();
        Ended {
            code,
            err: process.err.all(DEADLINE),
            out: process.out.all(DEADLINE),
        }
    }
}

/// A daemon that answers requests. It is killed when the test drops it.
#[derive(Debug)]
pub struct Daemon {
    /// Talks to it.
    pub client: Client,
    /// It.
    pub process: Process,
    start: Start,
}

impl std::ops::Deref for Daemon {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Daemon {
    /// Its llama-server, of which there must be exactly one.
    pub fn engine(&self) -> Known {
        let children = self.process.children();
        assert_eq!(children.len(), 1, "{children:?}");
        children[0]
    }

    /// Its state directory.
    pub fn home(&self) -> &Path {
        self.start.home_path()
    }

    /// How it was started.
    pub fn start(&self) -> &Start {
        &self.start
    }

    /// The folders of daemons in its state directory.
    pub fn run_folders(&self) -> Vec<PathBuf> {
        run_folders(self.home())
    }

    /// Waits until no request runs or waits.
    pub fn until_idle(&self) {
        eventually("all slots are free", DEADLINE, || {
            (self.metric("slots_busy") == 0.0 && self.metric("requests_waiting") == 0.0).then_some(())
        });
    }
}

/// The folders of daemons in a state directory.
pub fn run_folders(home: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(home.join("run")).unwrap();
    entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect()
}
