//! `llama-server`: the process that owns a llama.cpp context and serves it over HTTP.
//!
//! `options` and `api` need no llama.cpp; `run` puts the rest together.

pub mod api;
#[cfg(feature = "native")]
pub mod engine;
#[cfg(feature = "native")]
mod fit;
#[cfg(feature = "native")]
mod http;
#[cfg(feature = "native")]
mod load;
pub mod options;
#[cfg(feature = "native")]
mod parent;
#[cfg(feature = "native")]
mod run;
#[cfg(feature = "native")]
mod split;
#[cfg(feature = "native")]
pub(crate) use load::{default_threads, free_host_memory};
#[cfg(feature = "native")]
pub use run::run;
