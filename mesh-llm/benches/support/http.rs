//! As much of an HTTP/1.1 client as measuring needs: one request a connection, on the caller's own
//! thread. A runtime or a pool between socket and clock would take a share of the cores, and of the
//! times, that are measured.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use super::clock::Moment;

/// Bytes that are read at once, at most.
const READ_BYTES: usize = 16 << 10;

/// Bytes of an answer that is kept whole, at most.
const MAX_BODY_BYTES: usize = 1 << 20;

/// Where a server listens.
#[derive(Debug, Clone)]
pub enum Endpoint {
    /// At a TCP port.
    Tcp(SocketAddr),
    /// At a Unix socket.
    Unix(PathBuf),
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    fn open(endpoint: &Endpoint, timeout: Option<Duration>) -> io::Result<Self> {
        match endpoint {
            Endpoint::Tcp(address) => {
                let stream = TcpStream::connect(address)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(timeout)?;
                Ok(Socket::Tcp(stream))
            }
            Endpoint::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(timeout)?;
                Ok(Socket::Unix(stream))
            }
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.read(buffer),
            Socket::Unix(stream) => stream.read(buffer),
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Socket::Tcp(stream) => stream.write_all(bytes),
            Socket::Unix(stream) => stream.write_all(bytes),
        }
    }
}

/// How the end of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// After so many more bytes.
    Length(usize),
    /// In chunks; so many bytes are left of this one, none before the next one's size.
    Chunk(Option<usize>),
    /// All of it was read.
    Ended,
}

/// An answer on its way in.
#[derive(Debug)]
pub struct Answer {
    socket: Socket,
    /// When the request was written.
    sent: Moment,
    status: u16,
    framing: Framing,
    /// Read from the socket, not yet part of the body.
    raw: Vec<u8>,
    buffer: Box<[u8]>,
}

impl Answer {
    /// Connects, sends a JSON body by POST and waits for the head of the answer. No read takes
    /// longer than `timeout`.
    ///
    /// # Errors
    /// Where the server cannot be reached, or does not speak HTTP.
    pub fn to_post(
        endpoint: &Endpoint,
        path: &str,
        header: Option<(&str, &str)>,
        body: &str,
        timeout: Option<Duration>,
    ) -> anyhow::Result<Self> {
        let header = header
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .unwrap_or_default();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\n{header}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        Self::to(endpoint, &request, timeout)
    }

    /// The same with GET and no body.
    ///
    /// # Errors
    /// Where the server cannot be reached, or does not speak HTTP.
    pub fn to_get(endpoint: &Endpoint, path: &str, timeout: Option<Duration>) -> anyhow::Result<Self> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        Self::to(endpoint, &request, timeout)
    }

    fn to(endpoint: &Endpoint, request: &str, timeout: Option<Duration>) -> anyhow::Result<Self> {
        let mut socket = Socket::open(endpoint, timeout).context("no connection")?;
        let sent = Moment::now();
        socket.write_all(request.as_bytes())?;
        let buffer = vec![0; READ_BYTES].into_boxed_slice();
        let mut answer = Self {
            socket,
            sent,
            status: 0,
            framing: Framing::Ended,
            raw: Vec::with_capacity(READ_BYTES),
            buffer,
        };
        answer.read_head()?;
        Ok(answer)
    }

    /// When the request was sent.
    pub fn sent(&self) -> Moment {
        self.sent
    }

    /// The status code.
    pub fn status(&self) -> u16 {
        self.status
    }

    fn read_head(&mut self) -> anyhow::Result<()> {
        let end = loop {
            if let Some(end) = find(&self.raw, b"\r\n\r\n") {
                break end;
            }
            ensure!(self.raw.len() < MAX_BODY_BYTES, "the answer's head has no end");
            ensure!(self.fill()? > 0, "the connection ended before an answer came");
        };
        let head = String::from_utf8_lossy(&self.raw[..end]).to_ascii_lowercase();
        self.raw.drain(..end + 4);
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1));
        self.status = status
            .and_then(|code| code.parse().ok())
            .context("the answer has no status")?;
        let header = |name: &str| {
            let mut values = head.split("\r\n").filter_map(|line| line.split_once(':'));
            values
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.trim().to_owned())
        };
        self.framing = match (header("transfer-encoding").as_deref(), header("content-length")) {
            (Some("chunked"), _) => Framing::Chunk(None),
            (_, Some(length)) => Framing::Length(length.parse().context("the answer's length is no number")?),
            _ => bail!("the answer does not say where it ends"),
        };
        Ok(())
    }

    /// Reads once.
    fn fill(&mut self) -> io::Result<usize> {
        let count = loop {
            match self.socket.read(&mut self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        self.raw.extend_from_slice(&self.buffer[..count]);
        Ok(count)
    }

    /// Appends what is there of the body to `body`, and waits for more if that is nothing. `None` at
    /// the end; otherwise when these bytes had come.
    ///
    /// # Errors
    /// Where the connection breaks off or times out.
    pub fn read(&mut self, body: &mut Vec<u8>) -> anyhow::Result<Option<Moment>> {
        let before = body.len();
        loop {
            self.take(body)?;
            if body.len() > before {
                return Ok(Some(Moment::now()));
            }
            if self.framing == Framing::Ended {
                return Ok(None);
            }
            if self.fill()? == 0 {
                bail!("the connection broke off in the middle of an answer");
            }
        }
    }

    /// Moves what is there of the body.
    fn take(&mut self, body: &mut Vec<u8>) -> anyhow::Result<()> {
        loop {
            match self.framing {
                Framing::Ended => return Ok(()),
                Framing::Length(left) => {
                    let left = left - self.move_bytes(left, body);
                    self.framing = if left == 0 {
                        Framing::Ended
                    } else {
                        Framing::Length(left)
                    };
                    return Ok(());
                }
                // The line break after a chunk belongs to none.
                Framing::Chunk(Some(0)) => {
                    if self.raw.len() < 2 {
                        return Ok(());
                    }
                    self.raw.drain(..2);
                    self.framing = Framing::Chunk(None);
                }
                Framing::Chunk(Some(left)) => {
                    let moved = self.move_bytes(left, body);
                    self.framing = Framing::Chunk(Some(left - moved));
                    if moved < left {
                        return Ok(());
                    }
                }
                Framing::Chunk(None) => {
                    let Some(end) = find(&self.raw, b"\r\n") else {
                        return Ok(());
                    };
                    let size = String::from_utf8_lossy(&self.raw[..end]).into_owned();
                    let size = usize::from_str_radix(size.trim(), 16).context("a chunk has no size")?;
                    self.raw.drain(..end + 2);
                    self.framing = if size == 0 {
                        Framing::Ended
                    } else {
                        Framing::Chunk(Some(size))
                    };
                }
            }
        }
    }

    fn move_bytes(&mut self, most: usize, body: &mut Vec<u8>) -> usize {
        let count = most.min(self.raw.len());
        body.extend(self.raw.drain(..count));
        count
    }

    /// The rest of the body.
    ///
    /// # Errors
    /// Where the connection breaks off, or the body is far larger than expected.
    pub fn read_to_end(&mut self) -> anyhow::Result<Vec<u8>> {
        let mut body = Vec::new();
        while self.read(&mut body)?.is_some() {
            ensure!(body.len() < MAX_BODY_BYTES, "the answer is too long");
        }
        Ok(body)
    }
}

/// Where `needle` begins in `bytes`.
pub fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}
