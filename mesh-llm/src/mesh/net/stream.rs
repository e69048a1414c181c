//! Streams of a connection, and messages on them.

use super::super::wire::{Bounded, FrameError, Reader, encode};
use iroh::endpoint::{RecvStream, SendStream};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Why a message did not come, or go.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The stream or its connection has ended.
    #[error("the connection ended: {0}")]
    Ended(String),
    /// What came is no message.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

pub(super) fn ended(error: impl std::fmt::Display) -> StreamError {
    StreamError::Ended(error.to_string())
}

/// Sends a message.
pub(super) async fn send<M: Serialize + Bounded>(
    stream: &mut SendStream,
    message: &M,
) -> Result<(), StreamError> {
    let frame = encode(message)?;
    stream.write_all(&frame).await.map_err(ended)
}

/// Receives messages; of what follows them it takes nothing.
#[derive(Debug)]
pub(super) struct Messages<M> {
    reader: Reader<M>,
}

impl<M: DeserializeOwned + Bounded> Messages<M> {
    pub(super) fn new() -> Self {
        Self {
            reader: Reader::default(),
        }
    }

    /// The next message.
    pub(super) async fn next(&mut self, stream: &mut RecvStream) -> Result<M, StreamError> {
        /// What is read at once of a long message.
        const PIECE: usize = 16 << 10;
        let mut piece = [0; PIECE];
        loop {
            if let Some(message) = self.reader.pop()? {
                return Ok(message);
            }
            let most = self.reader.wants().clamp(1, PIECE);
            match stream.read(&mut piece[..most]).await.map_err(ended)? {
                Some(bytes) => self.reader.push(&piece[..bytes]),
                None => return Err(ended("nothing more is sent")),
            }
        }
    }
}

/// Both directions of a stream as one.
#[derive(Debug)]
pub struct PeerStream {
    pub(super) send: SendStream,
    pub(super) receive: RecvStream,
}

impl PeerStream {
    /// Sends a message.
    ///
    /// # Errors
    /// Where the stream has ended.
    pub async fn tell<M: Serialize + Bounded>(&mut self, message: &M) -> Result<(), StreamError> {
        send(&mut self.send, message).await
    }

    /// The next message; of what follows it nothing is taken.
    ///
    /// # Errors
    /// Where the stream has ended, or what comes is none.
    pub async fn hear<M: DeserializeOwned + Bounded>(&mut self) -> Result<M, StreamError> {
        Messages::new().next(&mut self.receive).await
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        AsyncRead::poll_read(Pin::new(&mut self.receive), cx, buffer)
    }
}

impl AsyncWrite for PeerStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.send), cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.send), cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(Pin::new(&mut self.send), cx)
    }
}
