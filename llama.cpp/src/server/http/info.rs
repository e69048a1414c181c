//! What is asked about the server and its model.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::{
    extract::{Path, State},
    response::Json,
};
use serde_json::{Map, Value, json};

use super::super::api::{
    ApiError, SYSTEM_FINGERPRINT,
    model::{self, ModelInfo, ModelList, ModelMeta},
    sampling::SamplingRequest,
};
use super::App;
use crate::gguf;

/// `GET /health`
pub(super) async fn health() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// `GET /v1/models`
pub(super) async fn models(State(app): State<App>) -> Json<ModelList> {
    Json(ModelList::new(vec![info(&app)]))
}

/// `GET /v1/models/{id}`
pub(super) async fn model(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Json<ModelInfo>, ApiError> {
    model::check(Some(&id), app.engine.name())?;
    Ok(Json(info(&app)))
}

fn info(app: &App) -> ModelInfo {
    let model = app.engine.model();
    let meta = ModelMeta {
        description: model.description(),
        architecture: model.architecture(),
        n_ctx: app.engine.context(),
        n_ctx_train: model.context_train(),
        n_vocab: model.vocab_size(),
        n_embd: model.embedding_width(),
        n_params: model.parameters(),
        size: model.size_bytes(),
        modified: app.engine.file().modified.and_then(unix_seconds),
        file_type: model.file_type(),
    };
    ModelInfo::new(app.engine.name(), app.started, meta)
}

fn unix_seconds(time: SystemTime) -> Option<u64> {
    time.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
}

/// The file's metadata as JSON, which has no infinities: such a number is null.
fn metadata(entries: &[(String, gguf::Value)]) -> Map<String, Value> {
    use gguf::Value as V;
    let json = |value: &V| match value {
        V::U8(number) => json!(number),
        V::I8(number) => json!(number),
        V::U16(number) => json!(number),
        V::I16(number) => json!(number),
        V::U32(number) => json!(number),
        V::I32(number) => json!(number),
        V::U64(number) => json!(number),
        V::I64(number) => json!(number),
        V::F32(number) => json!(number),
        V::F64(number) => json!(number),
        V::Bool(flag) => json!(flag),
        V::String(text) => json!(text),
        V::Array(_) => Value::Null,
    };
    entries
        .iter()
        .map(|(key, value)| (key.clone(), json(value)))
        .collect()
}

/// `GET /props`, with llama.cpp's names; `infill` and `model_metadata` are ours.
pub(super) async fn props(State(app): State<App>) -> Json<Value> {
    let (engine, model) = (&app.engine, app.engine.model());
    let sampling = SamplingRequest::default();
    let text = |token: Option<i32>| token.map(|token| model.detokenize(&[token], true));
    Json(json!({
        "default_generation_settings": {
            "n_ctx": engine.context(),
            "params": {
                "temperature": sampling.temperature,
                "top_k": sampling.top_k,
                "top_p": sampling.top_p,
                "min_p": sampling.min_p,
                "typical_p": sampling.typical_p,
                "repeat_last_n": sampling.repeat_last_n,
                "repeat_penalty": sampling.repeat_penalty,
                "frequency_penalty": sampling.frequency_penalty,
                "presence_penalty": sampling.presence_penalty,
            },
        },
        "total_slots": engine.slots(),
        "model_alias": engine.name(),
        "modalities": {"vision": false, "audio": false},
        "chat_template": engine.templates().source(),
        "chat_template_caps": engine.templates().capabilities(),
        "bos_token": text(model.bos()),
        "eos_token": text(model.eos()),
        "infill": model.infill().is_some(),
        "model_metadata": metadata(&engine.file().metadata),
        "build_info": SYSTEM_FINGERPRINT,
    }))
}
