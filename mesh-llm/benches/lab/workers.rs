//! Workers of a split.

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

use super::nodes::Nodes;
use crate::support::daemon::{BINARY, Variable};

/// Where a worker listens on its node.
const PORT: u16 = 7200;

/// How long a worker may take to listen.
const STARTS_WITHIN: Duration = Duration::from_secs(30);

/// Between two looks at whether it listens.
const LOOKS_EVERY: Duration = Duration::from_millis(20);

/// What host and workers share.
const SECRET: &str = "a secret for one bench, which nobody else could use";

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
    /// Starts them, with this model's folder to read and these variables, and waits until they listen.
    ///
    /// # Errors
    /// With its last words, where one does not.
    pub fn start(nodes: &Nodes, model: &Path, variables: &[Variable]) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("bench-workers").tempdir()?;
        let mut workers = Self {
            processes: Vec::new(),
            addresses: Vec::new(),
            folder,
        };
        fs::write(workers.secret(), SECRET)?;
        fs::set_permissions(workers.secret(), fs::Permissions::from_mode(0o600))?;
        for node in nodes.workers() {
            workers.add(nodes, node, model, variables)?;
        }
        Ok(workers)
    }

    /// What a daemon is told to split its model over them, with so many layers for each node in order; the
    /// head is the host's.
    pub fn arguments(&self, layers: &[u32]) -> Vec<OsString> {
        let layers: Vec<String> = layers.iter().map(u32::to_string).collect();
        vec![
            "--rpc".into(),
            self.addresses.join(",").into(),
            "--rpc-secret-file".into(),
            self.secret().into(),
            "--tensor-split".into(),
            layers.join(",").into(),
        ]
    }

    fn secret(&self) -> PathBuf {
        self.folder.path().join("secret")
    }

    fn add(
        &mut self,
        nodes: &Nodes,
        node: usize,
        model: &Path,
        variables: &[Variable],
    ) -> anyhow::Result<()> {
        let address = nodes.address(node, PORT);
        let log = self.folder.path().join(format!("worker-{node}.log"));
        let mut command = Command::new(BINARY);
        command
            .args(["rpc-server", "--listen", &address.to_string(), "--secret-file"])
            .arg(self.secret())
            .arg("--model-dir")
            .arg(model.parent().context("the model is in no folder")?)
            .args(["--threads", "1"])
            .envs(variables.iter().map(|(name, value)| (name, value)))
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
