//! How two nodes prove to each other that they know the shared secret, before anything else is read.
//!
//! Both sides greet with a nonce; then each sends HMAC-SHA-256 over its role, both nonces and what the
//! dialler wants, so that nobody between them can have a proof that was made for one purpose, or one
//! session, count for another. A stream is not authenticated beyond that: whoever can change packets on the
//! way can take it over. Where that matters the stream runs inside QUIC.

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::Peer;

/// Bytes that tell this protocol from others.
pub const MAGIC: [u8; 8] = *b"meshllm\x01";

/// The first message of both sides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// [`MAGIC`].
    pub magic: [u8; 8],
    /// [`super::PROTOCOL`].
    pub protocol: u16,
    /// The version of the crate that carries llama.cpp: numbers of operations and types depend on it.
    pub llama_cpp: String,
    /// Random.
    pub nonce: [u8; 32],
}

/// Which side one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Who dialled.
    Dialler,
    /// Who listens.
    Listener,
}

/// What the dialler wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// To be a host.
    Host,
    /// To push hidden states into a session.
    Peer(Peer),
}

/// The dialler's second message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// [`proof`] of the dialler.
    pub proof: [u8; 32],
    /// What it wants.
    pub purpose: Purpose,
}

/// The listener's second message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// [`proof`] of the listener.
    Welcome([u8; 32]),
    /// Go away; why.
    Refused(String),
}

/// What shows that a side knows the secret.
pub fn proof(
    secret: &[u8],
    side: Side,
    dialler: &[u8; 32],
    listener: &[u8; 32],
    purpose: Purpose,
) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
    mac.update(match side {
        Side::Dialler => b"mesh-llm split dialler",
        Side::Listener => b"mesh-llm split listener",
    });
    mac.update(dialler);
    mac.update(listener);
    match purpose {
        Purpose::Host => mac.update(b"host"),
        Purpose::Peer(Peer { session, node }) => {
            mac.update(b"peer");
            mac.update(&session.0);
            mac.update(&node.0.to_le_bytes());
        }
    }
    mac.finalize().into_bytes().into()
}
