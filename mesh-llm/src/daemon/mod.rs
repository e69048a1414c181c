//! Puts the parts together: settings, state directory, model, port, engine; and takes them apart
//! in order.

mod api;
mod beside;
pub mod commands;
mod console;
mod download;
mod draft;
mod limits;
mod mesh;
mod options;
mod progress;
mod report;
mod room;
#[cfg(feature = "engine")]
pub mod rpc_server;
mod run;
mod secret;
mod serving;
pub mod settings;
mod signals;
mod split;
mod start;
mod state;

pub use state::StateError;

use crate::api::{BindError, Keys, Own, Remotes, Server};
use crate::engine::{Failure, Program, ProgramError, State};
use crate::exit::Exit;
use crate::models::{self, Library, fetch};
use api::Api;
use draft::Wanted;
use mesh::{Ends, Party, PartyError};
use report::Reporter;
use run::{ModelOrders, Orders, Run, TELL_WITHIN};
use serving::ByModel;
use settings::{Layer, Settings};
use signals::Signals;
use split::{Split, SplitError};
use start::Ending;
use state::Home;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

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
    Party(#[from] PartyError),
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
            Error::Party(error) => error.exit(),
            Error::Program(error) => error.exit(),
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
    let home = Home::open(&settings.home)?;
    let keys = keys(settings)?;
    let own = match settings.mesh.part {
        settings::Part::Use => None,
        settings::Part::Serve => Some(OwnModel::find(settings, &home)?),
    };
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
        let signals = Signals::listen().map_err(unexpected("listening for signals"))?;
        // Dropped last: the socket in it is in use until the engine has ended.
        let folder = home.run_folder()?;
        let (state, states) = watch::channel(State::Starting);
        let (remotes, others) = watch::channel(Remotes::default());
        let (beside, besides) = watch::channel(ByModel::new());
        let serves = match &own {
            Some(_) => Own::Engine(states.clone()),
            None => Own::None,
        };
        // Before the mesh: this machine's API does not wait for others.
        let api = Api::start(server, serves, others, keys, max_connections);
        let (stop, stopped) = mpsc::channel(1);
        let (models, model_orders) = mpsc::channel(1);
        let ends = Ends {
            engine: states,
            others: besides,
            models,
            remotes,
            stop,
        };
        let party = match Party::start(settings, &home, folder.path(), own.as_ref(), ends, reporter).await {
            Ok(party) => party,
            Err(error) => {
                api.finish(sleep(TELL_WITHIN), || {}).await;
                return Err(error.into());
            }
        };
        let orders = (Orders { signals, stopped }, ModelOrders(model_orders));
        let run = Run {
            settings,
            reporter,
            address,
            folder: &folder,
            home: &home,
            state,
            beside,
        };
        match own {
            Some(own) => run.serving(own, api, party, orders).await,
            None => run.using(api, party, orders).await,
        }
    })
}

/// What this machine is to serve.
struct OwnModel {
    program: Program,
    library: Arc<Library>,
    wanted: Wanted,
    split: Split,
    /// Words for the models beside the first.
    others: Vec<String>,
}

impl OwnModel {
    fn find(settings: &Settings, home: &Home) -> Result<OwnModel, Error> {
        let program = Program::find(settings.bin_dir.as_deref())?;
        let library = Library::open(settings.places.clone(), settings.home.clone(), home.models())?;
        // What somebody named is not chosen by its size.
        let memory = match settings.models.is_empty() {
            true => room::free(&settings.engine, Some(&program)),
            false => u64::MAX,
        };
        let (first, others) = match settings.models.split_first() {
            Some((first, others)) => (Some(first.as_str()), others.to_vec()),
            None => (None, Vec::new()),
        };
        let wanted = Wanted::find(&library, first, &settings.speculation, memory)?;
        // What nobody knows is told before anything is loaded.
        for words in &others {
            library.resolve(Some(words), memory)?;
        }
        Ok(OwnModel {
            program,
            library: Arc::new(library),
            wanted,
            split: Split::prepare(&settings.split, home)?,
            others,
        })
    }
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
