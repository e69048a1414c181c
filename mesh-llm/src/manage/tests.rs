//! Both ways in, played by a client of plain bytes, and by the one that commands use.

mod openapi;

use super::*;
use crate::http::testing::until;
use crate::manage::example::{INVITE, status};
use crate::manage::exchange::BODY_BYTES;
use crate::manage::routes::ROUTES;
use crate::manage::server::{MAX_CONNECTIONS, MAX_STREAMS};
use hyper::StatusCode;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::PathBuf;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{mpsc, watch};

/// The management API of a daemon that the test plays.
struct Stand {
    folder: TempDir,
    console: SocketAddr,
    status: watch::Sender<Status>,
    orders: mpsc::Receiver<Command>,
    running: Running,
}

impl Stand {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let manage = Manage::bind(Console::Port(0), &folder.path().join(SOCKET))
            .await
            .unwrap();
        let console = manage.console().unwrap();
        let (status, shown) = watch::channel(status());
        let (commands, orders) = mpsc::channel(16);
        Self {
            folder,
            console,
            status,
            orders,
            running: manage.start(shown, commands),
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join(SOCKET)
    }

    async fn socket(&self) -> UnixStream {
        UnixStream::connect(self.path()).await.unwrap()
    }

    async fn port(&self) -> TcpStream {
        TcpStream::connect(self.console).await.unwrap()
    }

    /// What a command makes of this daemon, while the test plays the daemon.
    fn client<T: Send + 'static>(
        &self,
        work: impl FnOnce(Client) -> T + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        let path = self.path();
        tokio::task::spawn_blocking(move || work(Client::new(&path).unwrap()))
    }
}

/// A whole exchange.
async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// The answer up to the last field of a status.
async fn begun(mut stream: impl AsyncRead + AsyncWrite + Unpin, path: &str) -> String {
    stream.write_all(get(path).as_bytes()).await.unwrap();
    until(&mut stream, "\"models\":[{\"name\":\"tiny\",\"nodes\":").await
}

fn get(path: &str) -> String {
    request("GET", path)
}

fn request(method: &str, path: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
}

/// Follows the events of a daemon, whose first one has come.
async fn follow<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> (S, String) {
    let request = get("/api/events");
    stream.write_all(request.as_bytes()).await.unwrap();
    let first = until(&mut stream, "\n\n").await;
    (stream, first)
}

#[tokio::test]
async fn the_invite_is_shown_to_the_owner_alone() {
    let stage = Stand::new().await;
    for path in ["/api/status", "/api/events"] {
        let to_owner = begun(stage.socket().await, path).await;
        assert!(to_owner.contains(INVITE), "{path}: {to_owner}");
        let to_anybody = begun(stage.port().await, path).await;
        assert!(
            !to_anybody.contains(INVITE) && !to_anybody.contains("\"invite\""),
            "{path}: {to_anybody}"
        );
    }
}

#[tokio::test]
async fn nothing_is_changed_by_the_port() {
    let mut stage = Stand::new().await;
    for route in &ROUTES {
        if route.viewer == Viewer::Owner {
            let path = route.path.replace("{id}", "x");
            let answer = exchange(stage.port().await, &request(route.method, &path)).await;
            assert!(
                answer.starts_with("HTTP/1.1 403 ") && answer.contains("owner_only"),
                "{answer}"
            );
        }
    }
    assert!(stage.orders.try_recv().is_err());
}

#[tokio::test]
async fn a_page_that_poses_as_this_machine_is_refused() {
    let stage = Stand::new().await;
    let foreign = get("/api/status").replace("localhost", "evil.example");
    let answer = exchange(stage.port().await, &foreign).await;
    assert!(
        answer.starts_with("HTTP/1.1 403 ") && answer.contains("`evil.example`"),
        "{answer}"
    );
    // The name says nothing where only the owner comes by.
    let answer = exchange(stage.socket().await, &foreign).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    for (origin, allowed) in [("http://localhost:5173", true), ("http://evil.example", false)] {
        let asked = get("/api/status").replace("connection", &format!("origin: {origin}\r\nconnection"));
        let answer = exchange(stage.port().await, &asked).await;
        assert_eq!(
            answer.contains("access-control-allow-origin"),
            allowed,
            "{answer}"
        );
    }
}

#[tokio::test]
async fn every_change_is_an_event() {
    let stage = Stand::new().await;
    let (mut stream, first) = follow(stage.port().await).await;
    assert!(
        first.contains("content-type: text/event-stream\r\n") && first.contains("event: status\ndata: {"),
        "{first}"
    );
    stage
        .status
        .send_modify(|status| status.this.name = "barn".into());
    assert!(until(&mut stream, "\n\n").await.contains("\"name\":\"barn\""));
    drop(stage.status);
    // The stream ends as streams end that are whole.
    until(&mut stream, "0\r\n\r\n").await;
}

#[tokio::test]
async fn streams_that_are_too_many_are_refused_and_leave_room_for_requests() {
    let stage = Stand::new().await;
    let mut streams = Vec::new();
    for _ in 0..MAX_STREAMS {
        streams.push(follow(stage.port().await).await);
    }
    let answer = exchange(stage.port().await, &get("/api/events")).await;
    assert!(
        answer.starts_with("HTTP/1.1 429 ") && answer.contains("too_many_streams"),
        "{answer}"
    );
    let answer = exchange(stage.port().await, &get("/api/status")).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    // The owner has places of its own.
    follow(stage.socket().await).await;
}

#[tokio::test]
async fn strangers_at_the_port_do_not_keep_the_owner_out() {
    let stage = Stand::new().await;
    let mut idle = Vec::new();
    for _ in 0..2 * MAX_CONNECTIONS {
        idle.push(stage.port().await);
    }
    let answer = exchange(stage.socket().await, &get("/api/status")).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let stage = Stand::new().await;
    let body = " ".repeat(BODY_BYTES + 1);
    let head = format!(
        "POST /api/tokens HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let answer = exchange(stage.socket().await, &(head + &body)).await;
    assert!(
        answer.starts_with("HTTP/1.1 413 ") && answer.contains("request_too_large"),
        "{answer}"
    );
}

#[tokio::test]
async fn an_order_is_carried_out_and_answered() {
    let mut stage = Stand::new().await;
    let wanted = TokenRequest {
        role: Role::Client,
        expires_seconds: Some(60),
        uses: Some(1),
        models: Some(vec!["tiny".into()]),
    };
    let created = CreatedToken {
        id: "ab".into(),
        token: "the-token".into(),
        role: Role::Client,
        expires_at: Some(1),
    };
    let asked = wanted.clone();
    let client = stage.client(move |client| client.create_token(&asked));
    let Some(Command::CreateToken { wanted: got, reply }) = stage.orders.recv().await else {
        panic!("another order");
    };
    assert_eq!(got, wanted);
    reply.send(Ok(created.clone())).unwrap();
    assert_eq!(client.await.unwrap().unwrap(), created);

    let client = stage.client(|client| client.kick("Anna's Mac / 2"));
    let Some(Command::Kick { node, reply }) = stage.orders.recv().await else {
        panic!("another order");
    };
    assert_eq!(node, "Anna's Mac / 2");
    let refusal = Refusal::new(StatusCode::NOT_FOUND, "no_such_member", "there is no such member");
    reply.send(Err(refusal.clone())).unwrap();
    match client.await.unwrap() {
        Err(ClientError::Refused(told)) => assert_eq!(told, refusal),
        other => panic!("{other:?}"),
    }

    let client = stage.client(|client| client.stop());
    let Some(Command::Stop { reply }) = stage.orders.recv().await else {
        panic!("another order");
    };
    reply.send(Ok(Stopping {})).unwrap();
    client.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_daemon_that_is_ending_takes_no_orders() {
    let Stand {
        folder,
        running,
        orders,
        status: _status,
        ..
    } = Stand::new().await;
    drop(orders);
    let path = folder.path().join(SOCKET);
    let told = tokio::task::spawn_blocking(move || Client::new(&path).unwrap().members());
    match told.await.unwrap() {
        Err(ClientError::Refused(refusal)) => assert_eq!(refusal.code, "shutting_down"),
        other => panic!("{other:?}"),
    }
    drop(running);
}

#[tokio::test]
async fn a_client_follows_until_the_daemon_ends() {
    let stage = Stand::new().await;
    let (seen, mut names) = mpsc::unbounded_channel();
    let client = stage.client(move |client| {
        client.follow(|status| {
            seen.send(status.this.name).unwrap();
            ControlFlow::Continue(())
        })
    });
    assert_eq!(names.recv().await.unwrap(), "shed");
    stage
        .status
        .send_modify(|status| status.this.name = "barn".into());
    assert_eq!(names.recv().await.unwrap(), "barn");
    stage.running.finish().await;
    client.await.unwrap().unwrap();
    assert_eq!(names.recv().await, None);
}

#[tokio::test]
async fn a_client_that_has_seen_enough_ends() {
    let stage = Stand::new().await;
    let client = stage.client(|client| client.follow(|_| ControlFlow::Break(())));
    client.await.unwrap().unwrap();
}

#[test]
fn a_daemon_that_is_not_there_is_told_with_its_socket() {
    let client = Client::new("/no/such/socket".as_ref()).unwrap();
    let error = client.status().unwrap_err().to_string();
    assert!(error.contains("/no/such/socket"), "{error}");
}
