//! Any bytes as the body of a request: each parser refuses them with an error that a client can use, or
//! what it says of them is within the stated limits.

#![no_main]

use libfuzzer_sys::fuzz_target;
use llama_engine::server::api::{
    ApiError, Status, chat, completion, constraint::Constraint, embedding, generation::GenerationRequest,
    input::Input, limits, rerank, tokenize,
};

fuzz_target!(|body: &[u8]| {
    look_at_chat(check(chat::parse(body)));
    look_at_completion(check(completion::parse(body)));
    if let Some(request) = check(embedding::parse(body)) {
        look_at_inputs(&request.inputs, limits::INPUTS);
        assert_ne!(request.dimensions, Some(0));
    }
    if let Some(request) = check(rerank::parse(body)) {
        assert!((1..=limits::INPUTS).contains(&request.documents.len()));
        assert_ne!(request.top_n, Some(0));
    }
    check(tokenize::parse_tokenize(body));
    if let Some(tokens) = check(tokenize::parse_detokenize(body)) {
        assert!(tokens.len() <= limits::TOKENS);
    }
});

/// Whatever is wrong is a 400 in OpenAI's form.
fn check<T>(parsed: Result<T, ApiError>) -> Option<T> {
    match parsed {
        Ok(request) => Some(request),
        Err(error) => {
            assert_eq!(error.status, Status::BadRequest);
            assert!(!error.message.is_empty());
            let json = serde_json::to_value(&error).expect("an error is JSON");
            assert_eq!(json["error"]["type"], "invalid_request_error");
            None
        }
    }
}

fn look_at_chat(request: Option<chat::ChatCompletionRequest>) {
    let Some(request) = request else { return };
    assert!((1..=limits::MESSAGES).contains(&request.messages.len()));
    assert!(request.tools.len() <= limits::TOOLS);
    assert!(!request.tools.is_empty() || request.tool_use == chat::ToolUse::None);
    assert!(request.generation.max_tokens != Some(0));
    // What templates are given.
    let messages = serde_json::to_value(&request.messages).expect("messages are JSON");
    for message in messages.as_array().expect("an array") {
        assert!(
            message["content"].is_string()
                || message["content"].is_array()
                || message["tool_calls"].is_array()
        );
    }
    serde_json::to_value(&request.tools).expect("tools are JSON");
    look_at_generation(&request.generation);
}

fn look_at_completion(request: Option<completion::CompletionRequest>) {
    let Some(request) = request else { return };
    look_at_inputs(&request.prompts, limits::CHOICES);
    assert!(request.prompts.len() * request.generation.choices as usize <= limits::CHOICES);
    look_at_generation(&request.generation);
}

fn look_at_inputs(inputs: &[Input], most: usize) {
    assert!((1..=most).contains(&inputs.len()));
    for input in inputs {
        if let Input::Tokens(tokens) = input {
            assert!((1..=limits::TOKENS).contains(&tokens.len()));
            assert!(tokens.iter().all(|token| *token >= 0));
        }
    }
}

fn look_at_generation(request: &GenerationRequest) {
    assert!((1..=limits::CHOICES as u32).contains(&request.choices));
    assert!(request.stop.len() <= limits::STOPS);
    assert!(
        request
            .stop
            .iter()
            .all(|stop| (1..=limits::STOP_BYTES).contains(&stop.len()))
    );
    let sampling = &request.sampling;
    for number in [
        sampling.temperature,
        sampling.top_p,
        sampling.min_p,
        sampling.typical_p,
        sampling.repeat_penalty,
        sampling.frequency_penalty,
        sampling.presence_penalty,
    ] {
        assert!(number.is_finite());
    }
    assert!(sampling.top_k >= 0 && sampling.repeat_last_n >= -1);
    assert!(sampling.repeat_penalty > 0.0);
    assert_ne!(sampling.seed, Some(u32::MAX));
    assert!(sampling.logit_bias.iter().all(|entry| entry.bias <= 100.0));
    if let Constraint::Schema { schema, .. } = &request.constraint {
        assert!(schema.is_object());
    }
}
