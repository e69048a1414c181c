//! A request's body: JSON, and not too much of it.

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
    http::{StatusCode, header::CONTENT_TYPE},
};

use super::super::api::{ApiError, ErrorCode, Status, limits};

/// The bytes of a body that is declared to be JSON, or not declared at all.
pub(super) struct JsonBody(pub(super) Bytes);

impl<S: Send + Sync> FromRequest<S> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        if let Some(declared) = request.headers().get(CONTENT_TYPE)
            && !is_json(declared.as_bytes())
        {
            return Err(ApiError::new(
                Status::BadRequest,
                ErrorCode::InvalidContentType,
                format!(
                    "the Content-Type is {}, but must be application/json",
                    String::from_utf8_lossy(declared.as_bytes())
                ),
            ));
        }
        Bytes::from_request(request, state)
            .await
            .map(JsonBody)
            .map_err(|rejection| {
                if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
                    return ApiError::new(
                        Status::TooLarge,
                        ErrorCode::RequestTooLarge,
                        format!("the body is larger than {} bytes", limits::BODY_BYTES),
                    );
                }
                ApiError::new(Status::BadRequest, ErrorCode::InvalidBody, rejection.body_text())
            })
    }
}

/// `application/json`, and what is built on it: `application/vnd.api+json`.
fn is_json(declared: &[u8]) -> bool {
    let essence = declared.split(|&byte| byte == b';').next().unwrap_or_default();
    let essence = essence.trim_ascii().to_ascii_lowercase();
    essence == b"application/json" || (essence.starts_with(b"application/") && essence.ends_with(b"+json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_known_by_its_name() {
        assert!(is_json(b"application/json"));
        assert!(is_json(b"Application/JSON; charset=utf-8"));
        assert!(is_json(b"application/vnd.api+json"));
        assert!(!is_json(b"application/x-www-form-urlencoded"));
        assert!(!is_json(b"text/plain"));
        assert!(!is_json(b""));
    }
}
