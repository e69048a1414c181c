//! What can go wrong, before a dialect has put it into its own words.

use serde::Deserialize;
use serde_json::{Value, json};

/// An error of a request, in OpenAI's terms: all dialects' errors are made of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// Of what kind, as `invalid_request_error`.
    pub kind: Box<str>,
    /// The error, as one word: `model_not_found`.
    pub code: Option<String>,
    /// The field of the request that is at fault.
    pub param: Option<String>,
    /// What is wrong and what to do, for people.
    pub message: String,
    /// When to try again, where that helps.
    pub retry_after_seconds: Option<u32>,
    /// The methods that the path takes, where the request's is not one of them.
    pub allow: Option<&'static str>,
}

impl Problem {
    /// A request that cannot be taken, because of the field `param`.
    pub fn invalid(param: Option<&str>, message: impl Into<String>) -> Self {
        Self {
            status: 400,
            kind: "invalid_request_error".into(),
            code: None,
            param: param.map(str::to_owned),
            message: message.into(),
            retry_after_seconds: None,
            allow: None,
        }
    }

    /// Something that a request refers to and that is not there.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self {
            status: 404,
            ..Self::invalid(None, message)
        }
    }

    /// A method that the path does not take; it takes `allowed`, with commas between.
    pub fn wrong_method(allowed: &'static str) -> Self {
        Self {
            status: 405,
            code: Some("method_not_allowed".to_owned()),
            allow: Some(allowed),
            ..Self::invalid(None, format!("this path takes {allowed} only"))
        }
    }

    /// An answer of the engine that is not what it should be.
    pub fn engine(message: impl Into<String>) -> Self {
        Self {
            status: 500,
            kind: "server_error".into(),
            code: Some("engine_error".to_owned()),
            param: None,
            message: message.into(),
            retry_after_seconds: None,
            allow: None,
        }
    }

    /// What the engine answered with this status, read from OpenAI's error object, or from what else
    /// there is.
    pub fn from_answer(status: u16, body: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Body {
            error: Error,
        }
        #[derive(Deserialize)]
        struct Error {
            message: String,
            r#type: Option<Box<str>>,
            code: Option<String>,
            param: Option<String>,
        }
        match serde_json::from_slice(body) {
            Ok(Body { error }) => Self {
                status,
                kind: error.r#type.unwrap_or_else(|| "server_error".into()),
                code: error.code,
                param: error.param,
                message: error.message,
                retry_after_seconds: None,
                allow: None,
            },
            Err(_) => Self {
                status,
                ..Self::engine(format!(
                    "the engine answered with status {status}: {}",
                    String::from_utf8_lossy(&body[..body.len().min(200)])
                ))
            },
        }
    }

    /// OpenAI's error object.
    pub fn openai(&self) -> Value {
        json!({"error": {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.code,
        }})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_object_is_read_and_written() {
        let problem = Problem {
            code: Some("model_not_found".into()),
            ..Problem::not_found("there is no model `x`")
        };
        let body = problem.openai().to_string();
        assert_eq!(Problem::from_answer(404, body.as_bytes()), problem);
    }

    #[test]
    fn what_is_no_error_object_is_quoted() {
        let problem = Problem::from_answer(502, b"<html>");
        assert_eq!(problem.status, 502);
        assert!(problem.message.contains("<html>"), "{}", problem.message);
    }
}
