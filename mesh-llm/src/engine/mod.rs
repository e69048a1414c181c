//! Keeps a llama-server running as a child process.
//!
//! One task owns the child; everyone else sees its [`State`]. What is decided here is pure:
//! how long to wait after a crash or for a worker ([`restarts`]) and what an exit means ([`cause`]). This room
//! knows nothing of the API, nor of where models come from.

pub mod cause;
pub mod devices;
mod in_flight;
mod launch;
mod lines;
pub mod restarts;
mod run;
mod supervisor;
mod upstream;
mod wish;
mod worker;

pub use in_flight::Counted;
pub use launch::{Launch, Program, ProgramError, arguments};
pub use supervisor::Engine;
pub use upstream::{Open, Opening, RequestBody, Upstream, Wire};
pub use wish::{Wish, Wished};
pub use worker::{Worker, WorkerLaunch};

use crate::exit::Exit;
use llama_engine::status::Ready;
use std::time::Duration;

/// What the engine does at the moment.
#[derive(Debug, Clone)]
pub enum State {
    /// Its model is being downloaded.
    Downloading {
        /// The model.
        model: String,
        /// 0 to 100, once the size is known.
        percent: Option<u8>,
        /// The machines that do so, to compute with this one; none: this one does.
        by: Vec<String>,
    },
    /// It was started, or reads the model's header and computes what fits.
    Starting,
    /// It reads weights.
    Loading {
        /// 0 to 100.
        percent: u8,
    },
    /// It answers requests.
    Ready(Serving),
    /// It crashed and is started again.
    Restarting {
        /// How often it crashed in a row.
        crashes: u32,
        /// Why, in words.
        cause: String,
        /// The pause before the start.
        delay: Duration,
    },
    /// A node of its split was lost, and it is started again.
    Lost {
        /// One line: which node, and the cause.
        message: String,
    },
    /// A worker of its split cannot be used yet, and it is tried again for as long as that takes.
    Waiting {
        /// One line: which worker, and the cause.
        message: String,
    },
    /// It is not served here: another machine serves it, or has this one's memory, or there is none.
    Elsewhere {
        /// One line: which, and what for.
        message: String,
    },
    /// It will not be started again.
    Failed(Failure),
    /// It was told to end.
    Stopping,
}

/// What a model waits for that does not fit on the machines that are there.
pub const MORE_PEERS: &str = "more peers";

/// That a model is being downloaded, by whom, and how far that is.
pub fn downloading(model: &str, percent: Option<u8>, by: &[String]) -> String {
    let by = match by {
        [] => String::new(),
        machines => format!(" by {}", machines.join(", ")),
    };
    let far = percent.map_or(String::new(), |percent| format!(", {percent} % are done"));
    format!("{model} is being downloaded{by}{far}")
}

/// What an engine waits for that cannot use a worker, where the child said `message` of it.
pub fn waiting_for(message: &str) -> String {
    match ["worker ", MORE_PEERS]
        .iter()
        .any(|known| message.starts_with(known))
    {
        true => format!("Waiting for {message}"),
        false => format!("Waiting for the nodes of the split: {message}"),
    }
}

/// An engine that answers requests.
#[derive(Debug, Clone)]
pub struct Serving {
    /// The name of its model.
    pub model: String,
    /// What it has.
    pub ready: Ready,
    /// Takes requests to it.
    pub upstream: Upstream,
    /// The workers that its model may be split over, as people see them.
    pub workers: Vec<String>,
}

/// Why the engine will not be started again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// One line: the thing, the cause and the remedy.
    pub message: String,
    /// The last lines of its log, where they explain more than the message.
    pub last_lines: Vec<String>,
    /// How the daemon ends for this.
    pub exit: Exit,
}
