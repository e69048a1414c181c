//! Black-box tests: the real binary in real processes, seen through its API, its standard error, its
//! exit code and `/proc`. Each module proves one promise of the program.
//!
//! Every test has ports and folders of its own, so that all can run at once. None sleeps: they wait
//! for conditions, with deadlines that only a program that hangs reaches.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod answers;
mod caching;
mod context;
mod crashes;
mod devices;
mod disk;
mod drafts;
mod equality;
mod fairness;
mod guards;
mod harness;
mod hostile_files;
#[path = "../support/hub/mod.rs"]
mod hub;
mod library;
mod queueing;
mod refusals;
mod rpc_server;
mod shutdown;
mod slot_save;
mod starting;
