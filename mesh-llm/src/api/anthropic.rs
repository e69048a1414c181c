//! Anthropic's Messages over HTTP.

use super::forward::Context;
use super::translate::{perform, read};
use crate::dialects::anthropic::{self, Endpoint};
use crate::dialects::{Exchange, Problem};
use crate::http::{AnswerBody, Upload, refuse};
use hyper::{Request, Response};

/// Answers a request to one of the dialect's paths.
pub(super) async fn answer(
    context: &Context,
    endpoint: Endpoint,
    request: Request<Upload>,
) -> Response<AnswerBody> {
    match exchange(endpoint, request).await {
        Ok(exchange) => perform(context, exchange).await,
        Err(problem) => Err(problem),
    }
    .unwrap_or_else(|problem| refuse(&problem, anthropic::words))
}

async fn exchange(endpoint: Endpoint, request: Request<Upload>) -> Result<Exchange, Problem> {
    match endpoint {
        Endpoint::Messages => anthropic::messages(&read(request.into_body()).await?),
        Endpoint::CountTokens => anthropic::count_tokens(&read(request.into_body()).await?),
        Endpoint::WrongMethod => Err(Problem::wrong_method("POST")),
    }
}
