//! Server-sent events.

use serde::Serialize;

/// What ends a stream that is complete.
pub const DONE: &[u8] = b"data: [DONE]\n\n";

/// A comment, which clients skip: it keeps connections open while there is nothing to say.
pub const KEEP_ALIVE: &[u8] = b": keep-alive\n\n";

/// Appends one event with this value as its data.
pub fn write<T: Serialize>(buffer: &mut Vec<u8>, value: &T) {
    buffer.extend_from_slice(b"data: ");
    // JSON has no raw line breaks, so that one `data:` line holds it.
    serde_json::to_writer(&mut *buffer, value)
        .expect("responses have only string keys, and a Vec takes all bytes");
    buffer.extend_from_slice(b"\n\n");
}

/// Appends a comment of one line.
pub fn comment(buffer: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    buffer.extend_from_slice(format!(": {text}\n").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let mut buffer = Vec::new();
        write(&mut buffer, &serde_json::json!({"text": "a\nb\r\n\u{2028}"}));
        let text = String::from_utf8(buffer).unwrap();
        assert_eq!(text, "data: {\"text\":\"a\\nb\\r\\n\u{2028}\"}\n\n");
    }
}
