//! The process that started this one: tells it how things go, and ends with it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::thread;

use crate::status::Status;

/// Reports on standard output. A parent that does not listen is no reason to stop.
pub fn report(status: &Status) {
    if let Ok(line) = serde_json::to_string(status) {
        let mut out = io::stdout().lock();
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    }
}

/// If standard input is a pipe, ends the process as soon as its other end is closed, whatever this
/// one is doing: the parent is gone then.
pub fn die_with_it() {
    let Ok(mut input) = io::stdin().as_fd().try_clone_to_owned().map(File::from) else {
        return;
    };
    if !input
        .metadata()
        .is_ok_and(|metadata| metadata.file_type().is_fifo())
    {
        return;
    }
    let watch = move || {
        let mut byte = [0];
        while !matches!(input.read(&mut byte), Ok(0) | Err(_)) {}
        // SAFETY: ends the process without running destructors, which other threads may still need.
        unsafe { libc::_exit(0) };
    };
    if let Err(error) = thread::Builder::new().name("parent".into()).spawn(watch) {
        tracing::warn!(%error, "no thread to watch the parent process: this one may outlive it");
    }
}
