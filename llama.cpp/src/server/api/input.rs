//! Prompts and embedding inputs: one text or several, as text or as tokens.

use std::{fmt, mem::discriminant};

use serde::{
    Deserialize, Deserializer,
    de::{Error, SeqAccess, Unexpected, Visitor},
};

use super::{ApiError, json, limits};

/// One text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// As text, to be tokenised.
    Text(String),
    /// As tokens, not yet known to exist.
    Tokens(Vec<i32>),
}

/// A string, an array of tokens, an array of strings, or an array of arrays of tokens.
#[derive(Debug, PartialEq)]
pub(super) struct Field(Vec<Input>);

/// The inputs: at least one, none of them empty tokens.
pub(super) fn check(param: &str, field: Option<Field>) -> Result<Vec<Input>, ApiError> {
    let Field(inputs) = field.ok_or_else(|| ApiError::missing(param))?;
    if inputs.is_empty() {
        return Err(ApiError::value(param, format!("{param} is empty")));
    }
    for (index, input) in inputs.iter().enumerate() {
        if matches!(input, Input::Tokens(tokens) if tokens.is_empty()) {
            let param = if inputs.len() == 1 {
                param.to_owned()
            } else {
                format!("{param}[{index}]")
            };
            let message = format!("{param} has no tokens");
            return Err(ApiError::value(param, message));
        }
    }
    Ok(inputs)
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldVisitor;
        impl<'de> Visitor<'de> for FieldVisitor {
            type Value = Field;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a string, an array of strings, an array of tokens or an array of arrays of tokens",
                )
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Field, E> {
                Ok(Field(vec![Input::Text(text.to_owned())]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Field, A::Error> {
                let mut inputs = Vec::new();
                match seq.next_element()? {
                    None => return Ok(Field(inputs)),
                    Some(Element::Token(first)) => {
                        let tokens = tokens(first, seq)?;
                        return Ok(Field(vec![Input::Tokens(tokens)]));
                    }
                    Some(Element::Input(first)) => inputs.push(first),
                }
                while let Some(element) = seq.next_element()? {
                    let Element::Input(input) = element else {
                        return Err(A::Error::custom(MIXED));
                    };
                    if discriminant(&input) != discriminant(&inputs[0]) {
                        return Err(A::Error::custom(MIXED));
                    }
                    if inputs.len() == limits::INPUTS {
                        return Err(A::Error::custom(json::too_many(limits::INPUTS)));
                    }
                    inputs.push(input);
                }
                Ok(Field(inputs))
            }
        }
        deserializer.deserialize_any(FieldVisitor)
    }
}

const MIXED: &str = "strings, tokens and arrays of tokens cannot be mixed";

/// The rest of an array that began with a token. Read into its final form at once: an enum for each
/// element would multiply the memory of a long prompt.
fn tokens<'de, A: SeqAccess<'de>>(first: Token, mut seq: A) -> Result<Vec<i32>, A::Error> {
    let mut tokens = vec![first.0];
    while let Some(Token(token)) = seq.next_element()? {
        if tokens.len() == limits::TOKENS {
            return Err(A::Error::custom(json::too_many(limits::TOKENS)));
        }
        tokens.push(token);
    }
    Ok(tokens)
}

/// The first element of an array says what the array is.
enum Element {
    Token(Token),
    Input(Input),
}

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ElementVisitor;
        impl<'de> Visitor<'de> for ElementVisitor {
            type Value = Element;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a token or an array of tokens")
            }

            fn visit_u64<E: Error>(self, token: u64) -> Result<Element, E> {
                TokenVisitor.visit_u64(token).map(Element::Token)
            }

            fn visit_i64<E: Error>(self, token: i64) -> Result<Element, E> {
                TokenVisitor.visit_i64(token).map(Element::Token)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Element, E> {
                Ok(Element::Input(Input::Text(text.to_owned())))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Element, A::Error> {
                let tokens = match seq.next_element()? {
                    Some(first) => tokens(first, seq)?,
                    None => Vec::new(),
                };
                Ok(Element::Input(Input::Tokens(tokens)))
            }
        }
        deserializer.deserialize_any(ElementVisitor)
    }
}

/// A token's id: not negative, and an `i32`.
struct Token(i32);

struct TokenVisitor;

impl Visitor<'_> for TokenVisitor {
    type Value = Token;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a token id")
    }

    fn visit_u64<E: Error>(self, token: u64) -> Result<Token, E> {
        i32::try_from(token)
            .map(Token)
            .map_err(|_| E::invalid_value(Unexpected::Unsigned(token), &self))
    }

    fn visit_i64<E: Error>(self, token: i64) -> Result<Token, E> {
        // serde_json gives an integer that is not negative to `visit_u64`.
        Err(E::invalid_value(Unexpected::Signed(token), &self))
    }
}

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_u32(TokenVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(json: &str) -> Result<Vec<Input>, ApiError> {
        #[derive(serde::Deserialize)]
        struct Body {
            prompt: Option<Field>,
        }
        let body = format!(r#"{{"prompt":{json}}}"#);
        check("prompt", super::json::from_slice::<Body>(body.as_bytes())?.prompt)
    }

    #[test]
    fn every_form_is_read() {
        let text = |text: &str| Input::Text(text.to_owned());
        assert_eq!(inputs(r#""a""#).unwrap(), [text("a")]);
        assert_eq!(inputs(r#""""#).unwrap(), [text("")]);
        assert_eq!(inputs(r#"["a","b"]"#).unwrap(), [text("a"), text("b")]);
        assert_eq!(inputs("[1,2]").unwrap(), [Input::Tokens(vec![1, 2])]);
        assert_eq!(
            inputs("[[1],[2,3]]").unwrap(),
            [Input::Tokens(vec![1]), Input::Tokens(vec![2, 3])]
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (json, param) in [
            ("null", "prompt"),
            ("[]", "prompt"),
            ("[[]]", "prompt"),
            ("[[1],[]]", "prompt[1]"),
            ("5", "prompt"),
            ("[1,\"a\"]", "prompt[1]"),
            ("[\"a\",1]", "prompt"),
            ("[[1],\"a\"]", "prompt"),
            ("[-1]", "prompt[0]"),
            ("[1,-1]", "prompt[1]"),
            ("[[1,2.5]]", "prompt[0][1]"),
            ("[1,4294967296]", "prompt[1]"),
            ("[{}]", "prompt[0]"),
        ] {
            let error = inputs(json).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param), "{json}: {error}");
        }
    }

    #[test]
    fn the_number_of_inputs_is_bounded() {
        let many = |n| format!("[{}]", vec!["\"\""; n].join(","));
        assert_eq!(inputs(&many(limits::INPUTS)).unwrap().len(), limits::INPUTS);
        assert!(inputs(&many(limits::INPUTS + 1)).is_err());
    }
}
