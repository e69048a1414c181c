//! A name for each exchange, by which what a client reports is found in the log.

use crate::dialects::Route;
use hyper::header::{HeaderName, HeaderValue};
use std::fmt;

/// Random bytes of a name.
const BYTES: usize = 12;

/// What an exchange is called: `req_` and random digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RequestId(String);

impl RequestId {
    /// A new one; none where the system has no random numbers.
    pub(super) fn new() -> Option<Self> {
        let mut bytes = [0; BYTES];
        getrandom::fill(&mut bytes).ok()?;
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Some(Self(format!("req_{digits}")))
    }

    /// The header that tells it, by the name that clients of the route's dialect look for.
    pub(super) fn header(&self, route: &Route) -> Option<(HeaderName, HeaderValue)> {
        let name = match route {
            Route::Anthropic(_) => "request-id",
            Route::Engine | Route::Responses(_) => "x-request-id",
            // Ollama's clients know none.
            Route::Ollama(_) => return None,
        };
        let value = HeaderValue::from_str(&self.0).ok()?;
        Some((HeaderName::from_static(name), value))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialects::route;
    use hyper::Method;

    #[test]
    fn each_dialect_has_its_header() {
        let id = RequestId::new().unwrap();
        assert_ne!(id, RequestId::new().unwrap());
        for (path, name) in [
            ("/v1/messages", Some("request-id")),
            ("/v1/chat/completions", Some("x-request-id")),
            ("/v1/responses", Some("x-request-id")),
            ("/api/chat", None),
        ] {
            let header = id.header(&route(&Method::POST, path));
            assert_eq!(header.as_ref().map(|(name, _)| name.as_str()), name, "{path}");
        }
    }
}
