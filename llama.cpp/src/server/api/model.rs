//! `GET /v1/models`, and the check of a request's `model`.

use serde::Serialize;

use super::{ApiError, ErrorCode, Status};

/// `GET /v1/models`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelList {
    object: List,
    /// The models that are served.
    pub data: Vec<ModelInfo>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum List {
    List,
}

impl ModelList {
    /// The list of these.
    pub fn new(data: Vec<ModelInfo>) -> Self {
        ModelList {
            object: List::List,
            data,
        }
    }
}

/// `GET /v1/models/{id}`
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelInfo {
    /// The name that requests use.
    pub id: String,
    object: ModelObject,
    /// When it was loaded, in Unix seconds.
    pub created: u64,
    owned_by: &'static str,
    /// What it is, with llama.cpp's names.
    pub meta: ModelMeta,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum ModelObject {
    Model,
}

/// What a model is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelMeta {
    /// llama.cpp's one-line description.
    pub description: String,
    /// Family of the network.
    pub architecture: String,
    /// Tokens that all requests share.
    pub n_ctx: u32,
    /// Tokens that it was trained for.
    pub n_ctx_train: u32,
    /// Size of the vocabulary.
    pub n_vocab: u32,
    /// Width of an embedding.
    pub n_embd: u32,
    /// Number of weights.
    pub n_params: u64,
    /// Bytes of its weights.
    pub size: u64,
    /// When its file was last changed, in Unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modified: Option<u64>,
    /// llama.cpp's number of how most of its weights are stored: `llama_ftype`.
    pub file_type: u32,
}

impl ModelInfo {
    /// A model under its name.
    pub fn new(id: impl Into<String>, created: u64, meta: ModelMeta) -> Self {
        ModelInfo {
            id: id.into(),
            object: ModelObject::Model,
            created,
            owned_by: "mesh-llm",
            meta,
        }
    }
}

/// Whether a request means the model that is served: it does by its name, and by naming none.
pub fn check(requested: Option<&str>, served: &str) -> Result<(), ApiError> {
    match requested {
        None | Some("") => Ok(()),
        Some(name) if name == served => Ok(()),
        Some(name) => Err(ApiError::new(
            Status::NotFound,
            ErrorCode::ModelNotFound,
            format!("there is no model {name:?} here; there is {served:?}"),
        )
        .with_param("model")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_model_is_told_the_name_that_exists() {
        assert_eq!(check(None, "tiny"), Ok(()));
        assert_eq!(check(Some(""), "tiny"), Ok(()));
        assert_eq!(check(Some("tiny"), "tiny"), Ok(()));
        let error = check(Some("gpt-4"), "tiny").unwrap_err();
        assert_eq!(error.status, Status::NotFound);
        assert_eq!(error.param.as_deref(), Some("model"));
        assert_eq!(
            error.message,
            r#"there is no model "gpt-4" here; there is "tiny""#
        );
    }

    #[test]
    fn the_list_has_openais_shape() {
        let meta = ModelMeta {
            description: "llama 1M Q8_0".into(),
            architecture: "llama".into(),
            n_ctx: 1,
            n_ctx_train: 2,
            n_vocab: 3,
            n_embd: 4,
            n_params: 5,
            size: 6,
            modified: Some(8),
            file_type: 7,
        };
        let list = ModelList::new(vec![ModelInfo::new("tiny", 7, meta)]);
        assert_eq!(
            serde_json::to_string(&list).unwrap(),
            r#"{"object":"list","data":[{"id":"tiny","object":"model","created":7,"owned_by":"mesh-llm","meta":{"description":"llama 1M Q8_0","architecture":"llama","n_ctx":1,"n_ctx_train":2,"n_vocab":3,"n_embd":4,"n_params":5,"size":6,"modified":8,"file_type":7}}]}"#
        );
    }
}
