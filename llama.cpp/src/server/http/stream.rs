//! Answers as server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::{
    body::{Body, Bytes},
    extract::FromRequestParts,
    http::{
        HeaderValue,
        header::{CACHE_CONTROL, CONTENT_TYPE},
        request::Parts,
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

/// The request header that asks for [`Trace::Chosen`].
const TRACE: &str = "x-mesh-llm-trace";

/// Whether a stream says, in comments, when its tokens were chosen: benches measure latency by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trace {
    /// It does not.
    Off,
    /// Before a token's event comes `: chosen N`, in nanoseconds of the system's monotonic clock.
    Chosen,
}

impl<S: Sync> FromRequestParts<S> for Trace {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let chosen = parts
            .headers
            .get(TRACE)
            .is_some_and(|value| value.as_bytes() == b"chosen");
        Ok(if chosen { Trace::Chosen } else { Trace::Off })
    }
}

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
    answers: Answers,
    blame: Blame,
    trace: Trace,
    writer: impl Writer,
) -> Result<Response, ApiError> {
    respond_within(KEEP_ALIVE, answers, blame, trace, writer).await
}

async fn respond_within(
    keep_alive: Duration,
    mut answers: Answers,
    blame: Blame,
    trace: Trace,
    writer: impl Writer,
) -> Result<Response, ApiError> {
    let (first, greeting) = match timeout(keep_alive, answers.next()).await {
        Ok(Some((_, Event::Failed(failure)))) => return Err(blame.error(failure)),
        Ok(first) => (first, Vec::new()),
        Err(_) => (None, sse::KEEP_ALIVE.to_vec()),
    };
    let state = State::Running;
    let stream = Stream {
        answers,
        writer,
        blame,
        trace,
        keep_alive,
        greeting,
        first,
        state,
        flush_at: None,
    };
    let body = stream::unfold(stream, |mut stream| async {
        let frame = stream.frame().await?;
        Some((Ok::<_, Infallible>(Bytes::from(frame)), stream))
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
    trace: Trace,
    keep_alive: Duration,
    /// Sent before anything else.
    greeting: Vec<u8>,
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
        if !self.greeting.is_empty() {
            return Some(std::mem::take(&mut self.greeting));
        }
        let mut out = Vec::with_capacity(512);
        let keep_alive = Instant::now() + self.keep_alive;
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
            let Some((index, event)) = self.answers.ready() else {
                return;
            };
            self.take(index, event, out);
        }
    }

    fn take(&mut self, index: usize, event: Event, out: &mut Vec<u8>) {
        match event {
            Event::Started(started) => self.writer.started(index, started, out),
            Event::Text(piece) => {
                if self.trace == Trace::Chosen {
                    sse::comment(out, format_args!("chosen {}", piece.chosen_at_ns));
                }
                self.writer.text(index, piece);
            }
            Event::Done(finish) => self.writer.done(index, finish, out),
            Event::Failed(failure) => {
                sse::write(out, &self.blame.error(failure));
                self.state = State::Ended;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body;
    use tokio::sync::mpsc;

    use super::*;
    use crate::server::engine::task::{Failure, FinishReason, Speculated, Timings};

    const BLAME: Blame = Blame {
        prompt: "prompt",
        grammar: None,
    };

    /// Writes texts as they are.
    #[derive(Default)]
    struct Plain(String);

    impl Writer for Plain {
        fn started(&mut self, _: usize, _: Started, out: &mut Vec<u8>) {
            out.extend_from_slice(b"<");
        }

        fn text(&mut self, _: usize, piece: Piece) {
            self.0.push_str(&piece.text);
        }

        fn flush(&mut self, out: &mut Vec<u8>) -> Option<Instant> {
            out.extend(std::mem::take(&mut self.0).into_bytes());
            None
        }

        fn done(&mut self, _: usize, _: Finish, out: &mut Vec<u8>) {
            self.flush(out);
        }

        fn end(&mut self, out: &mut Vec<u8>) {
            out.extend_from_slice(b">");
        }
    }

    fn started() -> Event {
        Event::Started(Started {
            prompt_tokens: 1,
            cached_tokens: 0,
        })
    }

    fn text(text: &str) -> Event {
        Event::Text(Piece {
            text: text.into(),
            ..Piece::default()
        })
    }

    fn done() -> Event {
        Event::Done(Finish {
            reason: FinishReason::EndOfText,
            completion_tokens: 1,
            prompt_logprobs: Vec::new(),
            timings: Timings::default(),
            speculated: Speculated::default(),
        })
    }

    fn failed() -> Event {
        Event::Failed(Failure::Engine("out of memory".into()))
    }

    async fn stream(events: Vec<Event>) -> Result<String, ApiError> {
        let (sender, receiver) = mpsc::unbounded_channel();
        for event in events {
            sender.send(event).unwrap();
        }
        drop(sender);
        let response = respond(Answers::new(vec![receiver]), BLAME, Trace::Off, Plain::default()).await?;
        let bytes = body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        Ok(String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn what_is_there_is_written_to_its_end() {
        let events = vec![started(), text("a"), text("b"), done()];
        assert_eq!(stream(events).await.unwrap(), "<ab>");
    }

    #[tokio::test]
    async fn what_fails_at_once_has_a_status() {
        let error = stream(vec![failed()]).await.unwrap_err();
        assert_eq!(error.status.code(), 500);
    }

    #[tokio::test]
    async fn what_fails_later_is_the_last_event() {
        let body = stream(vec![started(), failed()]).await.unwrap();
        let event = body
            .strip_prefix("<data: ")
            .unwrap()
            .strip_suffix("\n\n")
            .unwrap();
        let event: serde_json::Value = serde_json::from_str(event).unwrap();
        assert_eq!(event["error"]["code"], "engine_error");
    }

    #[tokio::test]
    async fn an_engine_that_vanishes_ends_the_stream_with_an_error() {
        let body = stream(vec![started(), text("a")]).await.unwrap();
        assert!(body.starts_with("<adata: {\"error\":"), "{body}");
    }

    #[tokio::test]
    async fn a_long_wait_is_filled_with_comments() {
        let (sender, receiver) = mpsc::unbounded_channel();
        let answers = Answers::new(vec![receiver]);
        let response = respond_within(
            Duration::from_millis(1),
            answers,
            BLAME,
            Trace::Off,
            Plain::default(),
        )
        .await
        .unwrap();
        let mut frames = response.into_body().into_data_stream();
        let mut next = async || {
            let frame = futures_util::StreamExt::next(&mut frames).await;
            frame.map(|frame| String::from_utf8(frame.unwrap().to_vec()).unwrap())
        };
        for _ in 0..3 {
            assert_eq!(next().await.as_deref(), Some(": keep-alive\n\n"));
        }
        sender.send(started()).unwrap();
        sender.send(done()).unwrap();
        let mut rest = String::new();
        while let Some(frame) = next().await {
            rest.push_str(&frame.replace(": keep-alive\n\n", ""));
        }
        assert_eq!(rest, "<>");
    }

    #[tokio::test]
    async fn a_dropped_response_closes_the_channel() {
        let (sender, receiver) = mpsc::unbounded_channel();
        sender.send(started()).unwrap();
        let response = respond(Answers::new(vec![receiver]), BLAME, Trace::Off, Plain::default())
            .await
            .unwrap();
        assert!(!sender.is_closed());
        drop(response);
        assert!(sender.is_closed());
    }
}
