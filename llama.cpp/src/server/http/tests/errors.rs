//! What is refused, and how.

use axum::http::header::AUTHORIZATION;
use serde_json::json;

use super::*;
use crate::server::api::limits;

const CHAT: &str = "/v1/chat/completions";

fn hi() -> Value {
    json!([{"role": "user", "content": "Hi"}])
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_path_or_method_is_an_error_object() {
    let get = |path: &str| Request::get(path).body(Body::empty()).unwrap();
    let (status, answer) = json(call(get("/v1/nothing")).await).await;
    assert_eq!(
        (status.as_u16(), &answer["error"]["code"]),
        (404, &json!("unknown_url"))
    );
    let response = call(get(CHAT)).await;
    assert_eq!(response.headers()["allow"], "POST");
    let (status, answer) = json(response).await;
    assert_eq!(
        (status.as_u16(), &answer["error"]["code"]),
        (405, &json!("method_not_allowed"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_model_is_told_the_names_that_exist() {
    for path in [CHAT, "/v1/completions", "/v1/embeddings"] {
        let body = json!({"model": "gpt-4", "messages": hi(), "prompt": "a", "input": "a"});
        let (status, param, code, message) = refused(path, body).await;
        assert_eq!(
            (status, param.as_str(), code.as_str()),
            (404, "model", "model_not_found")
        );
        assert!(message.contains("\"tiny\""), "{message}");
    }
    let response = call(Request::get("/v1/models/gpt-4").body(Body::empty()).unwrap()).await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_must_be_json_and_not_too_large() {
    let request = |kind: &str, body: Vec<u8>| {
        Request::post(CHAT)
            .header(CONTENT_TYPE, kind)
            .body(Body::from(body))
            .unwrap()
    };
    let (status, answer) = json(call(request("text/plain", b"{}".to_vec())).await).await;
    assert_eq!(
        (status.as_u16(), &answer["error"]["code"]),
        (400, &json!("invalid_content_type"))
    );
    let (status, answer) = json(call(request("application/json", b"{\n,".to_vec())).await).await;
    assert_eq!(
        (status.as_u16(), &answer["error"]["code"]),
        (400, &json!("invalid_json"))
    );
    assert!(
        answer["error"]["message"]
            .as_str()
            .unwrap()
            .contains("line 2, column 1"),
        "{answer}"
    );
    let large = vec![b' '; limits::BODY_BYTES + 1];
    let (status, answer) = json(call(request("application/json", large)).await).await;
    assert_eq!(
        (status.as_u16(), &answer["error"]["code"]),
        (413, &json!("request_too_large"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_that_does_not_fit_is_told_the_counts() {
    let long = "word ".repeat(CONTEXT as usize);
    for (path, param, body) in [
        (
            CHAT,
            "messages",
            json!({"messages": [{"role": "user", "content": long}]}),
        ),
        ("/v1/completions", "prompt", json!({"prompt": long})),
        (
            CHAT,
            "messages",
            json!({"messages": [{"role": "user", "content": long}], "stream": true}),
        ),
    ] {
        let (status, named, code, message) = refused(path, body).await;
        assert_eq!(
            (status, named.as_str(), code.as_str()),
            (400, param, "context_length_exceeded")
        );
        assert!(message.contains(&CONTEXT.to_string()), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_model_cannot_do_is_named() {
    for (body, param) in [
        (
            json!({"messages": hi(), "logit_bias": {"99999999": 1}}),
            "logit_bias",
        ),
        (json!({"messages": hi(), "grammar": "root ::= ("}), "grammar"),
        (
            json!({"messages": hi(), "grammar": "root ::= (", "stream": true}),
            "grammar",
        ),
        (
            json!({"messages": hi(), "response_format": {"type": "json_schema", "json_schema": {
                "name": "s", "schema": {"type": "nonsense"}}}}),
            "response_format.json_schema.schema",
        ),
        (
            json!({"messages": hi(), "tool_choice": "required", "tools": [{"type": "function",
                "function": {"name": "f", "parameters": {"type": "object", "properties": {
                    "a": {"$ref": "#/nowhere"}}}}}]}),
            "tools[0].function.parameters",
        ),
    ] {
        let (status, named, _, message) = refused(CHAT, body).await;
        assert_eq!((status, named.as_str()), (400, param), "{message}");
    }
    let (status, named, ..) = refused("/v1/completions", json!({"prompt": [1, 99_999_999]})).await;
    assert_eq!((status, named.as_str()), (400, "prompt[1]"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_asked_for() {
    let router = super::super::router(engine(), Some("s3cret".into()));
    let health = |secret: Option<&str>| {
        let mut request = Request::get("/health");
        if let Some(secret) = secret {
            request = request.header(AUTHORIZATION, format!("Bearer {secret}"));
        }
        router.clone().oneshot(request.body(Body::empty()).unwrap())
    };
    assert_eq!(health(None).await.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!(
        health(Some("s3cre")).await.unwrap().status(),
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(health(Some("s3cret")).await.unwrap().status(), StatusCode::OK);
    let (status, answer) = json(health(Some("x")).await.unwrap()).await;
    assert_eq!(
        (status.as_u16(), &answer["error"]["code"]),
        (401, &json!("invalid_api_key"))
    );
}
