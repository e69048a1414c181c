//! The HTTP server of an engine: routes and handlers, each a thin layer between `api` and `engine`.
//!
//! What blocks for long (templates, tokenising, making samplers) runs on tokio's blocking threads.
//! An answer's body owns the channels that its events come from, so that a client that goes away
//! frees its slots.

mod answers;
mod auth;
mod body;
mod chat;
mod chat_answer;
mod chat_grammar;
mod chat_prompt;
mod completion;
mod completion_answer;
mod embedding;
mod error;
mod info;
mod metrics;
mod prompt;
mod rerank;
mod stream;
mod tokenize;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{Method, Uri},
    middleware,
    routing::{get, post},
};
use rand::distr::{Alphanumeric, SampleString};

use super::api::{ApiError, ErrorCode, Status, absent, limits, response::Header};
use super::engine::Engine;

/// What the handlers share.
#[derive(Clone)]
struct App {
    engine: Engine,
    /// When the server started, in Unix seconds.
    started: u64,
}

/// The server's routes. With a secret, each request must carry it as `Authorization: Bearer`.
pub fn router(engine: Engine, secret: Option<String>) -> Router {
    let app = App {
        engine,
        started: unix_seconds(),
    };
    let mut router = Router::new()
        .route("/health", get(info::health))
        .route("/metrics", get(metrics::metrics))
        .route("/props", get(info::props))
        .route("/tokenize", post(tokenize::tokenize))
        .route("/detokenize", post(tokenize::detokenize));
    // llama.cpp's server has these without the version, too.
    for version in ["/v1", ""] {
        let path = |rest: &str| format!("{version}{rest}");
        router = router
            .route(&path("/models"), get(info::models))
            .route(&path("/models/{*id}"), get(info::model))
            .route(&path("/chat/completions"), post(chat::completions))
            .route(&path("/chat/completions/input_tokens"), post(chat::input_tokens))
            .route(&path("/completions"), post(completion::completions))
            .route(&path("/embeddings"), post(embedding::embeddings))
            .route(&path("/rerank"), post(rerank::rerank));
    }
    let router = router
        .method_not_allowed_fallback(method_not_allowed)
        .fallback(unknown_url)
        .layer(DefaultBodyLimit::max(limits::BODY_BYTES))
        .with_state(app);
    match secret {
        None => router,
        Some(secret) => router.layer(middleware::from_fn_with_state(Arc::from(secret), auth::check)),
    }
}

async fn unknown_url(method: Method, uri: Uri) -> ApiError {
    let path = uri.path();
    let message = match absent::absent(path) {
        Some(what) => format!(
            "this server has no {what}: there is nothing at {method} {path}; it has chat and text completions, \
             embeddings and reranking"
        ),
        None => format!("there is nothing at {method} {path}; the API is at /v1"),
    };
    ApiError::new(Status::NotFound, ErrorCode::UnknownUrl, message)
}

async fn method_not_allowed(method: Method, uri: Uri) -> ApiError {
    ApiError::new(
        Status::MethodNotAllowed,
        ErrorCode::MethodNotAllowed,
        format!("{} does not take {method}", uri.path()),
    )
}

fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// The header of a new answer, with a random id.
fn header(prefix: &str, engine: &Engine) -> Header {
    let id = Alphanumeric.sample_string(&mut rand::rng(), 24);
    Header {
        id: format!("{prefix}-{id}"),
        created: unix_seconds(),
        model: engine.name().to_owned(),
    }
}

/// Runs what blocks for long where that disturbs nobody.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| {
        tracing::error!(%panic, "a request's preparation failed");
        Err(ApiError::new(
            Status::Internal,
            ErrorCode::EngineError,
            "the server failed to prepare the request",
        ))
    })
}

#[cfg(test)]
mod tests;
