//! The engine's answer on its way to the client.

use super::error;
use crate::dialects::Problem;
use crate::engine::Counted;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

/// An answer of the engine. Where the engine crashes, or the node that has it is lost, in the middle of an event
/// stream, the stream ends with an event that says so; any other answer breaks off, as its form allows no more.
#[derive(Debug)]
pub(super) struct Answer<B = Counted> {
    from_engine: B,
    stream: Option<EventStream>,
    broken_off: Problem,
    over: bool,
}

impl<B> Answer<B> {
    pub(super) fn new(headers: &HeaderMap, from_engine: B, broken_off: Problem) -> Self {
        let stream = is_event_stream(headers).then(EventStream::default);
        Self {
            from_engine,
            stream,
            broken_off,
            over: false,
        }
    }
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("");
    let kind = kind.split(';').next().unwrap_or("").trim();
    kind.eq_ignore_ascii_case("text/event-stream") && !headers.contains_key(CONTENT_ENCODING)
}

/// Where in its events a stream is.
#[derive(Debug, Default)]
struct EventStream {
    /// The last two bytes, carriage returns left out.
    last: Option<[u8; 2]>,
}

impl EventStream {
    fn pass(&mut self, bytes: &[u8]) {
        let [mut before, mut last] = self.last.unwrap_or(*b"\n\n");
        // Only the end counts; the rest is not looked at.
        let end = bytes.len().saturating_sub(4);
        for byte in bytes[end..].iter().copied().filter(|byte| *byte != b'\r') {
            (before, last) = (last, byte);
        }
        self.last = Some([before, last]);
    }

    /// Whether a further event can follow. In the middle of one it cannot: the client would take
    /// both for one.
    fn between_events(&self) -> bool {
        self.last.is_none_or(|last| last == *b"\n\n")
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Answer<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut self.from_engine).poll_frame(cx));
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                if let (Some(stream), Some(bytes)) = (&mut self.stream, frame.data_ref()) {
                    stream.pass(bytes);
                }
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                self.over = true;
                match &self.stream {
                    Some(stream) if stream.between_events() => {
                        Some(Ok(Frame::data(error::event(&self.broken_off))))
                    }
                    _ => Some(Err(error)),
                }
            }
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.from_engine.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.from_engine.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;
    use http_body_util::{BodyExt, StreamBody};
    use hyper::header::HeaderValue;
    use proptest::prelude::*;

    /// What a client sees of an answer that comes in `pieces` and is then cut off.
    async fn cut_off(kind: &'static str, pieces: &[&'static str]) -> (String, bool) {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        let frames = pieces
            .iter()
            .map(|piece| Ok(Frame::data(Bytes::from_static(piece.as_bytes()))));
        let frames = frames.chain([Err("cut off")]).collect::<Vec<_>>();
        let mut answer = Answer::new(&headers, StreamBody::new(stream::iter(frames)), error::crashed());
        let mut seen = Vec::new();
        while let Some(frame) = answer.frame().await {
            match frame {
                Ok(frame) => seen.extend_from_slice(&frame.into_data().unwrap()),
                Err(_) => return (String::from_utf8(seen).unwrap(), true),
            }
        }
        (String::from_utf8(seen).unwrap(), false)
    }

    #[tokio::test]
    async fn a_stream_that_is_cut_off_ends_with_an_error() {
        for pieces in [
            &[][..],
            &["data: 1\n\n"],
            &["data: 1\n", "\n"],
            &["data: 1\r\n\r\n"],
            &[": ping\n\n", ""],
        ] {
            let (seen, broken) = cut_off("text/event-stream; charset=utf-8", pieces).await;
            let rest = seen.strip_prefix(&pieces.concat()).unwrap();
            assert!(
                !broken && rest.starts_with("data: {\"error\":{") && rest.ends_with("}\n\n"),
                "{seen}"
            );
        }
    }

    #[tokio::test]
    async fn what_cannot_be_ended_breaks_off() {
        assert_eq!(
            cut_off("application/json", &["{\"a\":"]).await,
            ("{\"a\":".to_owned(), true)
        );
        let half = "data: {\"a\":";
        assert!(cut_off("text/event-stream", &["data: 1\n\n", half]).await.1);
        assert!(cut_off("text/event-stream", &["data: 1\n"]).await.1);
    }

    proptest! {
        #[test]
        fn the_end_is_seen_however_a_stream_is_cut_into_pieces(
            text in "(data: [a-z]{0,3}(\n|\r\n){1,2}){0,4}", cuts in proptest::collection::vec(0usize..40, 0..6)
        ) {
            let mut stream = EventStream::default();
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            for pair in cuts.windows(2) {
                stream.pass(&text.as_bytes()[pair[0]..pair[1]]);
            }
            let plain = text.replace('\r', "");
            prop_assert_eq!(stream.between_events(), plain.is_empty() || plain.ends_with("\n\n"));
        }
    }
}
