//! What holds for all chats and all answers.

use super::super::super::chat::{Message, Role};
use super::*;
use proptest::prelude::*;
use serde_json::Map;

fn text() -> impl Strategy<Value = String> {
    "[a-zé \\n\"]{0,8}"
}

fn arguments() -> impl Strategy<Value = Map<String, Value>> {
    let value = prop_oneof![any::<i32>().prop_map(Value::from), text().prop_map(Value::from)];
    prop::collection::vec(("[a-z]{1,3}", value), 0..3).prop_map(Map::from_iter)
}

/// What both sides know of a turn of the assistant, and of what follows it.
#[derive(Debug, Clone)]
struct Turn {
    thought: String,
    said: String,
    calls: Vec<(String, Map<String, Value>)>,
    results: Vec<String>,
    reply: String,
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let calls = prop::collection::vec((("[a-z]{1,4}", arguments()), text()), 0..3);
    let turn = (text(), text(), calls, "[a-z]{1,4}").prop_map(|(thought, said, calls, reply)| {
        let (calls, results) = calls.into_iter().unzip();
        Turn {
            thought,
            said,
            calls,
            results,
            reply,
        }
    });
    prop::collection::vec(turn, 0..4)
}

fn as_anthropic(turns: &[Turn]) -> Value {
    let mut messages = vec![json!({"role": "user", "content": "Go"})];
    for (number, turn) in turns.iter().enumerate() {
        let mut blocks = Vec::new();
        if !turn.thought.is_empty() {
            blocks.push(json!({"type": "thinking", "thinking": turn.thought, "signature": "s"}));
        }
        if !turn.said.is_empty() {
            blocks.push(json!({"type": "text", "text": turn.said}));
        }
        let id = |index: usize| format!("{number}-{index}");
        for (index, (name, input)) in turn.calls.iter().enumerate() {
            blocks.push(json!({"type": "tool_use", "id": id(index), "name": name, "input": input}));
        }
        messages.push(json!({"role": "assistant", "content": blocks}));
        let results =
            turn.results.iter().enumerate().map(
                |(index, text)| json!({"type": "tool_result", "tool_use_id": id(index), "content": text}),
            );
        let mut blocks: Vec<Value> = results.collect();
        blocks.push(json!({"type": "text", "text": turn.reply}));
        messages.push(json!({"role": "user", "content": blocks}));
    }
    messages.into()
}

/// Reads a chat back.
fn from_chat(messages: &[Message]) -> Vec<Turn> {
    let mut turns: Vec<Turn> = Vec::new();
    for message in &messages[1..] {
        let content = message.content.clone().unwrap_or_default();
        match message.role {
            Role::Assistant => turns.push(Turn {
                thought: message.reasoning_content.clone().unwrap_or_default(),
                said: content,
                calls: message
                    .tool_calls
                    .iter()
                    .map(|call| {
                        let arguments = serde_json::from_str(&call.function.arguments).unwrap();
                        (call.function.name.clone(), arguments)
                    })
                    .collect(),
                results: Vec::new(),
                reply: String::new(),
            }),
            Role::Tool => {
                let number = turns.len() - 1;
                let turn = &mut turns[number];
                let id = format!("{number}-{}", turn.results.len());
                assert_eq!(message.tool_call_id.as_deref(), Some(id.as_str()));
                turn.results.push(content);
            }
            Role::User => turns.last_mut().unwrap().reply = content,
            Role::System | Role::Developer => panic!("nobody gave instructions"),
        }
    }
    turns
}

/// A random answer of the engine, whole and cut into events.
#[derive(Debug, Clone)]
struct Cut {
    whole: Value,
    chunks: Vec<Value>,
}

fn pieces() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(text(), 0..4)
}

/// Some text, cut at random places.
fn cut(text: String) -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(any::<prop::sample::Index>(), 0..4).prop_map(move |cuts| {
        let characters: Vec<char> = text.chars().collect();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(characters.len() + 1)).collect();
        cuts.extend([0, characters.len()]);
        cuts.sort_unstable();
        cuts.windows(2)
            .map(|pair| characters[pair[0]..pair[1]].iter().collect())
            .collect()
    })
}

fn answers() -> impl Strategy<Value = Cut> {
    let call = (
        "[a-z]{1,4}",
        arguments().prop_flat_map(|input| cut(Value::Object(input).to_string())),
    );
    let calls = prop::collection::vec(call, 0..3);
    let end = (
        prop::sample::select(vec!["stop", "length", "tool_calls"]),
        1_u64..120,
        any::<bool>(),
    );
    (pieces(), pieces(), calls, end).prop_map(|(thought, said, calls, (reason, tokens, stopped))| {
        let mut chunks = vec![first()];
        chunks.extend(
            thought
                .iter()
                .map(|piece| delta(json!({"reasoning_content": piece}))),
        );
        chunks.extend(said.iter().map(|piece| delta(json!({"content": piece}))));
        for (index, (name, arguments)) in calls.iter().enumerate() {
            for (number, piece) in arguments.iter().enumerate() {
                let mut call = json!({"index": index, "function": {"arguments": piece}});
                if number == 0 {
                    call["id"] = json!(format!("call{index}"));
                    call["function"]["name"] = json!(name);
                }
                chunks.push(delta(json!({"tool_calls": [call]})));
            }
        }
        let calls: Vec<Value> = calls
            .iter()
            .enumerate()
            .map(|(index, (name, arguments))| {
                json!({"id": format!("call{index}"), "type": "function",
                       "function": {"name": name, "arguments": arguments.concat()}})
            })
            .collect();
        let message = json!({
            "role": "assistant", "content": said.concat(), "reasoning_content": thought.concat(),
            "tool_calls": calls,
        });
        let mut whole = completion(message, reason, tokens);
        let mut last = json!({"index": 0, "delta": {}, "finish_reason": reason});
        if stopped {
            whole["choices"][0]["stopping_word"] = json!("END");
            last["stopping_word"] = json!("END");
        }
        chunks.push(chunk(json!({"choices": [last]})));
        chunks.push(chunk(json!({"usage": whole["usage"]})));
        Cut { whole, chunks }
    })
}

/// Puts a stream together as the official clients do (`lib/streaming/_messages.py`), insisting on order.
fn put_together(events: &[Value]) -> Value {
    let (start, rest) = events.split_first().unwrap();
    assert_eq!(start["type"], "message_start");
    let mut message = start["message"].clone();
    let (mut open, mut arguments) = (None, String::new());
    for (number, event) in rest.iter().enumerate() {
        let index = event["index"].as_u64().unwrap_or_default() as usize;
        match event["type"].as_str().unwrap() {
            "content_block_start" => {
                let content = message["content"].as_array_mut().unwrap();
                assert_eq!((open, index), (None, content.len()));
                content.push(event["content_block"].clone());
                open = Some(index);
            }
            "content_block_delta" => {
                assert_eq!(open, Some(index));
                let block = &mut message["content"][index];
                for (field, value) in event["delta"].as_object().unwrap() {
                    match (field.as_str(), value.as_str().unwrap()) {
                        ("type", _) => {}
                        ("partial_json", piece) => arguments.push_str(piece),
                        (field, piece) => {
                            block[field] = json!(block[field].as_str().unwrap().to_owned() + piece);
                        }
                    }
                }
            }
            "content_block_stop" => {
                assert_eq!(open.take(), Some(index));
                let arguments = std::mem::take(&mut arguments);
                if !arguments.is_empty() {
                    message["content"][index]["input"] = serde_json::from_str(&arguments).unwrap();
                }
            }
            "message_delta" => {
                assert_eq!(open, None);
                for (field, value) in event["delta"].as_object().unwrap() {
                    message[field] = value.clone();
                }
                message["usage"] = event["usage"].clone();
            }
            "message_stop" => assert_eq!(number, rest.len() - 1),
            other => panic!("{other}"),
        }
    }
    assert_eq!(rest.last().unwrap()["type"], "message_stop");
    message
}

proptest! {
    #[test]
    fn a_chat_keeps_all_that_both_sides_know(turns in turns()) {
        let chat = asked(json!({"messages": as_anthropic(&turns)})).messages;
        prop_assert_eq!(format!("{:?}", from_chat(&chat)), format!("{turns:?}"));
    }

    #[test]
    fn a_stream_put_together_is_the_whole_answer(answer in answers()) {
        let fields = json!({"stop_sequences": ["END"]});
        let whole = whole(fields.clone(), &answer.whole);
        let mut streaming = fields;
        streaming["stream"] = json!(true);
        let events = events(&mut exchange(streaming).unwrap(), &answer.chunks);
        prop_assert_eq!(put_together(&events), whole);
    }

    #[test]
    fn an_answer_that_is_sent_back_is_what_the_model_said(answer in answers()) {
        let message = &answer.whole["choices"][0]["message"];
        for display in ["summarized", "omitted"] {
            let thinking = json!({"thinking": {"type": "adaptive", "display": display}});
            let content = &whole(thinking, &answer.whole)["content"];
            let chat = asked(json!({"messages": [
                {"role": "user", "content": "Go"},
                {"role": "assistant", "content": content},
                {"role": "user", "content": "On"},
            ]}));
            let back = &chat.messages[1];
            prop_assert_eq!(back.content.as_deref().unwrap_or_default(), &message["content"]);
            prop_assert_eq!(back.reasoning_content.as_deref().unwrap_or_default(), &message["reasoning_content"]);
            let calls = serde_json::to_value(&back.tool_calls).unwrap();
            prop_assert_eq!(&calls, &message["tool_calls"]);
        }
    }

    #[test]
    fn no_body_panics(body in "[\\[\\]{}\":,a-z0-9]{0,60}") {
        let _ = super::super::messages(body.as_bytes());
        let _ = super::super::count_tokens(body.as_bytes());
    }

    #[test]
    fn no_event_panics(events in prop::collection::vec("[\\[\\]{}\":,a-z0-9]{0,40}", 0..5)) {
        let mut exchange = exchange(json!({"stream": true})).unwrap();
        let mut out = Vec::new();
        for event in events {
            exchange.answer.event(event.as_bytes(), &mut out);
        }
        exchange.answer.end(&mut out);
        let events = read(&out);
        prop_assert_eq!(&events.last().unwrap()["type"], "error");
    }
}
