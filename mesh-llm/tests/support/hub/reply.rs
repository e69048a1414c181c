//! Answers: their heads, and bodies that arrive slowly, or in part.

use super::{Door, Fault, Logged, Shared, lock, metadata, storage};
use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderName, RANGE, RETRY_AFTER};
use hyper::{Method, Request, Response};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What is sent at once.
const CHUNK: usize = 64 << 10;

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A head and, if it goes well, a part of a file.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(HeaderName, String)>,
    pub(super) bytes: Bytes,
    pub(super) start: u64,
    pub(super) fault: Option<Fault>,
}

pub(super) fn reply(status: u16, bytes: impl Into<Bytes>) -> Reply {
    Reply {
        status,
        headers: Vec::new(),
        bytes: bytes.into(),
        start: 0,
        fault: None,
    }
}

impl Reply {
    pub(super) fn header(mut self, name: impl TryInto<HeaderName>, value: impl ToString) -> Self {
        let name = name.try_into().unwrap_or_else(|_| panic!("no name of a header"));
        self.headers.push((name, value.to_string()));
        self
    }
}

pub(super) fn answer(shared: &Arc<Shared>, door: Door, request: &Request<Incoming>) -> Response<Body> {
    let reply = match door {
        Door::Hub => metadata::reply_to(shared, request),
        Door::Storage => storage::reply_to(shared, request),
    };
    let sent = Arc::new(AtomicU64::new(0));
    lock(&shared.log).push(Logged {
        door,
        method: request.method().clone(),
        path: request.uri().to_string(),
        range: asked(request, RANGE).map(str::to_owned),
        authorization: asked(request, AUTHORIZATION).map(str::to_owned),
        status: reply.status,
        start: reply.start,
        sent: sent.clone(),
    });
    let mut response = Response::builder().status(reply.status);
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    let response = response.header(CONTENT_LENGTH, reply.bytes.len());
    let bytes = match *request.method() {
        Method::HEAD => Bytes::new(),
        _ => reply.bytes,
    };
    let rate = lock(&shared.behaviour)
        .bytes_per_second
        .filter(|_| door == Door::Storage);
    response
        .body(body(bytes, reply.fault, rate, sent, Open::new(shared, door)))
        .unwrap()
}

pub(super) fn asked(request: &Request<Incoming>, name: HeaderName) -> Option<&str> {
    Some(request.headers().get(name)?.to_str().unwrap())
}

/// Counts a body while it is on its way.
struct Open(Option<Arc<Shared>>);

impl Open {
    fn new(shared: &Arc<Shared>, door: Door) -> Self {
        if door == Door::Hub {
            return Self(None);
        }
        let now = shared.open.fetch_add(1, Ordering::SeqCst) + 1;
        shared.peak.fetch_max(now, Ordering::SeqCst);
        Self(Some(shared.clone()))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(shared) = &self.0 {
            shared.open.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// Sends bytes until there are none left, or the fault happens.
fn body(bytes: Bytes, fault: Option<Fault>, rate: Option<u64>, sent: Arc<AtomicU64>, open: Open) -> Body {
    let limit = match fault {
        Some(Fault::Cut(bytes) | Fault::Stall(bytes)) => Some(bytes as usize),
        _ => None,
    };
    let good = bytes.slice(..limit.unwrap_or(bytes.len()).min(bytes.len()));
    let chunk = rate.map_or(CHUNK, |rate| (rate as usize / 20).clamp(1, CHUNK));
    StreamBody::new(stream::unfold((good, open), move |(mut left, open)| {
        let (sent, fault) = (sent.clone(), fault.clone());
        async move {
            if left.is_empty() {
                return match fault {
                    Some(Fault::Cut(_)) => {
                        // hyper throws away what it has not sent yet; while this waits, it sends.
                        tokio::time::sleep(Duration::from_millis(10)).await;
                        Some((Err(io::Error::other("cut")), (left, open)))
                    }
                    Some(Fault::Stall(_)) => std::future::pending().await,
                    _ => None,
                };
            }
            let piece = left.split_to(chunk.min(left.len()));
            if let Some(rate) = rate {
                tokio::time::sleep(Duration::from_secs_f64(piece.len() as f64 / rate as f64)).await;
            }
            sent.fetch_add(piece.len() as u64, Ordering::SeqCst);
            Some((Ok(Frame::data(piece)), (left, open)))
        }
    }))
    .boxed_unsync()
}

pub(super) fn failed(status: u16, after: Option<&'static str>) -> Reply {
    let failed = reply(status, "try again later");
    match after {
        Some(after) => failed.header(RETRY_AFTER, after),
        None => failed,
    }
}
