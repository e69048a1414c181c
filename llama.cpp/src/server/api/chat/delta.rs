//! From what a parser finds in an answer to the deltas of a stream.

use super::response::{ChunkDelta, FunctionDelta, FunctionKind, ToolCallDelta};

/// What a chat parser found in an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delta {
    /// More of the reasoning.
    Reasoning(String),
    /// More of the answer.
    Content(String),
    /// More of a tool call.
    ToolCall {
        /// Which one, from 0.
        index: usize,
        /// Its id, or empty.
        id: String,
        /// Its name so far, or empty: a name that arrives in pieces is given anew each time.
        name: String,
        /// More of its arguments.
        arguments: String,
    },
}

/// Where reasoning goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reasoning {
    /// Into `reasoning_content`.
    Split,
    /// Into the content, between the model's own tags.
    Inline,
}

/// Turns what a parser finds into the deltas of a stream, in which a tool call's id and name come
/// whole, once, and first, and arguments are appended. No two calls have the same id.
#[derive(Debug, Default)]
pub struct MessageBuilder {
    inline: Option<Inline>,
    most_calls: Option<usize>,
    calls: Vec<Call>,
    ids: Vec<String>,
    content: Content,
}

/// Whether there is content in the answer.
#[derive(Debug, Default, PartialEq, Eq)]
enum Content {
    #[default]
    None,
    Some,
}

#[derive(Debug)]
struct Inline {
    start: String,
    end: String,
    open: bool,
}

#[derive(Debug, Default)]
struct Call {
    id: String,
    name: String,
    // Arguments that came before the name.
    arguments: String,
    state: CallState,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum CallState {
    /// The name may still grow.
    #[default]
    Held,
    Sent,
}

impl MessageBuilder {
    /// With reasoning apart from the content, and any number of calls.
    pub fn new() -> Self {
        MessageBuilder::default()
    }

    /// With reasoning in the content, between these tags.
    pub fn with_inline_reasoning(mut self, start: impl Into<String>, end: impl Into<String>) -> Self {
        self.inline = Some(Inline {
            start: start.into(),
            end: end.into(),
            open: false,
        });
        self
    }

    /// With the first call only.
    pub fn with_one_call(mut self) -> Self {
        self.most_calls = Some(1);
        self
    }

    /// Whether there is a tool call in the answer.
    pub fn has_tool_calls(&self) -> bool {
        !self.calls.is_empty()
    }

    /// Whether there is content or a tool call in the answer.
    pub fn has_answer(&self) -> bool {
        self.content == Content::Some || self.has_tool_calls()
    }

    /// Adds what a parser found; appends to `out` what can be sent now.
    pub fn push(&mut self, delta: Delta, out: &mut Vec<ChunkDelta>) {
        match delta {
            Delta::Reasoning(text) => {
                self.release_calls(None, out);
                match &mut self.inline {
                    None => out.push(ChunkDelta::reasoning(text)),
                    Some(inline) if inline.open => out.push(ChunkDelta::content(text)),
                    Some(inline) => {
                        inline.open = true;
                        out.push(ChunkDelta::content(format!("{}{text}", inline.start)));
                    }
                }
            }
            Delta::Content(text) => {
                self.release_calls(None, out);
                self.close_reasoning(out);
                self.content = Content::Some;
                out.push(ChunkDelta::content(text));
            }
            Delta::ToolCall { index, .. } if self.most_calls.is_some_and(|most| index >= most) => {}
            Delta::ToolCall {
                index,
                id,
                name,
                arguments,
            } => {
                self.release_calls(Some(index), out);
                self.close_reasoning(out);
                self.push_call(index, id, name, arguments, out);
            }
        }
    }

    /// The answer is complete: appends what was held back.
    pub fn finish(&mut self, out: &mut Vec<ChunkDelta>) {
        self.close_reasoning(out);
        self.release_calls(None, out);
    }

    fn close_reasoning(&mut self, out: &mut Vec<ChunkDelta>) {
        if let Some(inline) = &mut self.inline
            && std::mem::take(&mut inline.open)
        {
            out.push(ChunkDelta::content(inline.end.clone()));
        }
    }

    fn push_call(
        &mut self,
        index: usize,
        id: String,
        name: String,
        arguments: String,
        out: &mut Vec<ChunkDelta>,
    ) {
        // Parsers number calls without a gap; one that did not would only lose a number here.
        let index = index.min(self.calls.len());
        if index == self.calls.len() {
            self.calls.push(Call::default());
        }
        let call = &mut self.calls[index];
        if call.state == CallState::Sent {
            if !arguments.is_empty() {
                out.push(ChunkDelta::tool_call(ToolCallDelta {
                    index,
                    id: None,
                    r#type: None,
                    function: FunctionDelta {
                        name: None,
                        arguments,
                    },
                }));
            }
            return;
        }
        if !id.is_empty() {
            call.id = id;
        }
        if !name.is_empty() {
            call.name = name;
        }
        call.arguments.push_str(&arguments);
        // A name is whole once arguments follow it.
        if !call.name.is_empty() && !call.arguments.is_empty() {
            out.push(self.release(index));
        }
    }

    /// Something else follows: the names of all calls but this one are whole.
    fn release_calls(&mut self, but: Option<usize>, out: &mut Vec<ChunkDelta>) {
        for index in 0..self.calls.len() {
            let call = &self.calls[index];
            if Some(index) != but && call.state == CallState::Held && !call.name.is_empty() {
                out.push(self.release(index));
            }
        }
    }

    /// The first delta of a call.
    fn release(&mut self, index: usize) -> ChunkDelta {
        let call = &mut self.calls[index];
        call.state = CallState::Sent;
        let given = std::mem::take(&mut call.id);
        let function = FunctionDelta {
            name: Some(std::mem::take(&mut call.name)),
            arguments: std::mem::take(&mut call.arguments),
        };
        let id = self.unique_id(given, index);
        ChunkDelta::tool_call(ToolCallDelta {
            index,
            id: Some(id),
            r#type: Some(FunctionKind::Function),
            function,
        })
    }

    /// The id that the model gave a call, unless it gave none or gave it to another one, too.
    fn unique_id(&mut self, given: String, index: usize) -> String {
        let given = if given.is_empty() {
            format!("call_{index}")
        } else {
            given
        };
        let mut id = given.clone();
        let mut number = index;
        while self.ids.contains(&id) {
            id = format!("{given}-{number}");
            number += 1;
        }
        self.ids.push(id.clone());
        id
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::response::AssistantMessage, *};

    fn call(index: usize, id: &str, name: &str, arguments: &str) -> Delta {
        Delta::ToolCall {
            index,
            id: id.into(),
            name: name.into(),
            arguments: arguments.into(),
        }
    }

    fn stream(mut builder: MessageBuilder, deltas: Vec<Delta>) -> Vec<ChunkDelta> {
        let mut out = Vec::new();
        for delta in deltas {
            builder.push(delta, &mut out);
        }
        builder.finish(&mut out);
        out
    }

    fn json(chunks: &[ChunkDelta]) -> Vec<String> {
        chunks
            .iter()
            .map(|chunk| serde_json::to_string(chunk).unwrap())
            .collect()
    }

    #[test]
    fn id_and_name_come_once_and_first() {
        let chunks = stream(
            MessageBuilder::new(),
            vec![
                Delta::Content("Let me see.".into()),
                call(0, "a", "get_", ""),
                call(0, "a", "get_weather", ""),
                call(0, "a", "get_weather", "{\"ci"),
                call(0, "", "", "ty\":1}"),
                call(1, "b", "now", ""),
            ],
        );
        assert_eq!(
            json(&chunks),
            [
                r#"{"content":"Let me see."}"#,
                r#"{"tool_calls":[{"index":0,"id":"a","type":"function","function":{"name":"get_weather","arguments":"{\"ci"}}]}"#,
                r#"{"tool_calls":[{"index":0,"function":{"arguments":"ty\":1}"}}]}"#,
                r#"{"tool_calls":[{"index":1,"id":"b","type":"function","function":{"name":"now","arguments":""}}]}"#,
            ]
        );
    }

    #[test]
    fn a_call_without_an_id_gets_one() {
        let chunks = stream(MessageBuilder::new(), vec![call(0, "", "f", "{}")]);
        assert!(json(&chunks)[0].contains(r#""id":"call_0""#));
    }

    #[test]
    fn an_id_that_is_given_twice_is_told_apart() {
        let deltas = (0..4)
            .map(|index| call(index, ["a", "a", "a-1", "a"][index], "f", "{}"))
            .collect();
        let message = AssistantMessage::from_deltas(stream(MessageBuilder::new(), deltas));
        let mut ids: Vec<_> = message.tool_calls.into_iter().map(|call| call.id).collect();
        assert_eq!(ids[0], "a");
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 4);
    }

    #[test]
    fn all_but_the_first_call_are_left_out_on_request() {
        let deltas = vec![call(0, "a", "f", "{}"), call(1, "b", "g", "{}")];
        let message = AssistantMessage::from_deltas(stream(MessageBuilder::new().with_one_call(), deltas));
        let names: Vec<_> = message
            .tool_calls
            .into_iter()
            .map(|call| call.function.name)
            .collect();
        assert_eq!(names, ["f"]);
    }

    #[test]
    fn reasoning_is_apart_or_inline() {
        let deltas = || {
            vec![
                Delta::Reasoning("hm".into()),
                Delta::Reasoning("m".into()),
                Delta::Content("yes".into()),
            ]
        };
        let whole = |builder| AssistantMessage::from_deltas(stream(builder, deltas()));
        let split = whole(MessageBuilder::new());
        assert_eq!(split.reasoning_content.as_deref(), Some("hmm"));
        assert_eq!(split.content.as_deref(), Some("yes"));
        let inline = whole(MessageBuilder::new().with_inline_reasoning("<think>", "</think>"));
        assert_eq!(inline.reasoning_content, None);
        assert_eq!(inline.content.as_deref(), Some("<think>hmm</think>yes"));
    }

    #[test]
    fn reasoning_that_never_ends_is_closed() {
        let deltas = vec![Delta::Reasoning("hm".into())];
        let message = AssistantMessage::from_deltas(stream(
            MessageBuilder::new().with_inline_reasoning("<t>", "</t>"),
            deltas,
        ));
        assert_eq!(message.content.as_deref(), Some("<t>hm</t>"));
    }

    /// An answer, cut into the deltas that a parser would report.
    fn answers() -> impl Strategy<Value = (String, String, Vec<(String, String)>, Vec<Delta>)> {
        let pieces = || prop::collection::vec("[a-zé]{1,4}", 0..4);
        let calls = prop::collection::vec(("[a-z]{1,6}", pieces()), 0..4);
        (pieces(), pieces(), calls).prop_map(|(reasoning, content, calls)| {
            let mut deltas = Vec::new();
            deltas.extend(reasoning.iter().cloned().map(Delta::Reasoning));
            deltas.extend(content.iter().cloned().map(Delta::Content));
            for (index, (name, arguments)) in calls.iter().enumerate() {
                for end in 1..=name.len() {
                    deltas.push(call(index, &format!("id{index}"), &name[..end], ""));
                }
                deltas.extend(arguments.iter().map(|piece| call(index, "", "", piece)));
            }
            let calls = calls
                .into_iter()
                .map(|(name, pieces)| (name, pieces.concat()))
                .collect();
            (reasoning.concat(), content.concat(), calls, deltas)
        })
    }

    proptest! {
        #[test]
        fn the_chunks_together_are_the_whole((reasoning, content, calls, deltas) in answers()) {
            let chunks = stream(MessageBuilder::new(), deltas);
            for chunk in &chunks {
                let Some([call]) = &chunk.tool_calls else { continue };
                prop_assert_eq!(call.id.is_some(), call.function.name.is_some());
            }
            let message = AssistantMessage::from_deltas(chunks);
            prop_assert_eq!(message.reasoning_content.unwrap_or_default(), reasoning);
            prop_assert_eq!(message.content.unwrap_or_default(), content);
            let got: Vec<_> = message
                .tool_calls
                .into_iter()
                .map(|call| (call.function.name, call.function.arguments))
                .collect();
            prop_assert_eq!(got, calls);
        }

        #[test]
        fn no_order_of_deltas_panics(deltas in prop::collection::vec(prop_oneof![
            any::<String>().prop_map(Delta::Reasoning),
            any::<String>().prop_map(Delta::Content),
            (any::<usize>(), "[a-z]?", "[a-z]?", "[a-z]?")
                .prop_map(|(index, id, name, arguments)| Delta::ToolCall { index, id, name, arguments }),
        ], 0..20)) {
            AssistantMessage::from_deltas(stream(MessageBuilder::new().with_inline_reasoning("<", ">"), deltas));
        }
    }
}
