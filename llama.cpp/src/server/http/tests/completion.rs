//! `POST /v1/completions`

use serde_json::{Value, json};

use super::*;

const PATH: &str = "/v1/completions";

/// A greedy request, with these fields on top.
fn complete(fields: Value) -> Value {
    let mut body = json!({"prompt": "def add(a, b):", "temperature": 0});
    for (key, value) in fields.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

fn text(answer: &Value, index: usize) -> &str {
    answer["choices"][index]["text"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_put_together_is_the_whole_answer() {
    let whole = ask(PATH, complete(json!({}))).await;
    assert_eq!(whole["object"], "text_completion");
    assert!(whole["usage"]["completion_tokens"].as_u64().unwrap() <= 16);
    let events = events(PATH, complete(json!({"stream_options": {"include_usage": true}}))).await;
    assert_eq!(concat(&events, 0, "/text"), text(&whole, 0));
    assert_eq!(
        concat(&events, 0, "/finish_reason"),
        whole["choices"][0]["finish_reason"]
    );
    let usage = &events.last().unwrap()["usage"];
    assert_eq!(usage["completion_tokens"], whole["usage"]["completion_tokens"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_may_be_text_or_its_tokens() {
    let tokens = ask(
        "/tokenize",
        json!({"content": "def add(a, b):", "add_special": true}),
    )
    .await;
    let by_tokens = ask(PATH, complete(json!({"prompt": tokens["tokens"]}))).await;
    let by_text = ask(PATH, complete(json!({}))).await;
    assert_eq!(text(&by_tokens, 0), text(&by_text, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn several_prompts_give_their_choices_in_order() {
    let single = ask(PATH, complete(json!({"prompt": "The sun"}))).await;
    let several = ask(
        PATH,
        complete(json!({"prompt": ["The sun", "def add(a, b):"], "n": 2, "echo": true})),
    )
    .await;
    let choices = several["choices"].as_array().unwrap();
    assert_eq!(choices.len(), 4);
    assert_eq!(text(&several, 0), format!("The sun{}", text(&single, 0)));
    assert_eq!(text(&several, 0), text(&several, 1));
    assert!(text(&several, 2).starts_with("def add(a, b):"));
    assert!(several.get("timings").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn echo_alone_needs_no_engine() {
    let answer = ask(PATH, complete(json!({"echo": true, "max_tokens": 0}))).await;
    assert_eq!(text(&answer, 0), "def add(a, b):");
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(answer["usage"]["completion_tokens"], 0);
    assert!(answer["usage"]["prompt_tokens"].as_u64().unwrap() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn echo_with_logprobs_reports_the_prompt() {
    for max_tokens in [0, 4] {
        let body =
            complete(json!({"echo": true, "logprobs": 2, "max_tokens": max_tokens, "ignore_eos": true}));
        let whole = ask(PATH, body.clone()).await;
        let logprobs = &whole["choices"][0]["logprobs"];
        let list = |name: &str| logprobs[name].as_array().unwrap().clone();
        let count = whole["usage"]["total_tokens"].as_u64().unwrap() as usize;
        for name in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
            assert_eq!(list(name).len(), count, "{name} of {whole}");
        }
        assert!(list("token_logprobs")[0].is_null());
        assert!(
            list("token_logprobs")[1..]
                .iter()
                .all(|logprob| logprob.as_f64().unwrap() <= 0.0)
        );
        let tokens: String = list("tokens")
            .iter()
            .map(|token| token.as_str().unwrap().to_owned())
            .collect();
        assert_eq!(tokens.trim_start(), text(&whole, 0).trim_start());
        let events = events(PATH, body).await;
        assert_eq!(concat(&events, 0, "/text"), text(&whole, 0));
        let streamed: usize = events
            .iter()
            .filter_map(|event| event["choices"][0]["logprobs"]["tokens"].as_array())
            .map(Vec::len)
            .sum();
        assert_eq!(streamed, count);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn logprobs_have_the_legacy_shape() {
    let answer = ask(
        PATH,
        complete(json!({"logprobs": 3, "max_tokens": 6, "ignore_eos": true})),
    )
    .await;
    let logprobs = &answer["choices"][0]["logprobs"];
    assert_eq!(logprobs["tokens"].as_array().unwrap().len(), 6);
    assert_eq!(logprobs["text_offset"][0], 0);
    for top in logprobs["top_logprobs"].as_array().unwrap() {
        assert!((1..=4).contains(&top.as_object().unwrap().len()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suffix_needs_a_model_that_fills_in() {
    let body = complete(json!({"suffix": "return c"}));
    if engine().model().infill().is_some() {
        ask(PATH, body).await;
    } else {
        let (status, param, code, _) = refused(PATH, body).await;
        assert_eq!(
            (status, param.as_str(), code.as_str()),
            (400, "suffix", "unsupported_parameter")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_fits_its_schema() {
    let schema = json!({"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]});
    let body = complete(json!({"json_schema": schema, "max_tokens": 100}));
    let answer = ask(PATH, body).await;
    let value: Value = serde_json::from_str(text(&answer, 0)).unwrap_or_else(|_| panic!("{answer}"));
    assert!(value["a"].is_boolean());
}
