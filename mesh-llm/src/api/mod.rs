//! The endpoint: forwards what speaks the engine's own dialect byte for byte, and has the rest
//! translated by `dialects`. Where other nodes serve models, too, a request goes to the place that
//! `plan::route` says; how it gets there is somebody else's ([`Upstream::through`]), and at the other end
//! [`serve_peer`] answers it.
//!
//! [`Upstream::through`]: crate::engine::Upstream::through
//!
//! What this room says itself is what the engine cannot: that it is not ready, that it crashed, that a
//! key is missing. It keeps the responses that clients of
//! OpenAI Responses come back to. It knows nothing of how the engine is started.

mod answer;
mod anthropic;
mod asked;
mod dispatch;
mod error;
mod forward;
mod inference;
mod keys;
mod model_list;
mod ollama;
mod own;
mod peer;
mod places;
mod remote;
mod request_id;
mod responses;
mod responses_live;
mod responses_store;
mod server;
#[cfg(test)]
mod tests;
mod translate;

pub use keys::Keys;
pub use own::Own;
pub use peer::serve_peer;
pub use remote::{Remote, RemoteModel, Remotes};
pub use server::{BindError, Server};
