//! Which paths are Anthropic's.

use hyper::Method;

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// `POST /v1/messages`
    Messages,
    /// `POST /v1/messages/count_tokens`
    CountTokens,
    /// One of these paths, with another method.
    WrongMethod,
}

/// What a request to one of the dialect's paths is for.
pub fn route(method: &Method, path: &str) -> Option<Endpoint> {
    let endpoint = match path {
        "/v1/messages" => Endpoint::Messages,
        "/v1/messages/count_tokens" => Endpoint::CountTokens,
        _ => return None,
    };
    Some(if method == Method::POST {
        endpoint
    } else {
        Endpoint::WrongMethod
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_paths_are_found_with_their_method() {
        for (method, path, expected) in [
            (Method::POST, "/v1/messages", Endpoint::Messages),
            (Method::POST, "/v1/messages/count_tokens", Endpoint::CountTokens),
            (Method::GET, "/v1/messages", Endpoint::WrongMethod),
            (Method::PUT, "/v1/messages/count_tokens", Endpoint::WrongMethod),
        ] {
            assert_eq!(route(&method, path), Some(expected), "{method} {path}");
        }
        assert_eq!(route(&Method::POST, "/v1/messages/"), None);
    }
}
