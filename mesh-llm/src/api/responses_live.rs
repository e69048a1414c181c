//! A response that is being made and streamed. Whoever has its handle can look at it, and end it
//! whether or not its client reads.

use super::responses_store::Responses;
use crate::dialects::responses::{Reply, Turn};
use crate::dialects::{Answer, Problem};
use crate::http::AnswerBody;
use bytes::Bytes;
use hyper::body::{Body, Frame};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

/// A reply that the translation of the engine's answer and the handle of the response share.
#[derive(Debug, Clone)]
pub(super) struct Shared(Arc<Mutex<Reply>>);

impl Shared {
    pub(super) fn new(reply: Reply) -> Self {
        Self(Arc::new(Mutex::new(reply)))
    }

    fn reply(&self) -> MutexGuard<'_, Reply> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The response as far as it is.
    pub(super) fn turn(&self) -> Turn {
        self.reply().turn()
    }
}

/// Writes the answer, and keeps the response when it is over.
#[derive(Debug)]
pub(super) struct Kept {
    reply: Shared,
    /// None where the client wants nothing kept.
    responses: Option<Responses>,
}

impl Kept {
    pub(super) fn new(reply: Shared, responses: Option<Responses>) -> Self {
        Self { reply, responses }
    }

    fn write<T>(&mut self, write: impl FnOnce(&mut Reply) -> T) -> T {
        let mut reply = self.reply.reply();
        let before = reply.is_over();
        let written = write(&mut reply);
        let over = (!before && reply.is_over() && self.responses.is_some()).then(|| reply.turn());
        drop(reply);
        if let (Some(turn), Some(responses)) = (over, &self.responses) {
            responses.keep(turn);
        }
        written
    }
}

impl Answer for Kept {
    fn content_type(&self) -> &'static str {
        self.reply.reply().content_type()
    }

    fn whole(&mut self, answer: &[u8]) -> Result<Vec<u8>, Problem> {
        self.write(|reply| reply.whole(answer))
    }

    fn event(&mut self, data: &[u8], out: &mut Vec<u8>) {
        self.write(|reply| reply.event(data, out));
    }

    fn keep_alive(&mut self, out: &mut Vec<u8>) {
        self.write(|reply| reply.keep_alive(out));
    }

    fn broken(&mut self, problem: &Problem, out: &mut Vec<u8>) {
        self.write(|reply| reply.broken(problem, out));
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        self.write(|reply| reply.end(out));
    }
}

/// The handle to a response that is being made.
#[derive(Debug, Clone)]
pub(super) struct Live {
    reply: Shared,
    stream: Arc<Mutex<Stream>>,
}

#[derive(Debug)]
struct Stream {
    /// The engine's answer as it is translated; none once it is over. To drop it frees the engine.
    body: Option<AnswerBody>,
    /// What is sent after it.
    tail: Bytes,
    /// Who waits for more.
    client: Option<Waker>,
}

impl Live {
    pub(super) fn new(reply: Shared, body: AnswerBody) -> Self {
        let stream = Stream {
            body: Some(body),
            tail: Bytes::new(),
            client: None,
        };
        Self {
            reply,
            stream: Arc::new(Mutex::new(stream)),
        }
    }

    /// The response as far as it is.
    pub(super) fn turn(&self) -> Turn {
        self.reply.turn()
    }

    /// Ends the response; none where it was over. Whoever calls this keeps it.
    pub(super) fn cancel(&self) -> Option<Turn> {
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        let mut reply = self.reply.reply();
        if reply.is_over() {
            return None;
        }
        let mut tail = Vec::new();
        reply.cancel(&mut tail);
        let turn = reply.turn();
        drop(reply);
        let body = stream.body.take();
        stream.tail = Bytes::from(tail);
        let client = stream.client.take();
        drop(stream);
        drop(body);
        if let Some(client) = client {
            client.wake();
        }
        Some(turn)
    }
}

/// The stream on its way to the client. Where the client goes away, the response is cancelled.
#[derive(Debug)]
pub(super) struct Streamed {
    live: Live,
    responses: Responses,
}

impl Streamed {
    pub(super) fn new(live: Live, responses: Responses) -> Self {
        Self { live, responses }
    }
}

impl Body for Streamed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut stream = self.live.stream.lock().unwrap_or_else(PoisonError::into_inner);
        stream.client = Some(cx.waker().clone());
        if let Some(body) = &mut stream.body {
            let frame = ready!(Pin::new(body).poll_frame(cx));
            if frame.is_none() {
                stream.body = None;
            }
            return Poll::Ready(frame);
        }
        let tail = std::mem::take(&mut stream.tail);
        Poll::Ready((!tail.is_empty()).then(|| Ok(Frame::data(tail))))
    }
}

impl Drop for Streamed {
    fn drop(&mut self) {
        if let Some(turn) = self.live.cancel() {
            self.responses.keep(turn);
        }
    }
}
