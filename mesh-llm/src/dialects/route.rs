//! Which paths belong to which dialect.

use hyper::Method;

/// What a request is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// The engine's own dialect: forwarded byte for byte.
    Engine,
    /// Anthropic's Messages.
    Anthropic(Anthropic),
}

/// What of Anthropic's Messages a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Anthropic {
    /// `POST /v1/messages`
    Messages,
    /// `POST /v1/messages/count_tokens`
    CountTokens,
    /// One of these paths, with another method.
    WrongMethod,
}

/// Finds the dialect of a path.
pub fn route(method: &Method, path: &str) -> Route {
    match path {
        "/v1/messages" | "/v1/messages/count_tokens" if method != Method::POST => {
            Route::Anthropic(Anthropic::WrongMethod)
        }
        "/v1/messages" => Route::Anthropic(Anthropic::Messages),
        "/v1/messages/count_tokens" => Route::Anthropic(Anthropic::CountTokens),
        _ => Route::Engine,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anthropic_s_paths_are_found() {
        for (method, path, expected) in [
            (Method::POST, "/v1/messages", Anthropic::Messages),
            (Method::POST, "/v1/messages/count_tokens", Anthropic::CountTokens),
            (Method::GET, "/v1/messages", Anthropic::WrongMethod),
            (Method::PUT, "/v1/messages/count_tokens", Anthropic::WrongMethod),
        ] {
            assert_eq!(
                route(&method, path),
                Route::Anthropic(expected),
                "{method} {path}"
            );
        }
    }

    #[test]
    fn what_no_dialect_knows_is_the_engine_s() {
        for path in [
            "/",
            "/v1/models",
            "/v1/chat/completions",
            "/v1/messages/",
            "/messages",
        ] {
            assert_eq!(route(&Method::POST, path), Route::Engine, "{path}");
        }
    }
}
