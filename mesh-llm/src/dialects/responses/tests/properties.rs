//! Whatever a request says that a chat can say, the chat says.

use super::*;
use crate::dialects::Answer;
use crate::dialects::chat::{Function, FunctionCall, FunctionKind, Message, Role, Tool, ToolCall};
use proptest::option;
use proptest::prelude::*;
use serde_json::json;

/// What the model does: it thinks, says something, calls tools. It does at least one of the latter.
pub(super) fn assistant() -> impl Strategy<Value = Message> {
    let calls = prop::collection::vec(("[a-z]{1,4}", "\\PC{0,6}"), 0..3);
    (option::of("\\PC{1,8}"), option::of("\\PC{0,8}"), calls).prop_map(|(thought, content, calls)| {
        let calls = calls.into_iter().enumerate();
        let tool_calls: Vec<ToolCall> = calls
            .map(|(index, (name, arguments))| ToolCall {
                id: format!("call_{index}"),
                kind: FunctionKind::Function,
                function: FunctionCall { name, arguments },
            })
            .collect();
        let content = match tool_calls.is_empty() {
            true => Some(content.unwrap_or_default()),
            false => content,
        };
        Message {
            content,
            reasoning_content: thought,
            tool_calls,
            ..Message::text(Role::Assistant, "")
        }
    })
}

/// A question or two, what the model does, and what its calls return.
fn exchange() -> impl Strategy<Value = Vec<Message>> {
    let role = prop::sample::select(vec![Role::User, Role::System, Role::Developer]);
    let questions = prop::collection::vec((role, "\\PC{0,8}"), 1..3);
    (questions, assistant(), "\\PC{0,8}").prop_map(|(questions, did, returned)| {
        let mut messages: Vec<Message> = questions
            .into_iter()
            .map(|(role, text)| Message::text(role, text))
            .collect();
        let results: Vec<Message> = did
            .tool_calls
            .iter()
            .map(|call| result(call, &returned))
            .collect();
        messages.push(did);
        messages.extend(results);
        messages
    })
}

fn result(call: &ToolCall, returned: &str) -> Message {
    Message {
        tool_call_id: Some(call.id.clone()),
        ..Message::text(Role::Tool, returned)
    }
}

/// How a client may write the same text.
#[derive(Debug, Clone, Copy)]
enum Style {
    Text,
    Parts,
}

fn styles() -> impl Strategy<Value = Style> {
    prop::sample::select(vec![Style::Text, Style::Parts])
}

/// A message as items.
fn items(message: &Message, style: Style) -> Vec<Value> {
    let text = |kind: &str, text: &str| match style {
        Style::Text => json!(text),
        Style::Parts => json!([{"type": kind, "text": text}]),
    };
    let content = message.content.as_deref();
    match message.role {
        Role::Tool => vec![json!({
            "type": "function_call_output",
            "call_id": message.tool_call_id,
            "output": text("input_text", content.unwrap_or_default()),
        })],
        Role::Assistant => {
            let mut items = Vec::new();
            if let Some(thought) = &message.reasoning_content {
                let content = [json!({"type": "reasoning_text", "text": thought})];
                items.push(json!({"type": "reasoning", "id": "rs", "summary": [], "content": content}));
            }
            if let Some(said) = content {
                let content = text("output_text", said);
                items.push(json!({"type": "message", "role": "assistant", "content": content}));
            }
            items.extend(message.tool_calls.iter().map(|call| {
                let FunctionCall { name, arguments } = &call.function;
                json!({"type": "function_call", "call_id": call.id, "name": name, "arguments": arguments})
            }));
            items
        }
        role => vec![json!({"role": role, "content": text("input_text", content.unwrap_or_default())})],
    }
}

fn tools() -> impl Strategy<Value = Vec<Tool>> {
    let parameters = option::of(Just(json!({"type": "object", "properties": {"z": {}, "a": {}}})));
    let tool = (
        "[a-z]{1,4}",
        option::of("\\PC{0,6}"),
        parameters,
        option::of(any::<bool>()),
    );
    let tool = tool.prop_map(|(name, description, parameters, strict)| Tool {
        kind: FunctionKind::Function,
        function: Function {
            name,
            description,
            parameters,
            strict,
        },
    });
    prop::collection::vec(tool, 0..3)
}

/// A choice as the client writes it, and as a chat has it.
fn tool_choice() -> impl Strategy<Value = (Value, Value)> {
    let word = |word: &str| (json!(word), json!(word));
    let named = json!({"type": "function", "function": {"name": "f"}});
    prop::sample::select(vec![
        word("auto"),
        word("none"),
        word("required"),
        (json!({"type": "function", "name": "f"}), named.clone()),
        (
            json!({"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "f"}]}),
            json!({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [named]}}),
        ),
    ])
}

/// A form of the answer as the client writes it, and as a chat has it.
fn format() -> impl Strategy<Value = (Value, Value)> {
    let schema = json!({"type": "object"});
    prop::sample::select(vec![
        (json!({"type": "json_object"}), json!({"type": "json_object"})),
        (
            json!({"type": "json_schema", "name": "n", "schema": schema, "strict": true, "description": "d"}),
            json!({"type": "json_schema", "json_schema": {
                "name": "n", "description": "d", "schema": schema, "strict": true,
            }}),
        ),
    ])
}

fn request() -> impl Strategy<Value = (Value, chat::Request)> {
    let settings = (
        option::of("\\PC{0,8}"),
        tools(),
        option::of(tool_choice()),
        option::of(any::<bool>()),
        option::of(format()),
        option::of(prop::sample::select(vec!["none", "low", "medium", "high"])),
        option::of(any::<u32>()),
        any::<bool>(),
    );
    let options = (
        option::of((0..65u32).prop_map(|n| f64::from(n) / 32.0)),
        option::of((0..33u32).prop_map(|n| f64::from(n) / 32.0)),
        option::of(0..21u64),
        option::of(any::<u32>()),
    );
    let messages = prop::collection::vec(exchange(), 1..4);
    (messages, styles(), settings, options).prop_map(|(messages, style, settings, options)| {
        let mut messages = messages.concat();
        let (instructions, tools, tool_choice, parallel, format, effort, most, stream) = settings;
        let (temperature, top_p, top_logprobs, seed) = options;
        let flat = tools.iter().map(|Tool { function, .. }| {
            let mut flat = json!(function);
            flat["type"] = json!("function");
            flat
        });
        let body = json!({
            "model": "m",
            "input": messages.iter().flat_map(|message| items(message, style)).collect::<Vec<_>>(),
            "instructions": instructions,
            "tools": flat.collect::<Vec<_>>(),
            "tool_choice": tool_choice.as_ref().map(|(ours, _)| ours),
            "parallel_tool_calls": parallel,
            "text": {"format": format.as_ref().map(|(ours, _)| ours)},
            "reasoning": {"effort": effort},
            "max_output_tokens": most,
            "stream": stream,
            "temperature": temperature,
            "top_p": top_p,
            "include": top_logprobs.map(|_| ["message.output_text.logprobs"]),
            "top_logprobs": top_logprobs,
            "seed": seed,
        });
        if let Some(instructions) = &instructions {
            messages.insert(0, Message::text(Role::System, instructions));
        }
        let options = [
            ("temperature", temperature.map(Value::from)),
            ("top_p", top_p.map(Value::from)),
            ("logprobs", top_logprobs.map(|_| json!(true))),
            ("top_logprobs", top_logprobs.map(Value::from)),
            ("seed", seed.map(Value::from)),
        ];
        let options = options
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)));
        let chat = chat::Request {
            model: Some("m".to_owned()),
            messages,
            tools,
            tool_choice: tool_choice.map(|(_, theirs)| theirs),
            parallel_tool_calls: parallel,
            response_format: format.map(|(_, theirs)| theirs),
            reasoning_effort: effort.map(str::to_owned),
            max_completion_tokens: most.map(u64::from),
            stream,
            stream_options: stream.then_some(chat::StreamOptions { include_usage: true }),
            options: options.collect(),
            ..chat::Request::default()
        };
        (body, chat)
    })
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        prop::sample::select(vec!["user", "message", "function", "input_text", "auto"]).prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
    ];
    let keys = vec![
        "type", "role", "content", "text", "name", "id", "call_id", "output", "effort", "format",
    ];
    leaf.prop_recursive(4, 24, 5, move |inner| {
        let object = prop::collection::hash_map(prop::sample::select(keys.clone()), inner.clone(), 0..5);
        let object = object.prop_map(|map| {
            map.into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect()
        });
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(Value::from),
            object.prop_map(Value::Object),
        ]
    })
}

const FIELDS: [&str; 23] = [
    "model",
    "input",
    "instructions",
    "previous_response_id",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "text",
    "reasoning",
    "max_output_tokens",
    "max_tool_calls",
    "temperature",
    "top_p",
    "top_logprobs",
    "include",
    "metadata",
    "truncation",
    "store",
    "stream",
    "background",
    "prompt_cache_key",
    "safety_identifier",
    "user",
];

proptest! {
    #[test]
    fn a_request_says_to_the_engine_all_that_it_says((body, expected) in request()) {
        prop_assert_eq!(chat(&body, &Known::default()), expected);
    }

    /// The engine's answer, as items, says the same when it is sent back.
    #[test]
    fn an_answer_that_is_sent_back_is_the_same_message(message in assistant()) {
        let mut reply = ask(&json!({"input": "Hi"}), &Known::default()).unwrap().reply;
        let usage = json!({"prompt_tokens": 1, "completion_tokens": 1});
        let choices = [json!({"message": message, "finish_reason": "stop"})];
        let completion = json!({"id": "c", "created": 1, "model": "m", "choices": choices, "usage": usage});
        let whole = reply.whole(completion.to_string().as_bytes()).unwrap();
        let whole: Value = serde_json::from_slice(&whole).unwrap();
        let mut sent = vec![json!({"role": "user", "content": "Hi"})];
        sent.extend(whole["output"].as_array().unwrap().iter().cloned());
        let messages = chat(&json!({"input": sent}), &Known::default()).messages;
        // To say nothing and to call is only to call.
        let said = message.content.clone().filter(|said| message.tool_calls.is_empty() || !said.is_empty());
        prop_assert_eq!(&messages[1..], &[Message { content: said, ..message }]);
    }

    /// A conversation by `previous_response_id` asks the engine what one asks that sends all items.
    #[test]
    fn a_conversation_that_is_kept_is_one_that_is_sent(
        turns in prop::collection::vec((exchange(), assistant()), 1..4), style in styles(),
    ) {
        let (mut known, mut sent) = (Known::default(), Vec::new());
        for (number, (input, answer)) in turns.into_iter().enumerate() {
            let items: Vec<Value> = input.iter().flat_map(|message| items(message, style)).collect();
            sent.extend(items.iter().cloned());
            let previous = known.history.last().map(|turn| turn.response.id().to_owned());
            let kept = json!({"input": items, "previous_response_id": previous, "instructions": "i"});
            let all = json!({"input": sent, "instructions": "i"});
            prop_assert_eq!(chat(&kept, &known).messages, chat(&all, &Known::default()).messages);

            let draft = Draft::read(kept.to_string().as_bytes()).unwrap();
            let origin = Origin { seed: format!("{number}"), now: 1 };
            let mut reply = draft.ask(&known, origin).unwrap().reply;
            let usage = json!({"prompt_tokens": 1, "completion_tokens": 1});
            let choices = [json!({"message": answer, "finish_reason": "stop"})];
            let completion = json!({"id": "c", "created": 1, "model": "m", "choices": choices, "usage": usage});
            reply.whole(completion.to_string().as_bytes()).unwrap();
            let turn = reply.turn();
            sent.extend(turn.response.output.iter().map(|item| json!(item)));
            known.history.push(Arc::new(turn));
        }
    }

    #[test]
    fn any_value_in_any_field_is_taken_or_named(index in 0..FIELDS.len(), value in any_json()) {
        let field = FIELDS[index];
        let mut body = json!({"input": "Hi"});
        body[field] = value;
        if let Err(problem) = ask(&body, &Known::default()) {
            prop_assert!(problem.status == 400 || problem.status == 404);
            let param = problem.param.unwrap_or_default();
            prop_assert!(param.starts_with(field), "{} is not in {}: {}", param, field, problem.message);
        }
    }

    #[test]
    fn no_body_panics(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Draft::read(&body);
    }
}
