//! `prediction`: what the client thinks that the answer will say (OpenAI's predicted outputs).

use serde::Deserialize;

use super::super::{
    ApiError, ErrorCode,
    json::{Object, TextOr},
};
use super::message::{Parts, check_parts};

#[derive(Debug, Deserialize)]
pub(super) struct Fields {
    r#type: Option<String>,
    content: Option<TextOr<Parts>>,
}

/// The text that is predicted; empty where none is.
pub(super) fn check(prediction: Option<Object<Fields>>) -> Result<String, ApiError> {
    let Some(Object(Fields { r#type, content })) = prediction else {
        return Ok(String::new());
    };
    match r#type.as_deref() {
        Some("content") => {}
        None => return Err(ApiError::missing("prediction.type")),
        Some(other) => {
            return Err(ApiError::bad(
                ErrorCode::UnsupportedValue,
                "prediction.type",
                format!("prediction.type is {other:?}, but must be \"content\""),
            ));
        }
    }
    match content {
        None => Err(ApiError::missing("prediction.content")),
        Some(TextOr::Text(text)) => Ok(text),
        Some(TextOr::Other(parts)) => {
            let parts = check_parts(parts, "prediction.content")?;
            Ok(parts.into_iter().map(|part| part.text).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::json;
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Body {
        prediction: Option<Object<Fields>>,
    }

    fn read(body: &str) -> Result<String, ApiError> {
        check(json::from_slice::<Body>(body.as_bytes())?.prediction)
    }

    #[test]
    fn a_prediction_is_a_text_or_parts_of_one() {
        for (body, text) in [
            ("{}", ""),
            (r#"{"prediction":null}"#, ""),
            (r#"{"prediction":{"type":"content","content":"a b"}}"#, "a b"),
            (r#"{"prediction":{"type":"content","content":[]}}"#, ""),
            (
                r#"{"prediction":{"type":"content","content":[{"type":"text","text":"a "},{"type":"text","text":"b"}]}}"#,
                "a b",
            ),
        ] {
            assert_eq!(read(body).unwrap(), text, "{body}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, param) in [
            (r#"{"prediction":"a"}"#, "prediction"),
            (r#"{"prediction":["content","a"]}"#, "prediction"),
            (r#"{"prediction":{"content":"a"}}"#, "prediction.type"),
            (
                r#"{"prediction":{"type":"static","content":"a"}}"#,
                "prediction.type",
            ),
            (r#"{"prediction":{"type":1,"content":"a"}}"#, "prediction.type"),
            (r#"{"prediction":{"type":"content"}}"#, "prediction.content"),
            (
                r#"{"prediction":{"type":"content","content":1}}"#,
                "prediction.content",
            ),
            (
                r#"{"prediction":{"type":"content","content":[{"type":"image_url"}]}}"#,
                "prediction.content[0]",
            ),
            (
                r#"{"prediction":{"type":"content","content":[{"type":"text","text":"a"},{"type":"text"}]}}"#,
                "prediction.content[1].text",
            ),
        ] {
            let error = read(body).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param), "{body}");
        }
    }
}
