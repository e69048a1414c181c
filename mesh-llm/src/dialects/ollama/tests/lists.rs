//! What is served.

use super::super::models::{self, Here, Memory};
use super::*;
use serde_json::json;

fn list() -> Vec<u8> {
    body(&json!({"object": "list", "data": [{
        "id": "tiny", "object": "model", "created": 1_795_275_446, "owned_by": "mesh-llm",
        "meta": {
            "description": "llama ?B Q8_0", "architecture": "llama", "n_ctx": 4096, "n_ctx_train": 4096,
            "n_vocab": 2048, "n_embd": 192, "n_params": 2_755_008, "size": 2_934_528,
            "modified": 1_795_275_000, "file_type": 7,
        },
    }]}))
}

fn props() -> Value {
    json!({
        "default_generation_settings": {"n_ctx": 4096, "params": {"temperature": 0.5, "top_k": 40}},
        "chat_template": "{{ messages }}",
        "chat_template_caps": {"supports_tools": true},
        "infill": false,
        "model_metadata": {
            "general.architecture": "llama", "llama.context_length": 4096, "llama.block_count": 3,
            "tokenizer.chat_template": "{{ messages }}",
        },
    })
}

fn here(props: &Value, gpu_layers: u32) -> Here {
    let memory = Memory {
        bytes: 1000,
        gpu_layers,
    };
    Here {
        model: "tiny".to_owned(),
        props: body(props).into(),
        memory,
    }
}

fn show_of(list: &Value, props: &Value) -> Value {
    read(&models::show("tiny:latest", &body(list), Some(&here(props, 0))).unwrap())
}

fn show(props: &Value) -> Value {
    show_of(&read(&list()), props)
}

/// The list with a model of another node, of which little is known.
fn list_with_another() -> Vec<u8> {
    let mut list = read(&list());
    let other = json!({"id": "other", "object": "model", "created": 0, "meta": {"n_ctx": 512}});
    list["data"].as_array_mut().unwrap().push(other);
    body(&list)
}

#[test]
fn a_model_of_another_node_is_listed_and_shown_with_what_is_known() {
    let list = list_with_another();
    let tags = read(&models::tags(&list).unwrap());
    assert_eq!(tags["models"][1]["name"], "other:latest");
    assert_eq!(tags["models"][1]["details"]["quantization_level"], "unknown");
    for here in [None, Some(&here(&props(), 2))] {
        let shown = read(&models::show("other", &list, here).unwrap());
        assert_eq!(shown["parameters"], "num_ctx 512");
        assert_eq!(shown["capabilities"], json!(["completion"]));
        let running = read(&models::running(&list, here).unwrap());
        let other = &running["models"][1];
        assert_eq!((&other["size"], &other["size_vram"]), (&json!(0), &json!(0)));
        assert_eq!(other["context_length"], 512);
    }
}

#[test]
fn tags_list_what_is_served() {
    let tags = read(&models::tags(&list()).unwrap());
    let model = &tags["models"][0];
    assert_eq!(
        (&model["name"], &model["model"]),
        (&json!("tiny:latest"), &json!("tiny:latest"))
    );
    assert_eq!(model["modified_at"], "2026-11-21T15:30:00Z");
    assert_eq!(model["size"], 2_934_528);
    assert_eq!(
        model["details"],
        json!({
            "parent_model": "", "format": "gguf", "family": "llama", "families": ["llama"],
            "parameter_size": "2.76M", "quantization_level": "Q8_0",
        })
    );
    assert!(
        model["digest"]
            .as_str()
            .unwrap()
            .chars()
            .all(|c| c.is_ascii_hexdigit())
    );
    assert_eq!(model["digest"].as_str().unwrap().len(), 64);
    assert!(model.get("expires_at").is_none());
}

#[test]
fn another_file_has_another_digest() {
    let digest = |models: Vec<u8>| read(&models::tags(&models).unwrap())["models"][0]["digest"].clone();
    let mut changed = read(&list());
    changed["data"][0]["meta"]["modified"] = json!(5);
    assert_eq!(digest(list()), digest(list()));
    assert_ne!(digest(body(&changed)), digest(list()));
}

#[test]
fn a_model_is_shown_with_its_metadata() {
    let shown = show(&props());
    assert_eq!(
        shown["model_info"],
        json!({
            "general.architecture": "llama", "llama.context_length": 4096, "llama.block_count": 3,
            "general.parameter_count": 2_755_008,
        })
    );
    assert_eq!(shown["template"], "{{ messages }}");
    assert_eq!(shown["parameters"], "num_ctx 4096\ntemperature 0.5\ntop_k 40");
    assert_eq!(shown["capabilities"], json!(["completion", "tools"]));
}

#[test]
fn capabilities_are_the_model_s() {
    let mut thinks = props();
    thinks["chat_template"] = json!("{% if enable_thinking %}<think>{% endif %}");
    thinks["infill"] = json!(true);
    thinks["chat_template_caps"] = json!({});
    assert_eq!(
        show(&thinks)["capabilities"],
        json!(["completion", "insert", "thinking"])
    );
    let mut encoder = read(&list());
    encoder["data"][0]["meta"]["n_ctx"] = json!(0);
    let shown = show_of(&encoder, &props());
    assert_eq!(shown["capabilities"], json!(["embedding"]));
    let mut ranks = props();
    ranks["model_metadata"]["llama.pooling_type"] = json!(4);
    let shown = show_of(&encoder, &ranks);
    assert_eq!(shown["capabilities"], json!([]));
}

#[test]
fn what_is_served_is_in_memory() {
    let running = |gpu_layers| read(&models::running(&list(), Some(&here(&props(), gpu_layers))).unwrap());
    let on_cpu = running(0);
    let model = &on_cpu["models"][0];
    assert_eq!((&model["size"], &model["size_vram"]), (&json!(1000), &json!(0)));
    assert_eq!(model["context_length"], 4096);
    assert_eq!(model["expires_at"], "2262-04-11T23:47:16Z");
    assert_eq!(running(2)["models"][0]["size_vram"], 500);
    assert_eq!(running(99)["models"][0]["size_vram"], 1000);
}

#[test]
fn an_unknown_model_is_not_found() {
    let problem = models::show("gpt-4", &list(), Some(&here(&props(), 0))).unwrap_err();
    assert_eq!(problem.status, 404);
    assert!(problem.message.contains("gpt-4") && problem.message.contains("tiny:latest"));
    for request in [
        json!({"model": "a"}),
        json!({"name": "a"}),
        json!({"model": "", "name": "a"}),
    ] {
        assert_eq!(models::shown(&body(&request)).unwrap(), "a");
    }
    assert_eq!(models::shown(b"{}").unwrap_err().param.as_deref(), Some("model"));
}

#[test]
fn loading_says_that_the_model_is_there() {
    let load = |asked: Result<Asked, Problem>| match asked.unwrap() {
        Asked::Load(load) => load,
        Asked::Text(exchange) => panic!("{exchange:?}"),
    };
    let chat = load(chat::asked(br#"{"model":"tiny"}"#));
    assert_eq!(
        read(&chat.answer(&list()).unwrap()),
        json!({
            "model": "tiny", "created_at": "2026-11-21T15:37:26Z",
            "message": {"role": "assistant", "content": ""}, "done": true, "done_reason": "load",
        })
    );
    let generate = load(generate::asked(br#"{"model":"tiny:latest"}"#));
    let answer = read(&generate.answer(&list()).unwrap());
    assert_eq!(
        (&answer["response"], &answer["done_reason"]),
        (&json!(""), &json!("load"))
    );
    let unknown = load(generate::asked(br#"{"model":"gpt-4"}"#));
    assert_eq!(unknown.answer(&list()).unwrap_err().status, 404);
}

#[test]
fn names_have_tags_in_ollama_only() {
    assert_eq!(
        (untagged("a:latest"), untagged("a"), untagged("a:8b")),
        ("a", "a", "a:8b")
    );
    assert_eq!(tagged("a"), "a:latest");
    assert_eq!(tagged("a:8b"), "a:8b");
    assert_eq!(tagged("host:1/a"), "host:1/a:latest");
}
