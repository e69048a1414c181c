//! The process: listen, load, serve, end.

use std::fs;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

use axum::serve::ListenerExt;
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};

use super::engine::Engine;
use super::http;
use super::load::{Loaded, Refused, load};
use super::options::{Listen, Options};
use super::parent::{die_with_it, report};
use crate::priority;
use crate::status::{LOST_EXIT_CODE, Ready, Refusal, Status};

/// Threads that serve HTTP. One: what takes long runs on blocking threads, and two woke each other for
/// tokens that one writes sooner (p99 3 ms against 0.6).
const HTTP_THREADS: usize = 1;

/// Runs llama-server until it is told to end. The caller has set up `tracing`.
///
/// What it tells its parent, and the exit codes, are in DESIGN.md.
pub fn run(options: Options) -> ExitCode {
    die_with_it();
    match serve(&options) {
        Ok(Ended::AsTold) => ExitCode::SUCCESS,
        Ok(Ended::Lost) => ExitCode::from(LOST_EXIT_CODE),
        Err(Refused { reason, message }) => {
            // The parent shows it to the user.
            tracing::debug!("{message}");
            report(&Status::Refused { reason, message });
            ExitCode::from(reason.exit_code())
        }
    }
}

fn cannot_listen(listen: &Listen, error: &io::Error) -> Refused {
    Refused {
        reason: Refusal::Listen,
        message: format!("llama-server cannot listen at {listen}: {error}"),
    }
}

/// How long answers may still take once a node of the split is lost: they are errors, and short.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// How serving ended.
enum Ended {
    /// The parent, or a signal, wanted it.
    AsTold,
    /// A node of the split is lost.
    Lost,
}

fn serve(options: &Options) -> Result<Ended, Refused> {
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(HTTP_THREADS)
        .on_thread_start(priority::carry_answers)
        .max_blocking_threads(16)
        .thread_name("http")
        .enable_all()
        .build()
        .map_err(|error| cannot_listen(&options.listen, &error))?;
    // The socket is opened first: that can fail at once, loading takes its time.
    let listener = runtime
        .block_on(Listener::open(&options.listen))
        .map_err(|error| cannot_listen(&options.listen, &error))?;
    let Loaded {
        engine,
        gpu_layers,
        model_bytes,
        context_bytes,
        node_layers,
    } = load(options)?;
    report(&Status::Ready(Ready {
        address: listener.address(),
        context: engine.context(),
        slots: engine.slots(),
        gpu_layers,
        model_bytes,
        context_bytes,
        node_layers,
    }));
    let served = runtime.block_on(listener.serve(engine.clone(), options.secret.clone()));
    let ended = if engine.lost().is_some() {
        Ended::Lost
    } else {
        runtime.block_on(engine.save());
        Ended::AsTold
    };
    if let Listen::Unix(path) = &options.listen {
        let _ = fs::remove_file(path);
    }
    runtime.shutdown_background();
    served.map_err(|error| cannot_listen(&options.listen, &error))?;
    Ok(ended)
}

enum Listener {
    Unix(UnixListener, String),
    Tcp(TcpListener, String),
}

impl Listener {
    async fn open(listen: &Listen) -> io::Result<Self> {
        match listen {
            Listen::Unix(path) => {
                // What a process that was killed left behind; a live one holds another directory.
                if path.exists() {
                    fs::remove_file(path)?;
                }
                Ok(Self::Unix(UnixListener::bind(path)?, listen.to_string()))
            }
            Listen::Tcp(address) => {
                let listener = TcpListener::bind(address).await?;
                let address = format!("tcp:{}", listener.local_addr()?);
                Ok(Self::Tcp(listener, address))
            }
        }
    }

    fn address(&self) -> String {
        match self {
            Self::Unix(_, address) | Self::Tcp(_, address) => address.clone(),
        }
    }

    async fn serve(self, engine: Engine, secret: Option<String>) -> io::Result<()> {
        let router = http::router(engine.clone(), secret);
        let end = end_of(engine);
        match self {
            Self::Unix(listener, _) => axum::serve(listener, router).with_graceful_shutdown(end).await,
            Self::Tcp(listener, _) => {
                let listener = listener.tap_io(|stream| {
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "a connection without TCP_NODELAY");
                    }
                });
                axum::serve(listener, router).with_graceful_shutdown(end).await
            }
        }
    }
}

/// Returns when the process should finish what runs and end.
async fn end_of(engine: Engine) {
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => signal.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = terminated => tracing::info!("told to end: finishing what runs"),
        () = engine.ended() => {
            if engine.lost().is_some() {
                // The parent knows. A connection that neither asks nor ends must not keep the split from being made again.
                tokio::spawn(async {
                    tokio::time::sleep(LAST_ANSWERS).await;
                    tracing::warn!("some connections do not end; they end now");
                    std::process::exit(LOST_EXIT_CODE.into());
                });
                return;
            }
            // The loop panicked and its message is in the log. Without it nothing can be answered.
            std::process::exit(1);
        }
    }
}
