//! The daemon behind the command `mesh-llm`: one OpenAI-compatible endpoint on this machine.
//!
//! Rooms, each of which knows only those after it: [`cli`] reads arguments, [`daemon`] puts the
//! parts together, [`manage`] shows what they do and takes orders, [`api`] answers clients, [`http`] is
//! what both servers have in common, [`dialects`] translates what clients speak, [`mesh`] finds and keeps other
//! machines, [`engine`] keeps a llama-server alive, [`models`] finds and fetches models, [`plan`] decides which place
//! answers a request. [`exit`] holds the exit codes that all of them use, [`log`] is what they log to.
//!
//! This crate knows nothing of llama.cpp: all of that is in the crate `llama-engine`, which runs
//! as a child process. Start reading at [`daemon::run`].

#![forbid(unsafe_code)]
// A test that unwraps says what it expects, and where it was wrong.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod api;
pub mod cli;
pub mod daemon;
pub mod dialects;
pub mod engine;
pub mod exit;
pub mod http;
pub mod log;
pub mod manage;
pub mod mesh;
pub mod models;
pub mod plan;
mod private_file;
