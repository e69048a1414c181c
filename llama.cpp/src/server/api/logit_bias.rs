//! `logit_bias`: tokens made likelier or less likely.
//!
//! OpenAI's form is an object from token ids to numbers. llama.cpp's is an array of pairs; it can
//! also name tokens by their text and ban one with `false`.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor},
};

use super::{ApiError, json, limits};

/// One entry of `logit_bias`.
#[derive(Debug, Clone, PartialEq)]
pub struct Bias {
    /// What is biased.
    pub target: Target,
    /// Added to the logit; negative infinity bans the token.
    pub bias: f32,
}

/// What an entry of `logit_bias` is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// This token, not yet known to exist.
    Token(i32),
    /// Each token of this text.
    Text(String),
}

/// `logit_bias` as it is written.
#[derive(Debug, Default)]
pub(super) struct Field(Vec<Bias>);

/// The entries, each from -100 to 100 or a ban.
pub(super) fn check(field: Option<Field>) -> Result<Vec<Bias>, ApiError> {
    let biases = field.unwrap_or_default().0;
    for Bias { target, bias } in &biases {
        if bias.is_finite() && !(-100.0..=100.0).contains(bias) {
            let target = match target {
                Target::Token(token) => token.to_string(),
                Target::Text(text) => format!("{text:?}"),
            };
            return Err(ApiError::value(
                "logit_bias",
                format!("the bias of {target} is {bias}, but must be from -100 to 100, or false"),
            ));
        }
    }
    Ok(biases)
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldVisitor;
        impl<'de> Visitor<'de> for FieldVisitor {
            type Value = Field;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object from token ids to numbers, or an array of [token, bias] pairs")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Field, A::Error> {
                let mut biases = Vec::new();
                while let Some(key) = map.next_key::<String>()? {
                    let Amount(bias) = map.next_value()?;
                    let token = key.trim().parse().map_err(|_| {
                        A::Error::custom(format!(
                            "{key:?} is not a token id; to name a token by its text, use the array \
                             form [[{key:?}, {bias}]]"
                        ))
                    })?;
                    push(
                        &mut biases,
                        Bias {
                            target: Target::Token(token),
                            bias,
                        },
                    )?;
                }
                Ok(Field(biases))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Field, A::Error> {
                let mut biases = Vec::new();
                while let Some(Pair(bias)) = seq.next_element()? {
                    push(&mut biases, bias)?;
                }
                Ok(Field(biases))
            }
        }
        deserializer.deserialize_any(FieldVisitor)
    }
}

fn push<E: Error>(biases: &mut Vec<Bias>, bias: Bias) -> Result<(), E> {
    if biases.len() == limits::LOGIT_BIASES {
        return Err(E::custom(json::too_many(limits::LOGIT_BIASES)));
    }
    biases.push(bias);
    Ok(())
}

/// `[token, bias]`
struct Pair(Bias);

impl<'de> Deserialize<'de> for Pair {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PairVisitor;
        impl<'de> Visitor<'de> for PairVisitor {
            type Value = Pair;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a pair [token, bias]")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Pair, A::Error> {
                let target = seq
                    .next_element()?
                    .ok_or_else(|| A::Error::invalid_length(0, &self))?;
                let Amount(bias) = seq
                    .next_element()?
                    .ok_or_else(|| A::Error::invalid_length(1, &self))?;
                if seq.next_element::<IgnoredAny>()?.is_some() {
                    return Err(A::Error::invalid_length(3, &self));
                }
                Ok(Pair(Bias { target, bias }))
            }
        }
        deserializer.deserialize_seq(PairVisitor)
    }
}

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TargetVisitor;
        impl Visitor<'_> for TargetVisitor {
            type Value = Target;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a token id or a text")
            }

            fn visit_i64<E: Error>(self, token: i64) -> Result<Target, E> {
                let token =
                    i32::try_from(token).map_err(|_| E::invalid_value(Unexpected::Signed(token), &self))?;
                Ok(Target::Token(token))
            }

            fn visit_u64<E: Error>(self, token: u64) -> Result<Target, E> {
                let token =
                    i32::try_from(token).map_err(|_| E::invalid_value(Unexpected::Unsigned(token), &self))?;
                Ok(Target::Token(token))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Target, E> {
                Ok(Target::Text(text.to_owned()))
            }
        }
        deserializer.deserialize_any(TargetVisitor)
    }
}

/// A number, or `false` for a ban.
struct Amount(f32);

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AmountVisitor;
        impl Visitor<'_> for AmountVisitor {
            type Value = Amount;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, or false")
            }

            fn visit_f64<E: Error>(self, bias: f64) -> Result<Amount, E> {
                // Beyond f32 lies infinity, which would be a ban: keep it finite, `check` refuses it.
                Ok(Amount(bias.clamp(f32::MIN.into(), f32::MAX.into()) as f32))
            }

            fn visit_i64<E: Error>(self, bias: i64) -> Result<Amount, E> {
                Ok(Amount(bias as f32))
            }

            fn visit_u64<E: Error>(self, bias: u64) -> Result<Amount, E> {
                Ok(Amount(bias as f32))
            }

            fn visit_bool<E: Error>(self, bias: bool) -> Result<Amount, E> {
                if bias {
                    return Err(E::invalid_value(Unexpected::Bool(true), &self));
                }
                Ok(Amount(f32::NEG_INFINITY))
            }
        }
        deserializer.deserialize_any(AmountVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn biases(json: &str) -> Result<Vec<Bias>, ApiError> {
        #[derive(serde::Deserialize)]
        struct Body {
            logit_bias: Option<Field>,
        }
        let body = format!(r#"{{"logit_bias":{json}}}"#);
        check(json::from_slice::<Body>(body.as_bytes())?.logit_bias)
    }

    fn token(token: i32, bias: f32) -> Bias {
        Bias {
            target: Target::Token(token),
            bias,
        }
    }

    #[test]
    fn openais_object() {
        assert_eq!(biases("null").unwrap(), []);
        assert_eq!(
            biases(r#"{"15043":-100,"7":1.5}"#).unwrap(),
            [token(15043, -100.0), token(7, 1.5)]
        );
    }

    #[test]
    fn llama_cpps_array() {
        assert_eq!(
            biases(r#"[[5,-1],[6,false],["Hi",2.5]]"#).unwrap(),
            [
                token(5, -1.0),
                token(6, f32::NEG_INFINITY),
                Bias {
                    target: Target::Text("Hi".into()),
                    bias: 2.5
                }
            ]
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (json, param) in [
            (r#"{"5":101}"#, "logit_bias"),
            (r#"{"5":1e300}"#, "logit_bias"),
            (r#"{"Hi":1}"#, "logit_bias"),
            (r#"{"5":"x"}"#, "logit_bias.5"),
            ("[[5]]", "logit_bias[0]"),
            ("[[5,1,1]]", "logit_bias[0]"),
            ("[[5,true]]", "logit_bias[0][1]"),
            ("[[99999999999,1]]", "logit_bias[0][0]"),
            ("7", "logit_bias"),
        ] {
            let error = biases(json).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param), "{json}: {error}");
        }
    }
}
