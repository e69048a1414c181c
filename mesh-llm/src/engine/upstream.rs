//! Takes requests to the child, or to another node's.

use super::in_flight::{Counted, InFlight};
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::header::{AUTHORIZATION, HeaderValue};
use hyper::http::uri::{Authority, PathAndQuery, Scheme};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::{Request, Response, Uri};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use llama_engine::server::options::Listen;
use std::fmt;
use std::future::Future;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

/// How long an unused connection is kept: less than the child keeps it, or a request could be
/// written into a connection that the child is closing.
const IDLE: Duration = Duration::from_secs(10);

/// Unused connections that are kept.
const MAX_IDLE: usize = 32;

/// How long a stream to another node may take to open: a node that is gone says nothing.
const OPEN_WITHIN: Duration = Duration::from_secs(5);

/// The body of a request on its way to the child.
pub type RequestBody = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// A stream to another node.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// A stream that is being opened.
pub type Opening = Pin<Box<dyn Future<Output = io::Result<Box<dyn Wire>>> + Send>>;

/// Opens streams to another node, at whose end one request is answered.
pub trait Open: fmt::Debug + Send + Sync {
    /// Opens one.
    fn open(&self) -> Opening;
}

/// The way to one run of the child, or to a model of another node; clones share its connections.
#[derive(Debug, Clone)]
pub struct Upstream(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    client: Client<Connector, RequestBody>,
    secret: Option<HeaderValue>,
    in_flight: InFlight,
}

impl Upstream {
    /// Will connect to the child at `listen`, showing it the secret.
    pub fn new(listen: Listen, secret: Option<HeaderValue>) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(MAX_IDLE)
            .build(Connector::Child(listen));
        Self::of(client, secret)
    }

    /// Will open a stream for each request, within 5 s, and keep none.
    pub fn through(open: Arc<dyn Open>) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .build(Connector::Node(open));
        Self::of(client, None)
    }

    fn of(client: Client<Connector, RequestBody>, secret: Option<HeaderValue>) -> Self {
        let in_flight = InFlight::default();
        Self(Arc::new(Shared {
            client,
            secret,
            in_flight,
        }))
    }

    /// How many requests of this upstream, and of its clones, are on their way or being answered.
    pub fn in_flight(&self) -> usize {
        self.0.in_flight.count()
    }

    /// Waits until there are none.
    pub async fn idle(&self) {
        self.0.in_flight.none().await;
    }

    /// Sends a request; its URI's path and query count, and the answer's body streams. Dropping
    /// the future, or the body, ends the exchange.
    ///
    /// # Errors
    /// Where there is no connection, or it breaks before the head of the answer.
    pub async fn send(&self, mut request: Request<RequestBody>) -> Result<Response<Counted>, Error> {
        let one = self.0.in_flight.one();
        let mut uri = std::mem::take(request.uri_mut()).into_parts();
        uri.scheme = Some(Scheme::HTTP);
        uri.authority = Some(Authority::from_static("llama-server"));
        uri.path_and_query.get_or_insert(PathAndQuery::from_static("/"));
        // A scheme, an authority and a path always make a URI.
        *request.uri_mut() = Uri::from_parts(uri).unwrap_or_default();
        if let Some(secret) = &self.0.secret {
            request.headers_mut().insert(AUTHORIZATION, secret.clone());
        }
        let response = self.0.client.request(request).await?;
        Ok(response.map(|body| Counted::new(body, one)))
    }
}

/// Opens connections, wherever a request seems to go.
#[derive(Debug, Clone)]
enum Connector {
    /// To the child.
    Child(Listen),
    /// To another node.
    Node(Arc<dyn Open>),
}

impl tower::Service<Uri> for Connector {
    type Response = Stream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        match self {
            Connector::Child(listen) => {
                let listen = listen.clone();
                Box::pin(async move { connect(&listen).await })
            }
            Connector::Node(open) => {
                let opening = open.open();
                Box::pin(async move {
                    let wire = timeout(OPEN_WITHIN, opening).await??;
                    Ok(Stream(Box::new(TokioIo::new(wire))))
                })
            }
        }
    }
}

async fn connect(listen: &Listen) -> io::Result<Stream> {
    match listen {
        #[cfg(unix)]
        Listen::Unix(path) => {
            let stream = tokio::net::UnixStream::connect(path).await?;
            Ok(Stream(Box::new(TokioIo::new(stream))))
        }
        #[cfg(not(unix))]
        Listen::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        Listen::Tcp(address) => {
            let stream = tokio::net::TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(Stream(Box::new(TokioIo::new(stream))))
        }
    }
}

trait ReadWrite: Read + Write + Send + Unpin {}

impl<T: Read + Write + Send + Unpin> ReadWrite for T {}

/// A connection of any kind.
struct Stream(Box<dyn ReadWrite>);

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_read(cx, buffer)
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.0)
            .poll_write(cx, bytes)
            .map(|written| or_unread(written, bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = bytes.iter().map(|bytes| bytes.len()).sum();
        Pin::new(&mut *self.0)
            .poll_write_vectored(cx, bytes)
            .map(|written| or_unread(written, length))
    }
}

/// Takes bytes that the child will not read for written. It may have answered without reading a
/// request to its end, as one that is too large, and that answer is still to be read: an error here
/// would end the exchange before. If there is none, reading says so.
fn or_unread(written: io::Result<usize>, length: usize) -> io::Result<usize> {
    match written {
        Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
            Ok(length)
        }
        written => written,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt, Full};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn over_tcp_the_secret_takes_the_place_of_the_client_s_key() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                .await
                .unwrap();
            String::from_utf8(head).unwrap()
        });
        let upstream = Upstream::new(Listen::Tcp(address), Some(HeaderValue::from_static("Bearer s")));
        let body = Full::default().map_err(|never| match never {}).boxed_unsync();
        let request = Request::builder()
            .uri("/v1/models?a=1")
            .header(AUTHORIZATION, "Bearer sk-1");
        let response = upstream.send(request.body(body).unwrap()).await.unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "ok");
        let head = server.await.unwrap();
        assert!(head.starts_with("GET /v1/models?a=1 HTTP/1.1\r\n"), "{head}");
        assert!(
            head.contains("authorization: Bearer s\r\n") && !head.contains("sk-1"),
            "{head}"
        );
    }

    /// Opens the halves of pipes; the other halves come out of the channel.
    #[derive(Debug)]
    struct Pipes(tokio::sync::mpsc::UnboundedSender<tokio::io::DuplexStream>);

    impl Open for Pipes {
        fn open(&self) -> Opening {
            let (here, there) = tokio::io::duplex(1 << 16);
            let opened = match self.0.send(there) {
                Ok(()) => Ok(Box::new(here) as Box<dyn Wire>),
                Err(_) => Err(ErrorKind::NotConnected.into()),
            };
            Box::pin(async { opened })
        }
    }

    fn get() -> Request<RequestBody> {
        let body = Full::default().map_err(|never| match never {}).boxed_unsync();
        Request::get("/v1/models").body(body).unwrap()
    }

    #[tokio::test]
    async fn another_node_is_asked_through_a_new_stream_for_each_request() {
        let (pipes, mut opened) = tokio::sync::mpsc::unbounded_channel();
        let upstream = Upstream::through(Arc::new(Pipes(pipes)));
        for _ in 0..2 {
            let sent = tokio::spawn({
                let upstream = upstream.clone();
                async move { upstream.send(get()).await }
            });
            let mut there = opened.recv().await.unwrap();
            let mut request = vec![0; 15];
            there.read_exact(&mut request).await.unwrap();
            assert_eq!(request, b"GET /v1/models ");
            assert_eq!(upstream.in_flight(), 1);
            there
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                .await
                .unwrap();
            let body = sent.await.unwrap().unwrap().into_body();
            assert_eq!(upstream.in_flight(), 1);
            assert_eq!(body.collect().await.unwrap().to_bytes(), "ok");
            assert_eq!(upstream.in_flight(), 0);
        }
        drop(opened);
        assert!(upstream.send(get()).await.unwrap_err().is_connect());
        assert_eq!(upstream.in_flight(), 0);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn an_answer_is_read_although_the_request_was_not() {
        use futures_util::stream;
        use http_body_util::StreamBody;
        use hyper::body::Frame;
        use std::io::{Read, Write};
        use std::sync::mpsc;

        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("s");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let (closed, was_closed) = mpsc::channel();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_exact(&mut [0]).unwrap();
            stream
                .write_all(b"HTTP/1.1 413 Payload Too Large\r\ncontent-length: 2\r\n\r\nno")
                .unwrap();
            drop(stream);
            closed.send(()).unwrap();
        });
        // The second piece is there once the server is gone, while hyper is about to write it: it
        // has looked for an answer before, and there was none yet.
        let pieces = stream::unfold((0, was_closed), |(number, was_closed)| async move {
            if number == 1 {
                // Here hyper sends the first piece off.
                tokio::task::yield_now().await;
                was_closed.recv().unwrap();
            }
            let piece = Ok(Frame::data(Bytes::from_static(b"piece")));
            (number < 2).then_some((piece, (number + 1, was_closed)))
        });
        let request = Request::post("/")
            .body(StreamBody::new(pieces).boxed_unsync())
            .unwrap();
        let response = Upstream::new(Listen::Unix(socket), None)
            .send(request)
            .await
            .unwrap();
        assert_eq!(response.status(), 413);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "no");
        server.join().unwrap();
    }
}
