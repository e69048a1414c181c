//! Any request, to the engine and back.

use super::*;
use llama_engine::server::api;
use proptest::prelude::*;
use serde_json::{Map, json};

/// A request of Ollama's, read back from what the engine is asked.
fn back(request: &Value) -> Value {
    let mut back = json!({
        "model": request["model"],
        "stream": request["stream"],
        "messages": request["messages"].as_array().unwrap().iter().map(message_back).collect::<Vec<_>>(),
        "options": {},
    });
    for name in [
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "typical_p",
        "repeat_last_n",
        "repeat_penalty",
        "presence_penalty",
        "frequency_penalty",
        "seed",
        "stop",
    ] {
        if let Some(value) = request.get(name) {
            back["options"][name] = value.clone();
        }
    }
    if let Some(limit) = request.get("max_completion_tokens") {
        back["options"]["num_predict"] = limit.clone();
    }
    match (request.get("reasoning_effort"), request.get("enable_thinking")) {
        (Some(effort), _) => back["think"] = effort.clone(),
        (None, Some(enable)) => back["think"] = enable.clone(),
        (None, None) => {}
    }
    match request.get("response_format") {
        Some(format) if format["type"] == "json_object" => back["format"] = json!("json"),
        Some(format) => back["format"] = format["json_schema"]["schema"].clone(),
        None => {}
    }
    if let Some(tools) = request.get("tools") {
        back["tools"] = tools.clone();
    }
    if request.get("logprobs").is_some() {
        back["logprobs"] = json!(true);
        back["top_logprobs"] = request["top_logprobs"].clone();
    }
    back
}

fn message_back(message: &Value) -> Value {
    let mut back = Map::new();
    for (engine, ollama) in [
        ("role", "role"),
        ("content", "content"),
        ("reasoning_content", "thinking"),
        ("tool_call_id", "tool_call_id"),
        ("name", "tool_name"),
    ] {
        if let Some(value) = message.get(engine).filter(|value| !value.is_null()) {
            back.insert(ollama.to_owned(), value.clone());
        }
    }
    if let Some(calls) = message.get("tool_calls") {
        let calls = calls.as_array().unwrap().iter().map(|call| {
            let arguments = read(call["function"]["arguments"].as_str().unwrap().as_bytes());
            json!({"id": call["id"], "function": {"name": call["function"]["name"], "arguments": arguments}})
        });
        back.insert("tool_calls".to_owned(), calls.collect());
    }
    Value::Object(back)
}

fn any_json_object() -> impl Strategy<Value = Value> {
    prop::collection::btree_map(
        "[a-z]{1,4}",
        prop_oneof![
            any::<i32>().prop_map(|n| json!(n)),
            ".{0,6}".prop_map(|s| json!(s))
        ],
        0..3,
    )
    .prop_map(|map| json!(map))
}

fn any_message() -> impl Strategy<Value = Value> {
    let said = (
        ".{0,12}",
        prop::sample::select(vec!["system", "user", "assistant"]),
    )
        .prop_map(|(content, role)| json!({"role": role, "content": content}));
    let thought = (".{0,12}", ".{1,12}").prop_map(
        |(content, thinking)| json!({"role": "assistant", "content": content, "thinking": thinking}),
    );
    let called = ("[a-z]{1,6}", any_json_object(), ".{1,6}").prop_map(|(name, arguments, result)| {
        json!([
            {"role": "assistant", "tool_calls": [{"id": "x", "function": {"name": name, "arguments": arguments}}]},
            {"role": "tool", "content": result, "tool_name": name, "tool_call_id": "x"},
        ])
    });
    prop_oneof![said, thought, called]
}

fn maybe(value: impl Strategy<Value = Value>) -> impl Strategy<Value = Option<Value>> {
    prop::option::of(value)
}

prop_compose! {
    fn any_request()(
        messages in prop::collection::vec(any_message(), 1..5),
        stream in any::<bool>(),
        options in (
            maybe((0..128).prop_map(|n| json!(f64::from(n) / 64.0))),
            maybe((0..100).prop_map(|n| json!(n))),
            maybe(any::<i64>().prop_map(|n| json!(n))),
            maybe((1..=u32::MAX).prop_map(|n| json!(n))),
            maybe(prop::collection::vec(".{1,4}", 1..4).prop_map(|stops| json!(stops))),
        ),
        think in maybe(prop::sample::select(vec![json!(true), json!(false), json!("low"), json!("high")])),
        format in maybe(prop_oneof![Just(json!("json")), any_json_object()]),
        tool in maybe((any_json_object(), "[a-z]{1,6}").prop_map(|(parameters, name)| json!([
            {"type": "function", "function": {"name": name, "description": "d", "parameters": parameters}}
        ]))),
        top in maybe((0..20).prop_map(|n| json!(n))),
    ) -> Value {
        let flat = messages.into_iter().flat_map(|message| match message {
            Value::Array(several) => several,
            one => vec![one],
        });
        let mut request = json!({
            "model": "m", "stream": stream, "messages": flat.collect::<Vec<_>>(), "options": {},
        });
        let (temperature, top_k, seed, limit, stop) = options;
        for (name, value) in [
            ("temperature", temperature),
            ("top_k", top_k),
            ("seed", seed),
            ("num_predict", limit),
            ("stop", stop),
        ] {
            if let Some(value) = value {
                request["options"][name] = value;
            }
        }
        for (name, value) in [("think", think), ("format", format), ("tools", tool)] {
            if let Some(value) = value {
                request[name] = value;
            }
        }
        if let Some(top) = top {
            request["logprobs"] = json!(true);
            request["top_logprobs"] = top;
        }
        request
    }
}

proptest! {
    #[test]
    fn nothing_that_both_sides_know_is_lost(request in any_request()) {
        prop_assert_eq!(back(&chat(&request)), request);
    }

    #[test]
    fn what_the_engine_is_asked_it_takes(request in any_request()) {
        let asked = text(chat::asked(&body(&request)));
        let taken = api::chat::parse(&asked.body);
        prop_assert!(taken.is_ok(), "{:?}", taken);
    }

    #[test]
    fn no_body_is_too_odd(odd in ".{0,40}") {
        let _ = chat::asked(odd.as_bytes());
        let _ = generate::asked(odd.as_bytes());
        let _ = embed::exchange(odd.as_bytes());
    }
}
