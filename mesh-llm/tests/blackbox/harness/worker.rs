//! An rpc-server.

use super::{DEADLINE, Process, Start};

/// A worker that hosts can come to. It is killed when the test drops it.
#[derive(Debug)]
pub struct Worker {
    /// Where it listens.
    pub address: String,
    /// It.
    pub process: Process,
}

impl Worker {
    /// The command `rpc-server` on one thread, at a free port, with nothing else said.
    pub fn plain() -> Start {
        Start::bare()
            .word("rpc-server")
            .flag("--listen", "127.0.0.1:0")
            .flag("--threads", "1")
    }

    /// Starts it and waits until it listens.
    pub fn start(start: &Start) -> Self {
        let process = start.process();
        let line = process.out.line("listening at ", DEADLINE);
        Self {
            address: line.trim_start_matches("listening at ").to_owned(),
            process,
        }
    }
}
