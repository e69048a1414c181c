//! Takes a request to the place that answers it best, and to the next one where that gives no answer.

use super::asked::Asked;
use super::error::{FromNode, NotReady, crashed, nobody_answers};
use super::forward::Context;
use super::places::{Place, Way, ways};
use crate::dialects::Problem;
use crate::engine::{Counted, RequestBody, Serving};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{AUTHORIZATION, COOKIE, HOST, HeaderName, ORIGIN, REFERER};
use hyper::{Request, Response};
use std::error::Error;

/// The header of a refusal by a node that does not serve the model, or not any more.
pub(super) const ELSEWHERE: HeaderName = HeaderName::from_static("x-mesh-llm-elsewhere");

/// What a client says to this machine alone: no other node is to see it.
const PRIVATE: [HeaderName; 6] = [
    AUTHORIZATION,
    COOKIE,
    HOST,
    ORIGIN,
    REFERER,
    HeaderName::from_static("x-api-key"),
];

/// A body that is there.
fn body(bytes: Bytes) -> RequestBody {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// Sends a request to a place that serves the model which its body names; where no node but this serves
/// anything, to the own engine without a look at it. Its headers must speak of the message only. The head of
/// an answer is final, whatever comes after it.
///
/// # Errors
/// Where the model is served nowhere, or none of the places that serve it gives an answer.
pub(super) async fn send(context: &Context, request: Request<Bytes>) -> Result<Response<Counted>, Problem> {
    let remotes = context.remotes.borrow().clone();
    if remotes.serve_nothing() {
        let serving = context.own.serving().map_err(NotReady::problem)?;
        return to_own(&serving, request).await;
    }
    let asked = Asked::read(request.body());
    let session = asked.session(request.headers());
    let ways = ways(&context.own, &remotes, asked.model())?;
    let mut last = crashed();
    for way in context.routes.sort(session, ways) {
        match take(&way, request.clone()).await {
            Ok(response) => {
                let kept = session.filter(|_| response.status().is_success());
                context.routes.answered(kept, way.place());
                return Ok(response);
            }
            Err(problem) => {
                context.routes.failed(way.place());
                last = problem;
            }
        }
    }
    Err(last)
}

/// Sends a request to the own engine.
///
/// # Errors
/// Where it gives no answer.
pub(super) async fn to_own(serving: &Serving, request: Request<Bytes>) -> Result<Response<Counted>, Problem> {
    let sent = serving.upstream.send(request.map(body)).await;
    sent.map_err(|error| {
        tracing::warn!(error = &error as &dyn Error, "the engine broke an exchange off");
        crashed()
    })
}

/// Takes a request along one way.
async fn take(way: &Way, mut request: Request<Bytes>) -> Result<Response<Counted>, Problem> {
    let place = way.place();
    if let Place::Node(_) = place {
        for name in &PRIVATE {
            request.headers_mut().remove(name);
        }
    }
    match (way.upstream.send(request.map(body)).await, place) {
        (Ok(response), Place::Node(_)) if response.headers().contains_key(ELSEWHERE) => {
            tracing::debug!(%place, "a node does not serve the model any more");
            Err(nobody_answers())
        }
        (Ok(mut response), Place::Node(_)) => {
            response.extensions_mut().insert(FromNode);
            Ok(response)
        }
        (Ok(response), Place::Own) => Ok(response),
        (Err(error), place) => {
            tracing::warn!(%place, error = &error as &dyn Error, "a request got no answer");
            Err(match place {
                Place::Own => crashed(),
                Place::Node(_) => nobody_answers(),
            })
        }
    }
}
