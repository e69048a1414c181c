//! What the engine is asked.

use super::super::super::Form;
use super::super::super::chat::{Message, Role};
use super::*;

fn messages(messages: Value) -> Vec<Message> {
    asked(json!({"messages": messages})).messages
}

fn text(role: Role, text: &str) -> Message {
    Message::text(role, text)
}

#[test]
fn a_request_becomes_a_chat() {
    let request = asked(json!({
        "system": "Be kind.", "stop_sequences": ["END"], "temperature": 0.5, "top_p": 0.9, "top_k": 7,
        "metadata": {"user_id": "u"}, "service_tier": "auto", "context_management": {"edits": []},
        "zzz": 1,
    }));
    assert_eq!(request.model.as_deref(), Some("tiny"));
    assert_eq!(
        request.messages,
        [text(Role::System, "Be kind."), text(Role::User, "Hello")]
    );
    assert_eq!(request.max_completion_tokens, Some(100));
    assert_eq!(request.stop, ["END"]);
    assert_eq!(
        Value::Object(request.options),
        json!({"temperature": 0.5, "top_k": 7, "top_p": 0.9})
    );
    assert_eq!((request.stream, request.enable_thinking), (false, Some(false)));
}

#[test]
fn a_stream_reports_the_prompt_and_what_was_used() {
    let exchange = exchange(json!({"stream": true})).unwrap();
    assert_eq!(exchange.form, Form::Stream);
    assert_eq!(exchange.answer.content_type(), "text/event-stream");
    let request = asked(json!({"stream": true}));
    assert!(request.stream && request.stream_options.unwrap().include_usage);
    assert_eq!(request.options["return_progress"], true);
}

#[test]
fn instructions_may_come_in_blocks_and_lose_what_is_not_for_the_model() {
    let header = "x-anthropic-billing-header: cc_version=2.1; cch=1a2b3;";
    let system = |system: Value| asked(json!({"system": system})).messages[0].clone();
    let block = |text: &str| json!({"type": "text", "text": text, "cache_control": {"type": "ephemeral"}});
    let expected = text(Role::System, "One.\nTwo.");
    assert_eq!(system(json!([block("One."), block("Two.")])), expected);
    assert_eq!(
        system(json!([block(header), block("One."), block("Two.")])),
        expected
    );
    assert_eq!(system(json!(format!("{header}\nOne.\nTwo."))), expected);
    assert_eq!(system(json!([block(header)])), text(Role::User, "Hello"));
}

#[test]
fn results_of_tools_come_in_order_and_before_what_the_user_says() {
    let chat = messages(json!([
        {"role": "user", "content": "Go"},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "redacted_thinking", "data": "x"},
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "a", "name": "f", "input": {"z": 1, "b": [true]}},
            {"type": "tool_use", "id": "b", "name": "g", "input": {}},
        ]},
        {"role": "user", "content": [
            {"type": "text", "text": "And"},
            {"type": "tool_result", "tool_use_id": "a", "content": "rain"},
            {"type": "tool_result", "tool_use_id": "b", "is_error": true,
             "content": [{"type": "text", "text": "no"}, {"type": "text", "text": "way"}]},
            {"type": "tool_result", "tool_use_id": "c"},
            {"type": "text", "text": "go on"},
        ]},
    ]));
    let written = serde_json::to_value(&chat).unwrap();
    let call = |id: &str, name: &str, arguments: &str| json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
    assert_eq!(
        written,
        json!([
            {"role": "user", "content": "Go"},
            {"role": "assistant", "content": "I look.", "reasoning_content": "hm",
             "tool_calls": [call("a", "f", r#"{"z":1,"b":[true]}"#), call("b", "g", "{}")]},
            {"role": "tool", "content": "rain", "tool_call_id": "a"},
            {"role": "tool", "content": "Error: no\nway", "tool_call_id": "b"},
            {"role": "tool", "content": "", "tool_call_id": "c"},
            {"role": "user", "content": "And\ngo on"},
        ])
    );
}

#[test]
fn several_messages_of_one_role_are_one_turn() {
    let chat = messages(json!([
        {"role": "user", "content": "a"}, {"role": "user", "content": [{"type": "text", "text": "b"}]},
        {"role": "assistant", "content": "c"}, {"role": "assistant", "content": "d"},
        {"role": "system", "content": "s"}, {"role": "user", "content": "e"},
    ]));
    let expected = [
        text(Role::User, "a\nb"),
        text(Role::Assistant, "c\nd"),
        text(Role::User, "<system>\ns\n</system>\ne"),
    ];
    assert_eq!(chat, expected);
}

#[test]
fn instructions_at_the_beginning_of_the_chat_belong_to_the_others() {
    let request = asked(json!({"system": "a", "messages": [
        {"role": "system", "content": "b"},
        {"role": "user", "content": "c"},
        {"role": "system", "content": [{"type": "text", "text": "d"}]},
    ]}));
    let expected = [
        text(Role::System, "a\nb"),
        text(Role::User, "c\n<system>\nd\n</system>"),
    ];
    assert_eq!(request.messages, expected);
}

#[test]
fn tools_that_a_tool_found_are_named() {
    let found = json!({"type": "tool_reference", "tool_name": "WebFetch"});
    let result = json!({"type": "tool_result", "tool_use_id": "a", "content": [found]});
    let chat = messages(json!([{"role": "user", "content": [result]}]));
    assert_eq!(
        chat[0].content.as_deref(),
        Some("The tool WebFetch can be called now.")
    );
}

#[test]
fn thinking_is_on_when_asked_for() {
    for (thinking, expected) in [
        (json!({"type": "enabled", "budget_tokens": 2000}), true),
        (json!({"type": "adaptive", "display": "omitted"}), true),
        (json!({"type": "disabled"}), false),
        (Value::Null, false),
    ] {
        assert_eq!(
            asked(json!({"thinking": thinking})).enable_thinking,
            Some(expected)
        );
    }
}

#[test]
fn effort_is_for_the_template() {
    for (effort, expected) in [
        ("low", "low"),
        ("high", "high"),
        ("xhigh", "high"),
        ("max", "high"),
    ] {
        let request = asked(json!({"output_config": {"effort": effort}}));
        assert_eq!(request.reasoning_effort.as_deref(), Some(expected));
    }
}

#[test]
fn tools_are_functions_and_may_have_to_be_called() {
    let schema = json!({"type": "object", "properties": {"z": {}, "a": {}}});
    let tools = json!([
        {"name": "f", "description": "d", "input_schema": schema, "cache_control": {"type": "ephemeral"}},
        {"type": "custom", "name": "g", "input_schema": {"type": "object"}, "strict": true},
    ]);
    let request = |choice: Value| asked(json!({"tools": tools, "tool_choice": choice}));
    let plain = request(Value::Null);
    assert_eq!(
        serde_json::to_string(&plain.tools[0]).unwrap(),
        json!({"type": "function", "function": {"name": "f", "description": "d", "parameters": schema}})
            .to_string()
    );
    assert_eq!(plain.tools[1].function.strict, Some(true));
    assert_eq!((plain.tool_choice, plain.parallel_tool_calls), (None, None));
    for (choice, expected) in [
        (json!({"type": "auto"}), json!("auto")),
        (json!({"type": "any"}), json!("required")),
        (json!({"type": "none"}), json!("none")),
        (
            json!({"type": "tool", "name": "g"}),
            json!({"type": "function", "function": {"name": "g"}}),
        ),
    ] {
        assert_eq!(request(choice).tool_choice, Some(expected));
    }
    for disable in [true, false] {
        let request = request(json!({"type": "auto", "disable_parallel_tool_use": disable}));
        assert_eq!(request.parallel_tool_calls, Some(!disable));
    }
}

#[test]
fn a_schema_is_the_form_of_the_answer_by_either_name() {
    let schema = json!({"type": "object", "properties": {"a": {"type": "string"}}});
    let format = json!({"type": "json_schema", "schema": schema});
    for fields in [
        json!({"output_config": {"format": format}}),
        json!({"output_format": format}),
    ] {
        let given = asked(fields).response_format.unwrap();
        assert_eq!(given["json_schema"]["schema"], schema);
        assert_eq!(given["type"], "json_schema");
    }
}

#[test]
fn what_is_counted_is_what_would_be_run() {
    let fields = json!({
        "system": "s", "thinking": {"type": "adaptive"}, "tools": [{"name": "f", "input_schema": {}}],
        "tool_choice": {"type": "any"},
    });
    let run = asked(fields.clone());
    let mut body = hello(fields);
    body.as_object_mut().unwrap().remove("max_tokens");
    let mut counting = super::super::count_tokens(body.to_string().as_bytes()).unwrap();
    let counted: chat::Request = serde_json::from_slice(&counting.body).unwrap();
    assert_eq!(
        counted,
        chat::Request {
            max_completion_tokens: None,
            ..run
        }
    );
    assert_eq!(counting.path, "/v1/chat/completions/input_tokens");
    let answer = counting
        .answer
        .whole(br#"{"object":"chat.completion.input_tokens","input_tokens":12}"#);
    assert_eq!(answer.unwrap(), br#"{"input_tokens":12}"#);
    assert_eq!(counting.answer.whole(b"{}").unwrap_err().status, 500);
}

#[test]
fn what_is_wrong_or_cannot_be_done_is_named() {
    let says = |blocks: Value| json!({"messages": [{"role": "user", "content": blocks}]});
    let image = json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ""}});
    let result = json!({"type": "tool_result", "tool_use_id": "a", "content": [image]});
    for (fields, param) in [
        (json!({"max_tokens": null}), "max_tokens"),
        (json!({"max_tokens": 0}), "max_tokens"),
        (json!({"max_tokens": -1}), "max_tokens"),
        (json!({"model": null}), "model"),
        (json!({"messages": null}), "messages"),
        (json!({"messages": []}), "messages"),
        (json!({"messages": "Hello"}), "messages"),
        (json!({"messages": [{"role": "user"}]}), "messages[0].content"),
        (json!({"messages": [{"content": "a"}]}), "messages[0].role"),
        (
            json!({"messages": [{"role": "wizard", "content": "a"}]}),
            "messages[0].role",
        ),
        (
            json!({"messages": [{"role": "assistant", "content": "a"}]}),
            "messages",
        ),
        (says(json!(5)), "messages[0].content"),
        (says(json!([])), "messages[0].content"),
        (says(json!([{"type": "text"}])), "messages[0].content[0].text"),
        (
            says(json!([{"type": "text", "text": 5}])),
            "messages[0].content[0].text",
        ),
        (says(json!([{"text": "a"}])), "messages[0].content[0].type"),
        (
            says(json!([{"type": "text", "text": "a"}, image])),
            "messages[0].content[1].type",
        ),
        (says(json!([result])), "messages[0].content[0].content[0].type"),
        (
            says(json!([{"type": "document", "source": {}}])),
            "messages[0].content[0].type",
        ),
        (
            says(json!([{"type": "tool_use", "id": "a"}])),
            "messages[0].content[0].type",
        ),
        (
            says(json!([{"type": "tool_result"}])),
            "messages[0].content[0].tool_use_id",
        ),
        (json!({"system": [image]}), "system[0].type"),
        (json!({"system": 5}), "system"),
        (json!({"temperature": "hot"}), "temperature"),
        (json!({"stream": "yes"}), "stream"),
        (json!({"stop_sequences": "END"}), "stop_sequences"),
        (json!({"stop_sequences": ["a", 5]}), "stop_sequences[1]"),
        (json!({"thinking": {"type": "between_tools"}}), "thinking.type"),
        (json!({"thinking": {}}), "thinking.type"),
        (
            json!({"thinking": {"type": "enabled", "display": "loud"}}),
            "thinking.display",
        ),
        (json!({"tools": [{"input_schema": {}}]}), "tools[0].name"),
        (json!({"tools": [{"name": "f"}]}), "tools[0].input_schema"),
        (
            json!({"tools": [{"name": "f", "input_schema": []}]}),
            "tools[0].input_schema",
        ),
        (
            json!({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
            "tools[0].type",
        ),
        (json!({"tool_choice": {}}), "tool_choice.type"),
        (json!({"tool_choice": "auto"}), "tool_choice"),
        (json!({"tool_choice": {"type": "any"}}), "tool_choice.type"),
        (json!({"tool_choice": {"type": "some"}}), "tool_choice.type"),
        (json!({"tool_choice": {"type": "tool"}}), "tool_choice.name"),
        (
            json!({"tool_choice": {"type": "tool", "name": "f"}}),
            "tool_choice.name",
        ),
        (
            json!({"output_config": {"effort": "some"}}),
            "output_config.effort",
        ),
        (
            json!({"output_config": {"format": {"type": "xml"}}}),
            "output_config.format.type",
        ),
        (
            json!({"output_format": {"type": "json_schema"}}),
            "output_format.schema",
        ),
        (json!({"mcp_servers": [{"url": "x"}]}), "mcp_servers"),
        (json!({"container": "c"}), "container"),
    ] {
        assert_eq!(refused(fields.clone()), param, "{fields}");
    }
    assert!(exchange(json!({"mcp_servers": [], "container": null, "tools": null})).is_ok());
}

#[test]
fn what_is_no_json_object_is_refused() {
    for body in ["", "[]", "{", "5", "{} x"] {
        assert_eq!(
            super::super::messages(body.as_bytes()).unwrap_err().status,
            400,
            "{body}"
        );
    }
}
