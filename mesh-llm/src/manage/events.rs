//! The status as a stream of events: at the start, and after each change.

use super::status::{Status, Viewer};
use crate::dialects::sse;
use crate::http::AnswerBody;
use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::sleep;

/// How long viewers hear nothing at most.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// The name of an event.
const NAME: &str = "status";

/// One viewer's events. Who reads slowly misses changes, never the last one: nothing is kept for them.
pub(super) struct Events {
    /// The status.
    pub(super) status: watch::Receiver<Status>,
    /// Who looks on.
    pub(super) viewer: Viewer,
    /// Its sender is dropped when the server ends.
    pub(super) open: watch::Receiver<()>,
    /// After so long without a change, a comment says that the daemon is alive.
    pub(super) quiet: Duration,
    /// The place of this stream among those that there may be.
    pub(super) _place: OwnedSemaphorePermit,
}

impl Events {
    /// The body of an answer, which ends with the server or with the status.
    pub(super) fn body(mut self) -> AnswerBody {
        // The first event tells what there is already.
        self.status.mark_changed();
        let events = stream::unfold(self, |mut events| async move {
            let bytes = events.next().await?;
            Some((Ok(Frame::data(bytes)), events))
        });
        StreamBody::new(events).boxed_unsync()
    }

    async fn next(&mut self) -> Option<Bytes> {
        let mut bytes = Vec::new();
        tokio::select! {
            biased;
            _ = self.open.changed() => return None,
            changed = self.status.changed() => {
                changed.ok()?;
                let status = self.status.borrow_and_update().shown_to(self.viewer);
                sse::write(&mut bytes, NAME, &status);
            }
            () = sleep(self.quiet) => sse::keep_alive(&mut bytes),
        }
        Some(bytes.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manage::example;
    use std::sync::Arc;
    use tokio::sync::Semaphore;

    #[tokio::test]
    async fn a_stream_without_news_says_that_it_lives_until_the_server_ends() {
        let (status, shown) = watch::channel(example::status());
        let (open, closing) = watch::channel(());
        let places = Arc::new(Semaphore::new(1));
        let events = Events {
            status: shown,
            viewer: Viewer::Anybody,
            open: closing,
            quiet: Duration::ZERO,
            _place: Arc::clone(&places).try_acquire_owned().unwrap(),
        };
        let mut body = events.body();
        let mut next = async || Some(body.frame().await?.unwrap().into_data().unwrap());
        assert!(next().await.unwrap().starts_with(b"event: status\ndata: {"));
        assert_eq!(next().await.unwrap(), ": keep-alive\n\n");
        drop(open);
        assert_eq!(next().await, None);
        drop((body, status));
        assert_eq!(places.available_permits(), 1);
    }
}
