//! Which paths belong to which dialect.

use super::ollama;
use hyper::Method;

/// What a request is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// The engine's own dialect: forwarded byte for byte.
    Engine,
    /// Ollama's dialect.
    Ollama(ollama::Endpoint),
}

/// Finds the dialect of a path.
pub fn route(method: &Method, path: &str) -> Route {
    if let Some(endpoint) = ollama::route(method, path) {
        return Route::Ollama(endpoint);
    }
    Route::Engine
}

#[cfg(test)]
mod tests {
    use super::*;
    use ollama::Endpoint;

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
