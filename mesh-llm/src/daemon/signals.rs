//! The signals that end the daemon.

use std::io;

/// Requests from outside to end.
#[cfg(unix)]
#[derive(Debug)]
pub(super) struct Signals {
    kinds: [tokio::signal::unix::Signal; 2],
}

#[cfg(unix)]
impl Signals {
    /// Takes them over, so that none ends the process by itself any more.
    pub(super) fn listen() -> io::Result<Signals> {
        use tokio::signal::unix::{SignalKind, signal};
        // Not SIGHUP: under nohup it is ignored, and must stay so.
        let [interrupt, terminate] = [SignalKind::interrupt(), SignalKind::terminate()].map(signal);
        Ok(Signals {
            kinds: [interrupt?, terminate?],
        })
    }

    /// The next one.
    pub(super) async fn next(&mut self) {
        let [interrupt, terminate] = &mut self.kinds;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
}

/// Requests from outside to end.
#[cfg(not(unix))]
#[derive(Debug)]
pub(super) struct Signals;

#[cfg(not(unix))]
impl Signals {
    /// Nothing to take over: they are listened for one by one.
    pub(super) fn listen() -> io::Result<Signals> {
        Ok(Signals)
    }

    /// The next one.
    pub(super) async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
