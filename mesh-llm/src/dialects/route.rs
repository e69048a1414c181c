//! Which paths belong to which dialect.

use hyper::Method;

/// What a request is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// The engine's own dialect: forwarded byte for byte.
    Engine,
}

/// Finds the dialect of a path.
pub fn route(_method: &Method, _path: &str) -> Route {
    Route::Engine
}
