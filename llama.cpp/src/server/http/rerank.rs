//! `POST /v1/rerank`

use axum::{
    extract::State,
    response::{IntoResponse, Json, Response},
};
use futures_util::{StreamExt, TryStreamExt, stream};

use super::super::{
    api::{
        ApiError, ErrorCode, model,
        rerank::{self, RerankRequest, RerankResponse},
    },
    engine::Engine,
};
use super::{App, blocking, body::JsonBody, embedding, error::Blame, header, prompt};
use crate::llama::{Model, Token};

const BLAME: Blame = Blame {
    prompt: "documents",
    grammar: None,
};

pub(super) async fn rerank(State(app): State<App>, JsonBody(body): JsonBody) -> Result<Response, ApiError> {
    let engine = app.engine.clone();
    let header = header("rerank", &engine);
    let (request, pairs) = blocking(move || {
        let request = rerank::parse(&body)?;
        model::check(request.model.as_deref(), engine.name())?;
        check_model(&engine)?;
        let pairs = pairs(&engine, &request)?;
        Ok((request, pairs))
    })
    .await?;
    let prompt_tokens = pairs.iter().map(|tokens| tokens.len() as u64).sum();
    let engine = &app.engine;
    let is_probability = engine.model().ranks_by_probability();
    let scores: Vec<f32> = stream::iter(pairs)
        .map(|tokens| embedding::embed(engine, tokens))
        .buffered(embedding::AT_A_TIME)
        .map_ok(|outputs| {
            let first = outputs.first().copied().unwrap_or(f32::NAN);
            rerank::relevance(first, is_probability)
        })
        .try_collect()
        .await
        .map_err(|failure| BLAME.error(failure))?;
    let response = RerankResponse::new(&header.id, engine.name(), request, &scores, prompt_tokens);
    Ok(Json(response).into_response())
}

fn check_model(engine: &Engine) -> Result<(), ApiError> {
    if engine.model().ranks() {
        return Ok(());
    }
    let message = format!(
        "{} does not rank documents: its file names no pooling of the type rank; serve a reranker, such as \
         bge-reranker-v2-m3, or compare what /v1/embeddings gives",
        engine.name()
    );
    Err(ApiError::bad(ErrorCode::UnsupportedValue, "model", message))
}

/// What the model reads for each document.
fn pairs(engine: &Engine, request: &RerankRequest) -> Result<Vec<Vec<Token>>, ApiError> {
    let pairing = Pairing::new(engine.model(), &request.query);
    let limit = engine.embed_limit() as usize;
    let documents = request.documents.iter().enumerate();
    let tokens = documents.map(|(index, document)| {
        let param = format!("documents[{index}]");
        let tokens = pairing.tokens(document, &param)?;
        if tokens.len() <= limit {
            return Ok(tokens);
        }
        let shorter = if request.truncate {
            pairing.shortened(document, tokens.len(), limit, &param)?
        } else {
            None
        };
        shorter.ok_or_else(|| {
            let message = format!(
                "{param} and the query have {} tokens, but at most {limit} can be ranked",
                tokens.len()
            );
            ApiError::bad(ErrorCode::ContextLengthExceeded, param, message)
        })
    });
    tokens.collect()
}

/// How a query and a document become one text.
struct Pairing<'a> {
    model: &'a Model,
    query: &'a str,
    /// The model's own words around both, if it has some.
    template: Option<String>,
}

impl<'a> Pairing<'a> {
    fn new(model: &'a Model, query: &'a str) -> Self {
        Self {
            model,
            query,
            template: model.metadata("tokenizer.chat_template.rerank"),
        }
    }

    /// The tokens of the pair, as llama.cpp's server puts it together.
    fn tokens(&self, document: &str, param: &str) -> Result<Vec<Token>, ApiError> {
        let model = self.model;
        let tokenize = |text: &str, marks: bool, param: &str| {
            model
                .tokenize(text, false, marks)
                .map_err(|error| ApiError::value(param, format!("{param} cannot be tokenised: {error}")))
        };
        if let Some(template) = &self.template {
            return tokenize(&rerank::fill(template, self.query, document), true, param);
        }
        let begin = model.bos().filter(|_| model.add_bos());
        let end = model.eos().or(model.separator()).filter(|_| model.add_eos());
        let between = model.separator().filter(|_| model.add_separator());
        let mut tokens: Vec<Token> = begin.into_iter().collect();
        tokens.extend(tokenize(self.query, false, "query")?);
        tokens.extend(end.into_iter().chain(between));
        tokens.extend(tokenize(document, false, param)?);
        tokens.extend(end);
        if tokens.is_empty() {
            return Err(ApiError::value(param, format!("{param} and the query are empty")));
        }
        Ok(tokens)
    }

    /// The tokens of the pair with as much of the document as fits; none where the query alone is too long.
    fn shortened(
        &self,
        document: &str,
        mut length: usize,
        limit: usize,
        param: &str,
    ) -> Result<Option<Vec<Token>>, ApiError> {
        let words = prompt::plain_tokens(self.model, document);
        let mut kept = words.len();
        while kept > 0 {
            kept -= (length - limit).min(kept);
            let beginning = self.model.detokenize(&words[..kept], true);
            let tokens = self.tokens(&beginning, param)?;
            if tokens.len() <= limit {
                return Ok(Some(tokens));
            }
            length = tokens.len();
        }
        Ok(None)
    }
}
