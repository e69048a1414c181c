//! Which paths belong to which dialect.

use super::responses;
use hyper::Method;

/// What a request is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// The engine's own dialect: forwarded byte for byte.
    Engine,
    /// OpenAI Responses.
    Responses(responses::Call),
}

/// Finds the dialect of a path.
pub fn route(method: &Method, path: &str) -> Route {
    if let Some(call) = responses::call(method, path) {
        return Route::Responses(call);
    }
    Route::Engine
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_dialect_has_its_paths() {
        for (path, expected) in [
            ("/v1/responses", Route::Responses(responses::Call::Create)),
            ("/v1/chat/completions", Route::Engine),
            ("/v1/responses/resp_1/other", Route::Engine),
        ] {
            assert_eq!(route(&Method::POST, path), expected, "{path}");
        }
    }
}
