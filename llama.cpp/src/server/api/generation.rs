//! What chat and text completions have in common.

use serde::Deserialize;

use super::{
    ApiError, constraint,
    constraint::Constraint,
    json::{self, Object},
    limits,
    range::integer,
    sampling,
    sampling::SamplingRequest,
    stop,
};

/// What chat and text completions have in common.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerationRequest {
    /// The most tokens to generate; none is as many as the context holds.
    pub max_tokens: Option<u32>,
    /// Answers to each prompt.
    pub choices: u32,
    /// Texts that end an answer.
    pub stop: Vec<String>,
    /// How the answer is sent.
    pub delivery: Delivery,
    /// How a token is chosen.
    pub sampling: SamplingRequest,
    /// What the answer may look like.
    pub constraint: Constraint,
}

/// How an answer is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// In one piece, when it is complete.
    Whole,
    /// As server-sent events, while it is generated.
    Stream(UsageReport),
}

/// Whether a stream ends with a chunk about the tokens used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UsageReport {
    /// It does not.
    Omitted,
    /// It does, and every other chunk has a `usage` that is null.
    Included,
}

#[derive(Debug, Deserialize)]
struct Fields {
    max_tokens: Option<i64>,
    max_completion_tokens: Option<i64>,
    n_predict: Option<i64>,
    n: Option<i64>,
    stop: Option<stop::Field>,
    stream: Option<bool>,
    stream_options: Option<Object<StreamOptions>>,
}

#[derive(Debug, Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

/// Reads the common parameters of a body.
///
/// The body is gone through once for each group of parameters: serde's `flatten` would read it once,
/// and lose the paths of what is wrong.
pub(super) fn parse(body: &[u8], least_tokens: i64) -> Result<GenerationRequest, ApiError> {
    let fields: Fields = json::from_slice(body)?;
    let sampling: sampling::Fields = json::from_slice(body)?;
    let constraint: constraint::Fields = json::from_slice(body)?;
    Ok(GenerationRequest {
        max_tokens: fields.max_tokens(least_tokens)?,
        choices: integer("n", fields.n, 1..=limits::CHOICES as i64)?.unwrap_or(1),
        delivery: fields.delivery()?,
        stop: stop::check(fields.stop)?,
        sampling: sampling.check()?,
        constraint: constraint.check()?,
    })
}

impl Fields {
    fn max_tokens(&self, least: i64) -> Result<Option<u32>, ApiError> {
        let range = least..=u32::MAX.into();
        // llama.cpp's name; there, -1 is "no limit".
        let n_predict = self.n_predict.filter(|&n| n != -1);
        let newest = integer("max_completion_tokens", self.max_completion_tokens, range.clone())?;
        let older = integer("max_tokens", self.max_tokens, range.clone())?;
        Ok(newest.or(older).or(integer("n_predict", n_predict, range)?))
    }

    fn delivery(&self) -> Result<Delivery, ApiError> {
        let usage = self.stream_options.as_ref().map(|Object(options)| {
            if options.include_usage == Some(true) {
                UsageReport::Included
            } else {
                UsageReport::Omitted
            }
        });
        match (self.stream.unwrap_or(false), usage) {
            (true, usage) => Ok(Delivery::Stream(usage.unwrap_or(UsageReport::Omitted))),
            (false, None) => Ok(Delivery::Whole),
            (false, Some(_)) => Err(ApiError::value(
                "stream_options",
                "stream_options is only for streams; set stream to true, or leave it out",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &str) -> Result<GenerationRequest, ApiError> {
        super::parse(body.as_bytes(), 1)
    }

    #[test]
    fn the_newest_name_of_max_tokens_wins() {
        let max = |body| parse(body).unwrap().max_tokens;
        assert_eq!(max("{}"), None);
        assert_eq!(max(r#"{"n_predict":-1}"#), None);
        assert_eq!(max(r#"{"n_predict":3}"#), Some(3));
        assert_eq!(max(r#"{"n_predict":3,"max_tokens":4}"#), Some(4));
        assert_eq!(max(r#"{"max_tokens":4,"max_completion_tokens":5}"#), Some(5));
    }

    #[test]
    fn delivery_is_whole_unless_a_stream_is_asked_for() {
        let delivery = |body| parse(body).unwrap().delivery;
        assert_eq!(delivery("{}"), Delivery::Whole);
        assert_eq!(delivery(r#"{"stream":false}"#), Delivery::Whole);
        assert_eq!(
            delivery(r#"{"stream":true}"#),
            Delivery::Stream(UsageReport::Omitted)
        );
        assert_eq!(
            delivery(r#"{"stream":true,"stream_options":{"include_usage":true}}"#),
            Delivery::Stream(UsageReport::Included)
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, param) in [
            (r#"{"max_tokens":0}"#, "max_tokens"),
            (r#"{"max_tokens":1.5}"#, "max_tokens"),
            (r#"{"max_completion_tokens":-1}"#, "max_completion_tokens"),
            (r#"{"n_predict":-2}"#, "n_predict"),
            (r#"{"n":0}"#, "n"),
            (r#"{"n":129}"#, "n"),
            (r#"{"n":"1"}"#, "n"),
            (r#"{"stream":"yes"}"#, "stream"),
            (r#"{"stream_options":{"include_usage":true}}"#, "stream_options"),
            (
                r#"{"stream":true,"stream_options":{"include_usage":1}}"#,
                "stream_options.include_usage",
            ),
        ] {
            assert_eq!(parse(body).unwrap_err().param.as_deref(), Some(param), "{body}");
        }
    }
}
