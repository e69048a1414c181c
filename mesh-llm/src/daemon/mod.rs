//! Puts the parts together: settings, state directory, model, port, engine; and takes them apart
//! in order.

mod api;
pub mod commands;
mod console;
mod download;
mod draft;
mod limits;
mod options;
mod progress;
mod report;
#[cfg(feature = "engine")]
pub mod rpc_server;
mod secret;
pub mod settings;
mod signals;
mod split;
mod start;
mod state;

pub use state::StateError;

use crate::api::{BindError, Keys, Own, Remotes, Server};
use crate::engine::{Engine, Failure, Launch, Program, ProgramError, State};
use crate::exit::Exit;
use crate::models::{self, Library, fetch};
use api::Api;
use draft::Wanted;
use options::options;
use report::{EngineReport, Offer, Reporter};
use settings::{Layer, Settings};
use signals::Signals;
use split::{Split, SplitError};
use start::Ending;
use state::Home;
use std::io;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

/// How long exchanges that run may take to finish after the daemon was told to end.
const DRAIN_WITHIN: Duration = Duration::from_secs(30);

/// How long clients may take to hear of an engine that failed.
const TELL_WITHIN: Duration = Duration::from_secs(1);

/// An engine that ends within this time is not worth a word.
const END_QUIETLY: Duration = Duration::from_millis(500);

/// Forwarding takes little: two threads, of which one is free when the other is not.
const WORKER_THREADS: usize = 2;

/// Runs the daemon until it is told to end, or cannot go on.
///
/// `flags` are what the command line says, `config` the configuration file that it names.
pub fn run(flags: Layer, config: Option<PathBuf>) -> Exit {
    start::run(flags, config, |settings, reporter| {
        serve(settings, reporter).map(|()| Exit::DONE)
    })
}

/// Why the daemon ended without having been asked to.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Settings(#[from] settings::Error),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Model(#[from] models::Error),
    #[error(transparent)]
    Fetch(#[from] fetch::Error),
    #[error(transparent)]
    Split(#[from] SplitError),
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("the keys in {} cannot be used: {cause}; give --api-key-file a file with a key a line", path.display())]
    Keys { path: PathBuf, cause: io::Error },
    #[error("the API key is empty: give --api-key one, or leave it out to let everybody in")]
    EmptyKey,
    #[error("{}", .0.message)]
    Engine(Failure),
    #[error("{doing} failed: {cause}")]
    Unexpected { doing: &'static str, cause: io::Error },
}

impl Ending for Error {
    fn exit(&self) -> Exit {
        match self {
            Error::Settings(error) => error.exit(),
            Error::State(_) => Exit::STATE,
            Error::Keys { .. } => Exit::FILE,
            Error::EmptyKey => Exit::CONFIGURATION,
            Error::Model(error) => error.exit(),
            Error::Fetch(error) => error.exit(),
            Error::Split(error) => error.exit(),
            Error::Program(ProgramError::NotThere { .. }) => Exit::FILE,
            Error::Program(_) => Exit::CONFIGURATION,
            Error::Bind(error) => error.exit(),
            Error::Engine(failure) => failure.exit,
            Error::Unexpected { .. } => Exit::UNEXPECTED,
        }
    }
}

fn unexpected(doing: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |cause| Error::Unexpected { doing, cause }
}

fn serve(settings: &Settings, reporter: &Reporter) -> Result<(), Error> {
    let max_connections = limits::connections();
    let program = Program::find(settings.bin_dir.as_deref())?;
    let home = Home::open(&settings.home)?;
    let library = Library::open(settings.places.clone(), settings.home.clone(), home.models())?;
    let model = settings.model.as_deref();
    let memory = available_memory().min(settings.engine.max_memory.unwrap_or(u64::MAX));
    let wanted = Wanted::find(&library, model, &settings.speculation, memory)?;
    let keys = keys(settings)?;
    let split = Split::prepare(&settings.split, &home)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKER_THREADS)
        .on_thread_start(llama_engine::priority::carry_answers)
        .enable_all()
        .build()
        .map_err(unexpected("starting threads"))?;
    runtime.block_on(async {
        let server = Server::bind(&settings.host, settings.port).await?;
        let address = server.address();
        if !address.ip().is_loopback() && keys.is_empty() {
            reporter.note(&format!(
                "warning: every machine that reaches {address} can use the model; --api-key lets in only those that show a key"
            ));
        }
        let mut signals = Signals::listen().map_err(unexpected("listening for signals"))?;
        // Dropped last: the socket in it is in use until the engine has ended.
        let folder = home.run_folder()?;
        let (state, states) = watch::channel(State::Starting);
        // There are no other nodes yet.
        let (_, remotes) = watch::channel(Remotes::default());
        let api = Api::start(server, Own::Engine(states), remotes, keys, max_connections);
        let had = tokio::select! {
            had = wanted.have(&library, &state, reporter) => had,
            () = signals.next() => {
                state.send_replace(State::Stopping);
                api.finish(sleep(TELL_WITHIN), || {}).await;
                return Ok(());
            }
        };
        let (model, draft) = match had {
            Ok(had) => had,
            Err(error) => {
                state.send_replace(State::Failed(Failure {
                    message: error.to_string(),
                    last_lines: Vec::new(),
                    exit: error.exit(),
                }));
                api.finish(sleep(TELL_WITHIN), || {}).await;
                return Err(error.into());
            }
        };
        let offer = Offer {
            model: model.id.clone(),
            address,
            workers: split.workers.clone(),
        };
        let path = model.path.clone();
        let options = options(settings, model, draft, split, &folder).map_err(unexpected("choosing a secret"))?;
        let log = reporter.clone();
        let engine = Engine::start(Launch { program, options }, state, move |line| {
            log.engine_log(line)
        });
        let parts = Parts {
            signals,
            engine,
            api,
            saves_slots: settings.engine.slot_save.is_some(),
        };
        // What does not run is not what the next start should take up again.
        let remember = || library.memory().used(&path);
        parts.run(reporter, reporter.engine(offer), remember).await
    })
}

/// The keys of the API.
fn keys(settings: &Settings) -> Result<Keys, Error> {
    let of_file = match &settings.api_key_file {
        None => String::new(),
        Some(path) => std::fs::read_to_string(path).map_err(|cause| Error::Keys {
            path: path.clone(),
            cause,
        })?,
    };
    // A variable that was not set must not open the API to everybody.
    if settings
        .api_key
        .as_ref()
        .is_some_and(|key| key.0.trim().is_empty())
    {
        return Err(Error::EmptyKey);
    }
    let own = settings.api_key.iter().map(|key| key.0.trim().to_owned());
    let keys = Keys::new(own.chain(Keys::of_file(&of_file)));
    match &settings.api_key_file {
        // An empty file must not open the API to everybody.
        Some(path) if keys.is_empty() => Err(Error::Keys {
            path: path.clone(),
            cause: io::Error::other("it has no key"),
        }),
        _ => Ok(keys),
    }
}

/// Memory that no program uses, in bytes; where the system does not say, no model is too large.
fn available_memory() -> u64 {
    sysinfo::System::new().map_or(u64::MAX, |mut system| {
        system.refresh_memory();
        system.available_memory()
    })
}

/// Everything that runs.
struct Parts {
    signals: Signals,
    engine: Engine,
    api: Api,
    /// Whether the engine writes its slots' caches to disk when it ends.
    saves_slots: bool,
}

impl Parts {
    /// Runs until a signal, or until the engine has failed; then stops everything.
    /// `ready` is called each time that the engine becomes ready.
    async fn run(
        mut self,
        reporter: &Reporter,
        mut report: EngineReport,
        ready: impl Fn(),
    ) -> Result<(), Error> {
        let mut state = self.engine.state();
        let end = loop {
            let now = state.borrow_and_update().clone();
            report.state(&now);
            if let State::Ready(_) = now {
                ready();
            }
            if let State::Failed(failure) = now {
                break Err(Error::Engine(failure));
            }
            tokio::select! {
                changed = state.changed() => if changed.is_err() {
                    break Err(unexpected("supervising the engine")(io::Error::other("its task is gone")));
                },
                () = self.signals.next() => break Ok(()),
            }
        };
        let mut hurry = false;
        match &end {
            Err(_) => self.api.finish(sleep(TELL_WITHIN), || {}).await,
            Ok(()) => {
                let limit = async {
                    tokio::select! {
                        () = sleep(DRAIN_WITHIN) => {}
                        () = self.signals.next() => hurry = true,
                    }
                };
                let seconds = DRAIN_WITHIN.as_secs();
                let note = format!(
                    "ending once the running requests are answered, at most {seconds} s; a second Ctrl-C ends at once"
                );
                self.api.finish(limit, || reporter.note(&note)).await;
            }
        }
        let impatience = async {
            if !hurry && timeout(END_QUIETLY, self.signals.next()).await.is_err() {
                if self.saves_slots {
                    reporter.note("saving the slots' caches; a second Ctrl-C ends at once, without them");
                }
                self.signals.next().await;
            }
        };
        if self.engine.stop(impatience).await && self.saves_slots {
            reporter.note(
                "ended at once: caches of slots that were not saved yet are lost, the prompts of their chats will be computed again",
            );
        }
        end
    }
}
