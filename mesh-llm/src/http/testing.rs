//! What tests of servers stand on.

use tokio::io::{AsyncRead, AsyncReadExt};

/// Reads until these words have come.
pub(crate) async fn until(stream: &mut (impl AsyncRead + Unpin), words: &str) -> String {
    let mut read = Vec::new();
    while !read.ends_with(words.as_bytes()) {
        let byte = stream.read_u8().await;
        read.push(byte.unwrap_or_else(|error| panic!("{error} after {}", String::from_utf8_lossy(&read))));
    }
    String::from_utf8(read).unwrap()
}
