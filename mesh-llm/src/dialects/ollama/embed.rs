//! `POST /api/embed`, and `POST /api/embeddings` before it
//! (<https://github.com/ollama/ollama/blob/main/docs/api.md#generate-embeddings>).

use super::super::{Answer, Exchange, Form, Problem};
use super::request::{model, read};
use llama_engine::server::api::json::{Alternative, Bounded, TextOr};
use llama_engine::server::api::limits;
use serde::{Deserialize, Serialize};

/// Where the engine makes embeddings.
const PATH: &str = "/v1/embeddings";

#[derive(Debug, Deserialize)]
struct Fields {
    model: Option<String>,
    input: Option<TextOr<Texts>>,
    truncate: Option<bool>,
    dimensions: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct OldFields {
    model: Option<String>,
    prompt: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(transparent)]
struct Texts(Bounded<String, { limits::INPUTS }>);

impl Alternative for Texts {
    const EXPECTED: &'static str = "a string or an array of strings";
}

/// What the engine is asked.
#[derive(Debug, Serialize)]
struct Request<'a> {
    model: &'a str,
    input: &'a [String],
    /// Whether a text that is too long loses its end.
    truncate: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<u64>,
}

impl Request<'_> {
    fn exchange(&self, answer: Vectors) -> Exchange {
        Exchange {
            path: PATH,
            // Writing to memory cannot fail, and what is written has string keys.
            body: serde_json::to_vec(self).unwrap_or_default(),
            form: Form::Whole,
            answer: Box::new(answer),
        }
    }
}

/// Reads a request to `/api/embed`.
///
/// # Errors
/// A problem that names the field that is wrong.
pub fn exchange(body: &[u8]) -> Result<Exchange, Problem> {
    let fields: Fields = read(body)?;
    let name = model(fields.model)?;
    let texts = match fields.input {
        Some(TextOr::Text(text)) => vec![text],
        Some(TextOr::Other(Texts(Bounded(texts)))) if !texts.is_empty() => texts,
        _ => return Err(nothing("input")),
    };
    let request = Request {
        model: super::untagged(&name),
        input: &texts,
        truncate: fields.truncate.unwrap_or(true),
        dimensions: fields.dimensions,
    };
    Ok(request.exchange(Vectors::Several { model: name.clone() }))
}

/// Reads a request to `/api/embeddings`.
///
/// # Errors
/// A problem that names the field that is wrong.
pub fn older_exchange(body: &[u8]) -> Result<Exchange, Problem> {
    let fields: OldFields = read(body)?;
    let name = model(fields.model)?;
    let request = Request {
        model: super::untagged(&name),
        input: &[fields.prompt.ok_or_else(|| nothing("prompt"))?],
        truncate: true,
        dimensions: None,
    };
    Ok(request.exchange(Vectors::One))
}

fn nothing(field: &str) -> Problem {
    Problem::invalid(
        Some(field),
        format!("{field} is missing: there is no text to embed"),
    )
}

/// The engine's answer.
#[derive(Debug, Deserialize)]
struct Embeddings {
    data: Vec<Embedding>,
    usage: Usage,
}

#[derive(Debug, Deserialize)]
struct Embedding {
    embedding: Vec<f32>,
}

#[derive(Debug, Deserialize)]
struct Usage {
    prompt_tokens: u64,
}

/// Translates vectors.
#[derive(Debug)]
enum Vectors {
    /// For `/api/embed`.
    Several { model: String },
    /// For `/api/embeddings`.
    One,
}

/// The answer of `/api/embed`.
#[derive(Debug, Serialize)]
struct SeveralBody<'a> {
    model: &'a str,
    embeddings: Vec<Vec<f32>>,
    prompt_eval_count: u64,
}

/// The answer of `/api/embeddings`.
#[derive(Debug, Serialize)]
struct OneBody {
    embedding: Vec<f32>,
}

impl Answer for Vectors {
    fn content_type(&self) -> &'static str {
        "application/json; charset=utf-8"
    }

    fn whole(&mut self, answer: &[u8]) -> Result<Vec<u8>, Problem> {
        let Embeddings { data, usage } = serde_json::from_slice(answer)
            .map_err(|error| Problem::engine(format!("the engine's embeddings cannot be read: {error}")))?;
        let mut embeddings = data.into_iter().map(|each| each.embedding);
        let body = match self {
            Vectors::Several { model } => serde_json::to_vec(&SeveralBody {
                model,
                embeddings: embeddings.collect(),
                prompt_eval_count: usage.prompt_tokens,
            }),
            Vectors::One => serde_json::to_vec(&OneBody {
                embedding: embeddings
                    .next()
                    .ok_or_else(|| Problem::engine("the engine made no embedding"))?,
            }),
        };
        body.map_err(|error| Problem::engine(error.to_string()))
    }

    // Embeddings do not stream.

    fn event(&mut self, _: &[u8], _: &mut Vec<u8>) {}

    fn keep_alive(&mut self, _: &mut Vec<u8>) {}

    fn broken(&mut self, _: &Problem, _: &mut Vec<u8>) {}

    fn end(&mut self, _: &mut Vec<u8>) {}
}
