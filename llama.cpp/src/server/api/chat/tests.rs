//! What the request's parser takes and what it refuses, by name.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::server::api::Status;

fn request(body: Value) -> Result<ChatCompletionRequest, ApiError> {
    parse(body.to_string().as_bytes())
}

/// A request that is right, with these fields on top.
fn with(fields: Value) -> Result<ChatCompletionRequest, ApiError> {
    let mut body = json!({"messages": [{"role": "user", "content": "Hi"}]});
    for (key, value) in fields.as_object().unwrap() {
        body[key] = value.clone();
    }
    request(body)
}

fn param(result: Result<ChatCompletionRequest, ApiError>) -> String {
    let error = result.unwrap_err();
    assert_eq!(error.status, Status::BadRequest);
    error
        .param
        .unwrap_or_else(|| panic!("no param: {}", error.message))
}

fn function(name: &str) -> Value {
    json!({"type": "function", "function": {"name": name, "parameters": {"type": "object"}}})
}

#[test]
fn a_message_is_enough() {
    let request = with(json!({})).unwrap();
    assert_eq!(request.messages.len(), 1);
    assert_eq!(request.tool_use, ToolUse::None);
    assert_eq!(request.generation.max_tokens, None);
    assert_eq!(request.reasoning, Reasoning::Split);
    assert!(request.add_generation_prompt);
}

#[test]
fn messages_reach_the_template_in_openais_form() {
    let messages = json!([
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": null, "reasoning_content": "hm", "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"x\":1}"}},
        ]},
        {"role": "tool", "content": "42", "tool_call_id": "1"},
    ]);
    let request = request(json!({"messages": messages})).unwrap();
    assert_eq!(serde_json::to_value(&request.messages).unwrap(), messages);
}

#[test]
fn arguments_may_be_an_object() {
    let request = request(json!({"messages": [{"role": "assistant", "tool_calls": [
        {"function": {"name": "f", "arguments": {"b": 1, "a": 2}}},
        {"function": {"name": "g"}},
    ]}]}))
    .unwrap();
    let arguments = |index: usize| &request.messages[0].tool_calls[index].arguments;
    assert_eq!(
        (arguments(0).as_str(), arguments(1).as_str()),
        (r#"{"b":1,"a":2}"#, "{}")
    );
}

#[test]
fn a_wrong_message_is_named_by_its_path() {
    let message = |message: Value| param(request(json!({"messages": [message]})));
    assert_eq!(param(request(json!({}))), "messages");
    assert_eq!(param(request(json!({"messages": []}))), "messages");
    assert_eq!(param(request(json!({"messages": "Hi"}))), "messages");
    assert_eq!(message(json!("Hi")), "messages[0]");
    assert_eq!(message(json!({"content": "Hi"})), "messages[0].role");
    assert_eq!(
        message(json!({"role": "robot", "content": "Hi"})),
        "messages[0].role"
    );
    assert_eq!(message(json!({"role": "user"})), "messages[0].content");
    assert_eq!(
        message(json!({"role": "user", "content": 5})),
        "messages[0].content"
    );
    assert_eq!(
        message(json!({"role": "user", "content": {"a": 1}})),
        "messages[0].content"
    );
    assert_eq!(
        message(json!({"role": "user", "content": ["Hi"]})),
        "messages[0].content[0]"
    );
    assert_eq!(
        message(json!({"role": "user", "content": [{}]})),
        "messages[0].content[0].type"
    );
    assert_eq!(
        message(json!({"role": "user", "content": [{"type": "text"}]})),
        "messages[0].content[0].text"
    );
    assert_eq!(message(json!({"role": "assistant"})), "messages[0].content");
    assert_eq!(
        message(json!({"role": "user", "content": "", "tool_calls": [{"function": {"name": "f"}}]})),
        "messages[0].tool_calls"
    );
    assert_eq!(
        message(json!({"role": "assistant", "tool_calls": [{"function": {}}]})),
        "messages[0].tool_calls[0].function.name"
    );
    assert_eq!(
        message(json!({"role": "assistant", "tool_calls": [{"type": "custom"}]})),
        "messages[0].tool_calls[0].type"
    );
    assert_eq!(
        message(json!({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": 5}}]})),
        "messages[0].tool_calls[0].function.arguments"
    );
}

#[test]
fn the_model_takes_text_only() {
    for kind in ["image_url", "input_audio", "file"] {
        let error = request(json!({"messages": [
            {"role": "system", "content": "x"},
            {"role": "user", "content": [{"type": "text", "text": "What is it?"}, {"type": kind}]},
        ]}))
        .unwrap_err();
        assert_eq!(error.param.as_deref(), Some("messages[1].content[1]"));
        assert_eq!(
            error.message,
            format!("messages[1].content[1] has the type {kind:?}, but the model takes text only")
        );
    }
}

#[test]
fn tool_choice_in_all_its_forms() {
    let tools = || json!([function("a"), function("b"), function("c")]);
    let choice = |choice: Value| {
        let request = with(json!({"tools": tools(), "tool_choice": choice})).unwrap();
        let names: Vec<_> = request
            .tools
            .iter()
            .map(|tool| tool.function.name.clone())
            .collect();
        (request.tool_use, names.concat())
    };
    let all = || "abc".to_owned();
    assert_eq!(choice(Value::Null), (ToolUse::Auto, all()));
    assert_eq!(choice(json!("auto")), (ToolUse::Auto, all()));
    assert_eq!(choice(json!("none")), (ToolUse::None, all()));
    assert_eq!(choice(json!("required")), (ToolUse::Required, all()));
    assert_eq!(
        choice(json!({"type": "function", "function": {"name": "b"}})),
        (ToolUse::Required, "b".to_owned())
    );
    let allowed = |mode: &str| {
        choice(
            json!({"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [
                {"type": "function", "function": {"name": "c"}},
                {"type": "function", "function": {"name": "a"}},
            ]}}),
        )
    };
    assert_eq!(allowed("auto"), (ToolUse::Auto, "ac".to_owned()));
    assert_eq!(allowed("required"), (ToolUse::Required, "ac".to_owned()));
}

#[test]
fn wrong_tools_are_named_by_their_path() {
    let tools = |tools: Value| param(with(json!({"tools": tools})));
    assert_eq!(tools(json!({})), "tools");
    assert_eq!(tools(json!([{}])), "tools[0].type");
    assert_eq!(tools(json!([{"type": "web_search"}])), "tools[0].type");
    assert_eq!(tools(json!([{"type": "function"}])), "tools[0].function");
    assert_eq!(
        tools(json!([{"type": "function", "function": {}}])),
        "tools[0].function.name"
    );
    assert_eq!(
        tools(json!([{"type": "function", "function": {"name": "a b"}}])),
        "tools[0].function.name"
    );
    assert_eq!(
        tools(json!([function("a"), {"type": "function", "function": {"name": "f", "parameters": []}}])),
        "tools[1].function.parameters"
    );
    let choice = |choice: Value| param(with(json!({"tools": [function("a")], "tool_choice": choice})));
    assert_eq!(choice(json!("sometimes")), "tool_choice");
    assert_eq!(choice(json!(5)), "tool_choice");
    assert_eq!(choice(json!({})), "tool_choice.type");
    assert_eq!(choice(json!({"type": "custom"})), "tool_choice.type");
    assert_eq!(choice(json!({"type": "function"})), "tool_choice.function");
    assert_eq!(
        choice(json!({"type": "function", "function": {"name": "z"}})),
        "tool_choice.function.name"
    );
    assert_eq!(
        choice(json!({"type": "allowed_tools", "allowed_tools": {"tools": []}})),
        "tool_choice.allowed_tools.mode"
    );
    assert_eq!(
        choice(
            json!({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [
                {"type": "function", "function": {"name": "z"}},
            ]}})
        ),
        "tool_choice.allowed_tools.tools[0].function.name"
    );
    assert_eq!(param(with(json!({"tool_choice": "required"}))), "tool_choice");
}

#[test]
fn a_tool_reaches_the_template_in_openais_form() {
    let tool = json!({"type": "function", "function": {
        "name": "f", "description": "d", "parameters": {"properties": {"z": {}, "a": {}}},
    }});
    let request = with(json!({"tools": [tool]})).unwrap();
    assert_eq!(
        serde_json::to_string(&request.tools[0]).unwrap(),
        tool.to_string()
    );
}

#[test]
fn a_grammar_and_tools_exclude_each_other() {
    let both = |choice: &str| {
        with(json!({"tools": [function("a")], "tool_choice": choice, "grammar": "root ::= \"a\""}))
    };
    assert_eq!(param(both("auto")), "grammar");
    assert!(both("none").is_ok());
}

#[test]
fn logprobs_come_with_up_to_20_alternatives() {
    let logprobs = |fields| with(fields).unwrap().logprobs;
    assert_eq!(logprobs(json!({})), None);
    assert_eq!(logprobs(json!({"logprobs": false, "top_logprobs": 0})), None);
    assert_eq!(logprobs(json!({"logprobs": true})), Some(0));
    assert_eq!(logprobs(json!({"logprobs": true, "top_logprobs": 20})), Some(20));
    assert_eq!(
        param(with(json!({"logprobs": true, "top_logprobs": 21}))),
        "top_logprobs"
    );
    assert_eq!(param(with(json!({"top_logprobs": 2}))), "top_logprobs");
    assert_eq!(param(with(json!({"logprobs": 5}))), "logprobs");
}

#[test]
fn thinking_is_switched_in_several_ways() {
    let thinking = |fields| {
        let request = with(fields).unwrap();
        (
            request.enable_thinking,
            request.template_kwargs.get("reasoning_effort").cloned(),
        )
    };
    assert_eq!(thinking(json!({})), (None, None));
    assert_eq!(thinking(json!({"enable_thinking": true})), (Some(true), None));
    assert_eq!(
        thinking(json!({"chat_template_kwargs": {"enable_thinking": false}})),
        (Some(false), None)
    );
    assert_eq!(thinking(json!({"reasoning_effort": "none"})), (Some(false), None));
    let both = with(json!({"enable_thinking": true, "chat_template_kwargs": {"enable_thinking": false}}));
    assert_eq!(both.unwrap().template_kwargs["enable_thinking"], true);
    assert_eq!(
        thinking(json!({"reasoning_effort": "low"})),
        (None, Some(json!("low")))
    );
    assert_eq!(
        with(json!({"reasoning_format": "none"})).unwrap().reasoning,
        Reasoning::Inline
    );
    assert_eq!(
        param(with(json!({"chat_template_kwargs": {"enable_thinking": "yes"}}))),
        "chat_template_kwargs.enable_thinking"
    );
    assert_eq!(
        param(with(json!({"reasoning_format": "xml"}))),
        "reasoning_format"
    );
    assert_eq!(
        param(with(json!({"chat_template_kwargs": []}))),
        "chat_template_kwargs"
    );
}

#[test]
fn what_is_deprecated_comes_with_a_remedy() {
    for (field, remedy) in [("functions", "tools"), ("function_call", "tool_choice")] {
        let error = with(json!({field: []})).unwrap_err();
        assert_eq!(error.param.as_deref(), Some(field));
        assert_eq!(error.code, ErrorCode::UnsupportedParameter);
        assert!(error.message.contains(remedy));
        assert!(with(json!({field: null})).is_ok());
    }
    assert_eq!(
        param(with(json!({"modalities": ["text", "audio"]}))),
        "modalities[1]"
    );
}

#[test]
fn what_is_unknown_is_ignored() {
    assert!(with(json!({"user": "me", "store": true, "metadata": {"a": [1]}, "zzz": null})).is_ok());
}

/// The fields of a request, and a value of a type that each refuses.
const FIELDS: &[(&str, &str)] = &[
    ("model", "[]"),
    ("messages", "5"),
    ("tools", "5"),
    ("tool_choice", "5"),
    ("parallel_tool_calls", "5"),
    ("reasoning_format", "5"),
    ("reasoning_effort", "5"),
    ("enable_thinking", "5"),
    ("chat_template_kwargs", "5"),
    ("add_generation_prompt", "5"),
    ("logprobs", "5"),
    ("top_logprobs", "[]"),
    ("prediction", "5"),
    ("return_progress", "5"),
    ("modalities", "5"),
    ("max_tokens", "[]"),
    ("max_completion_tokens", "[]"),
    ("n_predict", "[]"),
    ("n", "[]"),
    ("stop", "5"),
    ("stream", "5"),
    ("stream_options", "5"),
    ("seed", "[]"),
    ("temperature", "[]"),
    ("top_k", "[]"),
    ("top_p", "[]"),
    ("min_p", "[]"),
    ("typical_p", "[]"),
    ("repeat_last_n", "[]"),
    ("repeat_penalty", "[]"),
    ("frequency_penalty", "[]"),
    ("presence_penalty", "[]"),
    ("logit_bias", "5"),
    ("ignore_eos", "5"),
    ("response_format", "5"),
    ("json_schema", "5"),
    ("grammar", "5"),
];

#[test]
fn a_wrong_type_names_the_field_for_every_field() {
    for (field, wrong) in FIELDS {
        let wrong: Value = serde_json::from_str(wrong).unwrap();
        assert_eq!(param(with(json!({*field: wrong}))), *field);
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z_]{0,8}|\\PC{0,8}".prop_map(Value::from),
        prop::sample::select(vec!["user", "text", "function", "json_schema", "auto"]).prop_map(Value::from),
    ];
    let key = prop_oneof![
        prop::sample::select(vec![
            "role", "content", "type", "text", "function", "name", "schema"
        ])
        .prop_map(str::to_owned),
        "\\PC{0,4}",
    ];
    leaf.prop_recursive(4, 32, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::hash_map(key.clone(), inner, 0..6)
                .prop_map(|map| map.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    })
}

proptest! {
    #[test]
    fn any_value_in_any_field_is_taken_or_named(
        index in 0..FIELDS.len(),
        value in any_json(),
    ) {
        let field = FIELDS[index].0;
        if let Err(error) = with(json!({field: value})) {
            prop_assert_eq!(error.status, Status::BadRequest);
            let named = error.param.clone().unwrap_or_default();
            prop_assert!(named.starts_with(field), "{} is not in {}: {}", named, field, error);
        }
    }

    #[test]
    fn no_body_panics(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&body);
    }

    #[test]
    fn a_body_cut_anywhere_is_refused(cut in 0usize..60) {
        let body = br#"{"messages":[{"role":"user","content":"Hi"}],"temperature":1}"#;
        prop_assert_eq!(parse(&body[..cut]).unwrap_err().code, ErrorCode::InvalidJson);
    }
}
