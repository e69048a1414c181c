//! Ollama's API (<https://github.com/ollama/ollama/blob/main/docs/api.md>), which many editors speak and
//! nothing else.
//!
//! Chats, and prompts that the model's template is put around, are translated to the engine's chats;
//! prompts that are raw or have a `suffix` to its text completions. [`chat`] and [`generate`] read
//! requests, [`answer`] writes answers to both, [`embed`] does both for embeddings, [`models`] says what
//! is served. Managing models is refused: this server serves what it was started with.

mod answer;
mod call;
pub mod chat;
mod details;
pub mod embed;
pub mod generate;
pub mod models;
mod request;
mod time;
mod update;

#[cfg(test)]
mod tests;

use super::{Exchange, Problem};
use hyper::Method;
use serde_json::json;

/// The version that `/api/version` names: that of the Ollama API that is spoken here. Editors refuse
/// servers that are older than what they need.
const API_VERSION: &str = "0.12.11";

/// What `GET /` says, by which clients know that there is a server.
pub const ALIVE: &str = "Ollama is running";

/// What a path of the API is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// `GET /`: is anybody there?
    Alive,
    /// `GET /api/version`
    Version,
    /// `GET /api/tags`: the models.
    Tags,
    /// `POST /api/show`: one of them.
    Show,
    /// `GET /api/ps`: those in memory.
    Running,
    /// `POST /api/chat`
    Chat,
    /// `POST /api/generate`
    Generate,
    /// `POST /api/embed`
    Embed,
    /// `POST /api/embeddings`, the older form.
    Embeddings,
    /// What would change the models, such as `POST /api/pull`.
    Manage,
    /// A path of the API with a method that it does not take; it takes these.
    WrongMethod(&'static str),
}

/// Finds the endpoint of a path, if it is Ollama's.
pub fn route(method: &Method, path: &str) -> Option<Endpoint> {
    const READ: &str = "GET, HEAD";
    let reads = matches!(*method, Method::GET | Method::HEAD);
    let (endpoint, allowed) = match path {
        // Other methods are not a question whether anybody is there.
        "/" if reads => (Endpoint::Alive, READ),
        "/api/version" => (Endpoint::Version, READ),
        "/api/tags" => (Endpoint::Tags, READ),
        "/api/ps" => (Endpoint::Running, READ),
        "/api/show" => (Endpoint::Show, "POST"),
        "/api/chat" => (Endpoint::Chat, "POST"),
        "/api/generate" => (Endpoint::Generate, "POST"),
        "/api/embed" => (Endpoint::Embed, "POST"),
        "/api/embeddings" => (Endpoint::Embeddings, "POST"),
        "/api/pull" | "/api/push" | "/api/create" | "/api/copy" => (Endpoint::Manage, "POST"),
        "/api/delete" => (Endpoint::Manage, "DELETE"),
        _ if path.starts_with("/api/blobs/") => (Endpoint::Manage, "HEAD, POST"),
        _ => return None,
    };
    let takes = allowed.split(", ").any(|allowed| allowed == method.as_str());
    Some(if takes {
        endpoint
    } else {
        Endpoint::WrongMethod(allowed)
    })
}

/// What a request for text wants.
#[derive(Debug)]
pub enum Asked {
    /// Text, from the engine.
    Text(Exchange),
    /// That the model be loaded: a request without a prompt.
    Load(models::Load),
}

/// What a path says that would change the models.
pub fn managed() -> Problem {
    Problem::invalid(
        None,
        "this server does not pull, push, create, copy or delete models: it serves the one that it was \
         started with, which /api/tags names; start `mesh-llm --model FILE.gguf` to serve another",
    )
}

/// `GET /api/version`
pub fn version() -> Vec<u8> {
    json!({"version": API_VERSION}).to_string().into_bytes()
}

/// A problem in Ollama's words: `{"error":"…"}`.
pub fn words(problem: &Problem) -> Vec<u8> {
    json!({"error": problem.message}).to_string().into_bytes()
}

/// The engine's name of a model: Ollama's clients add a tag, `:latest` where they mean none.
fn untagged(name: &str) -> &str {
    name.strip_suffix(":latest").unwrap_or(name)
}

/// Ollama's name of a model, which always has a tag.
fn tagged(id: &str) -> String {
    let name = id.rsplit('/').next().unwrap_or(id);
    if name.contains(':') {
        id.to_owned()
    } else {
        format!("{id}:latest")
    }
}
