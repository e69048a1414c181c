//! Commands, which end when they are done: on what computes, on models (what there is, what can be fetched, fetching it,
//! checking it, removing it), and in [`mesh`] those to a daemon that runs. Tables and answers go to standard output, all else to standard error.

mod ask;
mod check;
mod devices;
mod download;
mod list;
pub mod mesh;
mod out;
mod remove;

use super::report::Reporter;
use super::room;
use super::settings::{self, Layer, Settings};
use super::start::{self, Ending};
use super::state::{Home, StateError};
use crate::engine::{Program, ProgramError};
use crate::exit::Exit;
use crate::models::choice::recommend;
use crate::models::{self, Library, fetch};
use ask::AskError;
use llama_engine::server::options::LogFormat;
use out::{Out, OutputError, size};
use std::io;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Lists what this machine computes with.
    Devices,
    /// Lists what can be fetched.
    Catalog,
    /// Fetches a model, and the small one that guesses its words ahead, where that is wanted.
    Download {
        /// Words for the model.
        words: String,
        /// Whether the draft is wanted, too.
        draft: bool,
    },
    /// Fetches a model that suits this machine.
    Recommended {
        /// Whether the draft is wanted, too.
        draft: bool,
    },
    /// Lists what is on disk.
    List,
    /// Removes a model from the store.
    Remove {
        /// Words for the model.
        words: String,
        /// Whether it is asked for before.
        asks: bool,
    },
    /// Checks the files of one model, or of all.
    Check {
        /// Words for the model.
        words: Option<String>,
    },
}

/// How it is told.
#[derive(Debug, Clone, Copy, Default)]
pub struct Telling {
    /// The form of everything.
    pub format: Option<LogFormat>,
    /// How much.
    pub verbose: u8,
}

impl Telling {
    /// As settings.
    fn layer(self) -> Layer {
        Layer {
            log_format: self.format,
            verbose: (self.verbose > 0).then_some(self.verbose),
            ..Layer::default()
        }
    }
}

/// Does it.
pub fn run(command: Command, telling: Telling) -> Exit {
    start::run(telling.layer(), None, |settings, reporter| {
        perform(command, settings, reporter)
    })
}

fn perform(command: Command, settings: &Settings, reporter: &Reporter) -> Result<Exit, Error> {
    let out = Out { format: settings.log };
    let library = || -> Result<Library, Error> {
        let home = Home::open(&settings.home)?;
        Ok(Library::open(
            settings.places.clone(),
            settings.home.clone(),
            home.models(),
        )?)
    };
    let free = || {
        let program = Program::find(settings.bin_dir.as_deref());
        room::free(&settings.engine, program.as_ref().ok())
    };
    match command {
        Command::Devices => devices::devices(&Program::find(settings.bin_dir.as_deref())?, out),
        Command::Catalog => list::catalog(&library()?, free(), out),
        Command::List => list::on_disk(&library()?, out),
        Command::Download { words, draft } => download::download(&library()?, &words, draft, reporter),
        Command::Recommended { draft } => {
            let library = library()?;
            let entry = recommend(library.catalog.entries(), free()).ok_or(Error::NothingFits)?;
            download::download(&library, &entry.name, draft && entry.draft.is_some(), reporter)
        }
        Command::Remove { words, asks } => remove::remove(&library()?, &words, asks, reporter),
        Command::Check { words } => check::check(&library()?, words.as_deref(), out),
    }
}

/// Why a command was not done.
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
    #[error("{name} is not in the store but in the folder of {keeper}: remove it there ({path})")]
    NotOurs {
        name: String,
        keeper: String,
        path: String,
    },
    #[error("{name} is being downloaded by another process: end that first")]
    Running { name: String },
    #[error("{path} cannot be removed: {cause}; check its permissions")]
    NotRemoved { path: String, cause: io::Error },
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("no model of the catalog fits into half of the free memory: name one, or run `tiny`")]
    NothingFits,
    #[error("{name} has no draft in the catalog: leave --draft out")]
    NoDraft { name: String },
    #[error(transparent)]
    Output(#[from] OutputError),
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error("what this machine computes with cannot be found out: {0}")]
    Devices(io::Error),
    #[error("{doing} failed: {cause}; try again")]
    Unexpected { doing: &'static str, cause: io::Error },
}

impl Ending for Error {
    fn exit(&self) -> Exit {
        match self {
            Error::Settings(error) => error.exit(),
            Error::State(_) => Exit::STATE,
            Error::Model(error) => error.exit(),
            Error::Fetch(error) => error.exit(),
            Error::NothingFits
            | Error::NotOurs { .. }
            | Error::Running { .. }
            | Error::NotRemoved { .. }
            | Error::NoDraft { .. } => Exit::FILE,
            Error::Ask(error) => error.exit(),
            Error::Program(error) => error.exit(),
            Error::Output(_) | Error::Devices(_) | Error::Unexpected { .. } => Exit::UNEXPECTED,
        }
    }
}
