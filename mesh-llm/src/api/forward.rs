//! One exchange: from the client to the engine, or to another node, and back.

use super::answer::Answer;
use super::anthropic;
use super::dispatch;
use super::error::{self, NotReady};
use super::inference;
use super::keys::Keys;
use super::model_list::Question;
use super::ollama;
use super::own::Own;
use super::places::Routes;
use super::remote::Remotes;
use super::request_id::RequestId;
use super::responses;
use super::responses_store::Responses;
use super::translate::read;
use crate::dialects::{self, Problem, Route};
use crate::engine::{Counted, Serving};
use crate::http::{self, AnswerBody, OPENAI, Upload, Words, json, refuse};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, EXPECT, HeaderMap, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, Version};
use std::time::Instant;
use tokio::sync::watch;

/// What an exchange depends on.
#[derive(Debug, Clone)]
pub(super) struct Context {
    /// What this machine serves.
    pub(super) own: Own,
    /// What other nodes serve at the moment.
    pub(super) remotes: watch::Receiver<Remotes>,
    /// What is remembered of where requests went.
    pub(super) routes: Routes,
    /// Who may use it.
    pub(super) keys: Keys,
    /// Whether only this machine reaches the server.
    pub(super) local: bool,
    /// The responses that clients can come back to.
    pub(super) responses: Responses,
}

/// Answers a request.
pub(super) async fn answer(context: Context, request: Request<Incoming>) -> Response<AnswerBody> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let begun = Instant::now();
    let route = dialects::route(&method, &path);
    let id = RequestId::new();
    let header = id.as_ref().and_then(|id| id.header(&route));
    let mut response = answer_or_refuse(context, route, request).await;
    response.headers_mut().extend(header);
    let until_head_ms = begun.elapsed().as_secs_f64() * 1e3;
    let id = id.map(tracing::field::display);
    tracing::debug!(id, %method, path, status = response.status().as_u16(), until_head_ms, "request");
    response
}

async fn answer_or_refuse(
    context: Context,
    route: Route,
    request: Request<Incoming>,
) -> Response<AnswerBody> {
    let (parts, body) = request.into_parts();
    let body = Upload::new(&parts.headers, body);
    let request = Request::from_parts(parts, body);
    if context.local
        && let Some(host) = http::foreign_host(&request)
    {
        return refuse(&error::foreign_name(&host), OPENAI);
    }
    if request.method() == Method::CONNECT {
        return refuse(&error::not_a_proxy(), OPENAI);
    }
    if http::is_foreign_page(&request) {
        return refuse(&http::foreign_page(), words(&route));
    }
    // Whoever watches over the server needs no key to see that it lives.
    if request.uri().path() != "/health" && !context.keys.admit(request.headers()) {
        return refuse(&error::no_key(), words(&route));
    }
    match route {
        Route::Engine => to_engine(&context, request).await,
        Route::Anthropic(endpoint) => anthropic::answer(&context, endpoint, request).await,
        Route::Ollama(endpoint) => ollama::answer(&context, endpoint, request).await,
        Route::Responses(call) => responses::answer(&context, call, request).await,
    }
}

/// How the errors of a route are written.
fn words(route: &Route) -> Words {
    match route {
        Route::Engine | Route::Responses(_) => OPENAI,
        Route::Anthropic(_) => dialects::anthropic::words,
        Route::Ollama(_) => dialects::ollama::words,
    }
}

async fn to_engine(context: &Context, request: Request<Upload>) -> Response<AnswerBody> {
    let (method, path) = (request.method(), request.uri().path());
    let asks_a_model = inference::is_asked(method, path);
    let about_models = Question::of(method, path);
    let others_serve = !context.remotes.borrow().serve_nothing();
    let done = match about_models {
        _ if path == "/health" => return health(context, request).await,
        Some(question) if others_serve => question.answer(context).await,
        None if others_serve && asks_a_model => to_best(context, request).await,
        None if context.own.is_none() && !asks_a_model => Err(error::no_engine(method, path)),
        _ => to_own(context, request).await.map_err(NotReady::problem),
    };
    done.unwrap_or_else(|problem| refuse(&problem, OPENAI))
}

async fn health(context: &Context, request: Request<Upload>) -> Response<AnswerBody> {
    let others_serve = !context.remotes.borrow().serve_nothing();
    match to_own(context, request).await {
        Ok(response) => response,
        // Its own model is a matter of others, or there is none.
        Err(_) if context.own.leaves_it_to_others() && others_serve => json(br#"{"status":"ok"}"#.to_vec()),
        Err(not_ready) => not_ready.health(),
    }
}

/// Has the own engine answer as the request comes.
async fn to_own(context: &Context, request: Request<Upload>) -> Result<Response<AnswerBody>, NotReady> {
    Ok(forward(&context.own.serving()?, request).await)
}

/// Has the best place answer, once the request is there: only then is known what it asks for, and it may
/// have to be sent again.
async fn to_best(context: &Context, request: Request<Upload>) -> Result<Response<AnswerBody>, Problem> {
    let (mut parts, body) = request.into_parts();
    let body = read(body).await?;
    strip(&mut parts);
    let response = dispatch::send(context, Request::from_parts(parts, body)).await?;
    Ok(passed_on(response))
}

async fn forward(serving: &Serving, request: Request<Upload>) -> Response<AnswerBody> {
    let (mut parts, body) = request.into_parts();
    strip(&mut parts);
    let request = Request::from_parts(parts, body.boxed_unsync());
    match serving.upstream.send(request).await {
        Ok(response) => passed_on(response),
        Err(error) => {
            let error: &(dyn std::error::Error + 'static) = &error;
            if by_client(error) {
                tracing::debug!(error, "a client went away while it sent a request");
            } else {
                tracing::warn!(error, "the engine broke an exchange off");
            }
            // Where the client went away, nobody reads this.
            refuse(&error::crashed(), OPENAI)
        }
    }
}

/// Leaves of a request's head what speaks of the message.
pub(super) fn strip(head: &mut Parts) {
    strip_hop_by_hop(&mut head.headers);
    // This server has answered it already.
    head.headers.remove(EXPECT);
    head.version = Version::HTTP_11;
}

/// The answer of an engine, on its way to whoever asked.
pub(super) fn passed_on(response: Response<Counted>) -> Response<AnswerBody> {
    let (mut parts, body) = response.into_parts();
    strip_hop_by_hop(&mut parts.headers);
    let body = Answer::new(&parts.headers, body, error::broken_off(&parts.extensions));
    Response::from_parts(parts, body.boxed_unsync())
}

/// Whether it was the request's body that could not be read.
fn by_client(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source())
        .filter_map(|error| error.downcast_ref::<hyper::Error>())
        .any(hyper::Error::is_user)
}

/// Removes what speaks of the connection that a message came by, not of the message.
fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    const FIXED: [HeaderName; 7] = [
        CONNECTION,
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
    ];
    for name in named.iter().chain(&FIXED) {
        headers.remove(name);
    }
    for name in ["keep-alive", "proxy-connection"] {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    #[test]
    fn only_headers_of_the_message_are_passed_on() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "keep-alive, X-Own"),
            ("keep-alive", "timeout=5"),
            ("x-own", "1"),
            ("transfer-encoding", "chunked"),
            ("content-length", "5"),
            ("authorization", "Bearer sk-1"),
            ("x-other", "2"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        strip_hop_by_hop(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["authorization", "content-length", "x-other"]);
    }
}
