//! llama.cpp as the engine of mesh-llm: unpatched, behind safe types.
//!
//! This crate knows nothing of the daemon, the mesh or the command line. Start reading at
//! `server::run` for what a running engine does, at `llama` for how llama.cpp is wrapped, and at
//! `gguf` for model files, which needs no llama.cpp at all.

#[cfg(feature = "native")]
mod ggml;
pub mod gguf;
pub mod host_memory;
#[cfg(feature = "native")]
pub mod llama;
pub mod priority;
pub mod rpc;
pub mod server;
pub mod size;
pub mod status;
