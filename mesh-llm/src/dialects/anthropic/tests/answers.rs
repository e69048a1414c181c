//! What clients are answered.

use super::*;

fn call(id: &str, arguments: &str) -> Value {
    json!({"id": id, "type": "function", "function": {"name": "f", "arguments": arguments}})
}

#[test]
fn an_answer_is_thoughts_then_text_then_calls() {
    let message = json!({
        "role": "assistant", "content": "Hi", "refusal": null, "reasoning_content": "hm",
        "tool_calls": [call("a", r#"{"z":1,"b":2}"#), call("b", "")],
    });
    let answer = whole(json!({}), &completion(message, "tool_calls", 5));
    assert_eq!(
        answer.to_string(),
        json!({
            "id": "msg_abc", "type": "message", "role": "assistant", "model": "tiny",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "sig_abc"},
                {"type": "text", "text": "Hi"},
                {"type": "tool_use", "id": "a", "name": "f", "input": {"z": 1, "b": 2}},
                {"type": "tool_use", "id": "b", "name": "f", "input": {}},
            ],
            "stop_reason": "tool_use", "stop_sequence": null,
            "usage": {
                "input_tokens": 10, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 20,
                "output_tokens": 5,
            },
        })
        .to_string()
    );
}

#[test]
fn why_an_answer_ended_is_told_apart() {
    let ended = |reason: &str, tokens: u64, word: Option<&str>| {
        let mut completion = completion(json!({"role": "assistant", "content": "Hi"}), reason, tokens);
        completion["choices"][0]["stopping_word"] = json!(word);
        let answer = whole(json!({"stop_sequences": ["END"]}), &completion);
        (answer["stop_reason"].clone(), answer["stop_sequence"].clone())
    };
    assert_eq!(ended("stop", 5, None), (json!("end_turn"), Value::Null));
    assert_eq!(
        ended("stop", 5, Some("END")),
        (json!("stop_sequence"), json!("END"))
    );
    assert_eq!(ended("stop", 5, Some("</s>")), (json!("end_turn"), Value::Null));
    assert_eq!(
        ended("tool_calls", 5, Some("END")),
        (json!("tool_use"), Value::Null)
    );
    assert_eq!(ended("length", 100, None), (json!("max_tokens"), Value::Null));
    // Fewer tokens than allowed: the context was full.
    assert_eq!(
        ended("length", 99, None),
        (json!("model_context_window_exceeded"), Value::Null)
    );
}

#[test]
fn arguments_that_are_no_object_are_kept_as_they_are() {
    for arguments in [r#"{"city": "Par"#, "[1]", "rain"] {
        let message = json!({"role": "assistant", "content": null, "tool_calls": [call("a", arguments)]});
        let answer = whole(json!({}), &completion(message, "length", 100));
        assert_eq!(answer["content"][0]["input"], json!({"INVALID_JSON": arguments}));
    }
}

#[test]
fn a_thought_that_is_not_shown_comes_back_in_its_signature() {
    let thinking = json!({"thinking": {"type": "enabled", "display": "omitted"}});
    let message = json!({"role": "assistant", "content": "Hi", "reasoning_content": "hm"});
    let answer = whole(thinking.clone(), &completion(message, "stop", 5));
    assert_eq!(answer["content"][0]["thinking"], "");
    let mut streamed = thinking;
    streamed["stream"] = json!(true);
    let mut exchange = exchange(streamed).unwrap();
    let events = events(
        &mut exchange,
        &[
            first(),
            delta(json!({"reasoning_content": "h"})),
            delta(json!({"reasoning_content": "m"})),
            delta(json!({"content": "Hi"})),
            chunk(json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})),
            chunk(json!({"usage": {"prompt_tokens": 30, "completion_tokens": 5}})),
        ],
    );
    let signatures: Vec<&Value> = events
        .iter()
        .filter(|event| event["delta"]["type"] == "signature_delta")
        .map(|event| &event["delta"]["signature"])
        .collect();
    assert_eq!(signatures, [&answer["content"][0]["signature"]]);
    assert!(
        events
            .iter()
            .all(|event| event["delta"]["type"] != "thinking_delta")
    );
    let again = asked(json!({"messages": [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": answer["content"]},
        {"role": "user", "content": "And?"},
    ]}));
    assert_eq!(again.messages[1].reasoning_content.as_deref(), Some("hm"));
}

#[test]
fn a_stream_has_anthropic_s_events_in_their_order() {
    let mut exchange = exchange(json!({"stream": true, "stop_sequences": ["END"]})).unwrap();
    let events = events(
        &mut exchange,
        &[
            first(),
            delta(json!({"reasoning_content": "hm"})),
            delta(json!({"content": "Hi"})),
            delta(json!({"content": " you"})),
            delta(json!({"tool_calls": [
                {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "{"}},
            ]})),
            delta(json!({"tool_calls": [{"index": 0, "function": {"arguments": "}"}}]})),
            delta(json!({"tool_calls": [
                {"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": ""}},
            ]})),
            chunk(json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})),
            chunk(json!({"usage": {
                "prompt_tokens": 30, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 20},
            }})),
        ],
    );
    let usage = |output: u64| {
        json!({
            "input_tokens": 10, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 20,
            "output_tokens": output,
        })
    };
    let start = |index: usize, block: Value| json!({"type": "content_block_start", "index": index, "content_block": block});
    let more =
        |index: usize, delta: Value| json!({"type": "content_block_delta", "index": index, "delta": delta});
    let stop = |index: usize| json!({"type": "content_block_stop", "index": index});
    let expected = [
        json!({"type": "message_start", "message": {
            "id": "msg_abc", "type": "message", "role": "assistant", "model": "tiny", "content": [],
            "stop_reason": null, "stop_sequence": null, "usage": usage(0),
        }}),
        start(0, json!({"type": "thinking", "thinking": "", "signature": ""})),
        more(0, json!({"type": "thinking_delta", "thinking": "hm"})),
        more(0, json!({"type": "signature_delta", "signature": "sig_abc"})),
        stop(0),
        start(1, json!({"type": "text", "text": ""})),
        more(1, json!({"type": "text_delta", "text": "Hi"})),
        more(1, json!({"type": "text_delta", "text": " you"})),
        stop(1),
        start(
            2,
            json!({"type": "tool_use", "id": "a", "name": "f", "input": {}}),
        ),
        more(2, json!({"type": "input_json_delta", "partial_json": "{"})),
        more(2, json!({"type": "input_json_delta", "partial_json": "}"})),
        stop(2),
        start(
            3,
            json!({"type": "tool_use", "id": "b", "name": "g", "input": {}}),
        ),
        stop(3),
        json!({
            "type": "message_delta",
            "delta": {"stop_reason": "tool_use", "stop_sequence": null}, "usage": usage(5),
        }),
        json!({"type": "message_stop"}),
    ];
    assert_eq!(events, expected);
}

#[test]
fn a_sign_of_life_is_a_ping_until_the_end() {
    let mut exchange = exchange(json!({"stream": true})).unwrap();
    let mut out = Vec::new();
    exchange.answer.keep_alive(&mut out);
    assert_eq!(read(&out), [json!({"type": "ping"})]);
    exchange.answer.broken(&Problem::engine("x"), &mut out);
    let length = out.len();
    exchange.answer.keep_alive(&mut out);
    assert_eq!(out.len(), length);
}

#[test]
fn a_stream_that_breaks_off_ends_with_one_error() {
    let cases = ["engine_crashed", "node_lost"].map(|code| [(code, true), (code, false)]);
    for (code, by_event) in cases.into_iter().flatten() {
        let crashed = Problem {
            status: 503,
            code: Some(code.into()),
            ..Problem::engine("gone")
        };
        let from_engine = json!({"error": {"message": "gone", "type": "server_error", "code": code}});
        let mut exchange = exchange(json!({"stream": true})).unwrap();
        let mut out = Vec::new();
        exchange.answer.event(first().to_string().as_bytes(), &mut out);
        if by_event {
            exchange
                .answer
                .event(from_engine.to_string().as_bytes(), &mut out);
        }
        // The engine does not say that all was sent.
        exchange.answer.broken(&crashed, &mut out);
        exchange
            .answer
            .event(delta(json!({"content": "a"})).to_string().as_bytes(), &mut out);
        exchange.answer.end(&mut out);
        let events = read(&out);
        assert_eq!(events.len(), 2, "{events:?}");
        assert_eq!(
            events[1],
            json!({"type": "error", "error": {"type": "overloaded_error", "message": "gone"}})
        );
    }
}

#[test]
fn an_answer_of_which_the_end_is_missing_is_an_error() {
    let mut exchange = exchange(json!({"stream": true})).unwrap();
    let events = events(&mut exchange, &[first(), delta(json!({"content": "Hi"}))]);
    assert_eq!(events.last().unwrap()["error"]["type"], "api_error");
}

#[test]
fn an_answer_of_the_engine_that_cannot_be_read_is_its_fault() {
    let mut exchange = exchange(json!({})).unwrap();
    let mut none = completion(json!({}), "stop", 1);
    none["choices"] = json!([]);
    for answer in ["", "{}", &none.to_string()] {
        assert_eq!(exchange.answer.whole(answer.as_bytes()).unwrap_err().status, 500);
    }
}
