//! `POST /v1/chat/completions`

use axum::http::header::RETRY_AFTER;
use serde_json::{Value, json};

use super::*;

const PATH: &str = "/v1/chat/completions";

/// A greedy request, with these fields on top.
fn chat(fields: Value) -> Value {
    let mut body = json!({
        "model": "tiny",
        "messages": [{"role": "user", "content": "Write a hello world program in Python."}],
        "temperature": 0,
        "max_tokens": 40,
    });
    for (key, value) in fields.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

fn weather() -> Value {
    json!({"type": "function", "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
            "required": ["city"],
        },
    }})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_put_together_is_the_whole_answer() {
    let whole = ask(PATH, chat(json!({}))).await;
    let events = events(PATH, chat(json!({"stream_options": {"include_usage": true}}))).await;
    let choice = &whole["choices"][0];
    assert!(!choice["message"]["content"].as_str().unwrap().is_empty());
    assert_eq!(whole["object"], "chat.completion");
    assert_eq!(concat(&events, 0, "/delta/content"), choice["message"]["content"]);
    assert_eq!(concat(&events, 0, "/finish_reason"), choice["finish_reason"]);
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    let (last, others) = events.split_last().unwrap();
    assert_eq!(last["choices"], json!([]));
    assert_eq!(
        last["usage"]["completion_tokens"],
        whole["usage"]["completion_tokens"]
    );
    assert_eq!(last["usage"]["prompt_tokens"], whole["usage"]["prompt_tokens"]);
    assert!(
        others
            .iter()
            .all(|event| event["usage"].is_null() && event["id"] == last["id"])
    );
    assert!(others.last().unwrap()["timings"]["predicted_n"].as_u64().unwrap() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_left_out_where_it_is_not_asked_for() {
    let events = events(PATH, chat(json!({}))).await;
    assert!(events.iter().all(|event| event.get("usage").is_none()));
    assert!(
        events
            .iter()
            .all(|event| event["choices"].as_array().unwrap().len() == 1)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_prompt_comes_from_the_cache() {
    let body = chat(json!({"messages": [{"role": "user", "content": "Tell me of the cache, once more."}]}));
    ask(PATH, body.clone()).await;
    let usage = &ask(PATH, body).await["usage"];
    assert!(
        usage["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap() > 0,
        "{usage}"
    );
    let sum = usage["prompt_tokens"].as_u64().unwrap() + usage["completion_tokens"].as_u64().unwrap();
    assert_eq!(usage["total_tokens"], sum);
}

#[tokio::test(flavor = "multi_thread")]
async fn choices_differ_and_a_seed_repeats_the_first() {
    // One token: what runs beside a request changes the last bits of its probabilities, and that adds up.
    let body = |n: u32| {
        chat(json!({
            "n": n, "seed": 7, "max_tokens": 1, "ignore_eos": true,
            "temperature": 2, "top_k": 0, "top_p": 1, "min_p": 0,
        }))
    };
    let several = ask(PATH, body(4)).await;
    let texts: Vec<&str> = several["choices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|choice| choice["message"]["content"].as_str().unwrap())
        .collect();
    assert_eq!(texts.len(), 4);
    assert!(texts.iter().any(|text| *text != texts[0]), "{texts:?}");
    let one = ask(PATH, body(1)).await;
    assert_eq!(one["choices"][0]["message"]["content"], texts[0]);
    assert_eq!(several["usage"]["prompt_tokens"], one["usage"]["prompt_tokens"]);
    assert_eq!(several["usage"]["completion_tokens"], 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn choices_come_beside_each_other_in_a_stream() {
    let events = events(PATH, chat(json!({"n": 3, "grammar": r#"root ::= "a" "b" "c""#}))).await;
    for index in 0..3 {
        assert_eq!(concat(&events, index, "/delta/role"), "assistant");
        assert_eq!(concat(&events, index, "/delta/content"), "abc");
        assert_eq!(concat(&events, index, "/finish_reason"), "stop");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_text_ends_the_answer_and_is_not_part_of_it() {
    let whole = ask(PATH, chat(json!({}))).await;
    let text = whole["choices"][0]["message"]["content"].as_str().unwrap();
    let stop: String = text.chars().skip(5).take(3).collect();
    let cut = text.find(&stop).unwrap();
    let stopped = ask(PATH, chat(json!({"stop": [stop]}))).await;
    assert_eq!(stopped["choices"][0]["message"]["content"], text[..cut]);
    assert_eq!(stopped["choices"][0]["finish_reason"], "stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn max_tokens_ends_the_answer_with_length() {
    let answer = ask(
        PATH,
        chat(json!({"max_completion_tokens": 3, "ignore_eos": true})),
    )
    .await;
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(answer["usage"]["completion_tokens"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn logprobs_cover_the_answer() {
    let fields = json!({"logprobs": true, "top_logprobs": 3, "max_tokens": 12});
    let whole = ask(PATH, chat(fields.clone())).await;
    let tokens = whole["choices"][0]["logprobs"]["content"].as_array().unwrap();
    assert!(!tokens.is_empty());
    for token in tokens {
        let top = token["top_logprobs"].as_array().unwrap();
        assert_eq!(top.len(), 3);
        // Greedy: what was chosen is likeliest.
        assert_eq!(top[0]["logprob"], token["logprob"]);
        assert!(token["logprob"].as_f64().unwrap() <= 0.0);
    }
    let events = events(PATH, chat(fields)).await;
    let streamed: Vec<Value> = events
        .iter()
        .filter_map(|event| event["choices"][0]["logprobs"]["content"].as_array())
        .flatten()
        .cloned()
        .collect();
    let name = |tokens: &[Value]| tokens.iter().map(|t| t["token"].to_string()).collect::<Vec<_>>();
    assert_eq!(name(&streamed), name(tokens));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_required_tool_is_called_with_arguments_that_fit() {
    for choice in [
        json!("required"),
        json!({"type": "function", "function": {"name": "get_weather"}}),
    ] {
        let fields = json!({
            "tools": [weather()],
            "tool_choice": choice,
            "parallel_tool_calls": false,
            "max_tokens": 200,
        });
        let whole = ask(PATH, chat(fields.clone())).await;
        let message = &whole["choices"][0]["message"];
        let call = &message["tool_calls"][0];
        assert_eq!(whole["choices"][0]["finish_reason"], "tool_calls", "{whole}");
        assert_eq!(
            (&call["type"], &call["function"]["name"]),
            (&json!("function"), &json!("get_weather"))
        );
        let arguments: Value = serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
        assert!(
            ["Paris", "Rome"].contains(&arguments["city"].as_str().unwrap()),
            "{arguments}"
        );
        assert!(!call["id"].as_str().unwrap().is_empty());

        let events = events(PATH, chat(fields)).await;
        let streamed = concat(&events, 0, "/delta/tool_calls/0/function/arguments");
        assert_eq!(streamed, call["function"]["arguments"]);
        assert_eq!(
            concat(&events, 0, "/delta/tool_calls/0/function/name"),
            "get_weather"
        );
        assert_eq!(concat(&events, 0, "/finish_reason"), "tool_calls");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_fits_its_schema() {
    let schema = json!({
        "type": "object",
        "properties": {"zeta": {"type": "boolean"}, "alpha": {"enum": ["x", "y"]}},
        "required": ["zeta", "alpha"],
        "additionalProperties": false,
    });
    let format =
        json!({"type": "json_schema", "json_schema": {"name": "s", "strict": true, "schema": schema}});
    let answer = ask(PATH, chat(json!({"response_format": format, "max_tokens": 100}))).await;
    let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
    let value: Value = serde_json::from_str(text).unwrap_or_else(|_| panic!("{answer}"));
    assert!(value["zeta"].is_boolean() && value["alpha"].is_string(), "{text}");
    // Properties come in the schema's order.
    assert!(text.find("zeta") < text.find("alpha"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_fits_its_grammar() {
    let answer = ask(PATH, chat(json!({"grammar": r#"root ::= "yes" | "no""#}))).await;
    let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(["yes", "no"].contains(&text), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_banned_token_does_not_come() {
    let first = |answer: &Value| answer["choices"][0]["logprobs"]["content"][0]["token"].clone();
    let fields = json!({"logprobs": true, "max_tokens": 1, "ignore_eos": true});
    let free = first(&ask(PATH, chat(fields)).await);
    let tokens = ask("/tokenize", json!({"content": free})).await;
    let banned = json!({
        "logprobs": true, "max_tokens": 1, "ignore_eos": true,
        "logit_bias": [[tokens["tokens"][0], false]],
    });
    assert_ne!(first(&ask(PATH, chat(banned)).await), free);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_frees_its_slot() {
    let router = super::super::router(start(1, 1), None);
    let mut endless = chat(json!({"ignore_eos": true, "stream": true}));
    endless.as_object_mut().unwrap().remove("max_tokens");
    let response = router.clone().oneshot(post(PATH, &endless)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    drop(response);
    let answer = router.oneshot(post(PATH, &chat(json!({})))).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_requests_are_told_when_to_come_back() {
    // One slot, which the first choice takes until the context is full, and no queue for the others.
    let router = super::super::router(start(1, 0), None);
    let mut body = chat(json!({"n": 16, "ignore_eos": true}));
    body.as_object_mut().unwrap().remove("max_tokens");
    let response = router.oneshot(post(PATH, &body)).await.unwrap();
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(response.headers().contains_key(RETRY_AFTER));
    let (_, answer) = json(response).await;
    assert_eq!(answer["error"]["code"], "rate_limit_exceeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stop_text_that_ended_an_answer_is_named() {
    let whole = ask(PATH, chat(json!({"max_tokens": 60}))).await;
    let text = whole["choices"][0]["message"]["content"].as_str().unwrap();
    let stop: String = text.chars().skip(3).take(4).collect();
    assert!(whole["choices"][0].get("stopping_word").is_none());
    let fields = json!({"stop": ["no such text", stop]});
    let stopped = ask(PATH, chat(fields.clone())).await;
    assert_eq!(stopped["choices"][0]["stopping_word"], stop);
    assert_eq!(stopped["choices"][0]["finish_reason"], "stop");
    assert_eq!(
        concat(&events(PATH, chat(fields)).await, 0, "/stopping_word"),
        stop
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_begins_with_the_prompt_s_length_on_request() {
    let fields = json!({"return_progress": true, "stream_options": {"include_usage": true}});
    let with = events(PATH, chat(fields)).await;
    let (first, others) = with.split_first().unwrap();
    let usage = &others.last().unwrap()["usage"];
    assert_eq!(first["prompt_progress"]["total"], usage["prompt_tokens"]);
    assert_eq!(
        first["prompt_progress"]["cache"],
        usage["prompt_tokens_details"]["cached_tokens"]
    );
    assert!(others.iter().all(|event| event.get("prompt_progress").is_none()));
    let without = events(PATH, chat(json!({}))).await;
    assert!(without[0].get("prompt_progress").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_counted_as_they_are_when_the_chat_is_run() {
    let call = json!({"id": "a", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}});
    let messages = json!([
        {"role": "system", "content": "Be kind. Où ça ?"},
        {"role": "user", "content": "What is the weather?"},
        {"role": "assistant", "content": null, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "a", "content": "rain"},
    ]);
    let mut counts = Vec::new();
    for fields in [
        json!({}),
        json!({"messages": messages}),
        json!({"tools": [weather()]}),
        json!({"tools": [weather()], "tool_choice": "none"}),
        json!({"tools": [weather()], "tool_choice": "required", "messages": messages}),
        json!({"enable_thinking": false}),
    ] {
        let counted = ask("/v1/chat/completions/input_tokens", chat(fields.clone())).await;
        let run = ask(PATH, chat(fields)).await;
        assert_eq!(counted["object"], "chat.completion.input_tokens");
        assert_eq!(counted["input_tokens"], run["usage"]["prompt_tokens"]);
        counts.push(counted["input_tokens"].as_u64().unwrap());
    }
    assert!(counts[0] < counts[1] && counts[0] < counts[2], "{counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_run_cannot_be_counted() {
    let path = "/v1/chat/completions/input_tokens";
    let (status, param, ..) = refused(path, json!({})).await;
    assert_eq!((status, param.as_str()), (400, "messages"));
    let (status, ..) = refused(path, chat(json!({"model": "other"}))).await;
    assert_eq!(status, 404);
}
