//! The smaller endpoints.

use serde_json::json;

use super::*;

async fn get(path: &str) -> Value {
    let (status, answer) = json(call(Request::get(path).body(Body::empty()).unwrap()).await).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn models_are_listed_with_and_without_a_version() {
    for path in ["/v1/models", "/models"] {
        let list = get(path).await;
        assert_eq!(
            (&list["object"], &list["data"][0]["id"]),
            (&json!("list"), &json!("tiny"))
        );
    }
    let model = get("/v1/models/tiny").await;
    assert_eq!(
        (&model["object"], &model["meta"]["n_ctx"]),
        (&json!("model"), &json!(CONTEXT))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_props_answer() {
    assert_eq!(get("/health").await["status"], "ok");
    let props = get("/props").await;
    assert_eq!(
        (&props["total_slots"], &props["model_alias"]),
        (&json!(2), &json!("tiny"))
    );
    assert!(!props["chat_template"].as_str().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_count_requests() {
    ask("/v1/completions", json!({"prompt": "a", "max_tokens": 1})).await;
    let response = call(Request::get("/metrics").body(Body::empty()).unwrap()).await;
    assert!(
        response.headers()[CONTENT_TYPE]
            .to_str()
            .unwrap()
            .starts_with("application/openmetrics-text")
    );
    let text = String::from_utf8(bytes(response).await).unwrap();
    assert!(text.contains(r#"mesh_llm_slots{model="tiny"} 2"#), "{text}");
    assert!(
        text.contains(r#"mesh_llm_requests_total{model="tiny"} "#),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_survives_its_tokens() {
    let text = "Hello, wörld €!\n  def f(x): return x";
    let tokens = ask("/tokenize", json!({"content": text})).await;
    let back = ask("/detokenize", json!({"tokens": tokens["tokens"]})).await;
    assert_eq!(back["content"].as_str().unwrap().trim_start(), text);
    let pieces = ask("/tokenize", json!({"content": text, "with_pieces": true})).await;
    let ids: Vec<&Value> = pieces["tokens"]
        .as_array()
        .unwrap()
        .iter()
        .map(|piece| &piece["id"])
        .collect();
    assert_eq!(json!(ids), tokens["tokens"]);
    let (status, param, ..) = refused("/detokenize", json!({"tokens": [-1]})).await;
    assert_eq!((status, param.as_str()), (400, "tokens[0]"));
}

#[tokio::test(flavor = "multi_thread")]
async fn embeddings_have_length_one_in_every_form() {
    const PATH: &str = "/v1/embeddings";
    let answer = ask(PATH, json!({"model": "tiny", "input": ["The sun", "The moon"]})).await;
    let vector = |answer: &Value, index: usize| -> Vec<f64> {
        let vector = answer["data"][index]["embedding"].as_array().unwrap();
        vector.iter().map(|x| x.as_f64().unwrap()).collect()
    };
    let length = |vector: &[f64]| vector.iter().map(|x| x * x).sum::<f64>().sqrt();
    let sun = vector(&answer, 0);
    assert!((length(&sun) - 1.0).abs() < 1e-3);
    assert_ne!(sun, vector(&answer, 1));
    assert!(answer["usage"]["prompt_tokens"].as_u64().unwrap() > 2);

    let short = ask(PATH, json!({"input": "The sun", "dimensions": 8})).await;
    assert_eq!(vector(&short, 0).len(), 8);
    assert!((length(&vector(&short, 0)) - 1.0).abs() < 1e-3);
    let base64 = ask(PATH, json!({"input": "The sun", "encoding_format": "base64"})).await;
    assert!(base64["data"][0]["embedding"].as_str().unwrap().len() >= sun.len() * 4);

    let wide = json!({"input": "The sun", "dimensions": sun.len() + 1});
    assert_eq!(refused(PATH, wide).await.1, "dimensions");
    let long = json!({"input": ["a", "word ".repeat(3000)]});
    let (status, param, code, _) = refused(PATH, long).await;
    assert_eq!(
        (status, param.as_str(), code.as_str()),
        (400, "input[1]", "context_length_exceeded")
    );
}
