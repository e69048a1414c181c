//! Machines that serve each other: who belongs to a mesh, who is there, what each offers, and streams between them.
//!
//! What decides is pure: [`token`]s and the [`roster`] say who may come in, [`membership`] who is alive, [`gossip`]
//! what each says of itself, and [`core`] puts them together. [`wire`] is what is said; `net` carries it over QUIC
//! ([iroh](https://docs.rs/iroh)), and `store` keeps on disk what the next start needs. This room knows nothing of
//! engines, HTTP, or where models come from. Start reading at [`core::Core`].

pub mod core;
mod error;
pub mod gossip;
pub mod id;
pub mod identity;
pub mod membership;
mod net;
pub mod roster;
#[cfg(test)]
mod simulation;
pub mod state;
mod store;
pub mod token;
pub mod wire;
mod words;

pub use error::MeshError;
pub use net::{
    EndpointError, Invitation, Joining, Mesh, MeshOptions, Offer, PeerRequest, PeerStream, Relays, Serve,
};
pub use store::StoreError;
pub use words::readable;
