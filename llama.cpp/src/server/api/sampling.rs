//! How a token is chosen: the parameters, their ranges and their defaults.

use serde::Deserialize;

use super::{
    ApiError, limits,
    logit_bias::{self, Bias},
    range::{integer, number},
};

/// How a token is chosen. [`Default`] is what holds where a request is silent: llama.cpp's values.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingRequest {
    /// Same seed, same answer; none is a random one.
    pub seed: Option<u32>,
    /// 0 is greedy.
    pub temperature: f32,
    /// Keep the k likeliest tokens; 0 keeps all.
    pub top_k: i32,
    /// Keep the likeliest tokens that make up this probability.
    pub top_p: f32,
    /// Keep tokens at least this likely relative to the likeliest.
    pub min_p: f32,
    /// Locally typical sampling; 1 is off.
    pub typical_p: f32,
    /// Tokens that the penalties look back at; -1 is the whole context.
    pub repeat_last_n: i32,
    /// Divides the logits of tokens that were seen; 1 is off.
    pub repeat_penalty: f32,
    /// Subtracted for each time a token was seen.
    pub frequency_penalty: f32,
    /// Subtracted once for a token that was seen.
    pub presence_penalty: f32,
    /// Added to the logits of some tokens.
    pub logit_bias: Vec<Bias>,
    /// Never choose a token that ends the text.
    pub ignore_eos: bool,
}

impl Default for SamplingRequest {
    fn default() -> Self {
        SamplingRequest {
            seed: None,
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            typical_p: 1.0,
            repeat_last_n: 64,
            repeat_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            logit_bias: Vec::new(),
            ignore_eos: false,
        }
    }
}

/// The parameters as they are written.
#[derive(Debug, Deserialize)]
pub(super) struct Fields {
    seed: Option<i64>,
    temperature: Option<f64>,
    top_k: Option<i64>,
    top_p: Option<f64>,
    min_p: Option<f64>,
    typical_p: Option<f64>,
    repeat_last_n: Option<i64>,
    repeat_penalty: Option<f64>,
    frequency_penalty: Option<f64>,
    presence_penalty: Option<f64>,
    logit_bias: Option<logit_bias::Field>,
    ignore_eos: Option<bool>,
}

impl Fields {
    /// Checks each parameter against its range.
    pub(super) fn check(self) -> Result<SamplingRequest, ApiError> {
        let or = SamplingRequest::default();
        Ok(SamplingRequest {
            seed: self.seed.and_then(seed),
            temperature: number("temperature", self.temperature, or.temperature, 0.0..=2.0)?,
            top_k: integer("top_k", self.top_k, -1..=i32::MAX.into())?
                .unwrap_or(or.top_k)
                .max(0),
            top_p: number("top_p", self.top_p, or.top_p, 0.0..=1.0)?,
            min_p: number("min_p", self.min_p, or.min_p, 0.0..=1.0)?,
            typical_p: number("typical_p", self.typical_p, or.typical_p, 0.0..=1.0)?,
            repeat_last_n: integer("repeat_last_n", self.repeat_last_n, -1..=limits::REPEAT_LAST_N)?
                .unwrap_or(or.repeat_last_n),
            repeat_penalty: number(
                "repeat_penalty",
                self.repeat_penalty,
                or.repeat_penalty,
                0.1..=10.0,
            )?,
            frequency_penalty: number(
                "frequency_penalty",
                self.frequency_penalty,
                or.frequency_penalty,
                -2.0..=2.0,
            )?,
            presence_penalty: number(
                "presence_penalty",
                self.presence_penalty,
                or.presence_penalty,
                -2.0..=2.0,
            )?,
            logit_bias: logit_bias::check(self.logit_bias)?,
            ignore_eos: self.ignore_eos.unwrap_or(or.ignore_eos),
        })
    }
}

/// A seed of any size as llama.cpp's 32 bits. -1 is a random one, as it is there, and so is
/// llama.cpp's own mark for "random", `u32::MAX`, which therefore no other seed may become.
fn seed(seed: i64) -> Option<u32> {
    (seed != -1).then(|| (seed as u64 % u64::from(u32::MAX)) as u32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::json, *};

    fn parse(body: &str) -> Result<SamplingRequest, ApiError> {
        json::from_slice::<Fields>(body.as_bytes())?.check()
    }

    #[test]
    fn silence_is_llama_cpps_defaults() {
        assert_eq!(parse("{}").unwrap(), SamplingRequest::default());
        assert_eq!(
            parse(r#"{"temperature":null,"seed":null}"#).unwrap(),
            SamplingRequest::default()
        );
    }

    #[test]
    fn integers_pass_for_numbers() {
        assert_eq!(parse(r#"{"temperature":1}"#).unwrap().temperature, 1.0);
        assert_eq!(parse(r#"{"top_k":-1}"#).unwrap().top_k, 0);
    }

    #[test]
    fn what_is_out_of_range_is_named_with_its_range() {
        for (body, param) in [
            (r#"{"temperature":2.1}"#, "temperature"),
            (r#"{"temperature":-0.1}"#, "temperature"),
            (r#"{"top_p":1.01}"#, "top_p"),
            (r#"{"min_p":-1}"#, "min_p"),
            (r#"{"typical_p":2}"#, "typical_p"),
            (r#"{"top_k":-2}"#, "top_k"),
            (r#"{"top_k":2147483648}"#, "top_k"),
            (r#"{"repeat_last_n":-2}"#, "repeat_last_n"),
            (r#"{"repeat_last_n":2147483647}"#, "repeat_last_n"),
            (r#"{"repeat_penalty":0}"#, "repeat_penalty"),
            (r#"{"frequency_penalty":3}"#, "frequency_penalty"),
            (r#"{"presence_penalty":-3}"#, "presence_penalty"),
        ] {
            let error = parse(body).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param), "{body}");
            assert!(error.message.contains("must be"), "{error}");
        }
    }

    #[test]
    fn minus_one_is_a_random_seed() {
        assert_eq!(parse(r#"{"seed":-1}"#).unwrap().seed, None);
        assert_eq!(parse(r#"{"seed":42}"#).unwrap().seed, Some(42));
        assert_eq!(parse(r#"{"seed":4294967295}"#).unwrap().seed, Some(0));
    }

    proptest! {
        #[test]
        fn no_seed_becomes_llama_cpps_mark_for_random(given in any::<i64>()) {
            prop_assert_ne!(seed(given), Some(u32::MAX));
            prop_assert_eq!(seed(given).is_none(), given == -1);
        }
    }
}
