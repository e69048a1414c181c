//! The other end: a request that another node sends here, to be answered by the own engine.

use super::asked::Asked;
use super::dispatch::{self, ELSEWHERE};
use super::error::{self, serving};
use super::forward::{passed_on, strip};
use super::inference;
use super::translate::read;
use crate::dialects::Problem;
use crate::engine::{Serving, State};
use crate::http::{AnswerBody, MAX_BUFFER_BYTES, OPENAI, Upload, refuse};
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use tokio::io::{AsyncRead, AsyncWrite};

/// Answers one request of a peer, which opened the stream for the model `wanted`. Of the engine's paths only
/// those are open to it that ask a model for something; who the peer is, and whether it may ask, was
/// decided before.
pub async fn serve_peer<S>(stream: S, engine: State, wanted: String)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = service_fn(|request| async {
        let answered = answer(&engine, &wanted, request).await;
        Ok::<_, Infallible>(answered.unwrap_or_else(|refusal| refusal.answer()))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .max_buf_size(MAX_BUFFER_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(
            error = &error as &dyn std::error::Error,
            "a peer's exchange ended early"
        );
    }
}

/// Why a peer gets no answer.
enum Refusal {
    /// No other node would answer it either.
    Wrong(Problem),
    /// Another node may have an answer.
    Elsewhere(Problem),
}

impl Refusal {
    fn answer(self) -> Response<AnswerBody> {
        match self {
            Refusal::Wrong(problem) => refuse(&problem, OPENAI),
            Refusal::Elsewhere(problem) => {
                let mut response = refuse(&problem, OPENAI);
                response
                    .headers_mut()
                    .insert(ELSEWHERE, HeaderValue::from_static("1"));
                response
            }
        }
    }
}

async fn answer(
    engine: &State,
    wanted: &str,
    request: Request<Incoming>,
) -> Result<Response<AnswerBody>, Refusal> {
    let (mut parts, upload) = request.into_parts();
    let upload = Upload::new(&parts.headers, upload);
    if !inference::is_asked(&parts.method, parts.uri.path()) {
        return Err(Refusal::Wrong(error::not_for_peers(
            &parts.method,
            parts.uri.path(),
        )));
    }
    let serving = ready(engine, wanted).map_err(Refusal::Elsewhere)?;
    let bytes = read(upload).await.map_err(Refusal::Wrong)?;
    // What cannot be read is the engine's to refuse; it has no other model than this.
    if let Some(other) = Asked::read(&bytes).model().filter(|model| *model != wanted) {
        return Err(Refusal::Wrong(error::other_model(other, wanted)));
    }
    strip(&mut parts);
    let answered = dispatch::to_own(&serving, Request::from_parts(parts, bytes)).await;
    answered.map(passed_on).map_err(Refusal::Elsewhere)
}

/// The engine, if it answers for this model.
fn ready(engine: &State, wanted: &str) -> Result<Serving, Problem> {
    match serving(engine) {
        Ok(serving) if serving.model == wanted => Ok(serving.clone()),
        Ok(_) => Err(error::not_served_here(wanted)),
        Err(not_ready) => Err(not_ready.problem()),
    }
}
