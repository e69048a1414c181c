//! What pages of other sites may make this server do: nothing.
//!
//! A browser asks before it sends JSON to another site, and is told no (`cors`). It sends a body that is
//! not declared to be JSON without asking: the page could not read the answer, but it would be computed.

use super::cors;
use hyper::header::{CONTENT_TYPE, ORIGIN};
use hyper::{Method, Request};

/// Whether a page of another site may have sent a request that does something.
pub fn is_foreign<B>(request: &Request<B>) -> bool {
    let asks = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let headers = request.headers();
    let is_json = headers
        .get(CONTENT_TYPE)
        .is_some_and(|declared| declared.as_bytes().starts_with(b"application/json"));
    let foreign = headers.get(ORIGIN).is_some_and(|origin| !cors::is_local(origin));
    foreign && !asks && !is_json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_foreign_pages_must_declare_json() {
        let refused = |origin: Option<&str>, declared: Option<&str>| {
            let mut request = Request::post("/v1/chat/completions");
            for (name, value) in [(ORIGIN, origin), (CONTENT_TYPE, declared)] {
                if let Some(value) = value {
                    request = request.header(name, value);
                }
            }
            is_foreign(&request.body(()).unwrap())
        };
        let foreign = Some("https://example.com");
        assert!(refused(foreign, None) && refused(foreign, Some("text/plain")));
        // The browser asks before it sends this, and is told no.
        assert!(!refused(foreign, Some("application/json")));
        assert!(!refused(Some("http://localhost:3000"), Some("text/plain")));
        assert!(!refused(None, Some("application/x-www-form-urlencoded")));
        let look = Request::get("/v1/models").header(ORIGIN, "https://example.com");
        assert!(!is_foreign(&look.body(()).unwrap()));
    }
}
