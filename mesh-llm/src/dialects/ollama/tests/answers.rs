//! Answers, in one piece and as streams.

use super::super::answer::{Reply, Shape, Source};
use super::*;
use crate::dialects::Answer;
use proptest::prelude::*;
use serde_json::json;

fn reply(shape: Shape, source: Source) -> Reply {
    Reply::new("tiny:latest".to_owned(), shape, source, true)
}

fn lines(bytes: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(bytes).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines().map(|line| read(line.as_bytes())).collect()
}

/// The lines that come of a stream's events.
fn stream(mut reply: Reply, events: &[Value]) -> Vec<Value> {
    let mut out = Vec::new();
    for event in events {
        reply.event(&body(event), &mut out);
    }
    reply.end(&mut out);
    lines(&out)
}

fn event(delta: Value, finish: Option<&str>) -> Value {
    json!({
        "id": "chatcmpl-1", "created": 1_795_275_448, "model": "tiny",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    })
}

fn timings() -> Value {
    json!({"queued_ms": 0.5, "prompt_ms": 2.0, "predicted_ms": 10.25, "predicted_n": 4})
}

fn usage() -> Value {
    json!({"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13})
}

/// The last two events of a stream.
fn ending(finish: &str) -> [Value; 2] {
    let mut last = event(json!({}), Some(finish));
    last["timings"] = timings();
    let counts = json!({
        "id": "chatcmpl-1", "created": 1_795_275_448, "model": "tiny", "choices": [], "usage": usage(),
    });
    [last, counts]
}

fn completion(message: &Value, finish: &str) -> Value {
    json!({
        "id": "chatcmpl-1", "created": 1_795_275_448, "model": "tiny",
        "choices": [{"index": 0, "message": message, "finish_reason": finish, "logprobs": null}],
        "usage": usage(), "timings": timings(),
    })
}

fn end(reason: &str) -> Value {
    json!({
        "model": "tiny:latest", "created_at": "2026-11-21T15:37:28Z",
        "message": {"role": "assistant", "content": ""},
        "done": true, "done_reason": reason,
        "total_duration": 12_750_000, "load_duration": 500_000,
        "prompt_eval_count": 9, "prompt_eval_duration": 2_000_000,
        "eval_count": 4, "eval_duration": 10_250_000,
    })
}

#[test]
fn a_stream_is_a_line_for_each_piece_and_one_for_the_end() {
    let mut events = vec![
        event(json!({"role": "assistant", "content": ""}), None),
        event(json!({"reasoning_content": "Hm."}), None),
        event(json!({"content": "Hi"}), None),
        event(json!({"content": "!"}), None),
    ];
    events.extend(ending("stop"));
    let piece = |message: Value| {
        json!({
            "model": "tiny:latest", "created_at": "2026-11-21T15:37:28Z", "message": message, "done": false,
        })
    };
    assert_eq!(
        stream(reply(Shape::Chat, Source::Chat), &events),
        [
            piece(json!({"role": "assistant", "content": "", "thinking": "Hm."})),
            piece(json!({"role": "assistant", "content": "Hi"})),
            piece(json!({"role": "assistant", "content": "!"})),
            end("stop"),
        ]
    );
    let generated = stream(reply(Shape::Generate, Source::Chat), &events);
    assert_eq!(
        (&generated[0]["response"], &generated[0]["thinking"]),
        (&json!(""), &json!("Hm."))
    );
    assert_eq!(generated[1]["response"], "Hi");
    assert_eq!(generated[3]["response"], "");
    assert!(generated.iter().all(|line| line.get("message").is_none()));
}

#[test]
fn calls_come_whole() {
    let call = |index: usize, id: Option<&str>, name: Option<&str>, arguments: &str| {
        let function = json!({"name": name, "arguments": arguments});
        event(
            json!({"tool_calls": [{"index": index, "id": id, "function": function}]}),
            None,
        )
    };
    let mut events = vec![
        call(0, Some("a"), Some("time"), ""),
        call(0, None, None, "{\"city\":"),
        call(0, None, None, "\"Oslo\"}"),
        call(1, Some("b"), Some("stop"), ""),
    ];
    events.extend(ending("tool_calls"));
    let lines = stream(reply(Shape::Chat, Source::Chat), &events);
    let calls: Vec<&Value> = lines
        .iter()
        .filter_map(|line| line["message"].get("tool_calls"))
        .collect();
    assert_eq!(
        calls,
        [
            &json!([{"id": "a", "function": {"name": "time", "arguments": {"city": "Oslo"}}}]),
            &json!([{"id": "b", "function": {"name": "stop", "arguments": {}}}]),
        ]
    );
    assert_eq!(lines.last(), Some(&end("stop")));
}

#[test]
fn a_call_that_broke_off_is_words() {
    let call = json!({"id": "a", "type": "function", "function": {"name": "time", "arguments": "{\"ci"}});
    let message = json!({"role": "assistant", "content": "So: ", "tool_calls": [call]});
    let whole = reply(Shape::Chat, Source::Chat)
        .whole(&body(&completion(&message, "length")))
        .unwrap();
    let whole = read(&whole);
    assert_eq!(
        whole["message"],
        json!({"role": "assistant", "content": "So: time{\"ci"})
    );
    assert_eq!(whole["done_reason"], "length");
}

#[test]
fn a_text_s_continuation_is_a_response() {
    let choice = json!({
        "text": " you", "index": 0, "finish_reason": "length",
        "logprobs": {
            "tokens": [" you"], "token_logprobs": [-0.5], "top_logprobs": [{" you": -0.5, " me": -1.5}],
            "text_offset": [0],
        },
    });
    let answer =
        json!({"id": "cmpl-1", "created": 0, "model": "tiny", "choices": [choice], "usage": usage()});
    let whole = reply(Shape::Generate, Source::Text)
        .whole(&body(&answer))
        .unwrap();
    let whole = read(&whole);
    assert_eq!(whole["response"], " you");
    assert_eq!(
        whole["logprobs"],
        json!([{
            "token": " you", "logprob": -0.5,
            "top_logprobs": [{"token": " you", "logprob": -0.5}, {"token": " me", "logprob": -1.5}],
        }])
    );
    let lines = stream(reply(Shape::Generate, Source::Text), &[answer]);
    assert_eq!(
        (&lines[0]["response"], &lines[0]["done"]),
        (&json!(" you"), &json!(false))
    );
    assert_eq!(lines[1]["done_reason"], "length");
}

#[test]
fn likelihoods_are_handed_on() {
    let token = json!({"token": "Hi", "logprob": -0.25, "bytes": [72, 105], "top_logprobs": [
        {"token": "Hi", "logprob": -0.25, "bytes": [72, 105]},
    ]});
    let mut answer = completion(&json!({"role": "assistant", "content": "Hi"}), "stop");
    answer["choices"][0]["logprobs"] = json!({"content": [token], "refusal": null});
    let whole = reply(Shape::Chat, Source::Chat).whole(&body(&answer)).unwrap();
    assert_eq!(read(&whole)["logprobs"], json!([token]));
}

#[test]
fn an_error_is_a_stream_s_last_line() {
    let broken = json!({"error": {"message": "out of memory", "type": "server_error"}});
    for source in [Source::Chat, Source::Text] {
        let mut reply = reply(Shape::Chat, source);
        let mut out = Vec::new();
        reply.event(&body(&broken), &mut out);
        reply.event(&body(&event(json!({"content": "more"}), None)), &mut out);
        reply.keep_alive(&mut out);
        reply.broken(&Problem::engine("it crashed"), &mut out);
        reply.end(&mut out);
        assert_eq!(lines(&out), [json!({"error": "out of memory"})]);
    }
}

#[test]
fn an_answer_without_an_end_is_an_error() {
    let lines = stream(
        reply(Shape::Chat, Source::Chat),
        &[event(json!({"content": "Hi"}), None)],
    );
    assert!(lines[1]["error"].is_string() && lines.len() == 2);
    let problem = reply(Shape::Chat, Source::Chat).whole(b"<html>").unwrap_err();
    assert_eq!(problem.status, 500);
}

#[test]
fn signs_of_life_do_not_disturb() {
    let mut reply = reply(Shape::Chat, Source::Chat);
    let mut out = Vec::new();
    reply.keep_alive(&mut out);
    reply.keep_alive(&mut out);
    assert!(!out.is_empty());
    reply.event(&body(&event(json!({"content": "Hi"}), None)), &mut out);
    assert_eq!(lines(&out)[0]["message"]["content"], "Hi");
}

#[test]
fn vectors_are_handed_on() {
    let answer = json!({
        "data": [{"index": 0, "embedding": [0.5, 1.0]}, {"index": 1, "embedding": [1.0]}],
        "usage": {"prompt_tokens": 3, "total_tokens": 3},
    });
    let mut several = embed::exchange(br#"{"model":"m:latest","input":["a","b"]}"#)
        .unwrap()
        .answer;
    assert_eq!(
        read(&several.whole(&body(&answer)).unwrap()),
        json!({"model": "m:latest", "embeddings": [[0.5, 1.0], [1.0]], "prompt_eval_count": 3})
    );
    let mut one = embed::older_exchange(br#"{"model":"m","prompt":"a"}"#)
        .unwrap()
        .answer;
    assert_eq!(
        read(&one.whole(&body(&answer)).unwrap()),
        json!({"embedding": [0.5, 1.0]})
    );
    assert!(one.whole(br#"{"data":[],"usage":{"prompt_tokens":0}}"#).is_err());
}

/// Text in pieces of one to three characters.
fn pieces(text: &str, mut sizes: impl Iterator<Item = usize>) -> Vec<String> {
    let characters: Vec<char> = text.chars().collect();
    let (mut rest, mut pieces) = (&characters[..], Vec::new());
    while !rest.is_empty() {
        let (piece, more) = rest.split_at(sizes.next().unwrap_or(1).min(rest.len()));
        pieces.push(piece.iter().collect());
        rest = more;
    }
    pieces
}

proptest! {
    #[test]
    fn a_stream_adds_up_to_the_answer_in_one_piece(
        thought in ".{0,20}",
        content in ".{0,30}",
        calls in prop::collection::vec(("[a-z]{1,5}", prop_oneof![
            "\\{\"[a-z]{1,3}\":\"[a-z]{0,9}\"\\}", "\\{\\}", "", "\\{\"[a-z]{0,5}",
        ]), 0..4),
        sizes in prop::collection::vec(1usize..4, 1..20),
        cut in any::<bool>(),
        shape in prop::sample::select(vec![Shape::Chat, Shape::Generate]),
    ) {
        let finish = if cut { "length" } else if calls.is_empty() { "stop" } else { "tool_calls" };
        let mut sizes = sizes.into_iter().cycle();
        let mut events = vec![event(json!({"role": "assistant", "content": ""}), None)];
        events.extend(pieces(&thought, &mut sizes).iter().map(|it| event(json!({"reasoning_content": it}), None)));
        events.extend(pieces(&content, &mut sizes).iter().map(|it| event(json!({"content": it}), None)));
        let mut message = json!({"role": "assistant", "content": content, "reasoning_content": thought});
        let mut whole_calls = Vec::new();
        for (index, (name, arguments)) in calls.iter().enumerate() {
            let id = format!("call{index}");
            whole_calls.push(json!({
                "id": id, "type": "function", "function": {"name": name, "arguments": arguments},
            }));
            let first = json!({"index": index, "id": id, "function": {"name": name, "arguments": ""}});
            events.push(event(json!({"tool_calls": [first]}), None));
            for piece in pieces(arguments, &mut sizes) {
                let more = json!({"index": index, "function": {"arguments": piece}});
                events.push(event(json!({"tool_calls": [more]}), None));
            }
        }
        if !whole_calls.is_empty() {
            message["tool_calls"] = json!(whole_calls);
        }
        events.extend(ending(finish));

        let whole = reply(shape, Source::Chat).whole(&body(&completion(&message, finish))).unwrap();
        let mut whole = read(&whole);
        let lines = stream(reply(shape, Source::Chat), &events);
        let (last, lines) = lines.split_last().unwrap();
        prop_assert!(lines.iter().all(|line| line["done"] == false));
        let (at, text) = match shape {
            Shape::Chat => ("/message", "content"),
            Shape::Generate => ("", "response"),
        };
        let concat = |field: &str| -> String {
            lines.iter().filter_map(|line| line.pointer(at)?.get(field)?.as_str()).collect()
        };
        let said = whole.pointer(at).unwrap();
        prop_assert_eq!(concat(text), said[text].as_str().unwrap());
        prop_assert_eq!(concat("thinking"), said["thinking"].as_str().unwrap_or_default());
        let streamed: Vec<&Value> = lines
            .iter()
            .filter_map(|line| line.pointer(at)?.get("tool_calls")?.as_array())
            .flatten()
            .collect();
        let at_once: Vec<&Value> = said.get("tool_calls").and_then(Value::as_array).into_iter().flatten().collect();
        prop_assert_eq!(streamed, at_once);
        // What is left is the end, which is the same.
        match shape {
            Shape::Chat => whole["message"] = last["message"].clone(),
            Shape::Generate => {
                whole["response"] = json!("");
                whole.as_object_mut().unwrap().shift_remove("thinking");
            }
        }
        prop_assert_eq!(&whole, last);
    }
}
