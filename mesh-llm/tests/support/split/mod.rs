//! Workers and a host: the real binary as `rpc-server` several times and as a daemon over them, on this
//! machine's loopback or on hosts of a netlab.
//!
//! It stands on the black-box tests' harness, and a test program that has this module has those two, too.
//! Not every user uses all of it.

#![allow(dead_code)]

use std::ffi::{OsStr, OsString};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::ops::Deref;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rand::RngExt;
use tempfile::TempDir;

use crate::harness::{DEADLINE, Daemon, Known, Process, Start, eventually};
use crate::netlab::{Door, NetLab};

/// Where workers listen, each at an address of its own.
const PORT: u16 = 7200;

/// The host's place in a netlab. Worker 0 has the next.
const HOST: usize = 0;

/// What host and workers share where a test says nothing else.
pub const SECRET: &str = "what host and workers of one test share";

/// Workers, and what a host needs to know of them. All of it ends when this is dropped.
#[derive(Debug)]
pub struct SplitLab {
    workers: Vec<Worker>,
    /// Without one, everything is on this machine's loopback.
    network: Option<NetLab>,
    folder: TempDir,
}

#[derive(Debug)]
struct Worker {
    address: SocketAddr,
    /// As it was started last, if it was.
    start: Start,
    process: Option<Process>,
}

/// A daemon over workers.
#[derive(Debug)]
pub struct SplitHost {
    daemon: Daemon,
    /// The way to it, where it is in a netlab.
    _door: Option<Door>,
}

impl Deref for SplitHost {
    type Target = Daemon;

    fn deref(&self) -> &Daemon {
        &self.daemon
    }
}

impl SplitLab {
    /// So many workers on loopback, which read models in `models`.
    pub fn on_loopback(workers: usize, models: &Path) -> Self {
        Self::new(workers, models, None)
    }

    /// So many workers on hosts of a netlab of their own; the model's host is one more. None, and a line
    /// that says so, where this machine permits no netlab.
    pub fn on_netlab(test: &str, workers: usize, models: &Path) -> Option<Self> {
        let network = NetLab::available(test).then(|| NetLab::start(workers + 1).unwrap())?;
        Some(Self::new(workers, models, Some(network)))
    }

    fn new(workers: usize, models: &Path, network: Option<NetLab>) -> Self {
        let folder = TempDir::with_prefix("mesh-llm-split-").unwrap();
        let secret = folder.path().join("secret");
        fs::write(&secret, SECRET).unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        let workers = (0..workers).map(|worker| {
            let ip = network
                .as_ref()
                .map_or_else(own_loopback, |network| network.address(place(worker)));
            let address = SocketAddr::new(ip, PORT);
            let start = Start::bare()
                .word("rpc-server")
                .flag("--listen", address.to_string())
                .flag("--secret-file", &secret)
                .flag("--model-dir", models)
                .flag("--threads", "1");
            Worker {
                address,
                start,
                process: None,
            }
        });
        let mut lab = Self {
            workers: workers.collect(),
            network,
            folder,
        };
        for worker in 0..lab.workers.len() {
            lab.start_worker(worker, &[]);
        }
        lab
    }

    /// The netlab that all of it is in; hosts and workers have the places [`place`] says.
    pub fn network(&self) -> &NetLab {
        self.network.as_ref().expect("this lab is on loopback")
    }

    /// The file with the secret.
    pub fn secret(&self) -> PathBuf {
        self.folder.path().join("secret")
    }

    /// Where a worker is reached by host and workers.
    pub fn address(&self, worker: usize) -> SocketAddr {
        self.workers[worker].address
    }

    /// A worker that was started.
    pub fn worker(&self, worker: usize) -> &Process {
        self.workers[worker].process.as_ref().expect("it was stopped")
    }

    /// Kills a worker, unless it is dead.
    pub fn kill_worker(&mut self, worker: usize) {
        self.workers[worker].process = None;
    }

    /// Starts a worker, in place of one that may still run, at the same address; with these flags in place
    /// of those that it had. Waits until it listens.
    pub fn start_worker(&mut self, worker: usize, flags: &[(&str, &OsStr)]) {
        self.kill_worker(worker);
        let its = &mut self.workers[worker];
        for (name, value) in flags {
            its.start = its.start.clone().flag(name, value);
        }
        let start = its.start.clone();
        let address = its.address;
        let process = self.on(place(worker), || start.process());
        let known = Known::new(process.id()).unwrap();
        self.on(place(worker), || {
            eventually("a worker listens", DEADLINE, || {
                assert!(known.runs(), "worker {worker} ended");
                TcpStream::connect(address).ok()
            });
        });
        self.workers[worker].process = Some(process);
    }

    /// A start of a daemon over all workers, to which a test adds what it wants, `--tensor-split` say.
    pub fn host(&self, model: impl AsRef<OsStr>) -> Start {
        let addresses: Vec<String> = self
            .workers
            .iter()
            .map(|worker| worker.address.to_string())
            .collect();
        Start::model(model)
            .flag("--rpc", OsString::from(addresses.join(",")))
            .flag("--rpc-secret-file", self.secret())
    }

    /// Starts it, whatever becomes of it.
    pub fn process(&self, start: &Start) -> Process {
        self.on(HOST, || start.process())
    }

    /// Starts it and waits until it answers requests.
    pub fn ready(&self, start: &Start) -> SplitHost {
        let mut way = None;
        let daemon = start.daemon(self.process(start), |port| match &self.network {
            None => SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            Some(network) => {
                let door = network.door(HOST, port).unwrap();
                let address = door.address();
                way = Some(door);
                address
            }
        });
        SplitHost { daemon, _door: way }
    }

    fn on<T: Send>(&self, place: usize, run: impl FnOnce() -> T + Send) -> T {
        match &self.network {
            None => run(),
            Some(network) => network.within(place, run),
        }
    }
}

/// A worker's place in a netlab: what to cut.
pub fn place(worker: usize) -> usize {
    HOST + 1 + worker
}

/// An address of this machine's loopback that nothing else listens at: all of 127.0.0.0/8 is there, and so a
/// worker comes back at the port that it had without anybody having taken it meanwhile.
fn own_loopback() -> IpAddr {
    let random: [u8; 3] = rand::rng().random();
    // Programs that take one by hand take one of the first.
    let [a, b, c] = [random[0] | 0x40, random[1], random[2].clamp(1, 254)];
    Ipv4Addr::new(127, a, b, c).into()
}
