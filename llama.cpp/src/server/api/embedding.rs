//! `POST /v1/embeddings`.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use super::{
    ApiError, ErrorCode,
    input::{self, Input},
    json,
    range::integer,
};

/// A checked request.
#[derive(Debug, Clone, PartialEq)]
pub struct EmbeddingRequest {
    /// The model; none is the one that there is.
    pub model: Option<String>,
    /// At least one.
    pub inputs: Vec<Input>,
    /// How vectors are written.
    pub encoding: Encoding,
    /// Shorten vectors to this length; not yet known to be less than theirs.
    pub dimensions: Option<usize>,
    /// Cut what is longer than the model takes, in place of refusing it. An extension.
    pub truncate: bool,
}

/// How vectors are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// An array of numbers.
    Float,
    /// Their 32-bit little-endian bytes.
    Base64,
}

#[derive(Debug, Deserialize)]
struct Fields {
    model: Option<String>,
    input: Option<input::Field>,
    encoding_format: Option<String>,
    dimensions: Option<i64>,
    truncate: Option<bool>,
}

/// Reads and checks a request.
pub fn parse(body: &[u8]) -> Result<EmbeddingRequest, ApiError> {
    let fields: Fields = json::from_slice(body)?;
    let encoding = match fields.encoding_format.as_deref() {
        None | Some("float") => Encoding::Float,
        Some("base64") => Encoding::Base64,
        Some(other) => {
            return Err(ApiError::bad(
                ErrorCode::UnsupportedValue,
                "encoding_format",
                format!("encoding_format is {other:?}, but must be \"float\" or \"base64\""),
            ));
        }
    };
    Ok(EmbeddingRequest {
        model: fields.model.filter(|model| !model.is_empty()),
        inputs: input::check("input", fields.input)?,
        encoding,
        dimensions: integer("dimensions", fields.dimensions, 1..=i64::MAX)?,
        truncate: fields.truncate.unwrap_or(false),
    })
}

/// The answer.
#[derive(Debug, Serialize)]
pub struct EmbeddingResponse<'a> {
    object: &'static str,
    data: Vec<Embedding>,
    model: &'a str,
    usage: EmbeddingUsage,
}

#[derive(Debug, Serialize)]
struct Embedding {
    object: &'static str,
    index: usize,
    embedding: Vector,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Vector {
    Float(Vec<f32>),
    Base64(String),
}

#[derive(Debug, Serialize)]
struct EmbeddingUsage {
    prompt_tokens: u64,
    total_tokens: u64,
}

impl<'a> EmbeddingResponse<'a> {
    /// The answer with these vectors, in the order of the inputs.
    pub fn new(model: &'a str, vectors: Vec<Vec<f32>>, encoding: Encoding, prompt_tokens: u64) -> Self {
        let vector = |vector: Vec<f32>| match encoding {
            Encoding::Float => Vector::Float(vector),
            Encoding::Base64 => {
                let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
                Vector::Base64(STANDARD.encode(bytes))
            }
        };
        EmbeddingResponse {
            object: "list",
            data: vectors
                .into_iter()
                .enumerate()
                .map(|(index, v)| Embedding {
                    object: "embedding",
                    index,
                    embedding: vector(v),
                })
                .collect(),
            model,
            usage: EmbeddingUsage {
                prompt_tokens,
                total_tokens: prompt_tokens,
            },
        }
    }
}

/// A vector's first `dimensions` numbers, scaled to length 1 again.
pub fn shorten(mut vector: Vec<f32>, dimensions: usize) -> Vec<f32> {
    vector.truncate(dimensions);
    let length = vector.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    if length > 0.0 {
        for x in &mut vector {
            *x = (f64::from(*x) / length) as f32;
        }
    }
    vector
}

/// A text's first `limit` tokens; `end` says which tokens end texts, and so stay last.
pub fn cut(tokens: &mut Vec<i32>, limit: usize, end: impl Fn(i32) -> bool) {
    if tokens.len() > limit {
        let last = tokens.last().copied().filter(|token| end(*token));
        tokens.truncate(limit);
        if let (Some(last), Some(place)) = (last, tokens.last_mut()) {
            *place = last;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &str) -> Result<EmbeddingRequest, ApiError> {
        super::parse(body.as_bytes())
    }

    #[test]
    fn requests_are_read() {
        let request = parse(r#"{"model":"tiny","input":["a","b"],"user":"x"}"#).unwrap();
        assert_eq!(request.inputs.len(), 2);
        assert_eq!(request.encoding, Encoding::Float);
        let request = parse(r#"{"input":[1,2],"encoding_format":"base64","dimensions":3}"#).unwrap();
        assert_eq!(request.inputs, [Input::Tokens(vec![1, 2])]);
        assert_eq!(
            (request.encoding, request.dimensions),
            (Encoding::Base64, Some(3))
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, param) in [
            ("{}", "input"),
            (r#"{"input":[]}"#, "input"),
            (r#"{"input":"a","encoding_format":"int8"}"#, "encoding_format"),
            (r#"{"input":"a","dimensions":0}"#, "dimensions"),
            (r#"{"input":"a","model":7}"#, "model"),
            (r#"{"input":"a","truncate":1}"#, "truncate"),
        ] {
            assert_eq!(parse(body).unwrap_err().param.as_deref(), Some(param), "{body}");
        }
    }

    #[test]
    fn vectors_are_numbers_or_their_bytes() {
        let json = |encoding| {
            let response = EmbeddingResponse::new("tiny", vec![vec![1.0, -2.5]], encoding, 3);
            serde_json::to_string(&response).unwrap()
        };
        assert_eq!(
            json(Encoding::Float),
            r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[1.0,-2.5]}],"model":"tiny","usage":{"prompt_tokens":3,"total_tokens":3}}"#
        );
        assert!(json(Encoding::Base64).contains(r#""embedding":"AACAPwAAIMA=""#));
    }

    #[test]
    fn a_text_that_is_cut_keeps_its_end() {
        let cut = |mut tokens: Vec<i32>, limit| {
            super::cut(&mut tokens, limit, |token| token == 9);
            tokens
        };
        assert_eq!(cut(vec![1, 2, 3], 3), [1, 2, 3]);
        assert_eq!(cut(vec![1, 2, 3], 2), [1, 2]);
        assert_eq!(cut(vec![1, 2, 3, 9], 2), [1, 9]);
        assert!(parse(r#"{"input":"a","truncate":true}"#).unwrap().truncate);
    }

    #[test]
    fn a_shortened_vector_has_length_one() {
        assert_eq!(shorten(vec![3.0, 4.0, 12.0], 2), [0.6, 0.8]);
        assert_eq!(shorten(vec![0.0, 0.0], 1), [0.0]);
    }
}
