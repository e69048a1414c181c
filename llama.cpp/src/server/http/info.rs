//! What is asked about the server and its model.

use axum::{
    extract::{Path, State},
    response::Json,
};
use serde_json::{Value, json};

use super::super::api::{
    ApiError, SYSTEM_FINGERPRINT,
    model::{self, ModelInfo, ModelList, ModelMeta},
    sampling::SamplingRequest,
};
use super::App;

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
    };
    ModelInfo::new(app.engine.name(), app.started, meta)
}

/// `GET /props`, with llama.cpp's names.
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
        "build_info": SYSTEM_FINGERPRINT,
    }))
}
