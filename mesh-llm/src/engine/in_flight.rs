//! How many requests are on their way or being answered.

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::watch;

/// A count; clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct InFlight(Arc<watch::Sender<usize>>);

impl InFlight {
    /// One more, as long as what is returned lives.
    pub(super) fn one(&self) -> One {
        self.0.send_modify(|count| *count += 1);
        One(self.clone())
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        *self.0.borrow()
    }

    /// Waits until there are none.
    pub(super) async fn none(&self) {
        // This holds the sender, so the channel is open.
        let _ = self.0.subscribe().wait_for(|count| *count == 0).await;
    }
}

/// Counts for one as long as it lives.
#[derive(Debug)]
pub(super) struct One(InFlight);

impl Drop for One {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| *count -= 1);
    }
}

/// The body of an answer; as long as it lives, its request is in flight.
#[derive(Debug)]
pub struct Counted {
    body: Incoming,
    _one: One,
}

impl Counted {
    pub(super) fn new(body: Incoming, one: One) -> Self {
        Self { body, _one: one }
    }
}

impl Body for Counted {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
