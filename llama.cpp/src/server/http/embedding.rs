//! `POST /v1/embeddings`

use axum::{
    extract::State,
    response::{IntoResponse, Json, Response},
};
use futures_util::{StreamExt, TryStreamExt, stream};

use super::super::{
    api::{
        ApiError, ErrorCode,
        embedding::{self, EmbeddingRequest, EmbeddingResponse},
        input::Input,
        model,
    },
    engine::{Engine, task::Failure},
};
use super::{App, blocking, body::JsonBody, error::Blame, prompt};
use crate::llama::Token;

const BLAME: Blame = Blame {
    prompt: "input",
    grammar: None,
};

/// Inputs of one request that the engine has at a time: the others wait here, and other requests'
/// come between.
pub(super) const AT_A_TIME: usize = 4;

pub(super) async fn embeddings(
    State(app): State<App>,
    JsonBody(body): JsonBody,
) -> Result<Response, ApiError> {
    let engine = app.engine.clone();
    let (request, inputs) = blocking(move || {
        let mut request = embedding::parse(&body)?;
        model::check(request.model.as_deref(), engine.name())?;
        check_model(&engine)?;
        check_dimensions(&engine, &request)?;
        let inputs = tokens(&engine, std::mem::take(&mut request.inputs), request.truncate)?;
        Ok((request, inputs))
    })
    .await?;
    let prompt_tokens = inputs.iter().map(|tokens| tokens.len() as u64).sum();
    let engine = &app.engine;
    let vectors: Vec<Vec<f32>> = stream::iter(inputs)
        .map(|tokens| embed(engine, tokens))
        .buffered(AT_A_TIME)
        .try_collect()
        .await
        .map_err(|failure| BLAME.error(failure))?;
    let vectors = match request.dimensions {
        None => vectors,
        Some(dimensions) => vectors
            .into_iter()
            .map(|v| embedding::shorten(v, dimensions))
            .collect(),
    };
    let response = EmbeddingResponse::new(engine.name(), vectors, request.encoding, prompt_tokens);
    Ok(Json(response).into_response())
}

/// What the model makes of a text: a vector of length 1, or how it ranks it.
pub(super) async fn embed(engine: &Engine, tokens: Vec<Token>) -> Result<Vec<f32>, Failure> {
    let answer = engine.embed(tokens)?.await;
    answer.unwrap_or_else(|_| Err(Failure::Engine("it stopped in the middle of the answer".into())))
}

fn check_model(engine: &Engine) -> Result<(), ApiError> {
    if !engine.model().ranks() {
        return Ok(());
    }
    let message = format!(
        "{} ranks documents and makes no embeddings; use /v1/rerank",
        engine.name()
    );
    Err(ApiError::bad(ErrorCode::UnsupportedValue, "model", message))
}

fn check_dimensions(engine: &Engine, request: &EmbeddingRequest) -> Result<(), ApiError> {
    let width = engine.model().embedding_width() as usize;
    match request.dimensions {
        Some(dimensions) if dimensions > width => Err(ApiError::value(
            "dimensions",
            format!("dimensions is {dimensions}, but the model's vectors have {width}"),
        )),
        _ => Ok(()),
    }
}

fn tokens(engine: &Engine, inputs: Vec<Input>, truncate: bool) -> Result<Vec<Vec<Token>>, ApiError> {
    let several = inputs.len() > 1;
    let limit = engine.embed_limit();
    inputs
        .into_iter()
        .enumerate()
        .map(|(index, input)| {
            let param = if several {
                format!("input[{index}]")
            } else {
                "input".to_owned()
            };
            let model = engine.model();
            let mut tokens = prompt::tokens(model, input, &param)?;
            if truncate {
                let end = |token| Some(token) == model.eos() || Some(token) == model.separator();
                embedding::cut(&mut tokens, limit as usize, end);
            }
            // Before anything is computed, and with the name of the input.
            if tokens.len() > limit as usize {
                let prompt_tokens = u32::try_from(tokens.len()).unwrap_or(u32::MAX);
                let mut error = BLAME.error(Failure::TooLong {
                    prompt_tokens,
                    context: limit,
                });
                error.message =
                    format!("{param} has {prompt_tokens} tokens, but at most {limit} can be embedded");
                return Err(error.with_param(param));
            }
            Ok(tokens)
        })
        .collect()
}
