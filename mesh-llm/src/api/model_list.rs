//! The models that this machine and other nodes serve, in OpenAI's words.

use super::forward::Context;
use super::places::absent;
use super::remote::RemoteModel;
use super::translate::get;
use crate::dialects::Problem;
use crate::dialects::ollama::models::MODELS_PATH;
use crate::http::{AnswerBody, json};
use bytes::Bytes;
use hyper::{Method, Response};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use std::collections::HashSet;

/// What is asked of the models.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Question {
    /// All of them.
    All,
    /// The one with this name.
    One(String),
}

impl Question {
    /// What a request asks, if it is about models.
    pub(super) fn of(method: &Method, path: &str) -> Option<Self> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return None;
        }
        let rest = path.strip_prefix("/v1").unwrap_or(path).strip_prefix("/models")?;
        if rest.is_empty() {
            return Some(Self::All);
        }
        let name = percent_decode_str(rest.strip_prefix('/')?).decode_utf8().ok()?;
        (!name.is_empty()).then(|| Self::One(name.into_owned()))
    }

    /// The answer, where other nodes serve something.
    ///
    /// # Errors
    /// Where there is no such model.
    pub(super) async fn answer(&self, context: &Context) -> Result<Response<AnswerBody>, Problem> {
        match self {
            Self::All => Ok(json(all(context).await?.to_vec())),
            Self::One(name) => Ok(json(one(context, name).await?.to_string().into_bytes())),
        }
    }
}

/// All models: what the own engine says, and what other nodes serve besides.
///
/// # Errors
/// Where no other node serves anything, and the own engine does not answer.
pub(super) async fn all(context: &Context) -> Result<Bytes, Problem> {
    let remotes = context.remotes.borrow().clone();
    if remotes.serve_nothing() {
        return get(context, MODELS_PATH).await;
    }
    let mut models = own(context).await;
    let mut known: HashSet<String> = models.iter().filter_map(name).map(str::to_owned).collect();
    for model in remotes.models() {
        if known.insert(model.name.clone()) {
            models.push(about(model));
        }
    }
    let list = json!({"object": "list", "data": models});
    Ok(Bytes::from(list.to_string()))
}

async fn one(context: &Context, wanted: &str) -> Result<Value, Problem> {
    let remotes = context.remotes.borrow().clone();
    let is_own = context.own.serving().is_ok_and(|serving| serving.model == wanted);
    let own = match is_own {
        true => own(context)
            .await
            .into_iter()
            .find(|model| name(model) == Some(wanted)),
        false => None,
    };
    let elsewhere = || remotes.models().find(|model| model.name == wanted).map(about);
    own.or_else(elsewhere)
        .ok_or_else(|| absent(&context.own, &remotes, wanted))
}

/// What the own engine lists; nothing while it does not answer.
async fn own(context: &Context) -> Vec<Value> {
    let listed = get(context, MODELS_PATH).await;
    let list = listed.ok().and_then(|list| serde_json::from_slice(&list).ok());
    match list {
        Some(Value::Object(mut list)) => match list.remove("data") {
            Some(Value::Array(models)) => models,
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

fn name(model: &Value) -> Option<&str> {
    model.get("id")?.as_str()
}

/// A model of another node. When it was loaded is not known here.
fn about(model: &RemoteModel) -> Value {
    json!({
        "id": model.name,
        "object": "model",
        "created": 0,
        "owned_by": "mesh-llm",
        "meta": {"n_ctx": model.context},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_asked_for_by_these_paths() {
        let one = |name: &str| Some(Question::One(name.to_owned()));
        for (path, question) in [
            ("/v1/models", Some(Question::All)),
            ("/models", Some(Question::All)),
            ("/v1/models/a", one("a")),
            ("/models/org/a%20b", one("org/a b")),
            ("/v1/models/", None),
            ("/v1/models/%ff", None),
            ("/v1/modelsx", None),
            ("/v1", None),
        ] {
            assert_eq!(Question::of(&Method::GET, path), question, "{path}");
            assert_eq!(Question::of(&Method::HEAD, path), question, "{path}");
            assert_eq!(Question::of(&Method::POST, path), None, "{path}");
        }
    }
}
