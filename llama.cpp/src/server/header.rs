//! What a model's file says before llama.cpp sees it.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use super::eagle::{self, Eagle};
use super::engine::ModelFile;
use super::heads::{self, ModelHeads};
use super::load::{Refused, refused};
use crate::gguf;
use crate::rpc::plan::MOST_LAYERS;
use crate::status::Refusal;

/// Taken for the context that a model was trained for where its file does not say.
const CONTEXT_UNKNOWN: u32 = 4096;
/// More context than this no model has, and llama.cpp takes gigabytes to compute what it would need.
pub(super) const MOST_CONTEXT: u32 = 1 << 24;

/// What the choice needs to know of a model.
#[derive(Debug, Clone)]
pub(super) struct Header {
    /// Layers, the output not counted.
    pub(super) layers: u32,
    /// Tokens of context that it was trained for.
    pub(super) context_train: u32,
    /// Heads that can guess.
    pub(super) heads: Option<ModelHeads>,
    /// What it is for, or what is wrong with it, if it is an EAGLE-3 file.
    pub(super) eagle: Option<Result<Eagle, String>>,
    /// What else is told of it.
    pub(super) file: ModelFile,
}

/// Reads the file with our own reader: llama.cpp trusts files more than one should.
///
/// # Errors
/// Where it cannot be read, or is no model that llama.cpp could load.
pub(super) fn read_header(path: &Path) -> Result<Header, Refused> {
    let model = gguf::Model::open(path).map_err(|error| match error {
        gguf::Error::Read { .. } | gguf::Error::MissingParts { .. } => {
            refused(Refusal::File, error.to_string())
        }
        _ => refused(Refusal::Model, error.to_string()),
    })?;
    let metadata = model.metadata();
    let wrong = |fault| refused(Refusal::Model, format!("{}: {fault}", path.display()));
    let architecture: &str = metadata.require("general.architecture").map_err(wrong)?;
    if let Some(word) = repeated_word(metadata).map_err(wrong)? {
        let message = format!(
            "{}: tokenizer.ggml.tokens has {word:?} twice: the file is damaged; download it again",
            path.display()
        );
        return Err(refused(Refusal::Model, message));
    }
    let number = |key: &str| {
        metadata
            .get::<u32>(&format!("{architecture}.{key}"))
            .map_err(wrong)
    };
    let layers = number("block_count")?.unwrap_or(0);
    if layers > MOST_LAYERS {
        let message = format!(
            "{}: {architecture}.block_count is {layers}, but llama.cpp knows at most {MOST_LAYERS}",
            path.display()
        );
        return Err(refused(Refusal::Model, message));
    }
    Ok(Header {
        layers,
        context_train: number("context_length")?
            .unwrap_or(CONTEXT_UNKNOWN)
            .min(MOST_CONTEXT),
        heads: heads::find(&model, architecture, layers),
        eagle: eagle::find(&model),
        file: ModelFile {
            // Where the system does not say, nothing is lost but the date.
            modified: fs::metadata(path).and_then(|about| about.modified()).ok(),
            metadata: scalars(metadata),
        },
    })
}

/// All metadata but lists.
fn scalars(metadata: &gguf::Metadata) -> Vec<(String, gguf::Value)> {
    let scalars = metadata
        .iter()
        .filter(|(_, value)| !matches!(value, gguf::Value::Array(_)));
    scalars
        .map(|(key, value)| (key.to_owned(), value.clone()))
        .collect()
}

/// A word that is in the vocabulary twice: llama.cpp aborts on it.
fn repeated_word(metadata: &gguf::Metadata) -> Result<Option<String>, gguf::Fault> {
    let words = metadata
        .get::<&gguf::Array>("tokenizer.ggml.tokens")?
        .and_then(gguf::Array::strings);
    let mut seen = HashSet::new();
    let repeated = words.and_then(|mut words| words.find(|word| !seen.insert(*word)));
    Ok(repeated.map(|word| String::from_utf8_lossy(word).into_owned()))
}
