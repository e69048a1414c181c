//! What an answer may look like: `response_format`, `json_schema` and `grammar`.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{ApiError, ErrorCode, json::Object};

/// What an answer may look like.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Constraint {
    /// Anything.
    #[default]
    None,
    /// JSON that fits a schema.
    Schema {
        /// The JSON schema.
        schema: Value,
        /// The parameter that it came in, for errors.
        param: &'static str,
    },
    /// A grammar in llama.cpp's GBNF.
    Grammar(String),
}

/// The parameters as they are written.
#[derive(Debug, Deserialize)]
pub(super) struct Fields {
    response_format: Option<Object<ResponseFormat>>,
    json_schema: Option<Value>,
    grammar: Option<String>,
}

#[derive(Debug, Deserialize)]
struct ResponseFormat {
    r#type: Option<String>,
    json_schema: Option<Object<NamedSchema>>,
    // llama.cpp's: a schema right in a json_object format.
    schema: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct NamedSchema {
    schema: Option<Value>,
}

impl Fields {
    pub(super) fn check(self) -> Result<Constraint, ApiError> {
        let mut constraints = Vec::new();
        if let Some(Object(format)) = self.response_format {
            constraints.extend(format.check()?.map(|given| ("response_format", given)));
        }
        if let Some(schema) = self.json_schema {
            constraints.push(("json_schema", schema_in("json_schema", schema)?));
        }
        if let Some(grammar) = self.grammar.filter(|text| !text.trim().is_empty()) {
            constraints.push(("grammar", Constraint::Grammar(grammar)));
        }
        let mut constraints = constraints.into_iter();
        match (constraints.next(), constraints.next()) {
            (None, _) => Ok(Constraint::None),
            (Some((_, constraint)), None) => Ok(constraint),
            (Some((first, _)), Some((second, _))) => Err(ApiError::value(
                second,
                format!("{second} and {first} cannot be used together; leave out one of them"),
            )),
        }
    }
}

impl ResponseFormat {
    fn check(self) -> Result<Option<Constraint>, ApiError> {
        const SCHEMA: &str = "response_format.json_schema.schema";
        match self.r#type.as_deref() {
            None => Err(ApiError::missing("response_format.type")),
            Some("text") => Ok(None),
            Some("json_object") => match self.schema {
                None => schema_in("response_format", json!({"type": "object"})).map(Some),
                Some(schema) => schema_in("response_format.schema", schema).map(Some),
            },
            Some("json_schema") => {
                let Object(named) = self
                    .json_schema
                    .ok_or_else(|| ApiError::missing("response_format.json_schema"))?;
                let schema = named.schema.ok_or_else(|| ApiError::missing(SCHEMA))?;
                schema_in(SCHEMA, schema).map(Some)
            }
            Some(other) => Err(ApiError::bad(
                ErrorCode::UnsupportedValue,
                "response_format.type",
                format!(
                    "response_format.type is {other:?}, but must be \"text\", \"json_object\" or \
                     \"json_schema\""
                ),
            )),
        }
    }
}

fn schema_in(param: &'static str, schema: Value) -> Result<Constraint, ApiError> {
    if !schema.is_object() {
        return Err(ApiError::bad(
            ErrorCode::InvalidType,
            param,
            format!("{param} must be an object, a JSON schema"),
        ));
    }
    Ok(Constraint::Schema { schema, param })
}

#[cfg(test)]
mod tests {
    use super::{super::json::from_slice, *};

    fn parse(body: &str) -> Result<Constraint, ApiError> {
        from_slice::<Fields>(body.as_bytes())?.check()
    }

    #[test]
    fn every_form_is_read() {
        assert_eq!(parse("{}").unwrap(), Constraint::None);
        assert_eq!(
            parse(r#"{"response_format":{"type":"text"}}"#).unwrap(),
            Constraint::None
        );
        assert_eq!(
            parse(r#"{"response_format":{"type":"json_object"}}"#).unwrap(),
            Constraint::Schema {
                schema: json!({"type": "object"}),
                param: "response_format"
            }
        );
        assert_eq!(
            parse(
                r#"{"response_format":{"type":"json_schema","json_schema":{"name":"x","strict":true,"schema":{"a":1}}}}"#
            )
            .unwrap(),
            Constraint::Schema {
                schema: json!({"a": 1}),
                param: "response_format.json_schema.schema"
            }
        );
        assert_eq!(
            parse(r#"{"json_schema":{}}"#).unwrap(),
            Constraint::Schema {
                schema: json!({}),
                param: "json_schema"
            }
        );
        assert_eq!(
            parse(r#"{"grammar":"root ::= \"a\""}"#).unwrap(),
            Constraint::Grammar("root ::= \"a\"".into())
        );
        assert_eq!(parse(r#"{"grammar":""}"#).unwrap(), Constraint::None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, param) in [
            (r#"{"response_format":"json"}"#, "response_format"),
            (r#"{"response_format":{}}"#, "response_format.type"),
            (r#"{"response_format":{"type":"xml"}}"#, "response_format.type"),
            (r#"{"response_format":{"type":5}}"#, "response_format.type"),
            (
                r#"{"response_format":{"type":"json_schema"}}"#,
                "response_format.json_schema",
            ),
            (
                r#"{"response_format":{"type":"json_schema","json_schema":{"schema":5}}}"#,
                "response_format.json_schema.schema",
            ),
            (
                r#"{"response_format":{"type":"json_schema","json_schema":{}}}"#,
                "response_format.json_schema.schema",
            ),
            (r#"{"grammar":["root"]}"#, "grammar"),
            (r#"{"grammar":"root ::= \"a\"","json_schema":{}}"#, "grammar"),
        ] {
            assert_eq!(parse(body).unwrap_err().param.as_deref(), Some(param), "{body}");
        }
    }

    #[test]
    fn a_schemas_properties_stay_in_order() {
        let body = r#"{"json_schema":{"properties":{"z":1,"a":2,"m":3}}}"#;
        let Constraint::Schema { schema, .. } = parse(body).unwrap() else {
            panic!()
        };
        assert_eq!(schema.to_string(), r#"{"properties":{"z":1,"a":2,"m":3}}"#);
    }
}
