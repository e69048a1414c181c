//! The events of a streamed answer.

use std::io::{BufRead, BufReader, Read};

use serde_json::Value;

/// An answer that comes in events. Dropping it closes the connection.
pub struct Stream {
    lines: BufReader<Box<dyn Read + Send + Sync>>,
}

/// An event.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A JSON object.
    Data(Value),
    /// `[DONE]`.
    Done,
    /// The connection broke before the stream's end.
    Broken(String),
}

impl Event {
    /// The text that the event brings, of a chat or a completion, of its first choice.
    pub fn text(&self) -> &str {
        let Event::Data(data) = self else { return "" };
        let choice = &data["choices"][0];
        choice["delta"]["content"]
            .as_str()
            .or(choice["text"].as_str())
            .unwrap_or("")
    }
}

/// What became of a stream that was read to its end.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Events with data.
    pub events: Vec<Value>,
    /// All text of the first choice.
    pub text: String,
    /// Why the answer ended.
    pub finish_reason: Option<String>,
    /// The error that ended it.
    pub error: Option<Value>,
    /// Whether `[DONE]` was the last event.
    pub done: bool,
    /// Why it broke off, if it did.
    pub broken: Option<String>,
}

impl Outcome {
    /// What the answer used, if the stream says so.
    pub fn usage(&self) -> Option<&Value> {
        self.events
            .iter()
            .rev()
            .map(|event| &event["usage"])
            .find(|usage| usage.is_object())
    }
}

impl Stream {
    pub(super) fn new(reader: impl Read + Send + Sync + 'static) -> Self {
        Self {
            lines: BufReader::new(Box::new(reader)),
        }
    }

    /// Takes the next event with text, which there must be.
    pub fn next_text(&mut self) -> String {
        loop {
            let event = self.next().expect("the stream ended before it brought text");
            match &event {
                Event::Data(data) if data.get("error").is_none() => {}
                other => panic!("in place of text came {other:?}"),
            }
            if !event.text().is_empty() {
                return event.text().to_owned();
            }
        }
    }

    /// Reads the stream to its end.
    pub fn outcome(self) -> Outcome {
        let mut outcome = Outcome::default();
        for event in self {
            assert!(!outcome.done, "after [DONE] came {event:?}");
            outcome.text.push_str(event.text());
            match event {
                Event::Data(data) => {
                    if let Some(reason) = data["choices"][0]["finish_reason"].as_str() {
                        outcome.finish_reason = Some(reason.to_owned());
                    }
                    if let Some(error) = data.get("error") {
                        outcome.error = Some(error.clone());
                    }
                    outcome.events.push(data);
                }
                Event::Done => outcome.done = true,
                Event::Broken(cause) => outcome.broken = Some(cause),
            }
        }
        outcome
    }
}

impl Iterator for Stream {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        loop {
            let mut line = String::new();
            match self.lines.read_line(&mut line) {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) => return Some(Event::Broken(error.to_string())),
            }
            let line = line.trim_end();
            match line.strip_prefix("data: ") {
                Some("[DONE]") => return Some(Event::Done),
                Some(data) => return Some(Event::Data(serde_json::from_str(data).unwrap())),
                // The empty line after an event, or a comment that keeps the connection alive.
                None => assert!(line.is_empty() || line.starts_with(':'), "not an event: {line}"),
            }
        }
    }
}
