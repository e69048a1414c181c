//! `llama-server`: the process that owns a llama.cpp context and serves it over HTTP.
//!
//! `options`, `guesses` and `api` need no llama.cpp; `run` puts the rest together.

pub mod api;
#[cfg(feature = "native")]
mod choose;
#[cfg(feature = "native")]
mod draft;
#[cfg(feature = "native")]
mod eagle;
#[cfg(feature = "native")]
pub mod engine;
#[cfg(feature = "native")]
mod fit;
pub mod guesses;
#[cfg(feature = "native")]
mod header;
#[cfg(feature = "native")]
mod heads;
#[cfg(feature = "native")]
mod http;
#[cfg(feature = "native")]
mod load;
#[cfg(feature = "native")]
mod measure;
pub mod options;
#[cfg(feature = "native")]
pub(crate) mod parent;
#[cfg(feature = "native")]
mod placed;
#[cfg(feature = "native")]
mod room;
#[cfg(feature = "native")]
mod run;
#[cfg(feature = "native")]
mod split;
#[cfg(feature = "native")]
pub(crate) use measure::default_threads;
#[cfg(feature = "native")]
pub(crate) use room::{free_host_memory, free_of_gpus};
#[cfg(feature = "native")]
pub use run::run;
