//! Answers that are there as soon as they are asked for.

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::Response;
use hyper::header::{CONTENT_TYPE, HeaderValue};

/// The body of everything that is answered.
pub type AnswerBody = UnsyncBoxBody<Bytes, hyper::Error>;

/// A body that is there.
pub fn whole<E>(body: Vec<u8>) -> UnsyncBoxBody<Bytes, E> {
    Full::new(Bytes::from(body))
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// An answer in JSON.
pub fn json(body: Vec<u8>) -> Response<AnswerBody> {
    let mut response = Response::new(whole(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
