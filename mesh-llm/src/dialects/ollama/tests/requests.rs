//! Requests.

use super::*;
use crate::dialects::Form;
use serde_json::json;

/// The field that a request is refused for.
fn refused(asked: Result<Asked, Problem>) -> (u16, String) {
    let problem = asked.unwrap_err();
    let param = problem.param.unwrap();
    assert!(
        problem.message.contains(&param),
        "{} does not name {param}",
        problem.message
    );
    (problem.status, param)
}

#[test]
fn a_chat_is_the_engine_s() {
    let request = json!({
        "model": "tiny:latest",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hello", "images": []},
            {"role": "assistant", "content": "Hi", "thinking": "A greeting."},
        ],
        "options": {"temperature": 0.5, "num_predict": 7, "num_ctx": 65536, "stop": ["a", "b"], "seed": 3},
        "think": "high",
        "keep_alive": "5m",
        "format": "json",
    });
    assert_eq!(
        chat(&request),
        json!({
            "model": "tiny",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Hello"},
                {"role": "assistant", "content": "Hi", "reasoning_content": "A greeting."},
            ],
            "response_format": {"type": "json_object"},
            "reasoning_effort": "high",
            "enable_thinking": true,
            "max_completion_tokens": 7,
            "stop": ["a", "b"],
            "stream": true,
            "stream_options": {"include_usage": true},
            "temperature": 0.5,
            "seed": 3,
        })
    );
}

#[test]
fn a_stream_is_what_silence_asks_for() {
    let form = |stream: Value| {
        let request = json!({"model": "m", "prompt": "a", "stream": stream});
        text(generate::asked(&body(&request))).form
    };
    assert_eq!(form(Value::Null), Form::Stream);
    assert_eq!(form(json!(true)), Form::Stream);
    assert_eq!(form(json!(false)), Form::Whole);
}

#[test]
fn results_find_their_calls() {
    let call = |name: &str| json!({"function": {"name": name, "arguments": {"city": "Paris"}}});
    let request = json!({"model": "m", "messages": [
        {"role": "assistant", "tool_calls": [call("time"), call("sky")]},
        {"role": "tool", "content": "sunny", "tool_name": "sky"},
        {"role": "tool", "content": "noon"},
        {"role": "assistant", "content": "", "tool_calls": [{"id": "own", "function": {"name": "sky"}}]},
        {"role": "tool", "content": "rain", "tool_call_id": "own"},
    ]});
    let request = chat(&request);
    let messages = request["messages"].as_array().unwrap();
    let ids: Vec<&Value> = [&messages[0]["tool_calls"], &messages[3]["tool_calls"]]
        .into_iter()
        .flat_map(|calls| calls.as_array().unwrap())
        .map(|call| &call["id"])
        .collect();
    assert_eq!(ids, ["call_0", "call_1", "own"]);
    assert_eq!(
        messages[0]["tool_calls"][0]["function"],
        json!({"name": "time", "arguments": r#"{"city":"Paris"}"#})
    );
    assert_eq!(messages[3]["tool_calls"][0]["function"]["arguments"], "{}");
    for (message, id, name) in [(1, "call_1", "sky"), (2, "call_0", "time"), (4, "own", "sky")] {
        assert_eq!(messages[message]["tool_call_id"], id);
        assert_eq!(messages[message]["name"], name);
    }
}

#[test]
fn no_limit_is_written_in_many_ways() {
    for limit in [-2, -1, 0] {
        let options = json!({"num_predict": limit});
        let request = json!({"model": "m", "messages": [{"role": "user"}], "options": options});
        assert_eq!(chat(&request).get("max_completion_tokens"), None);
        let raw = json!({"model": "m", "prompt": "a", "raw": true, "options": options});
        assert_eq!(generate(&raw).1["n_predict"], -1);
    }
}

#[test]
fn a_prompt_is_a_chat_unless_it_is_raw() {
    let (path, request) = generate(&json!({"model": "m", "prompt": "Hi", "system": "Be brief."}));
    assert_eq!(path, "/v1/chat/completions");
    assert_eq!(
        request["messages"],
        json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}])
    );
    let (path, request) = generate(&json!({
        "model": "m:latest", "prompt": "Hi", "raw": true, "stream": false, "format": {"type": "string"},
        "options": {"top_k": 1, "num_predict": 5}, "logprobs": true, "top_logprobs": 2, "think": false,
    }));
    assert_eq!(path, "/v1/completions");
    assert_eq!(
        request,
        json!({
            "model": "m", "prompt": "Hi", "n_predict": 5, "stop": [], "stream": false, "top_k": 1,
            "logprobs": 2,
            "response_format": {
                "type": "json_schema", "json_schema": {"name": "format", "schema": {"type": "string"}},
            },
        })
    );
    let (path, request) = generate(&json!({"model": "m", "prompt": "a", "suffix": "c"}));
    assert_eq!((path, &request["suffix"]), ("/v1/completions", &json!("c")));
}

#[test]
fn a_request_without_a_prompt_loads_the_model() {
    for asked in [
        chat::asked(br#"{"model":"m","messages":[]}"#),
        chat::asked(br#"{"model":"m","keep_alive":0}"#),
        generate::asked(br#"{"model":"m"}"#),
        generate::asked(br#"{"model":"m","prompt":""}"#),
    ] {
        assert!(matches!(asked.unwrap(), Asked::Load(_)));
    }
}

#[test]
fn what_cannot_be_honoured_is_named() {
    let with = |field: &str, value: Value| {
        let mut request =
            json!({"model": "m", "messages": [{"role": "user", "content": "a"}], "prompt": "a"});
        request[field] = value;
        body(&request)
    };
    let message = |message: Value| with("messages", json!([{"role": "user", "content": "a"}, message]));
    for (request, param) in [
        (with("model", json!("")), "model"),
        (with("model", json!(7)), "model"),
        (with("stream", json!("yes")), "stream"),
        (with("think", json!("very")), "think"),
        (with("think", json!(1)), "think"),
        (with("format", json!("xml")), "format"),
        (with("options", json!([])), "options"),
        (
            with("options", json!({"temperature": "hot"})),
            "options.temperature",
        ),
        (with("options", json!({"stop": [1]})), "options.stop[0]"),
        (with("options", json!({"mirostat": 2})), "options.mirostat"),
        (with("messages", json!({})), "messages"),
        (with("tools", json!([{"type": "function"}])), "tools[0].function"),
        (with("tools", json!([{"function": {}}])), "tools[0].function.name"),
        (message(json!({"content": "a"})), "messages[1].role"),
        (message(json!({"role": "robot"})), "messages[1].role"),
        (
            message(json!({"role": "user", "content": ["a"]})),
            "messages[1].content",
        ),
        (
            message(json!({"role": "user", "images": ["aGk="]})),
            "messages[1].images",
        ),
    ] {
        assert_eq!(refused(chat::asked(&request)), (400, param.to_owned()));
    }
    let raw =
        |field: &str, value: Value| body(&json!({"model": "m", "prompt": "a", "raw": true, field: value}));
    for (request, param) in [
        (with("prompt", json!(5)), "prompt"),
        (with("images", json!(["aGk="])), "images"),
        (with("template", json!("{{ .Prompt }}")), "template"),
        (with("context", json!([1, 2])), "context"),
        (raw("system", json!("Be brief.")), "system"),
        (raw("think", json!(true)), "think"),
    ] {
        assert_eq!(refused(generate::asked(&request)), (400, param.to_owned()));
    }
    let problem = chat::asked(b"{").unwrap_err();
    assert!(problem.message.contains("JSON"), "{}", problem.message);
}

#[test]
fn texts_are_embedded() {
    let ask = |request: Value| read(&embed::exchange(&body(&request)).unwrap().body);
    assert_eq!(
        ask(json!({"model": "m:latest", "input": "a", "options": {}, "keep_alive": 5})),
        json!({"model": "m", "input": ["a"], "truncate": true})
    );
    assert_eq!(
        ask(json!({"model": "m", "input": ["a", "b"], "truncate": false, "dimensions": 8})),
        json!({"model": "m", "input": ["a", "b"], "truncate": false, "dimensions": 8})
    );
    let older = embed::older_exchange(br#"{"model":"m","prompt":"a"}"#).unwrap();
    assert_eq!(
        read(&older.body),
        json!({"model": "m", "input": ["a"], "truncate": true})
    );
    for (request, param) in [
        (json!({"model": "m"}), "input"),
        (json!({"model": "m", "input": []}), "input"),
        (json!({"model": "m", "input": ["a", 5]}), "input[1]"),
        (
            json!({"model": "m", "input": "a", "dimensions": -1}),
            "dimensions",
        ),
    ] {
        let problem = embed::exchange(&body(&request)).unwrap_err();
        assert_eq!(problem.param.as_deref(), Some(param));
    }
}
