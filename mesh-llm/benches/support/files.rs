//! A server of one file that costs as little as a server can: the kernel sends the file.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

/// What the server knows.
#[derive(Debug)]
struct Served {
    path: PathBuf,
    bytes: u64,
    sha256: String,
}

/// Serves a file under every path, with ranges, until the program ends; returns where. Below `/hub/` it
/// says the file's hash, as Hugging Face does.
///
/// # Errors
/// Where there is no port, or no file.
pub fn serve(path: &Path, sha256: String) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let served = Arc::new(Served {
        path: path.to_owned(),
        bytes: path.metadata()?.len(),
        sha256,
    });
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let served = served.clone();
            // A client that goes away in the middle is its own business.
            thread::spawn(move || served.answer_all(&stream).ok());
        }
    });
    Ok(address)
}

impl Served {
    fn answer_all(&self, mut stream: &TcpStream) -> io::Result<()> {
        let mut file = File::open(&self.path)?;
        let mut requests = BufReader::new(stream);
        loop {
            let Some(asked) = Asked::read(&mut requests)? else {
                return Ok(());
            };
            let (start, end) = asked.range.unwrap_or((0, self.bytes));
            let end = end.min(self.bytes);
            let mut head = match asked.range {
                Some(_) => format!(
                    "HTTP/1.1 206 Partial Content\r\ncontent-range: bytes {start}-{}/{}\r\n",
                    end - 1,
                    self.bytes
                ),
                None => "HTTP/1.1 200 OK\r\n".to_owned(),
            };
            head += &format!("content-length: {}\r\netag: \"bench\"\r\n", end - start);
            if asked.of_hub {
                head += &format!(
                    "x-linked-etag: \"{}\"\r\nx-linked-size: {}\r\n",
                    self.sha256, self.bytes
                );
            }
            head += "\r\n";
            stream.write_all(head.as_bytes())?;
            file.seek(SeekFrom::Start(start))?;
            // From a file to a socket this is `sendfile`.
            io::copy(&mut (&mut file).take(end - start), &mut stream)?;
        }
    }
}

/// What a request asks for.
#[derive(Debug, Default)]
struct Asked {
    of_hub: bool,
    /// From the first byte to the one after the last.
    range: Option<(u64, u64)>,
}

impl Asked {
    /// The next request, unless the client closed the connection.
    fn read(requests: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut asked = None::<Self>;
        for line in requests.lines() {
            let line = line?.to_ascii_lowercase();
            match (&mut asked, line.as_str()) {
                (None, first) => {
                    asked = Some(Self {
                        of_hub: first.starts_with("get /hub/"),
                        range: None,
                    });
                }
                (Some(_), "") => return Ok(asked),
                (Some(asked), field) => {
                    if let Some(range) = field.strip_prefix("range: bytes=") {
                        asked.range = parse(range);
                    }
                }
            }
        }
        Ok(None)
    }
}

fn parse(range: &str) -> Option<(u64, u64)> {
    let (first, last) = range.trim().split_once('-')?;
    let end = last.parse().map_or(u64::MAX, |last: u64| last.saturating_add(1));
    Some((first.parse().ok()?, end))
}
