//! A stream says the same as an answer in one piece.

use super::properties::assistant;
use super::*;
use crate::dialects::chat::{FinishReason, Message};
use crate::dialects::{Answer, sse};
use proptest::prelude::*;
use serde_json::json;

/// What a client makes of a stream, which it checks as it comes.
#[derive(Debug, Default)]
struct Client {
    kinds: Vec<String>,
    items: Vec<Value>,
    last: Option<Value>,
}

impl Client {
    fn read(stream: &[u8]) -> Client {
        let (mut client, mut events) = (Client::default(), sse::Reader::default());
        events.read(stream, |item| {
            if let sse::Item::Data(data) = item {
                client.event(&serde_json::from_slice(&data).unwrap());
            }
        });
        client
    }

    fn event(&mut self, event: &Value) {
        assert_eq!(event["sequence_number"], self.kinds.len(), "{event}");
        assert!(self.last.is_none(), "after the end: {event}");
        let kind = event["type"].as_str().unwrap();
        self.kinds.push(kind.to_owned());
        match kind {
            "response.created" => assert_eq!(self.kinds.len(), 1),
            "response.in_progress" => assert_eq!(self.kinds.len(), 2),
            "response.output_item.added" => {
                assert_eq!(event["output_index"], self.items.len());
                assert!(
                    self.items.iter().all(|item| item["status"] != "in_progress"),
                    "one after another"
                );
                assert_eq!(event["item"]["status"], "in_progress");
                self.items.push(event["item"].clone());
            }
            "response.output_item.done" => {
                let item = self.item(event, "item");
                item["status"] = event["item"]["status"].clone();
                assert_eq!(*item, event["item"]);
            }
            "response.content_part.added" => {
                let parts = self.item(event, "item_id")["content"].as_array_mut().unwrap();
                assert_eq!(event["content_index"], parts.len());
                parts.push(event["part"].clone());
            }
            "response.content_part.done" => {
                let part = &mut self.item(event, "item_id")["content"][0];
                assert_eq!(part["text"], event["part"]["text"]);
                *part = event["part"].clone();
            }
            "response.output_text.delta" | "response.reasoning_text.delta" => {
                add(
                    &mut self.item(event, "item_id")["content"][0]["text"],
                    &event["delta"],
                );
            }
            "response.output_text.done" | "response.reasoning_text.done" => {
                assert_eq!(self.item(event, "item_id")["content"][0]["text"], event["text"]);
            }
            "response.function_call_arguments.delta" => {
                add(&mut self.item(event, "item_id")["arguments"], &event["delta"]);
            }
            "response.function_call_arguments.done" => {
                assert_eq!(self.item(event, "item_id")["arguments"], event["arguments"]);
            }
            "response.completed" | "response.incomplete" | "response.failed" => {
                assert_eq!(event["response"]["output"], json!(self.items));
                self.last = Some(event["response"].clone());
            }
            other => panic!("{other} is no event"),
        }
    }

    /// The item that an event is about: always the last.
    fn item(&mut self, event: &Value, id: &str) -> &mut Value {
        assert_eq!(event["output_index"], self.items.len() - 1);
        let item = self.items.last_mut().unwrap();
        let its_id = if id == "item" {
            &event["item"]["id"]
        } else {
            &event[id]
        };
        assert_eq!(item["id"], *its_id);
        item
    }
}

fn add(text: &mut Value, more: &Value) {
    *text = json!(text.as_str().unwrap().to_owned() + more.as_str().unwrap());
}

/// An answer of the engine: what it says, in pieces of a stream, and why it ends.
#[derive(Debug, Clone)]
struct Engine {
    message: Message,
    deltas: Vec<(Value, String)>,
    reason: FinishReason,
}

const USAGE: &str =
    r#"{"prompt_tokens":5,"completion_tokens":9,"prompt_tokens_details":{"cached_tokens":2}}"#;

impl Engine {
    fn logprobs<'a>(texts: impl IntoIterator<Item = &'a str>) -> Value {
        let token = |text: &str| json!({"token": text, "bytes": text.as_bytes(), "logprob": -0.5, "top_logprobs": []});
        json!({"content": texts.into_iter().map(token).collect::<Vec<_>>(), "refusal": null})
    }

    fn chunk(fields: Value) -> Value {
        let mut chunk = json!({"id": "c", "created": 1, "model": "tiny", "choices": []});
        chunk
            .as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        chunk
    }

    fn chunks(&self) -> Vec<Value> {
        let mut chunks = vec![Self::chunk(
            json!({"choices": [{"delta": {"role": "assistant", "content": ""}}]}),
        )];
        chunks.extend(self.deltas.iter().map(|(delta, text)| {
            let logprobs = Self::logprobs([text.as_str()]);
            Self::chunk(json!({"choices": [{"delta": delta, "logprobs": logprobs}]}))
        }));
        chunks.push(Self::chunk(
            json!({"choices": [{"delta": {}, "finish_reason": self.reason}]}),
        ));
        chunks.push(Self::chunk(
            json!({"usage": serde_json::from_str::<Value>(USAGE).unwrap()}),
        ));
        chunks
    }

    fn whole(&self) -> Value {
        let logprobs = Self::logprobs(self.deltas.iter().map(|(_, text)| text.as_str()));
        let choice = json!({"message": self.message, "finish_reason": self.reason, "logprobs": logprobs});
        Self::chunk(json!({"choices": [choice], "usage": serde_json::from_str::<Value>(USAGE).unwrap()}))
    }
}

/// Cuts a text at characters.
fn cut(text: &str, at: &[prop::sample::Index]) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    if characters.is_empty() {
        return Vec::new();
    }
    let mut cuts: Vec<usize> = at.iter().map(|index| index.index(characters.len())).collect();
    cuts.extend([0, characters.len()]);
    cuts.sort_unstable();
    cuts.dedup();
    cuts.windows(2)
        .map(|pair| characters[pair[0]..pair[1]].iter().collect())
        .collect()
}

fn engine() -> impl Strategy<Value = Engine> {
    let reason = prop::sample::select(vec![
        FinishReason::Stop,
        FinishReason::Length,
        FinishReason::ToolCalls,
    ]);
    let cuts = prop::collection::vec(any::<prop::sample::Index>(), 0..4);
    (assistant(), reason, cuts).prop_map(|(message, reason, cuts)| {
        let mut deltas = Vec::new();
        for piece in cut(message.reasoning_content.as_deref().unwrap_or(""), &cuts) {
            deltas.push((json!({"reasoning_content": piece}), piece));
        }
        for piece in cut(message.content.as_deref().unwrap_or(""), &cuts) {
            deltas.push((json!({"content": piece}), piece));
        }
        for (index, call) in message.tool_calls.iter().enumerate() {
            let mut first = json!({"index": index, "id": call.id, "type": "function",
                "function": {"name": call.function.name, "arguments": ""}});
            let mut pieces = cut(&call.function.arguments, &cuts);
            if cuts.len() % 2 == 0 && !pieces.is_empty() {
                first["function"]["arguments"] = json!(pieces.remove(0));
            }
            let text = first["function"]["arguments"].as_str().unwrap().to_owned();
            deltas.push((json!({"tool_calls": [first]}), text));
            for piece in pieces {
                let more = json!({"index": index, "function": {"arguments": piece}});
                deltas.push((json!({"tool_calls": [more]}), piece));
            }
        }
        Engine {
            message,
            deltas,
            reason,
        }
    })
}

fn reply(stream: bool) -> Reply {
    let body = json!({"input": "Hi", "stream": stream, "include": ["message.output_text.logprobs"]});
    ask(&body, &Known::default()).unwrap().reply
}

/// Tells a reply so many of these events.
fn tell(reply: &mut Reply, chunks: &[Value]) -> Vec<u8> {
    let mut out = Vec::new();
    for chunk in chunks {
        reply.event(chunk.to_string().as_bytes(), &mut out);
    }
    out
}

#[test]
fn events_come_in_openai_s_order() {
    let delta = |delta: Value| Engine::chunk(json!({"choices": [{"delta": delta}]}));
    let call = json!({"index": 0, "id": "1", "function": {"name": "f", "arguments": "{}"}});
    let chunks = [
        delta(json!({"role": "assistant", "content": ""})),
        delta(json!({"reasoning_content": "hm"})),
        delta(json!({"content": "So"})),
        delta(json!({"content": "."})),
        delta(json!({"tool_calls": [call]})),
        Engine::chunk(json!({"choices": [{"delta": {}, "finish_reason": "tool_calls"}]})),
        Engine::chunk(json!({"usage": {"prompt_tokens": 1, "completion_tokens": 2}})),
    ];
    let mut reply = reply(true);
    let mut out = tell(&mut reply, &chunks);
    reply.end(&mut out);
    let kinds: Vec<String> = Client::read(&out).kinds;
    let kinds: Vec<&str> = kinds
        .iter()
        .map(|kind| kind.strip_prefix("response.").unwrap())
        .collect();
    assert_eq!(
        kinds,
        [
            "created",
            "in_progress",
            "output_item.added",
            "content_part.added",
            "reasoning_text.delta",
            "reasoning_text.done",
            "content_part.done",
            "output_item.done",
            "output_item.added",
            "content_part.added",
            "output_text.delta",
            "output_text.delta",
            "output_text.done",
            "content_part.done",
            "output_item.done",
            "output_item.added",
            "function_call_arguments.delta",
            "function_call_arguments.done",
            "output_item.done",
            "completed",
        ]
    );
}

#[test]
fn a_stream_that_the_engine_gives_up_says_why() {
    let mut reply = reply(true);
    let error = br#"{"error":{"message":"out of memory","type":"server_error"}}"#;
    let mut out = tell(
        &mut reply,
        &[Engine::chunk(json!({"choices": [{"delta": {"content": "So"}}]}))],
    );
    reply.event(error, &mut out);
    // Nothing comes after the end.
    reply.event(error, &mut out);
    reply.keep_alive(&mut out);
    reply.broken(&Problem::engine("crashed"), &mut out);
    reply.end(&mut out);
    let last = Client::read(&out).last.unwrap();
    assert_eq!(last["status"], "failed");
    assert_eq!(
        last["error"],
        json!({"code": "server_error", "message": "out of memory"})
    );
    assert_eq!(last["output"][0]["status"], "incomplete");
    assert_eq!(serde_json::to_value(reply.turn().response).unwrap(), last);
}

#[test]
fn a_stream_that_never_began_has_a_beginning_and_an_end() {
    let (mut broken, mut unfinished, mut out) = (reply(true), reply(true), Vec::new());
    broken.broken(&Problem::engine("crashed"), &mut out);
    assert_eq!(
        Client::read(&out).kinds,
        ["response.created", "response.in_progress", "response.failed"]
    );
    let mut out = tell(
        &mut unfinished,
        &[Engine::chunk(json!({"choices": [{"delta": {"content": "So"}}]}))],
    );
    unfinished.end(&mut out);
    assert_eq!(Client::read(&out).last.unwrap()["status"], "failed");
}

proptest! {
    #[test]
    fn the_events_together_are_the_answer_in_one_piece(engine in engine()) {
        let mut streamed = reply(true);
        let mut out = tell(&mut streamed, &engine.chunks());
        streamed.end(&mut out);
        let told = Client::read(&out).last.unwrap();

        let mut whole = reply(false);
        let answer = whole.whole(engine.whole().to_string().as_bytes()).unwrap();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        prop_assert_eq!(&told, &answer);

        // What is kept is what was told.
        prop_assert_eq!(&serde_json::to_value(streamed.turn().response).unwrap(), &told);
        prop_assert_eq!(&serde_json::to_value(whole.turn().response).unwrap(), &told);

        let cut_off = engine.reason == FinishReason::Length;
        prop_assert_eq!(&told["status"], if cut_off { "incomplete" } else { "completed" });
        prop_assert_eq!(told["usage"]["total_tokens"].as_u64(), Some(14));
    }

    #[test]
    fn a_response_can_be_cancelled_at_any_time(engine in engine(), at in any::<prop::sample::Index>()) {
        let chunks = engine.chunks();
        let mut reply = reply(true);
        let mut out = tell(&mut reply, &chunks[..at.index(chunks.len())]);
        reply.cancel(&mut out);
        out.extend(tell(&mut reply, &chunks));
        reply.end(&mut out);
        let told = Client::read(&out).last.unwrap();
        prop_assert_eq!(&told["status"], "cancelled");
        prop_assert_eq!(&serde_json::to_value(reply.turn().response).unwrap(), &told);
    }
}
