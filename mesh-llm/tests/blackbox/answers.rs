//! Answers and their forms, as far as the official clients do not prove them (`tests/python`).

use std::collections::BTreeMap;

use llama_engine::gguf::random::Architecture;
use serde_json::{Value, json};

use crate::harness::{Daemon, Kind, Start, model};
use crate::starting::chat;

fn with(mut request: Value, more: Value) -> Value {
    request
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    request
}

#[test]
fn several_choices_of_one_prompt_differ_and_are_counted_together() {
    let daemon = Start::model(model(Kind::Endless)).ready();
    let request = with(
        chat("Hello!"),
        json!({"n": 3, "max_tokens": 12, "temperature": 1, "seed": 1}),
    );
    let answer = daemon.post("/v1/chat/completions", &request).ok();
    let choices = answer["choices"].as_array().unwrap();
    let mut texts: Vec<&str> = choices
        .iter()
        .map(|choice| choice["message"]["content"].as_str().unwrap())
        .collect();
    assert_eq!(
        choices
            .iter()
            .map(|choice| choice["index"].as_u64().unwrap())
            .collect::<Vec<_>>(),
        [0, 1, 2]
    );
    assert_eq!(answer["usage"]["completion_tokens"], 36);
    texts.sort_unstable();
    texts.dedup();
    assert_eq!(texts.len(), 3, "{texts:?}");
}

#[test]
fn a_stop_text_ends_an_answer_and_is_not_part_of_it() {
    let daemon = Start::model("tiny").ready();
    let request = with(
        chat("Tell me a story."),
        json!({"temperature": 0, "max_tokens": 60}),
    );
    let whole = daemon.post("/v1/chat/completions", &request).ok();
    let whole = whole["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(whole.chars().count() > 40, "{whole}");
    // From the middle of a word to the middle of another.
    let middle: String = whole.chars().skip(20).take(9).collect();
    let stopped = with(request, json!({"stop": [middle, "never to be seen"]}));
    let expected = whole.split_once(&middle).unwrap().0;
    let answer = daemon.post("/v1/chat/completions", &stopped).ok();
    assert_eq!(answer["choices"][0]["message"]["content"], expected);
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    let streamed = daemon.stream("/v1/chat/completions", &stopped).outcome();
    assert_eq!(
        (streamed.text.as_str(), streamed.finish_reason.as_deref()),
        (expected, Some("stop"))
    );
}

#[test]
fn a_seed_gives_the_same_answer_again_and_another_seed_does_not() {
    let daemon = Start::model(model(Kind::Endless)).flag("--parallel", "1").ready();
    let text = |seed: u32| {
        let request = json!({"prompt": "Once", "max_tokens": 24, "temperature": 1, "seed": seed});
        daemon.post("/v1/completions", &request).ok()["choices"][0]["text"].clone()
    };
    assert_eq!(text(1), text(1));
    assert_ne!(text(1), text(2));
}

#[test]
fn a_stream_says_the_same_as_the_whole_answer() {
    let daemon = Start::model("tiny").ready();
    let request = with(
        chat("Tell me a story."),
        json!({"temperature": 0, "max_tokens": 80}),
    );
    let whole = daemon.post("/v1/chat/completions", &request).ok();
    let request = with(request, json!({"stream_options": {"include_usage": true}}));
    let streamed = daemon.stream("/v1/chat/completions", &request).outcome();
    assert!(streamed.done);
    assert_eq!(
        streamed.text,
        whole["choices"][0]["message"]["content"].as_str().unwrap()
    );
    assert_eq!(
        streamed.finish_reason.as_deref(),
        whole["choices"][0]["finish_reason"].as_str()
    );
    assert_eq!(
        streamed.usage().unwrap()["total_tokens"],
        whole["usage"]["total_tokens"]
    );
}

fn tools() -> Value {
    let tool = |name: &str, parameter: &str| {
        json!({"type": "function", "function": {
            "name": name,
            "description": format!("Looks up by {parameter}."),
            "parameters": {
                "type": "object",
                "properties": {parameter: {"type": "string"}, "days": {"type": "integer"}},
                "required": [parameter],
            },
        }})
    };
    json!([tool("get_weather", "city"), tool("find_person", "name")])
}

/// Puts a stream's tool calls together by index, as clients do.
fn assembled(events: &[Value]) -> Vec<Value> {
    let mut calls: BTreeMap<u64, (String, String, String)> = BTreeMap::new();
    for delta in events
        .iter()
        .filter_map(|event| event["choices"][0]["delta"]["tool_calls"].as_array())
        .flatten()
    {
        let call = calls.entry(delta["index"].as_u64().unwrap()).or_default();
        let add = |to: &mut String, value: &Value| to.push_str(value.as_str().unwrap_or(""));
        add(&mut call.0, &delta["id"]);
        add(&mut call.1, &delta["function"]["name"]);
        add(&mut call.2, &delta["function"]["arguments"]);
    }
    calls
        .into_values()
        .map(|(id, name, arguments)| json!({"id": id, "name": name, "arguments": arguments}))
        .collect()
}

fn tool_calls_are_the_same(daemon: &Daemon, more: Value) {
    let request = with(
        chat("What is the weather in Paris?"),
        json!({"tools": tools(), "temperature": 0, "seed": 1}),
    );
    let request = with(request, more);
    let whole = daemon.post("/v1/chat/completions", &request).ok();
    let calls = whole["choices"][0]["message"]["tool_calls"]
        .as_array()
        .unwrap_or_else(|| panic!("no call in {whole}"));
    let streamed = daemon.stream("/v1/chat/completions", &request).outcome();
    let assembled = assembled(&streamed.events);
    assert_eq!(assembled.len(), calls.len(), "{:#?}", streamed.events);
    for (streamed, call) in assembled.iter().zip(calls) {
        assert_eq!(streamed["name"], call["function"]["name"]);
        assert_eq!(streamed["arguments"], call["function"]["arguments"]);
        assert!(!streamed["id"].as_str().unwrap().is_empty());
        let arguments: Value = serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
        assert!(arguments.is_object(), "{call}");
    }
    assert_eq!(
        streamed.finish_reason.as_deref(),
        whole["choices"][0]["finish_reason"].as_str()
    );
}

#[test]
fn a_tool_call_that_comes_in_pieces_is_the_whole_one() {
    let daemon = Start::model("tiny").ready();
    tool_calls_are_the_same(&daemon, json!({"tool_choice": "auto"}));
    tool_calls_are_the_same(&daemon, json!({"tool_choice": "required"}));
    let named = json!({"tool_choice": {"type": "function", "function": {"name": "find_person"}}});
    tool_calls_are_the_same(&daemon, named);
}

#[test]
fn a_model_for_embeddings_makes_vectors_and_says_that_it_cannot_chat() {
    let daemon = Start::model(model(Kind::Of(Architecture::Bert))).ready();
    let texts = json!({"model": "bert", "input": ["one text", "another text", "one text"]});
    let answer = daemon.post("/v1/embeddings", &texts).ok();
    let vector = |index: usize| -> Vec<f64> {
        assert_eq!(answer["data"][index]["index"], index);
        serde_json::from_value(answer["data"][index]["embedding"].clone()).unwrap()
    };
    let length: f64 = vector(0).iter().map(|number| number * number).sum();
    assert!((length.sqrt() - 1.0).abs() < 1e-3, "{length}");
    let same = vector(0).iter().zip(vector(2)).all(|(a, b)| (a - b).abs() < 1e-4);
    assert!(same && vector(0) != vector(1));
    let error = daemon.post("/v1/chat/completions", &chat("Hello!")).error(400);
    assert!(
        error["message"].as_str().unwrap().contains("embedding"),
        "{error}"
    );
}

#[test]
fn a_model_for_text_makes_embeddings_beside_a_running_answer() {
    let daemon = Start::model("tiny").ready();
    let mut stream = daemon.stream("/v1/completions", &crate::crashes::endless("Once"));
    stream.next_text();
    let answer = daemon.post("/v1/embeddings", &json!({"input": "one text"})).ok();
    assert!(
        answer["data"][0]["embedding"]
            .as_array()
            .is_some_and(|vector| !vector.is_empty())
    );
}
