//! The API as a part of the daemon: served until it is told to end.

use crate::api::{Keys, Own, Remotes, Server};
use crate::http::{End, Shutdown};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Exchanges that finish within this time are not worth a word.
const DRAIN_QUIETLY: Duration = Duration::from_millis(200);

/// The API, served by a task of its own.
pub(super) struct Api {
    end: End,
    served: JoinHandle<()>,
}

impl Api {
    /// Begins to serve.
    pub(super) fn start(
        server: Server,
        own: Own,
        remotes: watch::Receiver<Remotes>,
        keys: Keys,
        max_connections: usize,
    ) -> Api {
        let (end, shutdown) = Shutdown::when_told();
        Api {
            end,
            served: tokio::spawn(server.serve(own, remotes, keys, max_connections, shutdown)),
        }
    }

    /// Takes no new connections, and lets exchanges finish until `limit` is over.
    pub(super) async fn finish(mut self, limit: impl Future<Output = ()>, slow: impl FnOnce()) {
        // The server listens for both as long as it runs.
        let _ = self.end.drain.send(());
        if timeout(DRAIN_QUIETLY, &mut self.served).await.is_ok() {
            return;
        }
        slow();
        tokio::select! {
            _ = &mut self.served => {}
            () = limit => {
                let _ = self.end.cut.send(());
                let _ = self.served.await;
            }
        }
    }
}
