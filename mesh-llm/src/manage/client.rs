//! What commands ask a daemon of this user, over its socket. Everything waits, and nothing for ever.

use super::command::{
    CreatedToken, DroppedModel, LoadedModel, Members, ModelRequest, Refusal, RevokedToken, Stopping,
    TokenRequest,
};
use super::events::KEEP_ALIVE;
use super::status::{Member, Status};
use crate::dialects::{Problem, sse};
use crate::http::whole;
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use std::convert::Infallible;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::time::{error::Elapsed, timeout};

/// How long an answer may take: more than the daemon takes to say that it is busy.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// How long a stream of events may say nothing.
const SILENT_WITHIN: Duration = Duration::from_secs(3 * KEEP_ALIVE.as_secs());

/// The longest answer, and the longest event.
const ANSWER_BYTES: usize = 16 << 20;

/// Why a daemon did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("the daemon at {} cannot be reached: {cause}; if it was just started or stopped, try again in a moment", socket.display())]
    Unreachable {
        /// Its socket.
        socket: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// It says nothing.
    #[error("the daemon at {} has not answered within {seconds} s: if it stays so, end it and start it again", socket.display())]
    Silent {
        /// Its socket.
        socket: PathBuf,
        /// How long was waited.
        seconds: u64,
    },
    /// It says something that has no meaning here.
    #[error("the daemon at {} answers in a way that is not understood ({cause}): if it is of another version, start it again", socket.display())]
    Strange {
        /// Its socket.
        socket: PathBuf,
        /// What is strange about that.
        cause: String,
    },
    /// It says no.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// A daemon that can be asked.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    runtime: Runtime,
}

impl Client {
    /// The daemon that has this socket. Nothing is sent yet.
    pub fn new(socket: &Path) -> io::Result<Client> {
        Ok(Client {
            socket: socket.to_owned(),
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?,
        })
    }

    /// What it shows.
    pub fn status(&self) -> Result<Status, ClientError> {
        self.ask(Method::GET, "/api/status", Vec::new())
    }

    /// Calls `seen` with what it shows, now and after each change, until it ends or `seen` has enough.
    pub fn follow(&self, mut seen: impl FnMut(Status) -> ControlFlow<()>) -> Result<(), ClientError> {
        self.runtime.block_on(async {
            let opened = self.send(Method::GET, "/api/events", Vec::new());
            let response = self.within(ANSWER_WITHIN, opened).await??;
            let mut body = self.not_refused(response).await?.into_body();
            let mut events = sse::Reader::default();
            let mut unread_bytes = 0;
            while let Some(frame) = self.within(SILENT_WITHIN, body.frame()).await? {
                // A daemon that was killed ends as one that ended.
                let Ok(bytes) = frame.map(|frame| frame.into_data().unwrap_or_default()) else {
                    return Ok(());
                };
                let mut found = Vec::new();
                events.read(&bytes, |item| found.push(item));
                unread_bytes = if found.is_empty() {
                    unread_bytes + bytes.len()
                } else {
                    0
                };
                if unread_bytes > ANSWER_BYTES {
                    return Err(self.strange("an event without an end"));
                }
                for item in found {
                    if let sse::Item::Data(data) = item
                        && seen(self.read(&data)?).is_break()
                    {
                        return Ok(());
                    }
                }
            }
            Ok(())
        })
    }

    /// Has it make a token.
    pub fn create_token(&self, wanted: &TokenRequest) -> Result<CreatedToken, ClientError> {
        // What is written has string keys: it can be.
        let body = serde_json::to_vec(wanted).unwrap_or_default();
        self.ask(Method::POST, "/api/tokens", body)
    }

    /// Has it revoke a token, by its id or by the token itself.
    pub fn revoke_token(&self, token: &str) -> Result<RevokedToken, ClientError> {
        self.ask(Method::DELETE, &named("/api/tokens", token), Vec::new())
    }

    /// Who may take part in its mesh.
    pub fn members(&self) -> Result<Vec<Member>, ClientError> {
        let Members { members } = self.ask(Method::GET, "/api/members", Vec::new())?;
        Ok(members)
    }

    /// Has it put a member out, by its id, the beginning of it, or its name.
    pub fn kick(&self, node: &str) -> Result<Member, ClientError> {
        self.ask(Method::DELETE, &named("/api/members", node), Vec::new())
    }

    /// Has it serve a model, too.
    pub fn load(&self, model: &str) -> Result<LoadedModel, ClientError> {
        let wanted = ModelRequest {
            model: model.to_owned(),
        };
        // What is written has string keys: it can be.
        let body = serde_json::to_vec(&wanted).unwrap_or_default();
        self.ask(Method::POST, "/api/models", body)
    }

    /// Has it serve a model no more.
    pub fn drop_model(&self, name: &str) -> Result<DroppedModel, ClientError> {
        self.ask(Method::DELETE, &named("/api/models", name), Vec::new())
    }

    /// Has it end.
    pub fn stop(&self) -> Result<(), ClientError> {
        let Stopping {} = self.ask(Method::POST, "/api/stop", Vec::new())?;
        Ok(())
    }

    fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, body: Vec<u8>) -> Result<T, ClientError> {
        let exchange = async {
            let response = self.send(method, path, body).await?;
            let body = self.not_refused(response).await?.into_body();
            self.read(&self.collect(body).await?)
        };
        let exchange = async { self.within(ANSWER_WITHIN, exchange).await? };
        self.runtime.block_on(exchange)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Response<Incoming>, ClientError> {
        let stream = connect(&self.socket)
            .await
            .map_err(|cause| ClientError::Unreachable {
                socket: self.socket.clone(),
                cause,
            })?;
        let broken = |error: hyper::Error| self.strange(error);
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // What goes wrong with the connection is told by the exchange, too.
        tokio::spawn(connection);
        let body: UnsyncBoxBody<Bytes, Infallible> = whole(body);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "localhost")
            .header(CONTENT_TYPE, "application/json")
            .body(body)
            .map_err(|error| self.strange(error))?;
        sender.send_request(request).await.map_err(broken)
    }

    async fn not_refused(&self, response: Response<Incoming>) -> Result<Response<Incoming>, ClientError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = self.collect(response.into_body()).await?;
        let problem = Problem::from_answer(status.as_u16(), &body);
        let code = problem.code.unwrap_or_default();
        Err(Refusal::new(status, &code, problem.message).into())
    }

    async fn collect(&self, body: Incoming) -> Result<Bytes, ClientError> {
        let body = Limited::new(body, ANSWER_BYTES).collect().await;
        Ok(body.map_err(|error| self.strange(error))?.to_bytes())
    }

    fn read<T: DeserializeOwned>(&self, json: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(json).map_err(|error| self.strange(error))
    }

    async fn within<T>(&self, limit: Duration, what: impl Future<Output = T>) -> Result<T, ClientError> {
        timeout(limit, what)
            .await
            .map_err(|_: Elapsed| ClientError::Silent {
                socket: self.socket.clone(),
                seconds: limit.as_secs(),
            })
    }

    fn strange(&self, cause: impl ToString) -> ClientError {
        ClientError::Strange {
            socket: self.socket.clone(),
            cause: cause.to_string(),
        }
    }
}

/// The path of what has this name.
fn named(path: &str, name: &str) -> String {
    format!("{path}/{}", utf8_percent_encode(name, NON_ALPHANUMERIC))
}

#[cfg(unix)]
async fn connect(socket: &Path) -> io::Result<tokio::net::UnixStream> {
    tokio::net::UnixStream::connect(socket).await
}

/// There are no daemons to be asked yet where there are no Unix sockets.
#[cfg(not(unix))]
async fn connect(_: &Path) -> io::Result<tokio::net::TcpStream> {
    Err(io::ErrorKind::Unsupported.into())
}
