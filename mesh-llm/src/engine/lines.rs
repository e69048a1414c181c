//! Reading a child's output line by line, in bounded memory.

use std::collections::VecDeque;
use std::io;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

/// Bytes of a line; a longer one comes in pieces.
const MAX_LINE_BYTES: usize = 16 << 10;

/// The lines of a stream.
#[derive(Debug)]
pub(super) struct Lines<R> {
    /// None after the end.
    reader: Option<BufReader<R>>,
    begun: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(super) fn new(reader: R) -> Self {
        Self {
            reader: Some(BufReader::with_capacity(4 << 10, reader)),
            begun: Vec::new(),
        }
    }

    /// The next line without its end; none at the end, again and again. A call that is dropped
    /// loses nothing.
    pub(super) async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let reader = self.reader.as_mut()?;
            let read = match reader.fill_buf().await {
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // A pipe that cannot be read has nothing more to say.
                Err(_) => &[],
            };
            if read.is_empty() {
                self.reader = None;
                return (!self.begun.is_empty()).then(|| std::mem::take(&mut self.begun));
            }
            let room = MAX_LINE_BYTES - self.begun.len();
            let within = &read[..read.len().min(room)];
            let end = within.iter().position(|byte| *byte == b'\n');
            let taken = end.unwrap_or(within.len());
            self.begun.extend_from_slice(&within[..taken]);
            let used = taken + usize::from(end.is_some());
            reader.consume(used);
            if end.is_some() || self.begun.len() == MAX_LINE_BYTES {
                return Some(std::mem::take(&mut self.begun));
            }
        }
    }

    /// Whether the end was reached.
    pub(super) fn ended(&self) -> bool {
        self.reader.is_none()
    }
}

/// Lines that are kept.
const MAX_KEPT_LINES: usize = 20;

/// Bytes that are kept of each.
const MAX_KEPT_BYTES: usize = 500;

/// The last lines of a log.
#[derive(Debug, Default)]
pub(super) struct Tail {
    lines: VecDeque<String>,
}

impl Tail {
    /// Takes note of a line.
    pub(super) fn push(&mut self, line: &[u8]) {
        if self.lines.len() == MAX_KEPT_LINES {
            self.lines.pop_front();
        }
        let kept = &line[..line.len().min(MAX_KEPT_BYTES)];
        self.lines.push_back(String::from_utf8_lossy(kept).into_owned());
    }

    /// The lines, the oldest first.
    pub(super) fn into_lines(self) -> Vec<String> {
        self.lines.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    async fn all(bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut lines = Lines::new(bytes);
        let mut read = Vec::new();
        while let Some(line) = lines.next().await {
            read.push(line);
        }
        assert!(lines.ended() && lines.next().await.is_none());
        read
    }

    #[tokio::test]
    async fn a_line_without_an_end_is_one_and_a_long_one_comes_in_pieces() {
        assert_eq!(all(b"a\n\nb").await, [&b"a"[..], b"", b"b"]);
        let long = vec![b'x'; MAX_LINE_BYTES + 3];
        let lengths: Vec<_> = all(&long).await.iter().map(Vec::len).collect();
        assert_eq!(lengths, [MAX_LINE_BYTES, 3]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost(lines in proptest::collection::vec("[^\n]{0,50}", 0..20)) {
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let read = runtime.block_on(all(text.as_bytes()));
            prop_assert_eq!(read, lines.iter().map(|line| line.as_bytes().to_vec()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_tail_is_bounded() {
        let mut tail = Tail::default();
        for number in 0..100 {
            tail.push(format!("{number} {}", "é".repeat(1000)).as_bytes());
        }
        let lines = tail.into_lines();
        assert_eq!(lines.len(), MAX_KEPT_LINES);
        assert!(lines[0].starts_with("80 ") && lines[0].len() < MAX_KEPT_BYTES + 4);
    }
}
