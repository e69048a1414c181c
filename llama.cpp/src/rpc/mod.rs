//! The split: devices of other nodes as devices of ggml.
//!
//! `wire` says what nodes tell each other, `link` and `dial` carry it. `client` is the host's side: a
//! device of ggml for each device of a worker, which queues what llama.cpp wants done. `worker` does it.
//! `files` finds a model's file on a worker by what is in it.

pub mod bandwidth;
#[cfg(feature = "native")]
mod cancelled;
#[cfg(feature = "native")]
pub mod client;
pub mod devices;
#[cfg(feature = "native")]
pub mod dial;
pub mod door;
pub mod files;
pub mod graph;
#[cfg(feature = "native")]
pub mod link;
pub mod plan;
pub mod sandbox;
#[cfg(test)]
#[cfg(feature = "native")]
pub(crate) mod tests;
/// Of the tests, what the fuzz target `lying_worker` needs.
#[cfg(all(feature = "fuzz", not(test)))]
#[doc(hidden)]
pub mod tests;
pub mod wire;
#[cfg(feature = "native")]
pub mod worker;
