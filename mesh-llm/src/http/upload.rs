//! The body of a request.

use crate::dialects::Problem;
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::HeaderMap;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::EXPECT;
use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::timeout;

/// What is still taken from a client whose request was answered before it was read to its end: a
/// connection that is closed on unread bytes is reset, and the client would lose the answer.
const MAX_LEFT_BYTES: usize = 256 << 20;

/// For how long.
const MAX_LEFT_TIME: Duration = Duration::from_secs(5);

/// A request's body, read to its end even if nobody wants it.
#[derive(Debug)]
pub struct Upload {
    from_client: Option<Incoming>,
    /// The client waits for a word before it sends the body, and will not send it without.
    waits: bool,
}

impl Upload {
    /// Of a request with these headers.
    pub fn new(headers: &HeaderMap, from_client: Incoming) -> Self {
        Self {
            from_client: Some(from_client),
            waits: headers.contains_key(EXPECT),
        }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(body) = &mut self.from_client else {
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        self.waits = false;
        if !matches!(frame, Some(Ok(_))) {
            self.from_client = None;
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.from_client.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.from_client
            .as_ref()
            .map_or(SizeHint::with_exact(0), Body::size_hint)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let left = self
            .from_client
            .take()
            .filter(|body| !body.is_end_stream() && !self.waits);
        if let (Some(body), Ok(runtime)) = (left, Handle::try_current()) {
            runtime.spawn(timeout(MAX_LEFT_TIME, discard(body)));
        }
    }
}

/// Reads a body of at most so many bytes.
pub async fn read(body: Upload, most_bytes: usize) -> Result<Bytes, Problem> {
    match Limited::new(body, most_bytes).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Problem {
            status: 413,
            code: Some("request_too_large".to_owned()),
            ..Problem::invalid(None, format!("the body is larger than {most_bytes} bytes"))
        }),
        Err(error) => Err(Problem::invalid(None, format!("the body broke off: {error}"))),
    }
}

async fn discard(mut body: Incoming) {
    let mut left = MAX_LEFT_BYTES;
    while let Some(Ok(frame)) = body.frame().await {
        left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
        if left == 0 {
            return;
        }
    }
}
