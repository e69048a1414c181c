//! The port: accepts connections and serves each until the end.

use super::answer::AnswerBody;
use super::cors;
use super::forward::{self, Context};
use super::keys::Keys;
use super::own::Own;
use super::places::Routes;
use super::remote::Remotes;
use super::responses_store::Responses;
use crate::exit::Exit;
use hyper::Response;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tower::Layer;

/// Bytes that one connection buffers, in each direction, and so the longest head of a request.
pub(super) const MAX_BUFFER_BYTES: usize = 64 << 10;

/// The pause after the system could not hand out a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// A port that is ours.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

/// How a server is told to end; whoever drops a sender tells it, too.
#[derive(Debug)]
pub struct Shutdown {
    /// Take no new connections, finish the exchanges that run.
    pub drain: oneshot::Receiver<()>,
    /// Break the exchanges off that still run.
    pub cut: oneshot::Receiver<()>,
}

/// Why a port is not ours.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another program has it.
    #[error(
        "port {port} on {host} is taken by another program (perhaps another mesh-llm): end that, or choose another port with --port"
    )]
    Taken {
        /// The address.
        host: String,
        /// The port.
        port: u16,
    },
    /// The user may not have it.
    #[error("port {port} is not for this user: choose one above 1023 with --port")]
    Forbidden {
        /// The port.
        port: u16,
    },
    /// The address is not this machine's.
    #[error(
        "{host} is no address of this machine: --host takes 127.0.0.1 for this machine alone, 0.0.0.0 for every machine that reaches it"
    )]
    NotHere {
        /// The address.
        host: String,
    },
    /// Something else.
    #[error("port {port} on {host} cannot be opened: {cause}; choose others with --host and --port")]
    Other {
        /// The address.
        host: String,
        /// The port.
        port: u16,
        /// What the system says.
        cause: io::Error,
    },
}

impl BindError {
    fn new(host: &str, port: u16, cause: io::Error) -> Self {
        let host = host.to_owned();
        match cause.kind() {
            ErrorKind::AddrInUse => Self::Taken { host, port },
            ErrorKind::PermissionDenied => Self::Forbidden { port },
            ErrorKind::AddrNotAvailable => Self::NotHere { host },
            _ => Self::Other { host, port, cause },
        }
    }

    /// How the process ends for this.
    pub fn exit(&self) -> Exit {
        Exit::UNAVAILABLE
    }
}

impl Server {
    /// Takes the port.
    pub async fn bind(host: &str, port: u16) -> Result<Server, BindError> {
        let bound = async {
            let listener = TcpListener::bind((host, port)).await?;
            let address = listener.local_addr()?;
            Ok(Server { listener, address })
        };
        bound.await.map_err(|cause| BindError::new(host, port, cause))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers requests, with what this machine and other nodes serve, on at most so many connections at
    /// once, until it is told to end.
    pub async fn serve(
        self,
        own: Own,
        remotes: watch::Receiver<Remotes>,
        keys: Keys,
        max_connections: usize,
        mut shutdown: Shutdown,
    ) {
        let context = Context {
            own,
            remotes,
            routes: Routes::default(),
            keys,
            local: self.address.ip().is_loopback(),
            responses: Responses::default(),
        };
        let graceful = GracefulShutdown::new();
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                _ = &mut shutdown.drain => break,
                Some(_) = connections.join_next() => {}
                stream = accept(&self.listener), if connections.len() < max_connections => {
                    let watcher = graceful.watcher();
                    connections.spawn(serve_connection(stream, context.clone(), watcher));
                }
            }
        }
        drop(self.listener);
        tokio::select! {
            () = graceful.shutdown() => {}
            _ = shutdown.cut => {}
        }
    }
}

/// The next connection, which always comes.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) if of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "no connection can be accepted for the moment");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn of_one_connection(error: &io::Error) -> bool {
    use ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

async fn serve_connection(
    stream: TcpStream,
    context: Context,
    watcher: hyper_util::server::graceful::Watcher,
) {
    // A token is to leave when it is there. A socket that refuses this is about to fail anyway.
    let _ = stream.set_nodelay(true);
    let service = tower::service_fn(move |request| {
        let answer = forward::answer(context.clone(), request);
        async move { Ok::<Response<AnswerBody>, Infallible>(answer.await) }
    });
    let service = TowerToHyperService::new(cors::layer().layer(service));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .max_buf_size(MAX_BUFFER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(
            error = &error as &dyn std::error::Error,
            "a connection ended early"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_told_with_the_remedy() {
        let first = Server::bind("127.0.0.1", 0).await.unwrap();
        let error = Server::bind("127.0.0.1", first.address().port())
            .await
            .unwrap_err();
        assert_eq!(error.exit(), Exit::UNAVAILABLE);
        let text = error.to_string();
        assert!(
            text.contains(&first.address().port().to_string()) && text.contains("--port"),
            "{text}"
        );
    }
}
