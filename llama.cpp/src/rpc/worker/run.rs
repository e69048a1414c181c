//! The process `rpc-server`: this machine's devices for hosts elsewhere.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use super::{Most, Worker, WorkerParams, open_devices};
use crate::llama::{self, DeviceKind};
use crate::rpc::dial::Dialler;
use crate::rpc::files::{Library, Memory};
use crate::rpc::sandbox::Sandbox;
use crate::server::{default_threads, parent};

/// Everything that an rpc-server is told when it starts.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// Where to listen; port 0 takes any free one.
    pub listen: SocketAddr,
    /// What hosts must know, and how other workers are reached.
    pub dialler: Dialler,
    /// Names of the devices to offer; none: every GPU, else the CPU.
    pub devices: Vec<String>,
    /// Most bytes that all sessions take together.
    pub most: Most,
    /// Where models are.
    pub model_dirs: Vec<PathBuf>,
    /// Threads that compute on the CPU; none: one for each core.
    pub threads: Option<u32>,
    /// Where fingerprints of models are remembered.
    pub memory_file: PathBuf,
    /// How much longer its layers take for a step than they would: what a small model needs in order to stand
    /// for a large one in benches.
    pub step_delay: Duration,
}

/// Why an rpc-server does not run.
#[derive(Debug, Error)]
pub enum ServeError {
    /// Its devices.
    #[error(transparent)]
    Devices(#[from] llama::Error),
    /// Its folders.
    #[error(transparent)]
    Folders(#[from] crate::rpc::files::Error),
    /// Its address.
    #[error("cannot listen at {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
}

/// Offers this machine's devices until the process ends. Once hosts can come it writes one line to
/// standard output: `listening at ADDRESS:PORT`.
///
/// # Errors
/// [`ServeError`], before it listens.
pub fn serve(options: &ServeOptions) -> Result<(), ServeError> {
    let threads = options.threads.unwrap_or_else(default_threads);
    let library = Library::new(&options.model_dirs, Memory::open(&options.memory_file))?;
    let listen = |source| ServeError::Listen {
        address: options.listen,
        source,
    };
    let listener = TcpListener::bind(options.listen).map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;
    give_up(options, &library);
    let devices = open_devices(&options.devices, threads, options.most, options.step_delay)?;
    for device in &devices {
        let offer = device.offer();
        tracing::info!(
            device = offer.name,
            memory_gb = offer.total as f64 / 1e9,
            bandwidth_gb_s = offer.bandwidth as f64 / 1e9,
            "offered to hosts that know the secret"
        );
    }
    let params = WorkerParams {
        devices,
        library,
        dialler: options.dialler.clone(),
    };
    if options.dialler.door.is_some() {
        // Started by a daemon, which may be killed.
        parent::die_with_it();
    }
    let worker = Worker::new(listener, params);
    // Who reads it may be gone; hosts are not.
    let _ = writeln!(io::stdout(), "listening at {address}");
    tracing::info!(%address, "listening");
    worker.serve();
    Ok(())
}

/// Gives up what a worker does not need, before it starts a thread. ggml has to know its devices by then.
fn give_up(options: &ServeOptions, library: &Library) {
    llama::initialize();
    let gpus = llama::devices()
        .iter()
        .any(|device| device.kind == DeviceKind::Gpu);
    let mut sandbox = Sandbox::new();
    for folder in library.folders() {
        sandbox = sandbox.read(folder);
    }
    if let Some(folder) = options.memory_file.parent() {
        sandbox = sandbox.write(folder);
    }
    if gpus {
        sandbox = sandbox.gpus();
    }
    let report = sandbox.enforce();
    tracing::info!(%report, "this process has given up what it does not need");
}
