//! The events of a stream, as OpenAI's client has them in `openai.types.responses`.

use super::super::{Form, sse};
use super::item::{Item, Part, Thought};
use super::response::Response;
use super::tokens::Token;
use serde::Serialize;

/// Writes events, numbered from 0.
#[derive(Debug)]
pub(super) struct Events {
    sequence: u64,
    /// What is written; none where nobody reads it.
    out: Option<Vec<u8>>,
}

/// Where in a response something is.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Place<'a> {
    pub(super) item_id: &'a str,
    pub(super) output_index: usize,
}

/// All items have one part.
#[derive(Debug, Clone, Copy, Serialize)]
struct PartPlace<'a> {
    #[serde(flatten)]
    item: Place<'a>,
    content_index: usize,
}

#[derive(Debug, Serialize)]
struct Event<Body> {
    r#type: &'static str,
    sequence_number: u64,
    #[serde(flatten)]
    body: Body,
}

#[derive(Debug, Serialize)]
struct At<Place, Body> {
    #[serde(flatten)]
    place: Place,
    #[serde(flatten)]
    body: Body,
}

#[derive(Debug, Serialize)]
struct OfResponse<'a> {
    response: &'a Response,
}

#[derive(Debug, Serialize)]
struct OfItem<'a> {
    output_index: usize,
    item: &'a Item,
}

#[derive(Debug, Serialize)]
struct OfPart<P> {
    part: P,
}

#[derive(Debug, Serialize)]
struct Delta<'a> {
    delta: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<&'a [Token]>,
}

#[derive(Debug, Serialize)]
struct Text<'a> {
    text: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<&'a [Token]>,
}

#[derive(Debug, Serialize)]
struct Arguments<'a> {
    arguments: &'a str,
}

impl Events {
    pub(super) fn new(form: Form) -> Self {
        Self {
            sequence: 0,
            out: (form == Form::Stream).then(Vec::new),
        }
    }

    pub(super) fn content_type(&self) -> &'static str {
        match self.out {
            Some(_) => "text/event-stream",
            None => "application/json",
        }
    }

    /// Moves what was written to `out`.
    pub(super) fn take(&mut self, out: &mut Vec<u8>) {
        if let Some(written) = &mut self.out {
            out.append(written);
        }
    }

    fn write(&mut self, kind: &'static str, body: impl Serialize) {
        if let Some(out) = &mut self.out {
            let event = Event {
                r#type: kind,
                sequence_number: self.sequence,
                body,
            };
            sse::write(out, kind, &event);
            self.sequence += 1;
        }
    }

    fn at(&mut self, kind: &'static str, item: Place, body: impl Serialize) {
        let place = PartPlace {
            item,
            content_index: 0,
        };
        self.write(kind, At { place, body });
    }

    pub(super) fn response(&mut self, kind: &'static str, response: &Response) {
        self.write(kind, OfResponse { response });
    }

    pub(super) fn item_added(&mut self, output_index: usize, item: &Item) {
        self.write("response.output_item.added", OfItem { output_index, item });
    }

    pub(super) fn item_done(&mut self, output_index: usize, item: &Item) {
        self.write("response.output_item.done", OfItem { output_index, item });
    }

    pub(super) fn text_added(&mut self, place: Place) {
        let part = Part::output(String::new());
        self.at("response.content_part.added", place, OfPart { part });
    }

    pub(super) fn text_delta(&mut self, place: Place, delta: &str, logprobs: &[Token]) {
        let logprobs = Some(logprobs);
        self.at("response.output_text.delta", place, Delta { delta, logprobs });
    }

    pub(super) fn text_done(&mut self, place: Place, part: &Part, logprobs: &[Token]) {
        let (text, logprobs) = (part.text(), Some(logprobs));
        self.at("response.output_text.done", place, Text { text, logprobs });
        self.at("response.content_part.done", place, OfPart { part });
    }

    pub(super) fn thought_added(&mut self, place: Place) {
        let part = Thought::ReasoningText { text: String::new() };
        self.at("response.content_part.added", place, OfPart { part });
    }

    pub(super) fn thought_delta(&mut self, place: Place, delta: &str) {
        let logprobs = None;
        self.at("response.reasoning_text.delta", place, Delta { delta, logprobs });
    }

    pub(super) fn thought_done(&mut self, place: Place, part: &Thought) {
        let Thought::ReasoningText { text } = part;
        let logprobs = None;
        self.at("response.reasoning_text.done", place, Text { text, logprobs });
        self.at("response.content_part.done", place, OfPart { part });
    }

    pub(super) fn arguments_delta(&mut self, place: Place, delta: &str) {
        let (kind, logprobs) = ("response.function_call_arguments.delta", None);
        let body = Delta { delta, logprobs };
        self.write(kind, At { place, body });
    }

    pub(super) fn arguments_done(&mut self, place: Place, arguments: &str) {
        let kind = "response.function_call_arguments.done";
        let body = Arguments { arguments };
        self.write(kind, At { place, body });
    }
}
