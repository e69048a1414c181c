//! Problems in Anthropic's words (<https://platform.claude.com/docs/en/api/errors>).

use super::super::Problem;
use serde::Serialize;

#[derive(Debug, Serialize)]
struct Body<'a> {
    r#type: &'static str,
    error: Error<'a>,
}

#[derive(Debug, Serialize)]
struct Error<'a> {
    r#type: &'static str,
    message: &'a str,
}

/// Names of the engine's fields, and what clients of this dialect know them by.
const NAMES: [(&str, &str); 4] = [
    ("max_completion_tokens", "max_tokens"),
    (
        "response_format.json_schema.schema",
        "output_config.format.schema",
    ),
    (".function.parameters", ".input_schema"),
    (".function.name", ".name"),
];

/// A problem as the body of an answer: `{"type":"error","error":{"type":…,"message":…}}`.
pub fn words(problem: &Problem) -> Vec<u8> {
    let message = message(problem);
    let body = Body {
        r#type: "error",
        error: Error {
            r#type: kind(problem),
            message: &message,
        },
    };
    // Writing strings to memory cannot fail.
    serde_json::to_vec(&body).unwrap_or_default()
}

/// The event that a stream ends with.
pub(super) fn event(problem: &Problem, out: &mut Vec<u8>) {
    out.extend_from_slice(b"event: error\ndata: ");
    out.extend_from_slice(&words(problem));
    out.extend_from_slice(b"\n\n");
}

/// The error's type: clients decide by it whether to try again.
fn kind(problem: &Problem) -> &'static str {
    match (problem.status, problem.code.as_deref()) {
        // Within a stream the status is not known any more.
        (503 | 529, _) | (500, Some("shutting_down" | "engine_crashed" | "node_lost")) => "overloaded_error",
        (401, _) => "authentication_error",
        (403, _) => "permission_error",
        (404, _) => "not_found_error",
        (413, _) => "request_too_large",
        (429, _) => "rate_limit_error",
        (400..=499, _) => "invalid_request_error",
        _ => "api_error",
    }
}

fn message(problem: &Problem) -> String {
    let mut message = problem.message.clone();
    for (engine, ours) in NAMES {
        message = message.replace(engine, ours);
    }
    match problem.code.as_deref() {
        Some("context_length_exceeded") => too_long(&message),
        _ => message,
    }
}

/// Claude Code shortens the chat when it reads Anthropic's words for a prompt that does not fit, by as
/// much as they say.
fn too_long(message: &str) -> String {
    let mut numbers = message
        .split(|character: char| !character.is_ascii_digit())
        .filter(|digits| !digits.is_empty());
    match (numbers.next(), numbers.next()) {
        (Some(prompt), Some(context)) => format!("prompt is too long: {prompt} tokens > {context} maximum"),
        _ => format!("prompt is too long: {message}"),
    }
}

/// A field that must be there and is not.
pub(super) fn missing(param: &str) -> Problem {
    Problem::invalid(Some(param), format!("{param}: field required"))
}

/// A field with a value that cannot be taken.
pub(super) fn invalid(param: &str, what: impl std::fmt::Display) -> Problem {
    Problem::invalid(Some(param), format!("{param}: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn written(problem: &Problem) -> Value {
        serde_json::from_slice(&words(problem)).unwrap()
    }

    #[test]
    fn the_type_follows_the_status() {
        for (status, kind) in [
            (400, "invalid_request_error"),
            (401, "authentication_error"),
            (403, "permission_error"),
            (404, "not_found_error"),
            (405, "invalid_request_error"),
            (413, "request_too_large"),
            (429, "rate_limit_error"),
            (500, "api_error"),
            (502, "api_error"),
            (503, "overloaded_error"),
            (529, "overloaded_error"),
        ] {
            let problem = Problem {
                status,
                ..Problem::invalid(None, "x")
            };
            let body = written(&problem);
            assert_eq!(
                (&body["type"], &body["error"]["type"]),
                (&"error".into(), &kind.into())
            );
        }
    }

    #[test]
    fn fields_have_the_names_that_the_client_knows() {
        let problem = Problem::invalid(None, "tools[1].function.parameters is no schema");
        assert_eq!(
            written(&problem)["error"]["message"],
            "tools[1].input_schema is no schema"
        );
    }

    #[test]
    fn a_prompt_that_is_too_long_is_said_to_be_in_the_words_that_clients_look_for() {
        let problem = Problem {
            code: Some("context_length_exceeded".into()),
            ..Problem::invalid(None, "the prompt has 90 tokens, but the context holds 80 and …")
        };
        let message = &written(&problem)["error"]["message"];
        assert_eq!(message, "prompt is too long: 90 tokens > 80 maximum");
        let problem = Problem {
            message: "too much".into(),
            ..problem
        };
        let message = &written(&problem)["error"]["message"];
        assert_eq!(message, "prompt is too long: too much");
    }

    #[test]
    fn an_engine_that_ends_within_a_stream_is_worth_another_try() {
        let problem = Problem {
            code: Some("shutting_down".into()),
            ..Problem::engine("x")
        };
        assert_eq!(written(&problem)["error"]["type"], "overloaded_error");
        assert_eq!(written(&Problem::engine("x"))["error"]["type"], "api_error");
    }
}
