//! OpenAI's error object, and the status that goes with it.

use std::time::Duration;

use serde::{Serialize, Serializer, ser::SerializeStruct};

/// Why a request was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// Decides the HTTP status and the `type`.
    pub status: Status,
    /// One or two sentences for a person: the thing, the cause, the remedy.
    pub message: String,
    /// The parameter that is wrong, as a path: `messages[2].content`.
    pub param: Option<String>,
    /// For programs.
    pub code: ErrorCode,
    /// When it is worth trying again.
    pub retry_after: Option<Duration>,
}

/// The HTTP status of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// 400
    BadRequest,
    /// 401
    Unauthorized,
    /// 404
    NotFound,
    /// 405
    MethodNotAllowed,
    /// 413
    TooLarge,
    /// 429
    TooManyRequests,
    /// 500
    Internal,
    /// 503
    Unavailable,
}

impl Status {
    /// The number.
    pub fn code(self) -> u16 {
        match self {
            Status::BadRequest => 400,
            Status::Unauthorized => 401,
            Status::NotFound => 404,
            Status::MethodNotAllowed => 405,
            Status::TooLarge => 413,
            Status::TooManyRequests => 429,
            Status::Internal => 500,
            Status::Unavailable => 503,
        }
    }

    /// The error object's `type`.
    pub fn kind(self) -> &'static str {
        match self {
            Status::Unauthorized => "authentication_error",
            Status::TooManyRequests => "rate_limit_error",
            Status::Internal | Status::Unavailable => "server_error",
            Status::BadRequest | Status::NotFound | Status::MethodNotAllowed | Status::TooLarge => {
                "invalid_request_error"
            }
        }
    }
}

/// The error object's `code`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The body is not JSON.
    InvalidJson,
    /// The body is declared to be something else than JSON.
    InvalidContentType,
    /// The body could not be received.
    InvalidBody,
    /// A value has the wrong JSON type.
    InvalidType,
    /// A value has the right type and is outside of what is allowed.
    InvalidValue,
    /// Something is missing.
    MissingRequiredParameter,
    /// This server does not do that.
    UnsupportedParameter,
    /// This server does that parameter, but not this value.
    UnsupportedValue,
    /// The prompt does not fit into the context.
    ContextLengthExceeded,
    /// There is no model of that name.
    ModelNotFound,
    /// There is nothing at this path.
    UnknownUrl,
    /// There is something at this path, but not with this method.
    MethodNotAllowed,
    /// The body has too many bytes.
    RequestTooLarge,
    /// The secret is missing or wrong.
    InvalidApiKey,
    /// Too many requests at once.
    RateLimitExceeded,
    /// The server is about to end.
    ShuttingDown,
    /// A node of the split is lost.
    NodeLost,
    /// The engine failed.
    EngineError,
}

impl ApiError {
    /// An error of this status and code that names no parameter.
    pub fn new(status: Status, code: ErrorCode, message: impl Into<String>) -> Self {
        ApiError {
            status,
            message: message.into(),
            param: None,
            code,
            retry_after: None,
        }
    }

    /// A 400 about a parameter.
    pub fn bad(code: ErrorCode, param: impl Into<String>, message: impl Into<String>) -> Self {
        ApiError {
            status: Status::BadRequest,
            message: message.into(),
            param: Some(param.into()),
            code,
            retry_after: None,
        }
    }

    /// A parameter's value is not allowed.
    pub fn value(param: impl Into<String>, message: impl Into<String>) -> Self {
        ApiError::bad(ErrorCode::InvalidValue, param, message)
    }

    /// A parameter that must be there is not.
    pub fn missing(param: impl Into<String>) -> Self {
        let param = param.into();
        let message = format!("{param} is missing");
        ApiError::bad(ErrorCode::MissingRequiredParameter, param, message)
    }

    /// A parameter that this server knows and does not do.
    pub fn unsupported(param: impl Into<String>, message: impl Into<String>) -> Self {
        ApiError::bad(ErrorCode::UnsupportedParameter, param, message)
    }

    /// The same error, about another parameter.
    pub fn with_param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// The same error, worth another try after this time.
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// The value of the `Retry-After` header, in whole seconds.
    pub fn retry_after_seconds(&self) -> Option<u64> {
        self.retry_after
            .map(|after| after.as_millis().div_ceil(1000).max(1) as u64)
    }
}

/// `{"error":{"message":…,"type":…,"param":…,"code":…}}`
impl Serialize for ApiError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Body<'a> {
            message: &'a str,
            r#type: &'static str,
            param: Option<&'a str>,
            code: ErrorCode,
        }
        let mut outer = serializer.serialize_struct("ApiError", 1)?;
        outer.serialize_field(
            "error",
            &Body {
                message: &self.message,
                r#type: self.status.kind(),
                param: self.param.as_deref(),
                code: self.code,
            },
        )?;
        outer.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_form_is_openais_error_object() {
        let error = ApiError::value("temperature", "temperature is 3, but must be from 0 to 2");
        assert_eq!(
            serde_json::to_string(&error).unwrap(),
            r#"{"error":{"message":"temperature is 3, but must be from 0 to 2","type":"invalid_request_error","param":"temperature","code":"invalid_value"}}"#
        );
        let error = ApiError::new(Status::Internal, ErrorCode::EngineError, "x");
        assert_eq!(
            serde_json::to_string(&error).unwrap(),
            r#"{"error":{"message":"x","type":"server_error","param":null,"code":"engine_error"}}"#
        );
    }

    #[test]
    fn statuses_and_types_are_pinned() {
        let all = [
            (Status::BadRequest, 400, "invalid_request_error"),
            (Status::Unauthorized, 401, "authentication_error"),
            (Status::NotFound, 404, "invalid_request_error"),
            (Status::MethodNotAllowed, 405, "invalid_request_error"),
            (Status::TooLarge, 413, "invalid_request_error"),
            (Status::TooManyRequests, 429, "rate_limit_error"),
            (Status::Internal, 500, "server_error"),
            (Status::Unavailable, 503, "server_error"),
        ];
        for (status, code, kind) in all {
            assert_eq!((status.code(), status.kind()), (code, kind));
        }
    }

    #[test]
    fn codes_are_pinned() {
        let all = [
            (ErrorCode::InvalidJson, "invalid_json"),
            (ErrorCode::InvalidContentType, "invalid_content_type"),
            (ErrorCode::InvalidBody, "invalid_body"),
            (ErrorCode::InvalidType, "invalid_type"),
            (ErrorCode::InvalidValue, "invalid_value"),
            (ErrorCode::MissingRequiredParameter, "missing_required_parameter"),
            (ErrorCode::UnsupportedParameter, "unsupported_parameter"),
            (ErrorCode::UnsupportedValue, "unsupported_value"),
            (ErrorCode::ContextLengthExceeded, "context_length_exceeded"),
            (ErrorCode::ModelNotFound, "model_not_found"),
            (ErrorCode::UnknownUrl, "unknown_url"),
            (ErrorCode::MethodNotAllowed, "method_not_allowed"),
            (ErrorCode::RequestTooLarge, "request_too_large"),
            (ErrorCode::InvalidApiKey, "invalid_api_key"),
            (ErrorCode::RateLimitExceeded, "rate_limit_exceeded"),
            (ErrorCode::ShuttingDown, "shutting_down"),
            (ErrorCode::NodeLost, "node_lost"),
            (ErrorCode::EngineError, "engine_error"),
        ];
        for (code, wire) in all {
            assert_eq!(serde_json::to_value(code).unwrap(), wire);
        }
    }

    #[test]
    fn retry_after_is_never_zero_and_rounds_up() {
        let seconds = |ms| {
            ApiError::new(Status::TooManyRequests, ErrorCode::RateLimitExceeded, "busy")
                .with_retry_after(Duration::from_millis(ms))
                .retry_after_seconds()
        };
        assert_eq!(seconds(0), Some(1));
        assert_eq!(seconds(1000), Some(1));
        assert_eq!(seconds(1001), Some(2));
    }
}
