//! The secret that requests carry where the listener is open to the whole machine.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::header::AUTHORIZATION,
    middleware::Next,
    response::{IntoResponse, Response},
};
use subtle::ConstantTimeEq;

use super::super::api::{ApiError, ErrorCode, Status};

/// Lets a request pass that carries `Authorization: Bearer` with the secret.
pub(super) async fn check(State(secret): State<Arc<str>>, request: Request, next: Next) -> Response {
    let carried = request
        .headers()
        .get(AUTHORIZATION)
        .and_then(|value| bearer(value.as_bytes()));
    if carried.is_some_and(|carried| carried.ct_eq(secret.as_bytes()).into()) {
        return next.run(request).await;
    }
    ApiError::new(
        Status::Unauthorized,
        ErrorCode::InvalidApiKey,
        "the request must carry the engine's secret as Authorization: Bearer",
    )
    .into_response()
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, secret) = value.split_at_checked("Bearer ".len())?;
    scheme
        .eq_ignore_ascii_case(b"Bearer ")
        .then(|| secret.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_is_bearer_in_any_case() {
        assert_eq!(bearer(b"Bearer x"), Some(&b"x"[..]));
        assert_eq!(bearer(b"bearer x "), Some(&b"x"[..]));
        assert_eq!(bearer(b"Basic xx"), None);
        assert_eq!(bearer(b"x"), None);
    }
}
