//! From a request's prompts and parameters to the engine's.

use super::super::{
    api::{
        ApiError,
        input::Input,
        logit_bias::Target,
        logprobs::{Candidate, TokenLogprob},
        sampling::SamplingRequest,
    },
    engine::task::{self, Sampling},
};
use crate::llama::{Model, Token};

/// The tokens of an input that came in `param`: text as the model tokenises it, with the special
/// tokens that begin and end a text.
pub(super) fn tokens(model: &Model, input: Input, param: &str) -> Result<Vec<Token>, ApiError> {
    let tokens = match input {
        Input::Text(text) => tokenize(model, &text, param)?,
        Input::Tokens(tokens) => tokens,
    };
    check(model, &tokens, param)?;
    if !tokens.is_empty() {
        return Ok(tokens);
    }
    // Where nothing begins a text, what ends one comes closest: another begins after it.
    match model.bos().or(model.eos()) {
        Some(token) => Ok(vec![token]),
        None => Err(ApiError::value(
            param,
            format!("{param} is empty; send at least one token"),
        )),
    }
}

/// A text's tokens, with the special ones that begin and end it.
pub(super) fn tokenize(model: &Model, text: &str, param: &str) -> Result<Vec<Token>, ApiError> {
    model
        .tokenize(text, true, true)
        .map_err(|error| ApiError::value(param, format!("{param} cannot be tokenised: {error}")))
}

/// A text's tokens and no others; none where it cannot be tokenised.
pub(super) fn plain_tokens(model: &Model, text: &str) -> Vec<Token> {
    model.tokenize(text, false, true).unwrap_or_default()
}

/// The token that a text is, if it is one.
pub(super) fn single_token(model: &Model, text: &str) -> Option<Token> {
    match plain_tokens(model, text)[..] {
        [token] => Some(token),
        _ => None,
    }
}

/// Whether all tokens exist.
pub(super) fn check(model: &Model, tokens: &[Token], param: &str) -> Result<(), ApiError> {
    let exists = |&token: &Token| u32::try_from(token).is_ok_and(|token| token < model.vocab_size());
    match tokens.iter().position(|token| !exists(token)) {
        None => Ok(()),
        Some(index) => Err(ApiError::value(
            format!("{param}[{index}]"),
            format!(
                "{param}[{index}] is {}, but the model's tokens are from 0 to {}",
                tokens[index],
                model.vocab_size().saturating_sub(1)
            ),
        )),
    }
}

/// How the engine is to choose tokens, less grammar and template.
pub(super) fn sampling(model: &Model, request: &SamplingRequest) -> Result<Sampling, ApiError> {
    let mut logit_bias = Vec::with_capacity(request.logit_bias.len());
    for entry in &request.logit_bias {
        match &entry.target {
            Target::Token(token) => {
                check(model, &[*token], "logit_bias").map_err(|error| error.with_param("logit_bias"))?;
                logit_bias.push((*token, entry.bias));
            }
            Target::Text(text) => {
                let tokens = model.tokenize(text, false, true).map_err(|error| {
                    ApiError::value("logit_bias", format!("{text:?} cannot be tokenised: {error}"))
                })?;
                logit_bias.extend(tokens.into_iter().map(|token| (token, entry.bias)));
            }
        }
    }
    Ok(Sampling {
        seed: request.seed.unwrap_or_else(random_seed),
        temperature: request.temperature,
        top_k: request.top_k,
        top_p: request.top_p,
        min_p: request.min_p,
        typical_p: request.typical_p,
        repeat_last_n: request.repeat_last_n,
        repeat_penalty: request.repeat_penalty,
        frequency_penalty: request.frequency_penalty,
        presence_penalty: request.presence_penalty,
        logit_bias,
        ignore_eos: request.ignore_eos,
        grammar: None,
        generation_prompt: String::new(),
        preserved_tokens: Vec::new(),
        thinking_start: Vec::new(),
        thinking_ends: Vec::new(),
    })
}

/// llama.cpp takes `u32::MAX` for "random" and would not say which it took.
fn random_seed() -> u32 {
    rand::random_range(0..u32::MAX)
}

/// The seed of a prompt's choice `index`: choices must differ, and the same request must not.
pub(super) fn choice_seed(seed: u32, index: usize) -> u32 {
    let sum = u64::from(seed) + index as u64;
    (sum % u64::from(u32::MAX)) as u32
}

/// The engine's log probability as the API's.
pub(super) fn logprob(token: task::TokenLogprob) -> TokenLogprob {
    TokenLogprob {
        chosen: Candidate {
            bytes: token.bytes,
            logprob: token.logprob,
        },
        top: token
            .top
            .into_iter()
            .map(|(_, bytes, logprob)| Candidate { bytes, logprob })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_have_different_seeds_and_none_is_llama_cpps_random() {
        assert_eq!(choice_seed(41, 1), 42);
        assert_eq!(choice_seed(u32::MAX - 1, 1), 0);
        assert_eq!(choice_seed(u32::MAX, 0), 0);
    }
}
