//! Accepts connections, and serves each until the end.

use super::answer::AnswerBody;
use super::cors;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use std::convert::Infallible;
use std::io::{self, ErrorKind};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tower::Layer;

/// Bytes that one connection buffers, in each direction, and so the longest head of a request.
pub const MAX_BUFFER_BYTES: usize = 64 << 10;

/// The pause after the system could not hand out a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Where connections come from.
pub trait Listener: Send + Sync + 'static {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next one; dropping the future loses none.
    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<TcpStream> {
        let (stream, _) = self.accept().await?;
        // A token is to leave when it is there. A socket that refuses this is about to fail anyway.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }
}

#[cfg(unix)]
impl Listener for tokio::net::UnixListener {
    type Stream = tokio::net::UnixStream;

    async fn next(&self) -> io::Result<Self::Stream> {
        Ok(self.accept().await?.0)
    }
}

/// How a server is told to end; whoever drops a sender tells it, too.
#[derive(Debug)]
pub struct Shutdown {
    /// Take no new connections, finish the exchanges that run.
    pub drain: oneshot::Receiver<()>,
    /// Break the exchanges off that still run.
    pub cut: oneshot::Receiver<()>,
}

/// What tells a server to end.
#[derive(Debug)]
pub struct End {
    /// To take no new connections, and to finish the exchanges that run.
    pub drain: oneshot::Sender<()>,
    /// To break the exchanges off that still run.
    pub cut: oneshot::Sender<()>,
}

impl Shutdown {
    /// When the other half tells it.
    pub fn when_told() -> (End, Shutdown) {
        let (drain, drained) = oneshot::channel();
        let (cut, was_cut) = oneshot::channel();
        let shutdown = Shutdown {
            drain: drained,
            cut: was_cut,
        };
        (End { drain, cut }, shutdown)
    }
}

/// Answers requests, on at most so many connections at once, until it is told to end. Pages of this
/// machine may read the answers.
pub async fn serve<L, A, F>(listener: L, max_connections: usize, answer: A, mut shutdown: Shutdown)
where
    L: Listener,
    A: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<AnswerBody>> + Send + 'static,
{
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut shutdown.drain => break,
            Some(_) = connections.join_next() => {}
            stream = accept(&listener), if connections.len() < max_connections => {
                connections.spawn(serve_connection(stream, answer.clone(), graceful.watcher()));
            }
        }
    }
    drop(listener);
    tokio::select! {
        () = graceful.shutdown() => {}
        _ = shutdown.cut => {}
    }
}

/// The next connection, which always comes.
async fn accept<L: Listener>(listener: &L) -> L::Stream {
    loop {
        match listener.next().await {
            Ok(stream) => return stream,
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

async fn serve_connection<A, F>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    answer: A,
    watcher: Watcher,
) where
    A: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<AnswerBody>> + Send + 'static,
{
    let service = tower::service_fn(move |request| {
        let answer = answer(request);
        async move { Ok::<_, Infallible>(answer.await) }
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
