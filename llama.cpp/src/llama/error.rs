//! What can go wrong in llama.cpp.

/// An error from llama.cpp. Its text is for the user who sent what caused it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// llama.cpp does not accept this input: a template, grammar, schema, text or parameter.
    #[error("{0}")]
    Rejected(String),
    /// The model's file cannot be loaded.
    #[error("llama.cpp cannot load {path}: {cause}")]
    Load {
        /// The file.
        path: String,
        /// What llama.cpp said last.
        cause: String,
    },
    /// No context could be made.
    #[error("llama.cpp cannot make a context: {0}")]
    Context(String),
    /// A sequence's cache cannot be saved or restored.
    #[error("a slot's cache cannot be saved or restored: {0}")]
    State(String),
    /// A node of the split is lost: nothing will be computed any more.
    #[error("{0}")]
    Lost(String),
    /// A step failed.
    #[error("llama.cpp failed to compute a step: {0}")]
    Decode(String),
}
