//! Which paths belong to which dialect.

use super::ollama;
use hyper::Method;

/// What a request is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// The engine's own dialect: forwarded byte for byte.
    Engine,
    /// Anthropic's Messages.
    Anthropic(Anthropic),
    /// Ollama's dialect.
    Ollama(ollama::Endpoint),
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
        _ => ollama::route(method, path).map_or(Route::Engine, Route::Ollama),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ollama::Endpoint;

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
    fn ollama_s_paths_are_found_with_their_methods() {
        for (method, path, endpoint) in [
            (Method::GET, "/", Endpoint::Alive),
            (Method::HEAD, "/", Endpoint::Alive),
            (Method::GET, "/api/version", Endpoint::Version),
            (Method::HEAD, "/api/tags", Endpoint::Tags),
            (Method::GET, "/api/ps", Endpoint::Running),
            (Method::POST, "/api/show", Endpoint::Show),
            (Method::POST, "/api/chat", Endpoint::Chat),
            (Method::POST, "/api/generate", Endpoint::Generate),
            (Method::POST, "/api/embed", Endpoint::Embed),
            (Method::POST, "/api/embeddings", Endpoint::Embeddings),
            (Method::POST, "/api/pull", Endpoint::Manage),
            (Method::DELETE, "/api/delete", Endpoint::Manage),
            (Method::HEAD, "/api/blobs/sha256:00", Endpoint::Manage),
            (Method::GET, "/api/chat", Endpoint::WrongMethod),
            (Method::POST, "/api/tags", Endpoint::WrongMethod),
            (Method::POST, "/api/delete", Endpoint::WrongMethod),
        ] {
            assert_eq!(route(&method, path), Route::Ollama(endpoint), "{method} {path}");
        }
    }

    #[test]
    fn everything_else_is_the_engine_s() {
        for (method, path) in [
            (Method::POST, "/v1/chat/completions"),
            (Method::GET, "/v1/models"),
            (Method::POST, "/"),
            (Method::GET, "/api/nothing"),
            (Method::POST, "/api/chat/"),
        ] {
            assert_eq!(route(&method, path), Route::Engine, "{method} {path}");
        }
    }
}
