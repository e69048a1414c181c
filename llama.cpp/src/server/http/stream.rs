//! Answers as server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::{
    body::{Body, Bytes},
    http::{
        HeaderValue,
        header::{CACHE_CONTROL, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use futures_util::stream;
use tokio::time::{Instant, timeout, timeout_at};

use super::super::{
    api::{ApiError, sse},
    engine::task::{Event, Finish, Piece, Started},
};
use super::{answers::Answers, error::Blame};

/// A comment goes out after this time without an event: proxies and clients give up on silence.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Events that are waiting are sent together, up to about this many bytes.
const FRAME_BYTES: usize = 32 << 10;

/// Writes the events of one kind of API.
pub(super) trait Writer: Send + 'static {
    /// An answer has its slot.
    fn started(&mut self, index: usize, started: Started, out: &mut Vec<u8>);
    /// More of an answer came; `flush` writes it.
    fn text(&mut self, index: usize, piece: Piece);
    /// Writes what came. Returns when to call again, where it would be too costly now.
    fn flush(&mut self, out: &mut Vec<u8>) -> Option<Instant>;
    /// An answer is complete.
    fn done(&mut self, index: usize, finish: Finish, out: &mut Vec<u8>);
    /// All answers are complete.
    fn end(&mut self, out: &mut Vec<u8>);
}

/// The response to a request for a stream.
///
/// It waits for the first event, for as long as a client would wait without a sign of life: what is
/// refused at once has a status of its own, what fails later an event.
pub(super) async fn respond(
    mut answers: Answers,
    blame: Blame,
    writer: impl Writer,
) -> Result<Response, ApiError> {
    let first = match timeout(KEEP_ALIVE, answers.next()).await {
        Ok(Some((_, Event::Failed(failure)))) => return Err(blame.error(failure)),
        Ok(first) => first,
        Err(_) => None,
    };
    let state = Stream { answers, writer, blame, first, state: State::Running, flush_at: None };
    let body = stream::unfold(state, |mut state| async {
        let frame = state.frame().await?;
        Some((Ok::<_, Infallible>(Bytes::from(frame)), state))
    });
    let mut response = Body::from_stream(body).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Tells nginx not to collect the stream.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

struct Stream<W> {
    answers: Answers,
    writer: W,
    blame: Blame,
    first: Option<(usize, Event)>,
    state: State,
    flush_at: Option<Instant>,
}

#[derive(PartialEq)]
enum State {
    Running,
    Ended,
}

impl<W: Writer> Stream<W> {
    /// The next bytes to send; none when everything is sent.
    async fn frame(&mut self) -> Option<Vec<u8>> {
        let mut out = Vec::with_capacity(512);
        let keep_alive = Instant::now() + KEEP_ALIVE;
        while self.state == State::Running {
            let event = match self.first.take() {
                Some(first) => Ok(Some(first)),
                None => {
                    let until = self.flush_at.map_or(keep_alive, |at| at.min(keep_alive));
                    timeout_at(until, self.answers.next()).await
                }
            };
            match event {
                Ok(None) => {
                    self.writer.end(&mut out);
                    self.state = State::Ended;
                }
                Ok(Some((index, event))) => {
                    self.take(index, event, &mut out);
                    self.take_ready(&mut out);
                }
                Err(_) if Instant::now() >= keep_alive => out.extend_from_slice(sse::KEEP_ALIVE),
                Err(_) => self.flush_at = None,
            }
            if self.state == State::Running && self.flush_at.is_none_or(|at| at <= Instant::now()) {
                self.flush_at = self.writer.flush(&mut out);
            }
            if !out.is_empty() {
                return Some(out);
            }
        }
        (!out.is_empty()).then_some(out)
    }

    /// Takes what is waiting, so that a client that lags gets it in few, large pieces.
    fn take_ready(&mut self, out: &mut Vec<u8>) {
        while self.state == State::Running && out.len() < FRAME_BYTES {
            let Some((index, event)) = self.answers.ready() else { return };
            self.take(index, event, out);
        }
    }

    fn take(&mut self, index: usize, event: Event, out: &mut Vec<u8>) {
        match event {
            Event::Started(started) => self.writer.started(index, started, out),
            Event::Text(piece) => self.writer.text(index, piece),
            Event::Done(finish) => self.writer.done(index, finish, out),
            Event::Failed(failure) => {
                sse::write(out, &self.blame.error(failure));
                self.state = State::Ended;
            }
        }
    }
}
