//! One exchange: a request and its answer.

use super::command::{Command, ModelRequest, Refusal, Reply, TokenRequest};
use super::events::{Events, KEEP_ALIVE};
use super::routes::{Call, Route};
use super::status::{Status, Viewer};
use crate::dialects::Problem;
use crate::http::{self, AnswerBody, OPENAI, Upload, json, refuse, whole};
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::timeout;

/// The longest body of a request.
pub(super) const BODY_BYTES: usize = 64 << 10;

/// How long a client may take to send one.
const BODY_WITHIN: Duration = Duration::from_secs(5);

/// How long the daemon may take to carry an order out: less than a client waits for the answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(8);

/// The description of all paths.
pub(super) const OPENAPI: &str = include_str!("../../assets/openapi.json");

const INDEX: &str = "mesh-llm: GET /api/status tells what runs, /api/events each change of it, /api/openapi.json what else there is\n";

/// What an exchange depends on; clones share it.
#[derive(Debug, Clone)]
pub(super) struct Context {
    /// What there is to show.
    pub(super) status: watch::Receiver<Status>,
    /// To whoever carries orders out.
    pub(super) commands: mpsc::Sender<Command>,
    /// Who comes this way.
    pub(super) viewer: Viewer,
    /// Places for streams of events.
    pub(super) places: Arc<Semaphore>,
    /// Its sender is dropped when the server ends.
    pub(super) open: watch::Receiver<()>,
}

/// Answers a request.
pub(super) async fn answer(context: Context, request: Request<Incoming>) -> Response<AnswerBody> {
    let (parts, body) = request.into_parts();
    let body = Upload::new(&parts.headers, body);
    let request = Request::from_parts(parts, body);
    let method = request.method().clone();
    let (path, answered) = match Route::of(request.uri().path()) {
        // The path as it came could hold a token.
        Ok((route, segment)) => (route.path, context.answer(route, segment, request).await),
        Err(problem) => ("unknown", context.admit(&request).and(Err(problem))),
    };
    let response = answered.unwrap_or_else(|problem| refuse(&problem, OPENAI));
    tracing::debug!(%method, path, status = response.status().as_u16(), "request to the management API");
    response
}

impl Context {
    async fn answer(
        &self,
        route: &Route,
        segment: String,
        request: Request<Upload>,
    ) -> Result<Response<AnswerBody>, Problem> {
        self.admit(&request)?;
        match route.call(request.method(), self.viewer, segment)? {
            Call::Index => Ok(text(INDEX)),
            Call::OpenApi => Ok(json(OPENAPI.into())),
            Call::Status => Ok(object(&self.status.borrow().shown_to(self.viewer))),
            Call::Events => self.events(),
            Call::CreateToken => {
                let wanted: TokenRequest = read_request(request.into_body(), TOKEN).await?;
                self.order(|reply| Command::CreateToken { wanted, reply }).await
            }
            Call::RevokeToken(token) => self.order(|reply| Command::RevokeToken { token, reply }).await,
            Call::Members => self.order(|reply| Command::Members { reply }).await,
            Call::Kick(node) => self.order(|reply| Command::Kick { node, reply }).await,
            Call::Load => {
                let ModelRequest { model } = read_request(request.into_body(), MODEL).await?;
                self.order(|reply| Command::Load { model, reply }).await
            }
            Call::Drop(model) => self.order(|reply| Command::Drop { model, reply }).await,
            Call::Stop => self.order(|reply| Command::Stop { reply }).await,
        }
    }

    /// Refuses what a web page may have sent.
    fn admit(&self, request: &Request<Upload>) -> Result<(), Problem> {
        // No page reaches the socket, and no name leads to it.
        if self.viewer == Viewer::Anybody
            && let Some(host) = http::foreign_host(request)
        {
            return Err(http::foreign_name(&host, "call it localhost"));
        }
        if http::is_foreign_page(request) {
            return Err(http::foreign_page());
        }
        Ok(())
    }

    fn events(&self) -> Result<Response<AnswerBody>, Problem> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            Refusal::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too_many_streams",
                "too many programs follow this daemon's events already: end some of them, or ask for /api/status now and then",
            )
        })?;
        let events = Events {
            status: self.status.clone(),
            viewer: self.viewer,
            open: self.open.clone(),
            quiet: KEEP_ALIVE,
            _place: place,
        };
        let mut response = Response::new(events.body());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        Ok(response)
    }

    /// Has an order carried out.
    async fn order<T: Serialize>(
        &self,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<Response<AnswerBody>, Problem> {
        let (reply, replied) = oneshot::channel();
        let carried_out = async {
            self.commands.send(command(reply)).await.ok()?;
            replied.await.ok()
        };
        match timeout(ANSWER_WITHIN, carried_out).await {
            Ok(Some(Ok(done))) => Ok(object(&done)),
            Ok(Some(Err(refusal))) => Err(refusal.into()),
            Ok(None) => Err(Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "shutting_down",
                "the daemon is ending and takes no orders any more",
            )
            .into()),
            Err(_) => Err(Refusal::new(
                StatusCode::GATEWAY_TIMEOUT,
                "busy",
                format!(
                    "the daemon has not carried this out within {} s, and may still do so: look at its status before you try again",
                    ANSWER_WITHIN.as_secs()
                ),
            )
            .into()),
        }
    }
}

/// What a body describes, and what it is like.
type Example = (&'static str, &'static str);

const TOKEN: Example = ("token", r#"{"role":"node","expires_seconds":604800}"#);

const MODEL: Example = ("model", r#"{"model":"Qwen3-8B"}"#);

async fn read_request<T: DeserializeOwned>(body: Upload, (what, example): Example) -> Result<T, Problem> {
    let body = timeout(BODY_WITHIN, http::read(body, BODY_BYTES))
        .await
        .unwrap_or_else(|_| Err(Problem::invalid(None, "the body has not come: send it at once")))?;
    serde_json::from_slice(&body).map_err(|error| {
        Problem::invalid(
            None,
            format!("the body describes no {what}: {error}; send such as {example}"),
        )
    })
}

fn object(value: &impl Serialize) -> Response<AnswerBody> {
    // What is shown has string keys: it can be written.
    let mut response = json(serde_json::to_vec(value).unwrap_or_default());
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn text(words: &'static str) -> Response<AnswerBody> {
    let mut response = Response::new(whole(words.into()));
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}
