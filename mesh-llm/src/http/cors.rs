//! Which web pages may read this server's answers: those served by this machine.

use hyper::header::HeaderValue;
use std::time::Duration;
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, CorsLayer, ExposeHeaders};

/// How long a browser may remember what it was told.
const MAX_AGE: Duration = Duration::from_secs(600);

/// Answers preflight requests and marks answers for local pages.
pub fn layer() -> CorsLayer {
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(|origin, _| is_local(origin)))
        .allow_methods(AllowMethods::mirror_request())
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(ExposeHeaders::any())
        .max_age(MAX_AGE)
}

/// Whether the origin is `http(s)://localhost`, `127.0.0.1` or `[::1]`, at any port.
pub fn is_local(origin: &HeaderValue) -> bool {
    let Ok(origin) = origin.to_str() else {
        return false;
    };
    let Some(rest) = origin
        .strip_prefix("http://")
        .or_else(|| origin.strip_prefix("https://"))
    else {
        return false;
    };
    ["localhost", "127.0.0.1", "[::1]"].into_iter().any(|host| {
        rest.strip_prefix(host).is_some_and(|port| {
            port.is_empty()
                || port
                    .strip_prefix(':')
                    .is_some_and(|port| port.parse::<u16>().is_ok())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_s_pages_are_local() {
        let is_local = |origin: &'static str| is_local(&HeaderValue::from_static(origin));
        for origin in [
            "http://localhost",
            "https://localhost:3000",
            "http://127.0.0.1:5173",
            "http://[::1]",
            "https://[::1]:8443",
        ] {
            assert!(is_local(origin), "{origin}");
        }
        for origin in [
            "null",
            "https://example.com",
            "http://localhost.example.com",
            "http://localhost:80.example.com",
            "http://localhost:",
            "http://127.0.0.1.example.com",
            "http://192.168.1.5",
            "file://localhost",
            "localhost",
        ] {
            assert!(!is_local(origin), "{origin}");
        }
    }
}
