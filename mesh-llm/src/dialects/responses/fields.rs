//! Reading fields so that an error names the one that is wrong, by its path.

use super::super::Problem;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Reads the object at `path`; the request itself is at the path "".
pub(super) fn object<T: DeserializeOwned>(value: Value, path: &str) -> Result<T, Problem> {
    if !value.is_object() {
        return Err(wrong_type(path, "an object"));
    }
    serde_path_to_error::deserialize(value).map_err(|error| {
        let within = error.path().to_string();
        let path = match (path, within.as_str()) {
            ("", within) => within.to_owned(),
            (path, ".") => path.to_owned(),
            (path, within) => format!("{path}.{within}"),
        };
        Problem {
            code: Some("invalid_type".to_owned()),
            ..Problem::invalid(Some(&path), format!("{path}: {}", error.inner()))
        }
    })
}

/// What `path` is not.
pub(super) fn wrong_type(path: &str, expected: &str) -> Problem {
    Problem {
        code: Some("invalid_type".to_owned()),
        ..Problem::invalid(Some(path), format!("{path} must be {expected}"))
    }
}

/// What is not there.
pub(super) fn missing(path: &str) -> Problem {
    Problem {
        code: Some("missing_required_parameter".to_owned()),
        ..Problem::invalid(Some(path), format!("Missing required parameter: '{path}'."))
    }
}

/// A value that cannot be taken.
pub(super) fn wrong_value(path: &str, message: impl Into<String>) -> Problem {
    Problem {
        code: Some("invalid_value".to_owned()),
        ..Problem::invalid(Some(path), message)
    }
}

/// A value that OpenAI takes and this server cannot honour.
pub(super) fn unsupported(path: &str, message: impl Into<String>) -> Problem {
    Problem {
        code: Some("unsupported_value".to_owned()),
        ..Problem::invalid(Some(path), message)
    }
}

/// An error's body: OpenAI's error object. The engine knows its own dialect's names for fields; the
/// client gets those that it used.
pub fn words(problem: &Problem) -> Vec<u8> {
    let mut problem = problem.clone();
    if let Some(theirs) = &problem.param {
        let ours = renamed(theirs);
        problem.message = problem.message.replace(theirs.as_str(), &ours);
        problem.param = Some(ours);
    }
    problem.openai().to_string().into_bytes()
}

/// A field's path in this dialect.
fn renamed(chat: &str) -> String {
    if let Some(rest) = chat.strip_prefix("response_format.json_schema") {
        return format!("text.format{rest}");
    }
    if let Some(rest) = chat.strip_prefix("response_format") {
        return format!("text.format{rest}");
    }
    if chat.starts_with("tools[") || chat.starts_with("tool_choice") {
        return chat.replace(".allowed_tools", "").replace(".function", "");
    }
    match chat {
        "max_completion_tokens" => "max_output_tokens".to_owned(),
        "reasoning_effort" => "reasoning.effort".to_owned(),
        // Several items make a message, so that its number says nothing.
        path if path.starts_with("messages") => "input".to_owned(),
        path => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_s_names_become_the_client_s() {
        for (theirs, ours) in [
            ("max_completion_tokens", "max_output_tokens"),
            ("messages", "input"),
            ("messages[2].content", "input"),
            ("tools[1].function.name", "tools[1].name"),
            ("tool_choice.function.name", "tool_choice.name"),
            (
                "tool_choice.allowed_tools.tools[0].function.name",
                "tool_choice.tools[0].name",
            ),
            ("response_format.json_schema.schema", "text.format.schema"),
            ("reasoning_effort", "reasoning.effort"),
            ("temperature", "temperature"),
        ] {
            let problem = Problem::invalid(Some(theirs), format!("{theirs} is wrong"));
            let body: Value = serde_json::from_slice(&words(&problem)).unwrap();
            assert_eq!(body["error"]["param"], ours);
            assert_eq!(body["error"]["message"], format!("{ours} is wrong"));
        }
    }
}
