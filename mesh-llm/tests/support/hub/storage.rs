//! The server that stores files.

use super::reply::{Reply, asked, failed, reply};
use super::{Fault, Shared, Stored, lock};
use bytes::Bytes;
use hyper::Request;
use hyper::body::Incoming;
use hyper::header::{ACCEPT_RANGES, CONTENT_RANGE, ETAG, IF_RANGE, LAST_MODIFIED, RANGE};

pub(super) fn reply_to(shared: &Shared, request: &Request<Incoming>) -> Reply {
    let mut behaviour = lock(&shared.behaviour);
    if let Some(Fault::Status(status, after)) = behaviour.faults.front().cloned() {
        behaviour.faults.pop_front();
        return failed(status, after);
    }
    let path = request.uri().path();
    let mut reply = if let Some(hash) = path.strip_prefix("/blobs/") {
        let generation = format!("generation={}", behaviour.generation);
        if request.uri().query() != Some(&generation) {
            return reply(403, "Request has expired");
        }
        let repositories = lock(&shared.repositories);
        let mut files = repositories
            .values()
            .flat_map(|repository| repository.files.values());
        let Some(stored) = files.find(|stored| stored.sha256 == hash) else {
            return reply(404, "");
        };
        // As S3 has it: a tag of its own kind.
        let tag = format!("\"{}-2\"", &hash[..32]);
        let whole = behaviour.ignores_ranges;
        ranged(
            request,
            stored.bytes.clone(),
            Some(&tag),
            None,
            whole,
            [(ETAG.as_str(), tag.clone())],
        )
    } else {
        let plain = lock(&shared.plain);
        let name = path.trim_start_matches("/plain/");
        let Some(Stored {
            bytes, sha256: hash, ..
        }) = plain.get(name)
        else {
            return reply(404, "");
        };
        let tag = match (behaviour.no_etag, behaviour.sha256_etag) {
            (true, _) => None,
            (_, true) => Some(format!("\"{hash}\"")),
            _ => Some(format!("\"{}\"", &hash[..16])),
        };
        let whole = behaviour.ignores_ranges;
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        let headers = tag.clone().map(|tag| (ETAG.as_str(), tag));
        let headers = headers
            .into_iter()
            .chain([(LAST_MODIFIED.as_str(), date.to_owned())]);
        ranged(request, bytes.clone(), tag.as_deref(), Some(date), whole, headers)
    };
    if behaviour.corrupts && reply.bytes.len() > 1 {
        let mut bytes = reply.bytes.to_vec();
        bytes[0] ^= 1;
        reply.bytes = bytes.into();
    }
    let length = reply.bytes.len() as u64;
    let fits = |fault: &Fault| matches!(fault, Fault::Cut(at) | Fault::Stall(at) if *at < length);
    reply.fault = match behaviour.faults.front() {
        Some(fault) if fits(fault) => behaviour.faults.pop_front(),
        _ => behaviour.always.clone().filter(|fault| fits(fault)),
    };
    if let Some(left) = behaviour.allowance {
        reply.fault = (left < length).then_some(Fault::Stall(left)).or(reply.fault);
        behaviour.allowance = Some(left.saturating_sub(length));
    }
    reply
}

/// The part that is asked for, or the whole (RFC 9110, section 14).
pub(super) fn ranged<'a>(
    request: &Request<Incoming>,
    bytes: Bytes,
    tag: Option<&str>,
    date: Option<&str>,
    whole: bool,
    headers: impl IntoIterator<Item = (&'a str, String)>,
) -> Reply {
    let total = bytes.len();
    let condition = asked(request, IF_RANGE);
    let holds = condition.is_none() || condition == tag || condition == date;
    let range = asked(request, RANGE).filter(|_| holds && !whole).map(|range| {
        let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        let end = last.parse::<usize>().map_or(total, |last| (last + 1).min(total));
        first.parse().unwrap()..end
    });
    let mut reply = match range {
        Some(range) if range.start >= total => {
            reply(416, "").header(CONTENT_RANGE, format!("bytes */{total}"))
        }
        Some(range) => {
            let place = format!("bytes {}-{}/{total}", range.start, range.end - 1);
            let mut reply = reply(206, bytes.slice(range.clone())).header(CONTENT_RANGE, place);
            reply.start = range.start as u64;
            reply
        }
        None => reply(200, bytes),
    };
    if !whole {
        reply = reply.header(ACCEPT_RANGES, "bytes");
    }
    for (name, value) in headers {
        reply = reply.header(name, value);
    }
    reply
}
