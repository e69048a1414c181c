//! What happens at the limits of the context.

use std::thread;

use serde_json::json;

use crate::equality::tokens;
use crate::harness::{Bare, Daemon, Kind, Start, bare, model};

fn endless_model(context: u32, slots: u32) -> Daemon {
    let start = Start::model(model(Kind::Endless)).flag("--ctx-size", context.to_string());
    start.flag("--parallel", slots.to_string()).ready()
}

#[test]
fn an_answer_ends_with_length_when_the_context_is_full() {
    let daemon = endless_model(256, 2);
    let prompt = vec![400; 100];
    let answer = daemon
        .post(
            "/v1/completions",
            &json!({"prompt": prompt, "max_tokens": 10_000}),
        )
        .ok();
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    assert_eq!(
        answer["usage"]["total_tokens"], 256,
        "all of the context is used: {}",
        answer["usage"]
    );
}

#[test]
fn a_prompt_that_does_not_fit_is_refused_with_the_numbers() {
    let daemon = endless_model(256, 2);
    for stream in [false, true] {
        let request = json!({"prompt": vec![400; 256], "max_tokens": 1, "stream": stream});
        let error = daemon.post("/v1/completions", &request).error(400);
        assert_eq!(
            (error["code"].as_str(), error["param"].as_str()),
            (Some("context_length_exceeded"), Some("prompt"))
        );
        assert_eq!(
            error["message"].as_str().unwrap().matches("256").count(),
            2,
            "{error}"
        );
    }
    let words = "word ".repeat(400);
    let error = daemon
        .post("/v1/chat/completions", &crate::starting::chat(&words))
        .error(400);
    assert_eq!(
        (error["code"].as_str(), error["param"].as_str()),
        (Some("context_length_exceeded"), Some("messages"))
    );
    // One token less leaves room for one.
    let answer = daemon
        .post(
            "/v1/completions",
            &json!({"prompt": vec![400; 255], "max_tokens": 9}),
        )
        .ok();
    assert_eq!(answer["usage"]["completion_tokens"], 1);
}

#[test]
fn one_request_may_use_the_whole_context() {
    let daemon = endless_model(2048, 8);
    let answer = daemon
        .post(
            "/v1/completions",
            &json!({"prompt": vec![400; 2000], "max_tokens": 48}),
        )
        .ok();
    assert_eq!(answer["usage"]["total_tokens"], 2048);
}

/// Together they need more than there is: the younger gives its part away, waits, and is computed
/// again. Nobody notices.
#[test]
fn long_requests_that_exceed_the_context_together_all_finish() {
    const CONTEXT: u32 = 1024;
    const TOKENS: usize = 600;
    let daemon = endless_model(CONTEXT, 4);
    let requests: Vec<Vec<i32>> = (0..4)
        .map(|number| vec![400 + number; 100 + 10 * number as usize])
        .collect();
    let answers: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = requests
            .iter()
            .map(|prompt| {
                let daemon = &daemon;
                scope.spawn(move || {
                    let request = json!({
                        "prompt": prompt, "max_tokens": TOKENS, "temperature": 0, "logprobs": 0,
                        "stream_options": {"include_usage": true},
                    });
                    daemon.stream("/v1/completions", &request).outcome()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let model = bare::load(&model(Kind::Endless));
    let mut bare = Bare::new(&model, bare::context_params(CONTEXT, 1));
    let mut shortfalls = Vec::new();
    for (prompt, answer) in requests.iter().zip(answers) {
        assert_eq!((answer.error.as_ref(), answer.broken.as_ref()), (None, None));
        assert_eq!(answer.finish_reason.as_deref(), Some("length"));
        assert_eq!(answer.usage().unwrap()["completion_tokens"], TOKENS);
        // No token is lost, doubled or changed.
        let texts = answer
            .events
            .iter()
            .filter_map(|event| event["choices"][0]["logprobs"]["tokens"].as_array());
        let texts: Vec<String> = texts
            .flatten()
            .map(|text| text.as_str().unwrap().to_owned())
            .collect();
        let tokens = tokens(&model, &texts);
        assert_eq!(tokens.len(), TOKENS);
        shortfalls.extend(bare.shortfalls(prompt, &tokens));
    }
    bare::assert_greedy(&shortfalls);
    daemon.until_idle();
}
