//! Requests that are taken, and requests that are not.

use super::*;
use crate::dialects::Answer;
use serde_json::json;

fn input(items: Value) -> Value {
    json!({"input": items})
}

#[test]
fn a_text_is_a_question_below_the_instructions() {
    let chat = chat(
        &json!({"model": "m", "input": "Hi", "instructions": "Be brief."}),
        &Known::default(),
    );
    assert_eq!(
        serde_json::to_value(chat).unwrap(),
        json!({"model": "m", "stream": false, "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
        ]})
    );
}

#[test]
fn what_the_model_did_in_one_go_is_one_message() {
    let items = json!([
        {"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "so"}]},
        {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
        {"type": "function_call", "call_id": "2", "name": "g", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": "x"},
        {"type": "function_call_output", "call_id": "2", "output": [{"type": "input_text", "text": "y"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
        {"type": "message", "role": "assistant", "content": "never"},
    ]);
    let chat = chat(&input(items), &Known::default());
    let call = |id: &str, name: &str| json!({"id": id, "type": "function", "function": {"name": name, "arguments": "{}"}});
    assert_eq!(
        serde_json::to_value(chat.messages).unwrap(),
        json!([
            {"role": "user", "content": "ab"},
            {"role": "assistant", "content": "so", "reasoning_content": "hm",
             "tool_calls": [call("1", "f"), call("2", "g")]},
            {"role": "tool", "content": "x", "tool_call_id": "1"},
            {"role": "tool", "content": "y", "tool_call_id": "2"},
            {"role": "assistant", "content": "no"},
            {"role": "assistant", "content": "never"},
        ])
    );
}

#[test]
fn thoughts_that_were_only_summed_up_are_better_than_none() {
    let summary = json!([{"type": "summary_text", "text": "a"}, {"type": "summary_text", "text": "b"}]);
    let items = json!([
        {"type": "reasoning", "id": "rs_1", "summary": summary, "encrypted_content": "x"},
        {"type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": "x"},
        {"role": "assistant", "content": "c"},
    ]);
    let messages = chat(&input(items), &Known::default()).messages;
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].reasoning_content.as_deref(), Some("a\n\nb"));
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name() {
    let image = json!([{"role": "user", "content": [
        {"type": "input_text", "text": "What is it?"},
        {"type": "input_image", "image_url": "data:image/png;base64,AA"},
    ]}]);
    let file = json!([{"type": "function_call_output", "call_id": "1", "output": [{"type": "input_file"}]}]);
    let tool = |kind: &str| json!({"input": "Hi", "tools": [{"type": kind}]});
    let mut cases = vec![
        (input(image), "input[0].content[1]"),
        (input(file), "input[0].output[0]"),
        (
            input(json!([{"type": "computer_call_output", "output": {}}])),
            "input[0].type",
        ),
        (json!({"input": "Hi", "background": true}), "background"),
        (json!({"input": "Hi", "conversation": "conv_1"}), "conversation"),
        (json!({"input": "Hi", "prompt": {"id": "pmpt_1"}}), "prompt"),
        (json!({"input": "Hi", "include": ["x"]}), "include[0]"),
        (
            json!({"input": "Hi", "reasoning": {"effort": "huge"}}),
            "reasoning.effort",
        ),
        (
            json!({"input": "Hi", "tool_choice": {"type": "web_search"}}),
            "tool_choice.type",
        ),
        (json!({"input": "Hi", "tool_choice": "any"}), "tool_choice"),
    ];
    for kind in [
        "web_search",
        "file_search",
        "computer",
        "mcp",
        "code_interpreter",
        "custom",
    ] {
        cases.push((tool(kind), "tools[0].type"));
    }
    for (body, param) in cases {
        let problem = refused(&body);
        assert_eq!(
            (problem.status, problem.param.as_deref()),
            (400, Some(param)),
            "{body}"
        );
        assert!(problem.message.contains(param), "{}", problem.message);
    }
}

#[test]
fn a_wrong_type_is_named_by_its_path() {
    for (body, param) in [
        (json!({}), "input"),
        (json!({"input": []}), "input"),
        (json!({"input": 5}), "input"),
        (json!({"input": [5]}), "input[0]"),
        (json!({"input": [{"role": "user"}]}), "input[0]"),
        (
            json!({"input": [{"role": "king", "content": "Hi"}]}),
            "input[0].role",
        ),
        (
            json!({"input": [{"role": "user", "content": 5}]}),
            "input[0].content",
        ),
        (
            json!({"input": [{"role": "user", "content": ["x"]}]}),
            "input[0].content[0]",
        ),
        (
            json!({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}),
            "input[0].content[0].text",
        ),
        (
            json!({"input": [{"type": "function_call", "call_id": 5}]}),
            "input[0].call_id",
        ),
        (json!({"input": "Hi", "temperature": "hot"}), "temperature"),
        (
            json!({"input": "Hi", "max_output_tokens": -1}),
            "max_output_tokens",
        ),
        (json!({"input": "Hi", "metadata": {"a": 5}}), "metadata.a"),
        (
            json!({"input": "Hi", "metadata": {"a": "x".repeat(513)}}),
            "metadata.a",
        ),
        (json!({"input": "Hi", "tools": [5]}), "tools[0]"),
        (
            json!({"input": "Hi", "tools": [{"type": "function"}]}),
            "tools[0]",
        ),
        (
            json!({"input": "Hi", "text": {"format": {"type": "xml"}}}),
            "text.format.type",
        ),
        (
            json!({"input": "Hi", "text": {"verbosity": "loud"}}),
            "text.verbosity",
        ),
        (json!({"input": "Hi", "truncation": "maybe"}), "truncation"),
        (json!({"input": "Hi", "top_logprobs": 21}), "top_logprobs"),
        (json!({"input": "Hi", "stream": "yes"}), "stream"),
    ] {
        let problem = refused(&body);
        let param = Some(param);
        assert_eq!(
            (problem.status, problem.param.as_deref()),
            (400, param),
            "{body}: {}",
            problem.message
        );
    }
}

#[test]
fn what_is_referred_to_must_be_known() {
    let previous = refused(&json!({"input": "Hi", "previous_response_id": "resp_1"}));
    assert_eq!(previous.status, 400);
    assert_eq!(previous.code.as_deref(), Some("previous_response_not_found"));
    let item = json!({"type": "item_reference", "id": "msg_1"});
    for item in [item, json!({"id": "msg_1"})] {
        let problem = refused(&input(json!([item])));
        assert_eq!(
            (problem.status, problem.param.as_deref()),
            (404, Some("input[0].id"))
        );
    }
}

#[test]
fn a_reference_stands_for_its_item() {
    let asked = ask(
        &input(json!([{"role": "user", "content": "Hi"}])),
        &Known::default(),
    )
    .unwrap();
    let item = asked.reply.turn().input.remove(0);
    let known = Known {
        items: HashMap::from([(item.id().to_owned(), item.clone())]),
        ..Known::default()
    };
    let body = input(json!([{"type": "item_reference", "id": item.id()}]));
    assert_eq!(
        chat(&body, &known).messages,
        [chat::Message::text(chat::Role::User, "Hi")]
    );
}

#[test]
fn a_completed_answer_has_openai_s_form() {
    let body = json!({"input": "Hi", "metadata": {"a": "b"}, "max_output_tokens": 9, "top_p": 0.5});
    let mut reply = ask(&body, &Known::default()).unwrap().reply;
    let completion = json!({
        "id": "chatcmpl-1", "created": 1, "model": "tiny",
        "choices": [{"message": {"role": "assistant", "content": "Ho"}, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 9, "prompt_tokens_details": {"cached_tokens": 3}},
    });
    let whole = reply.whole(completion.to_string().as_bytes()).unwrap();
    assert_eq!(
        serde_json::from_slice::<Value>(&whole).unwrap(),
        json!({
            "id": "resp_5eed", "object": "response", "created_at": 1_700_000_000, "status": "incomplete",
            "background": false, "error": null, "incomplete_details": {"reason": "max_output_tokens"},
            "model": "tiny",
            "output": [{
                "type": "message", "id": "msg_5eed0001", "role": "assistant", "status": "incomplete",
                "content": [{"type": "output_text", "text": "Ho", "annotations": [], "logprobs": []}],
            }],
            "usage": {
                "input_tokens": 7, "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 4},
                "output_tokens": 9, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 16,
            },
            "instructions": null, "max_output_tokens": 9, "max_tool_calls": null, "metadata": {"a": "b"},
            "parallel_tool_calls": true, "previous_response_id": null, "prompt_cache_key": null,
            "reasoning": {"effort": null, "summary": null}, "safety_identifier": null, "store": true,
            "temperature": null, "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": [],
            "top_logprobs": 0, "top_p": 0.5, "truncation": "disabled", "user": null,
        })
    );
}

#[test]
fn input_items_come_in_pages() {
    let items = json!([
        {"id": "a", "role": "user", "content": "1"},
        {"id": "b", "role": "user", "content": "2"},
        {"id": "c", "role": "user", "content": "3"},
    ]);
    let turn = ask(&input(items), &Known::default()).unwrap().reply.turn();
    let page = |query| {
        let page = Page::read(query)?.of(turn.input.iter().collect())?;
        let page: Value = serde_json::from_slice(&page).unwrap();
        let ids: Vec<String> = page["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["id"].to_string())
            .collect();
        Ok::<_, Problem>((ids.concat().replace('"', ""), page["has_more"] == true))
    };
    assert_eq!(page(None).unwrap(), ("cba".into(), false));
    assert_eq!(page(Some("order=asc&limit=2")).unwrap(), ("ab".into(), true));
    assert_eq!(
        page(Some("order=asc&limit=2&after=b")).unwrap(),
        ("c".into(), false)
    );
    assert_eq!(page(Some("limit=0")).unwrap_err().param.as_deref(), Some("limit"));
    assert_eq!(
        page(Some("order=up")).unwrap_err().param.as_deref(),
        Some("order")
    );
    assert_eq!(page(Some("after=x")).unwrap_err().param.as_deref(), Some("after"));
}
