//! `POST /tokenize` and `POST /detokenize`

use axum::{extract::State, response::Json};

use super::super::api::{
    ApiError,
    tokenize::{self, DetokenizeResponse, Report, TokenPiece, TokenizeResponse},
};
use super::{App, blocking, body::JsonBody, prompt};

pub(super) async fn tokenize(
    State(app): State<App>,
    JsonBody(body): JsonBody,
) -> Result<Json<TokenizeResponse>, ApiError> {
    blocking(move || {
        let request = tokenize::parse_tokenize(&body)?;
        let model = app.engine.model();
        let tokens = model
            .tokenize(&request.content, request.add_special, request.parse_special)
            .map_err(|error| ApiError::value("content", format!("content cannot be tokenised: {error}")))?;
        Ok(Json(match request.report {
            Report::Ids => TokenizeResponse::Ids { tokens },
            Report::Pieces => TokenizeResponse::Pieces {
                tokens: tokens
                    .into_iter()
                    .map(|token| TokenPiece::new(token, model.piece(token, true)))
                    .collect(),
            },
        }))
    })
    .await
}

pub(super) async fn detokenize(
    State(app): State<App>,
    JsonBody(body): JsonBody,
) -> Result<Json<DetokenizeResponse>, ApiError> {
    blocking(move || {
        let tokens = tokenize::parse_detokenize(&body)?;
        let model = app.engine.model();
        prompt::check(model, &tokens, "tokens")?;
        Ok(Json(DetokenizeResponse {
            content: model.detokenize(&tokens, true),
        }))
    })
    .await
}
