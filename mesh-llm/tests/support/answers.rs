//! What a daemon answers, to be compared with what another does.

use serde_json::{Value, json};

use crate::harness::Client;

/// Greedy answers to a prompt of many steps, and to a short one.
pub fn answers(client: &Client) -> Vec<Value> {
    let long = "Once upon a time there was a dog. ".repeat(40);
    ["Once upon a time", long.as_str()]
        .iter()
        .map(|prompt| {
            let request = json!({"prompt": prompt, "temperature": 0, "max_tokens": 24});
            let answer = client.post("/v1/completions", &request).ok();
            answer["choices"][0]["text"].clone()
        })
        .collect()
}
