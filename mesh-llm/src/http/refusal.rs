//! How problems are answered, and those that every server has with strangers.

use super::answer::{AnswerBody, json};
use crate::dialects::Problem;
use hyper::header::{ALLOW, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};

/// How a dialect writes a problem as the body of an answer.
pub type Words = fn(&Problem) -> Vec<u8>;

/// OpenAI's words.
pub const OPENAI: Words = |problem| problem.openai().to_string().into_bytes();

/// The request's `Host` is a name that somebody else may have pointed at this machine.
pub fn foreign_name(host: &str, remedy: &str) -> Problem {
    refused(
        StatusCode::FORBIDDEN,
        "foreign_host",
        format!(
            "this server is reached as localhost or by an IP address, not as `{host}`: a web page could pose as it by that name; {remedy}"
        ),
    )
}

/// A page of another site sends what its browser does not ask for first.
pub fn foreign_page() -> Problem {
    refused(
        StatusCode::FORBIDDEN,
        "foreign_page",
        "pages of other sites may not use this server; if this is an application's, send the Content-Type application/json",
    )
}

/// A request that is understood and not done.
pub fn refused(status: StatusCode, code: &str, message: impl Into<String>) -> Problem {
    Problem {
        status: status.as_u16(),
        code: Some(code.to_owned()),
        ..Problem::invalid(None, message)
    }
}

/// A problem as an answer.
pub fn refuse(problem: &Problem, words: Words) -> Response<AnswerBody> {
    refuse_with(problem, words(problem))
}

/// A problem as an answer with this body.
pub fn refuse_with(problem: &Problem, body: Vec<u8>) -> Response<AnswerBody> {
    let mut response = json(body);
    *response.status_mut() =
        StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    if let Some(seconds) = problem.retry_after_seconds {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Some(methods) = problem.allow {
        headers.insert(ALLOW, HeaderValue::from_static(methods));
    }
    response
}
