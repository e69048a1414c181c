//! Server-sent events: the form of the engine's streams
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).

use serde::Serialize;

/// What came of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// An event's data; lines of it are joined by line feeds.
    Data(Vec<u8>),
    /// A comment: the sender's sign of life.
    Comment,
}

/// Reads a stream that comes in pieces.
#[derive(Debug, Default)]
pub struct Reader {
    line: Vec<u8>,
    data: Option<Vec<u8>>,
}

impl Reader {
    /// Takes the next bytes, calling `found` for each item that they complete.
    pub fn read(&mut self, mut bytes: &[u8], mut found: impl FnMut(Item)) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.line.extend_from_slice(&bytes[..end]);
            bytes = &bytes[end + 1..];
            let mut line = std::mem::take(&mut self.line);
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            if let Some(item) = self.line(&line) {
                found(item);
            }
            line.clear();
            self.line = line;
        }
        self.line.extend_from_slice(bytes);
    }

    fn line(&mut self, line: &[u8]) -> Option<Item> {
        if line.is_empty() {
            return self.data.take().map(Item::Data);
        }
        if line[0] == b':' {
            return Some(Item::Comment);
        }
        if let Some(rest) = line.strip_prefix(b"data:") {
            let rest = rest.strip_prefix(b" ").unwrap_or(rest);
            match &mut self.data {
                None => self.data = Some(rest.to_owned()),
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(rest);
                }
            }
        }
        None
    }
}

/// Writes an event with a name.
pub fn write(out: &mut Vec<u8>, name: &str, data: &impl Serialize) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\ndata: ");
    // Writing to memory cannot fail, and what dialects write has string keys.
    let _ = serde_json::to_writer(&mut *out, data);
    out.extend_from_slice(b"\n\n");
}

/// Writes a comment.
pub fn keep_alive(out: &mut Vec<u8>) {
    out.extend_from_slice(b": keep-alive\n\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(pieces: &[&[u8]]) -> Vec<Item> {
        let (mut reader, mut items) = (Reader::default(), Vec::new());
        for piece in pieces {
            reader.read(piece, |item| items.push(item));
        }
        items
    }

    #[test]
    fn an_event_with_a_name_is_read_back() {
        let mut out = Vec::new();
        write(&mut out, "ping", &serde_json::json!({"a": "b\nc"}));
        assert_eq!(read(&[&out]), [Item::Data(br#"{"a":"b\nc"}"#.to_vec())]);
    }

    proptest! {
        #[test]
        fn it_does_not_matter_where_a_stream_is_cut(
            lines in prop::collection::vec("(data: ?[a-z]{0,5}|: [a-z]{0,3}|event: x|)\r?", 0..20),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
        ) {
            let text = lines.join("\n") + "\n";
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &text.as_bytes()[pair[0]..pair[1]]).collect();
            prop_assert_eq!(read(&pieces), read(&[text.as_bytes()]));
        }
    }
}
