//! Exchanges in other dialects: the body is read whole, the engine is asked in its own dialect, and
//! what it answers is translated as it comes.

use super::dispatch;
use super::error::{NotReady, broken_off};
use super::forward::Context;
use crate::dialects::{Answer, Exchange, Form, Problem, sse};
use crate::engine::Counted;
use crate::http::{self, AnswerBody, Upload, whole};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Frame};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Response};
use std::pin::Pin;
use std::task::{Poll, ready};

/// The longest body that is taken: as long as the engine's own limit.
const BODY_BYTES: usize = 32 << 20;

/// The longest whole answer of the engine.
const ANSWER_BYTES: usize = 64 << 20;

/// Reads a request's body.
pub(super) async fn read(body: Upload) -> Result<Bytes, Problem> {
    http::read(body, BODY_BYTES).await
}

/// Asks the engine, and translates its answer.
pub(super) async fn perform(context: &Context, exchange: Exchange) -> Result<Response<AnswerBody>, Problem> {
    let request = request(Method::POST, exchange.path, exchange.body);
    let response = or_refused(dispatch::send(context, request).await?).await?;
    let mut answer = exchange.answer;
    let content_type = HeaderValue::from_static(answer.content_type());
    let (body, streams) = match exchange.form {
        Form::Whole => {
            let answered = collect(response).await?;
            (whole(answer.whole(&answered)?), false)
        }
        Form::Stream => {
            let broken_off = broken_off(response.extensions());
            let body = Translated::new(response.into_body(), answer, broken_off);
            (body.boxed_unsync(), true)
        }
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, content_type);
    if streams {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    }
    Ok(response)
}

/// What the own engine says at a path.
pub(super) async fn get(context: &Context, path: &'static str) -> Result<Bytes, Problem> {
    let serving = context.own.serving().map_err(NotReady::problem)?;
    let request = request(Method::GET, path, Vec::new());
    let response = or_refused(dispatch::to_own(&serving, request).await?).await?;
    collect(response).await
}

/// A request to the engine.
fn request(method: Method, path: &'static str, body: Vec<u8>) -> Request<Bytes> {
    let mut request = Request::new(Bytes::from(body));
    *request.method_mut() = method;
    *request.uri_mut() = hyper::Uri::from_static(path);
    request
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    request
}

/// The answer of an engine; a refusal of its is a problem.
async fn or_refused(response: Response<Counted>) -> Result<Response<Counted>, Problem> {
    if response.status().is_success() {
        return Ok(response);
    }
    let status = response.status().as_u16();
    let retry_after = response.headers().get(RETRY_AFTER);
    let retry_after_seconds = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
    let body = collect(response).await?;
    Err(Problem {
        retry_after_seconds,
        ..Problem::from_answer(status, &body)
    })
}

async fn collect(response: Response<Counted>) -> Result<Bytes, Problem> {
    let broken_off = broken_off(response.extensions());
    match Limited::new(response.into_body(), ANSWER_BYTES).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Problem::engine("the answer is too long")),
        Err(_) => Err(broken_off),
    }
}

/// A stream of the engine in the client's dialect.
#[derive(Debug)]
struct Translated<B = Counted> {
    from_engine: B,
    events: sse::Reader,
    answer: Box<dyn Answer>,
    /// What is said if it ends before that.
    broken_off: Problem,
    /// The engine has said that all was sent.
    done: bool,
    over: bool,
}

impl<B> Translated<B> {
    fn new(from_engine: B, answer: Box<dyn Answer>, broken_off: Problem) -> Self {
        Self {
            from_engine,
            events: sse::Reader::default(),
            answer,
            broken_off,
            done: false,
            over: false,
        }
    }

    fn translate(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len() + 256);
        let Self {
            events, answer, done, ..
        } = self;
        events.read(bytes, |item| match item {
            sse::Item::Comment => answer.keep_alive(&mut out),
            sse::Item::Data(data) if data == b"[DONE]" => *done = true,
            sse::Item::Data(data) => answer.event(&data, &mut out),
        });
        out
    }

    /// What the stream ends with. Without the engine's last word it is not known to be whole.
    fn finish(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        if self.done {
            self.answer.end(&mut out);
        } else {
            self.answer.broken(&self.broken_off, &mut out);
        }
        out
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Translated<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        while !self.over {
            let out = match ready!(Pin::new(&mut self.from_engine).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    let bytes = frame.into_data().unwrap_or_default();
                    self.translate(&bytes)
                }
                Some(Err(_)) | None => {
                    self.over = true;
                    self.finish()
                }
            };
            if !out.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(Bytes::from(out)))));
            }
        }
        Poll::Ready(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;
    use http_body_util::StreamBody;

    /// Writes events as they are, a letter for each other call.
    #[derive(Debug)]
    struct Plain;

    impl Answer for Plain {
        fn content_type(&self) -> &'static str {
            "text/plain"
        }

        fn whole(&mut self, answer: &[u8]) -> Result<Vec<u8>, Problem> {
            Ok(answer.to_owned())
        }

        fn event(&mut self, data: &[u8], out: &mut Vec<u8>) {
            out.extend_from_slice(data);
        }

        fn keep_alive(&mut self, out: &mut Vec<u8>) {
            out.push(b'k');
        }

        fn broken(&mut self, _: &Problem, out: &mut Vec<u8>) {
            out.push(b'b');
        }

        fn end(&mut self, out: &mut Vec<u8>) {
            out.push(b'e');
        }
    }

    async fn translate(pieces: Vec<Result<&'static str, &'static str>>) -> String {
        let frames = pieces
            .into_iter()
            .map(|piece| piece.map(|text| Frame::data(Bytes::from_static(text.as_bytes()))));
        let broken_off = Problem::engine("it is gone");
        let body = Translated::new(StreamBody::new(stream::iter(frames)), Box::new(Plain), broken_off);
        let bytes = body.collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_whole_stream_is_translated_to_its_end() {
        let pieces = vec![
            Ok("data: 1\n\nda"),
            Ok("ta: 2\n\n: x\n\n"),
            Ok("data: [DONE]\n\n"),
        ];
        assert_eq!(translate(pieces).await, "12ke");
    }

    #[tokio::test]
    async fn a_stream_without_its_end_is_broken() {
        assert_eq!(translate(vec![Ok("data: 1\n\n")]).await, "1b");
        assert_eq!(translate(vec![Ok("data: 1\n\n"), Err("reset")]).await, "1b");
    }
}
