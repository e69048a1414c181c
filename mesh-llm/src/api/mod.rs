//! The OpenAI-compatible endpoint: forwards every exchange to the engine, byte for byte.
//!
//! Nothing here reads a request or an answer. What this room says itself is what the engine
//! cannot: that it is not ready, that it crashed, that an origin or a host is foreign. It knows
//! nothing of how the engine is started.

mod answer;
mod anthropic;
mod cors;
mod error;
mod forward;
mod host;
mod keys;
mod ollama;
mod page;
mod responses;
mod responses_live;
mod responses_store;
mod server;
#[cfg(test)]
mod tests;
mod translate;
mod upload;

pub use keys::Keys;
pub use server::{BindError, Server, Shutdown};
