//! `POST /v1/completions`.

mod response;

use serde::Deserialize;

pub use response::{Choice, Completion, CompletionChunk};

use super::{
    ApiError,
    generation::{self, GenerationRequest},
    input::{self, Input},
    json, limits,
    range::integer,
};

/// Tokens of an answer where the request does not say; OpenAI's number.
pub const DEFAULT_MAX_TOKENS: u32 = 16;

/// A checked request.
#[derive(Debug, Clone, PartialEq)]
pub struct CompletionRequest {
    /// The model; none is the one that there is.
    pub model: Option<String>,
    /// At least one.
    pub prompts: Vec<Input>,
    /// What comes after the answer.
    pub suffix: Option<String>,
    /// Whether the answer begins with the prompt.
    pub echo: Echo,
    /// Report log probabilities, with this many alternatives a token.
    pub logprobs: Option<u32>,
    /// What text completion shares with chat. `max_tokens` is always there, and may be 0.
    pub generation: GenerationRequest,
}

/// Whether an answer begins with its prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Echo {
    /// It does not.
    No,
    /// It does.
    Prompt,
}

#[derive(Debug, Deserialize)]
struct Fields {
    model: Option<String>,
    prompt: Option<input::Field>,
    suffix: Option<String>,
    echo: Option<bool>,
    logprobs: Option<i64>,
    n_predict: Option<i64>,
    best_of: Option<i64>,
}

/// Reads and checks a request.
pub fn parse(body: &[u8]) -> Result<CompletionRequest, ApiError> {
    let fields: Fields = json::from_slice(body)?;
    let mut generation = generation::parse(body, 0)?;
    // An n_predict of -1 asks for no limit.
    if generation.max_tokens.is_none() && fields.n_predict.is_none() {
        generation.max_tokens = Some(DEFAULT_MAX_TOKENS);
    }
    let best_of: Option<u32> = integer("best_of", fields.best_of, 1..=limits::CHOICES as i64)?;
    if best_of.is_some_and(|best_of| best_of != generation.choices) {
        return Err(ApiError::unsupported(
            "best_of",
            "best_of is not supported, unless it equals n; ask for n choices and pick one",
        ));
    }
    let prompts = input::check("prompt", fields.prompt)?;
    let choices = prompts.len() * generation.choices as usize;
    if choices > limits::CHOICES {
        return Err(ApiError::value(
            "n",
            format!(
                "{} prompts with n = {} are {choices} choices; at most {} are allowed",
                prompts.len(),
                generation.choices,
                limits::CHOICES
            ),
        ));
    }
    Ok(CompletionRequest {
        model: fields.model.filter(|model| !model.is_empty()),
        prompts,
        suffix: fields.suffix.filter(|suffix| !suffix.is_empty()),
        echo: if fields.echo == Some(true) {
            Echo::Prompt
        } else {
            Echo::No
        },
        logprobs: integer("logprobs", fields.logprobs, 0..=limits::TOP_LOGPROBS)?,
        generation,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &str) -> Result<CompletionRequest, ApiError> {
        super::parse(body.as_bytes())
    }

    #[test]
    fn a_prompt_is_enough() {
        let request = parse(r#"{"prompt":"Once"}"#).unwrap();
        assert_eq!(request.prompts, [Input::Text("Once".into())]);
        assert_eq!(request.generation.max_tokens, Some(DEFAULT_MAX_TOKENS));
        assert_eq!(request.echo, Echo::No);
        assert_eq!(request.logprobs, None);
        assert_eq!(request.model, None);
    }

    #[test]
    fn the_legacy_parameters_are_read() {
        let request = parse(
            r#"{"model":"tiny","prompt":["a","b"],"suffix":"z","echo":true,"logprobs":5,"max_tokens":0,"n":2,"best_of":2}"#,
        )
        .unwrap();
        assert_eq!(request.model.as_deref(), Some("tiny"));
        assert_eq!(request.suffix.as_deref(), Some("z"));
        assert_eq!(request.echo, Echo::Prompt);
        assert_eq!(request.logprobs, Some(5));
        assert_eq!(request.generation.max_tokens, Some(0));
        assert_eq!(request.generation.choices, 2);
    }

    #[test]
    fn n_predict_can_ask_for_no_limit() {
        assert_eq!(
            parse(r#"{"prompt":"","n_predict":-1}"#)
                .unwrap()
                .generation
                .max_tokens,
            None
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        let many = format!(r#"{{"prompt":[{}],"n":3}}"#, vec!["\"a\""; 43].join(","));
        for (body, param) in [
            ("{}", "prompt"),
            (r#"{"prompt":{}}"#, "prompt"),
            (r#"{"prompt":"a","logprobs":true}"#, "logprobs"),
            (r#"{"prompt":"a","logprobs":21}"#, "logprobs"),
            (r#"{"prompt":"a","echo":"yes"}"#, "echo"),
            (r#"{"prompt":"a","suffix":1}"#, "suffix"),
            (r#"{"prompt":"a","best_of":3}"#, "best_of"),
            (r#"{"prompt":"a","max_tokens":-1}"#, "max_tokens"),
            (r#"{"prompt":"a","temperature":"hot"}"#, "temperature"),
            (many.as_str(), "n"),
        ] {
            assert_eq!(parse(body).unwrap_err().param.as_deref(), Some(param), "{body}");
        }
    }
}
