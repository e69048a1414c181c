//! Other nodes, played by the test.

use super::super::{Remote, RemoteModel, Remotes};
use super::{Stage, until};
use crate::engine::{Open, Opening, Upstream, Wire};
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// What any engine may say. It closes the connection, so that the next request comes by another.
pub(super) const OK: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok";

/// A node: the other ends of the streams that are opened to it.
pub(super) struct Node {
    id: &'static str,
    upstream: Upstream,
    opened: UnboundedReceiver<DuplexStream>,
}

#[derive(Debug)]
struct Pipes(UnboundedSender<DuplexStream>);

impl Open for Pipes {
    fn open(&self) -> Opening {
        let (here, there) = duplex(1 << 16);
        let opened = match self.0.send(there) {
            Ok(()) => Ok(Box::new(here) as Box<dyn Wire>),
            Err(_) => Err(ErrorKind::NotConnected.into()),
        };
        Box::pin(async { opened })
    }
}

impl Node {
    /// One of this id.
    pub(super) fn new(id: &'static str) -> Node {
        let (pipes, opened) = unbounded_channel();
        Node {
            id,
            upstream: Upstream::through(Arc::new(Pipes(pipes))),
            opened,
        }
    }

    /// What is known of it, where it serves these models and is so far away.
    pub(super) fn serves(&self, models: &[&str], rtt_ms: u64) -> Remote {
        let model = |name: &&str| RemoteModel {
            name: (*name).to_owned(),
            slots: 4,
            busy: 0,
            waiting: 0,
            context: 512,
            upstream: self.upstream.clone(),
        };
        Remote {
            node: self.id.to_owned(),
            name: self.id.to_owned(),
            rtt: Some(Duration::from_millis(rtt_ms)),
            models: models.iter().map(model).collect(),
        }
    }

    /// Its side of the next exchange, and the request's head and body.
    pub(super) async fn exchange(&mut self) -> (DuplexStream, String, String) {
        let mut stream = self.opened.recv().await.unwrap();
        let (head, body) = request(&mut stream).await;
        (stream, head, body)
    }

    /// Answers the next request, which it returns.
    pub(super) async fn answers(&mut self, answer: &str) -> (String, String) {
        let (mut stream, head, body) = self.exchange().await;
        stream.write_all(answer.as_bytes()).await.unwrap();
        (head, body)
    }

    /// Whether nobody has opened a stream.
    pub(super) fn was_not_asked(&mut self) -> bool {
        self.opened.try_recv().is_err()
    }
}

/// The head and the body of a request.
pub(super) async fn request(stream: &mut (impl AsyncRead + Unpin)) -> (String, String) {
    let head = until(stream, "\r\n\r\n").await;
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    tokio::io::AsyncReadExt::read_exact(stream, &mut body)
        .await
        .unwrap();
    (head, String::from_utf8(body).unwrap())
}

/// A request for this.
pub(super) fn post(path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer k\r\nx-own: 1\r\n\
         connection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

impl Stage {
    /// Other nodes serve this.
    pub(super) fn others(&self, remotes: impl IntoIterator<Item = Remote>) {
        self.remotes.send_replace(Remotes::new(remotes));
    }

    /// A client that has sent a chat.
    pub(super) async fn chat(&self, body: &str) -> TcpStream {
        self.client(&post("/v1/chat/completions", body)).await
    }

    /// The engine answers the next request, which is returned.
    pub(super) async fn engine_answers(&self, answer: &str) -> (String, String) {
        let (mut stream, _) = self.engine.accept().await.unwrap();
        let asked = request(&mut stream).await;
        stream.write_all(answer.as_bytes()).await.unwrap();
        asked
    }
}
