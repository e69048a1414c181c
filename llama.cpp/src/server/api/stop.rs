//! Texts that end an answer.

use super::{
    ApiError,
    json::{Alternative, Bounded, TextOr},
    limits,
};

type Texts = Bounded<String, { limits::STOPS }>;

impl Alternative for Texts {
    const EXPECTED: &'static str = "a string or an array of strings";
}

/// `stop` as it is written: one text or several.
pub(super) type Field = TextOr<Texts>;

/// The texts; empty ones, which some clients send for "none", are left out.
pub(super) fn check(field: Option<Field>) -> Result<Vec<String>, ApiError> {
    let mut stops = match field {
        None => Vec::new(),
        Some(TextOr::Text(text)) => vec![text],
        Some(TextOr::Other(Bounded(texts))) => texts,
    };
    stops.retain(|text| !text.is_empty());
    if let Some(text) = stops.iter().find(|text| text.len() > limits::STOP_BYTES) {
        return Err(ApiError::value(
            "stop",
            format!(
                "a stop text has {} bytes; at most {} are allowed",
                text.len(),
                limits::STOP_BYTES
            ),
        ));
    }
    Ok(stops)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stops(json: &str) -> Result<Vec<String>, ApiError> {
        #[derive(serde::Deserialize)]
        struct Body {
            stop: Option<Field>,
        }
        let body = format!(r#"{{"stop":{json}}}"#);
        check(super::super::json::from_slice::<Body>(body.as_bytes())?.stop)
    }

    #[test]
    fn one_several_or_none() {
        assert_eq!(stops("null").unwrap(), Vec::<String>::new());
        assert_eq!(stops(r#""\n""#).unwrap(), ["\n"]);
        assert_eq!(stops(r#"["a","b"]"#).unwrap(), ["a", "b"]);
        assert_eq!(stops(r#"["","b"]"#).unwrap(), ["b"]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = stops("5").unwrap_err();
        assert_eq!(error.param.as_deref(), Some("stop"));
        assert!(
            error.message.contains("a string or an array of strings"),
            "{error}"
        );
        assert_eq!(stops(r#"["a",5]"#).unwrap_err().param.as_deref(), Some("stop[1]"));
        let many = format!("[{}]", vec!["\"a\""; limits::STOPS + 1].join(","));
        assert_eq!(stops(&many).unwrap_err().message, "stop: more than 16 elements");
        let long = format!("{:?}", "x".repeat(limits::STOP_BYTES + 1));
        assert_eq!(stops(&long).unwrap_err().param.as_deref(), Some("stop"));
    }
}
