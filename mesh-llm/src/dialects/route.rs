//! Which paths belong to which dialect.

use super::{anthropic, ollama, responses};
use hyper::Method;

/// What a request is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// The engine's own dialect: forwarded byte for byte.
    Engine,
    /// Anthropic's Messages.
    Anthropic(anthropic::Endpoint),
    /// Ollama's dialect.
    Ollama(ollama::Endpoint),
    /// OpenAI Responses.
    Responses(responses::Call),
}

/// Finds the dialect of a path.
pub fn route(method: &Method, path: &str) -> Route {
    let of_anthropic = || anthropic::route(method, path).map(Route::Anthropic);
    let of_ollama = || ollama::route(method, path).map(Route::Ollama);
    let of_responses = || responses::call(method, path).map(Route::Responses);
    of_anthropic()
        .or_else(of_ollama)
        .or_else(of_responses)
        .unwrap_or(Route::Engine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_dialect_has_its_paths() {
        for (path, expected) in [
            ("/v1/messages", Route::Anthropic(anthropic::Endpoint::Messages)),
            ("/v1/responses", Route::Responses(responses::Call::Create)),
            ("/api/chat", Route::Ollama(ollama::Endpoint::Chat)),
        ] {
            assert_eq!(route(&Method::POST, path), expected, "{path}");
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
            "/v1/responses/resp_1/other",
            "/api/nothing",
            "/api/chat/",
        ] {
            assert_eq!(route(&Method::POST, path), Route::Engine, "{path}");
        }
    }
}
