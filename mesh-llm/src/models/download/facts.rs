//! What a server says about a file: its length, its hash, and whether it is still the same one.

use super::Error;
use super::http::{Answer, Failure, shown};
use reqwest::StatusCode;
use reqwest::header::{CONTENT_RANGE, ETAG, HeaderMap, HeaderValue, LAST_MODIFIED};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// A SHA-256 hash.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Sha256(pub [u8; 32]);

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Sha256 {
    type Err = &'static str;

    fn from_str(words: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "a SHA-256 hash is 64 hexadecimal digits";
        if words.len() != 64 || !words.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(WRONG);
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(words.as_bytes().chunks_exact(2)) {
            let digits = std::str::from_utf8(pair).map_err(|_| WRONG)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| WRONG)?;
        }
        Ok(Self(bytes))
    }
}

impl From<Sha256> for String {
    fn from(hash: Sha256) -> Self {
        hash.to_string()
    }
}

impl TryFrom<String> for Sha256 {
    type Error = &'static str;

    fn try_from(words: String) -> Result<Self, Self::Error> {
        words.parse()
    }
}

/// What the hub says, on the way to the server that stores the file.
#[derive(Debug, Clone, Default)]
pub(super) struct Linked {
    /// `X-Linked-Etag`, where it is a SHA-256: that of the file.
    pub(super) sha256: Option<Sha256>,
    /// `X-Linked-Size`.
    pub(super) bytes: Option<u64>,
}

impl Linked {
    /// Adds what an answer on the way says; the first that says something counts.
    pub(super) fn add(&mut self, headers: &HeaderMap) {
        let text = |name| {
            headers
                .get(name)
                .and_then(|value: &HeaderValue| value.to_str().ok())
        };
        self.sha256 = self
            .sha256
            .or_else(|| unquoted(text("x-linked-etag")?).parse().ok());
        self.bytes = self.bytes.or_else(|| text("x-linked-size")?.parse().ok());
    }
}

/// What tells one content of an address from the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Identity {
    /// The hash that the hub links to.
    Sha256(Sha256),
    /// `ETag`.
    Etag(String),
    /// `Last-Modified`.
    Modified(String),
}

/// A file on a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Facts {
    /// Its length.
    pub(super) bytes: u64,
    /// What its bytes hash to.
    pub(super) sha256: Option<Sha256>,
    /// What it is known by; without it, nothing can be continued later.
    pub(super) identity: Option<Identity>,
    /// Whether parts of it can be asked for.
    pub(super) ranges: bool,
}

/// Whether an answer is about the same file.
#[derive(Debug)]
pub(super) enum Same {
    /// It is, and its body begins at this byte of the file.
    From(u64),
    /// It is another one by now, or told in another way: the server is to be asked again.
    Changed,
}

impl Facts {
    /// Reads the answer to a request for the first byte.
    pub(super) fn of(answer: &Answer) -> Result<Self, Failure> {
        let url = || shown(&answer.url);
        let headers = answer.response.headers();
        let status = answer.response.status();
        let bytes = match status {
            StatusCode::OK => answer.response.content_length(),
            _ => content_range(headers).and_then(|(_, total)| total),
        };
        let Some(bytes) = bytes else {
            let what = "no length of the file".to_owned();
            return Err(Failure::Final(Error::Unexpected { url: url(), what }));
        };
        if let Some(expected) = answer.linked.bytes.filter(|expected| *expected != bytes) {
            let (url, found) = (url(), bytes);
            return Err(Failure::Final(Error::WrongLength { url, expected, found }));
        }
        let etag = text(headers, ETAG.as_str());
        let linked = answer.linked.sha256;
        Ok(Self {
            bytes,
            sha256: linked.or_else(|| unquoted(etag?).parse().ok()),
            identity: linked
                .map(Identity::Sha256)
                .or_else(|| Some(Identity::Etag(etag?.to_owned())))
                .or_else(|| {
                    Some(Identity::Modified(
                        text(headers, LAST_MODIFIED.as_str())?.to_owned(),
                    ))
                }),
            ranges: status == StatusCode::PARTIAL_CONTENT,
        })
    }

    /// The condition under which a part is wanted (`If-Range`). None where the hub's hash tells more:
    /// servers that store the same file may have different tags for it. A weak tag is no condition
    /// (RFC 9110, section 13.1.5).
    pub(super) fn condition(&self) -> Option<HeaderValue> {
        match self.identity.as_ref()? {
            Identity::Etag(tag) if !tag.starts_with("W/") => HeaderValue::from_str(tag).ok(),
            Identity::Modified(date) => HeaderValue::from_str(date).ok(),
            _ => None,
        }
    }

    /// Looks whether the answer to a request for `range` is about this file.
    pub(super) fn same(&self, answer: &Answer, range: Option<&Range<u64>>) -> Result<Same, Failure> {
        let headers = answer.response.headers();
        let changed = match &self.identity {
            Some(Identity::Sha256(hash)) => answer.linked.sha256.is_some_and(|now| now != *hash),
            Some(Identity::Etag(tag)) => text(headers, ETAG.as_str()).is_some_and(|now| now != tag),
            Some(Identity::Modified(date)) => {
                text(headers, LAST_MODIFIED.as_str()).is_some_and(|now| now != date)
            }
            None => false,
        };
        if changed {
            return Ok(Same::Changed);
        }
        match (answer.response.status(), range) {
            (StatusCode::OK, None) if answer.response.content_length() == Some(self.bytes) => {
                Ok(Same::From(0))
            }
            (StatusCode::PARTIAL_CONTENT, Some(range)) => match content_range(headers) {
                Some((_, total)) if total.is_some_and(|total| total != self.bytes) => Ok(Same::Changed),
                Some((Some(part), _)) if part.start == range.start => Ok(Same::From(part.start)),
                _ => Err(Failure::again(Error::Unexpected {
                    url: shown(&answer.url),
                    what: format!("other bytes than {}-{}", range.start, range.end - 1),
                })),
            },
            _ => Ok(Same::Changed),
        }
    }
}

/// Reads `Content-Range: bytes 0-99/1000`, where both parts may be `*` (RFC 9110, section 14.4).
fn content_range(headers: &HeaderMap) -> Option<(Option<Range<u64>>, Option<u64>)> {
    let (part, total) = text(headers, CONTENT_RANGE.as_str())?
        .strip_prefix("bytes ")?
        .split_once('/')?;
    let part = match part {
        "*" => None,
        part => {
            let (first, last) = part.split_once('-')?;
            Some(first.parse().ok()?..last.parse::<u64>().ok()?.checked_add(1)?)
        }
    };
    let total = match total {
        "*" => None,
        total => Some(total.parse().ok()?),
    };
    Some((part, total))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn unquoted(tag: &str) -> &str {
    tag.strip_prefix("W/").unwrap_or(tag).trim_matches('"')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(value: &str) -> Option<(Option<Range<u64>>, Option<u64>)> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_RANGE, HeaderValue::from_str(value).unwrap());
        content_range(&headers)
    }

    #[test]
    fn content_range_is_read_as_the_standard_writes_it() {
        assert_eq!(range("bytes 0-99/1000"), Some((Some(0..100), Some(1000))));
        assert_eq!(range("bytes 7-7/*"), Some((Some(7..8), None)));
        assert_eq!(range("bytes */0"), Some((None, Some(0))));
        for wrong in [
            "",
            "bytes 0-99",
            "lines 0-9/10",
            "bytes a-b/c",
            "bytes 0-18446744073709551615/1",
        ] {
            assert_eq!(range(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn a_hash_is_read_as_it_is_written(bytes: [u8; 32]) {
            let words = Sha256(bytes).to_string();
            prop_assert_eq!(words.parse(), Ok(Sha256(bytes)));
            prop_assert_eq!(words.to_uppercase().parse(), Ok(Sha256(bytes)));
            prop_assert!(words[1..].parse::<Sha256>().is_err());
        }
    }
}
