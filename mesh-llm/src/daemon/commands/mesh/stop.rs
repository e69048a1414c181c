//! Ends the daemon.

use super::{Daemon, Error};
use crate::daemon::report::Reporter;
use crate::daemon::state::await_end;
use std::sync::mpsc;
use std::time::Duration;

/// How long it is waited for: longer than the daemon lets running requests finish.
const END_WITHIN: Duration = Duration::from_secs(45);

/// Tells the daemon to end, and waits until it has, not for ever.
pub(super) fn stop(daemon: &Daemon, reporter: &Reporter) -> Result<(), Error> {
    daemon.client.stop()?;
    let (ended, has_ended) = mpsc::channel();
    let folder = daemon.folder.clone();
    // It may wait longer than this program runs.
    std::thread::spawn(move || ended.send(await_end(&folder)));
    reporter.note(match has_ended.recv_timeout(END_WITHIN) {
        Ok(Ok(())) => "mesh-llm has ended",
        _ => "mesh-llm is ending, but has not ended yet: it may be saving caches; its own output says more",
    });
    Ok(())
}
