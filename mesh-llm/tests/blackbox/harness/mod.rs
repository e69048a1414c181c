//! What the tests stand on: processes, a client, models, and ways to wait.

pub mod bare;
mod client;
mod daemon;
mod models;
mod namespace;
mod proc;
mod process;
mod stream;
mod wait;
mod worker;

pub use bare::{Bare, Part};
pub use client::{Answer, Client};
pub use daemon::{BINARY, Daemon, Ended, Start, run_folders};
pub use models::{Kind, model};
pub use namespace::{Namespace, available as namespaces_available};
pub use proc::{Known, pipes};
pub use process::Process;
pub use rustix::process::Signal;
pub use stream::{Outcome, Stream};
pub use wait::{DEADLINE, eventually};
pub use worker::Worker;
