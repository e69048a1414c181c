//! The engine's paths that a model answers at, and that peers may therefore ask.

use hyper::Method;

/// Whether a request asks a model for something.
pub(super) fn is_asked(method: &Method, path: &str) -> bool {
    let rest = path.strip_prefix("/v1").unwrap_or(path);
    let asks = match rest {
        "/chat/completions"
        | "/chat/completions/input_tokens"
        | "/completions"
        | "/embeddings"
        | "/rerank" => true,
        // These have no version.
        "/tokenize" | "/detokenize" => rest == path,
        _ => false,
    };
    asks && *method == Method::POST
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_model_answers_is_inference() {
        for path in [
            "/v1/chat/completions",
            "/v1/chat/completions/input_tokens",
            "/chat/completions",
            "/v1/completions",
            "/v1/embeddings",
            "/rerank",
            "/tokenize",
            "/detokenize",
        ] {
            assert!(is_asked(&Method::POST, path), "{path}");
            assert!(!is_asked(&Method::GET, path), "{path}");
        }
        for path in [
            "/",
            "/v1",
            "/health",
            "/metrics",
            "/props",
            "/v1/models",
            "/v1/tokenize",
            "/v1/v1/completions",
            "/v1/completions/",
            "/v1//completions",
            "/v1/%63ompletions",
            "/api/chat",
        ] {
            assert!(!is_asked(&Method::POST, path), "{path}");
        }
    }
}
