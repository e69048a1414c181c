//! The endpoint: forwards what speaks the engine's own dialect byte for byte, and has the rest
//! translated by `dialects`.
//!
//! What this room says itself is what the engine cannot: that it is not ready, that it crashed, that a
//! key is missing. It keeps the responses that clients of
//! OpenAI Responses come back to. It knows nothing of how the engine is started.

mod answer;
mod anthropic;
mod error;
mod forward;
mod keys;
mod ollama;
mod request_id;
mod responses;
mod responses_live;
mod responses_store;
mod server;
#[cfg(test)]
mod tests;
mod translate;

pub use keys::Keys;
pub use server::{BindError, Server};
