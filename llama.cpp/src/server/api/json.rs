//! From bytes to typed fields, with errors that name the field.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{
        DeserializeOwned, Error, MapAccess, SeqAccess, Visitor,
        value::{MapAccessDeserializer, SeqAccessDeserializer},
    },
};

use super::{ApiError, ErrorCode, Status};

/// Reads a body that must be one JSON object.
///
/// serde_json stops at 128 levels of nesting, so that no body overflows the stack.
pub fn from_slice<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let Object(value) =
        serde_path_to_error::deserialize::<_, Object<T>>(&mut deserializer).map_err(|error| {
            let path = error.path().to_string();
            describe(error.into_inner(), &path)
        })?;
    deserializer.end().map_err(|error| describe(error, ""))?;
    Ok(value)
}

/// An error of serde_json in the API's words.
fn describe(error: serde_json::Error, path: &str) -> ApiError {
    if error.classify() != serde_json::error::Category::Data {
        let what = without_position(&error);
        return ApiError::new(
            Status::BadRequest,
            ErrorCode::InvalidJson,
            format!(
                "the body is not valid JSON: {what} at line {}, column {}",
                error.line(),
                error.column()
            ),
        );
    }
    let mut what = without_position(&error);
    for (rust, json) in [
        ("expected f64", "expected a number"),
        ("expected i64", "expected an integer"),
        ("expected u64", "expected an integer"),
        ("expected a sequence", "expected an array"),
        ("expected a map", "expected an object"),
        ("invalid type: sequence", "invalid type: array"),
        ("invalid type: map", "invalid type: object"),
    ] {
        what = what.replace(rust, json);
    }
    let code = if what.starts_with("invalid type") {
        ErrorCode::InvalidType
    } else {
        ErrorCode::InvalidValue
    };
    // The path of a repeated field is that of the object that it is in.
    let repeated = what
        .strip_prefix("duplicate field `")
        .and_then(|rest| rest.strip_suffix('`'));
    let param = match (path, repeated) {
        ("." | "", None) => None,
        ("." | "", Some(field)) => Some(field.to_owned()),
        (path, None) => Some(path.to_owned()),
        (path, Some(field)) => Some(format!("{path}.{field}")),
    };
    let message = match &param {
        Some(param) => format!("{param}: {what}"),
        None => format!("the body: {what}"),
    };
    ApiError {
        status: Status::BadRequest,
        message,
        param,
        code,
        retry_after: None,
    }
}

/// serde_json's message less its " at line 1 column 2".
fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    match text.strip_suffix(&position) {
        Some(what) => what.to_owned(),
        None => text,
    }
}

/// A JSON object and nothing else: serde's derived structs would take an array, too, by position.
#[derive(Debug, Clone, PartialEq)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Object)
            }
        }
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

/// An array of at most `MAX` elements.
#[derive(Debug, Clone, PartialEq)]
pub struct Bounded<T, const MAX: usize>(pub Vec<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Bounded<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BoundedVisitor<T, const MAX: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for BoundedVisitor<T, MAX> {
            type Value = Bounded<T, MAX>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = seq.next_element()? {
                    if elements.len() == MAX {
                        return Err(A::Error::custom(too_many(MAX)));
                    }
                    elements.push(element);
                }
                Ok(Bounded(elements))
            }
        }
        deserializer.deserialize_seq(BoundedVisitor(PhantomData))
    }
}

/// What an array with too many elements is told.
pub(super) fn too_many(max: usize) -> String {
    format!("more than {max} elements")
}

/// A string, or something else.
#[derive(Debug, Clone, PartialEq)]
pub enum TextOr<T> {
    /// The string.
    Text(String),
    /// The array or object.
    Other(T),
}

/// The array or object that a string stands in for.
pub trait Alternative {
    /// What the parameter must be, for its error: "a string or an array of strings".
    const EXPECTED: &'static str;
}

impl<'de, T: Deserialize<'de> + Alternative> Deserialize<'de> for TextOr<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de> + Alternative> Visitor<'de> for TextOrVisitor<T> {
            type Value = TextOr<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(T::EXPECTED)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(TextOr::Text(text.to_owned()))
            }

            fn visit_string<E: Error>(self, text: String) -> Result<Self::Value, E> {
                Ok(TextOr::Text(text))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
                T::deserialize(SeqAccessDeserializer::new(seq)).map(TextOr::Other)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(TextOr::Other)
            }
        }
        deserializer.deserialize_any(TextOrVisitor(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Body {
        #[allow(dead_code)]
        temperature: Option<f64>,
        items: Option<Bounded<Object<Item>, 2>>,
    }

    #[derive(Debug, Deserialize)]
    struct Item {
        #[allow(dead_code)]
        text: Option<String>,
    }

    fn error(body: &str) -> ApiError {
        from_slice::<Body>(body.as_bytes()).unwrap_err()
    }

    #[test]
    fn a_wrong_type_names_its_path() {
        let e = error(r#"{"temperature":"hot"}"#);
        assert_eq!(e.param.as_deref(), Some("temperature"));
        assert_eq!(e.code, ErrorCode::InvalidType);
        assert_eq!(
            e.message,
            r#"temperature: invalid type: string "hot", expected a number"#
        );
        let e = error(r#"{"items":[{"text":"a"},{"text":7}]}"#);
        assert_eq!(e.param.as_deref(), Some("items[1].text"));
        assert_eq!(
            e.message,
            "items[1].text: invalid type: integer `7`, expected a string"
        );
    }

    #[test]
    fn a_syntax_error_says_where() {
        let e = error("{\n  \"temperature\": ,}");
        assert_eq!(e.code, ErrorCode::InvalidJson);
        assert_eq!(
            e.message,
            "the body is not valid JSON: expected value at line 2, column 18"
        );
        assert_eq!(error("").code, ErrorCode::InvalidJson);
        assert_eq!(error("{} x").code, ErrorCode::InvalidJson);
    }

    #[test]
    fn arrays_do_not_pass_for_objects() {
        assert_eq!(
            error("[0.5, []]").message,
            "the body: invalid type: array, expected an object"
        );
        let e = error(r#"{"items":[["a"]]}"#);
        assert_eq!(e.param.as_deref(), Some("items[0]"));
    }

    #[test]
    fn too_many_elements_and_repeated_fields_are_named() {
        let e = error(r#"{"items":[{},{},{}]}"#);
        assert_eq!(e.param.as_deref(), Some("items"));
        assert_eq!(e.message, "items: more than 2 elements");
        let e = error(r#"{"temperature":1,"temperature":2}"#);
        assert_eq!(e.param.as_deref(), Some("temperature"));
        let e = error(r#"{"items":[{"text":"a","text":"b"}]}"#);
        assert_eq!(e.param.as_deref(), Some("items[0].text"));
    }

    #[test]
    fn unknown_fields_and_nulls_are_ignored() {
        let body = from_slice::<Body>(br#"{"zzz":[{}],"temperature":null,"items":null}"#).unwrap();
        assert!(body.items.is_none());
    }

    #[test]
    fn deep_nesting_is_an_error_or_ignored_but_no_crash() {
        for open in ["[", "{\"a\":"] {
            let deep = format!(r#"{{"unknown":{}"#, open.repeat(100_000));
            assert_eq!(error(&deep).code, ErrorCode::InvalidJson);
        }
    }
}
