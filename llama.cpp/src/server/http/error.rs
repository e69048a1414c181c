//! Errors as HTTP responses, and the engine's failures as errors.

use std::time::Duration;

use axum::{
    http::{HeaderValue, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Json, Response},
};

use super::super::{
    api::{ApiError, ErrorCode, Status},
    engine::task::Failure,
};

/// When a server that ends should be back, or another in its place.
const RESTART: Duration = Duration::from_secs(2);

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(&self)).into_response();
        if let Some(seconds) = self.retry_after_seconds() {
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// What to name when the engine refuses a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Blame {
    /// The parameter that the prompt came in.
    pub(super) prompt: &'static str,
    /// The parameter that the grammar came from, if there is one.
    pub(super) grammar: Option<&'static str>,
}

impl Blame {
    /// An engine's failure as the API's error.
    pub(super) fn error(self, failure: Failure) -> ApiError {
        let message = failure.to_string();
        match failure {
            Failure::TooLong { .. } => ApiError::bad(ErrorCode::ContextLengthExceeded, self.prompt, message),
            Failure::Invalid(_) => {
                let error = ApiError::new(Status::BadRequest, ErrorCode::InvalidValue, message);
                match self.grammar {
                    Some(param) => error.with_param(param),
                    None => error,
                }
            }
            Failure::Busy { retry_after, .. } => {
                ApiError::new(Status::TooManyRequests, ErrorCode::RateLimitExceeded, message)
                    .with_retry_after(retry_after)
            }
            Failure::ShuttingDown => {
                ApiError::new(Status::Unavailable, ErrorCode::ShuttingDown, message).with_retry_after(RESTART)
            }
            Failure::Lost(_) => {
                ApiError::new(Status::Unavailable, ErrorCode::NodeLost, message).with_retry_after(RESTART)
            }
            Failure::Engine(_) => {
                tracing::error!(%message, "a request failed");
                ApiError::new(Status::Internal, ErrorCode::EngineError, message)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLAME: Blame = Blame {
        prompt: "messages",
        grammar: Some("grammar"),
    };

    #[test]
    fn a_prompt_that_is_too_long_is_told_the_counts() {
        let error = BLAME.error(Failure::TooLong {
            prompt_tokens: 9000,
            context: 4096,
        });
        assert_eq!(error.status, Status::BadRequest);
        assert_eq!(error.code, ErrorCode::ContextLengthExceeded);
        assert_eq!(error.param.as_deref(), Some("messages"));
        assert!(error.message.contains("9000") && error.message.contains("4096"));
    }

    #[test]
    fn a_busy_engine_says_when_to_try_again() {
        let failure = Failure::Busy {
            slots: 1,
            waiting: 2,
            retry_after: Duration::from_secs(3),
        };
        let response = BLAME.error(failure).into_response();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()[RETRY_AFTER], "3");
        let response = BLAME.error(Failure::ShuttingDown).into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(response.headers().contains_key(RETRY_AFTER));
    }

    #[test]
    fn a_grammar_that_does_not_parse_is_named() {
        let error = BLAME.error(Failure::Invalid("no root".into()));
        assert_eq!(
            (error.status, error.param.as_deref()),
            (Status::BadRequest, Some("grammar"))
        );
        let error = Blame {
            prompt: "prompt",
            grammar: None,
        }
        .error(Failure::Invalid("odd".into()));
        assert_eq!(error.param, None);
    }

    #[test]
    fn a_failed_engine_is_the_servers_fault() {
        let error = BLAME.error(Failure::Engine("out of memory".into()));
        assert_eq!(error.status, Status::Internal);
    }
}
