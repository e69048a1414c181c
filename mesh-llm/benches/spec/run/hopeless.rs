//! A draft model that is never right: it holds that to be most likely what the real one holds to be least
//! likely.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use llama_engine::gguf;

/// The weights, in `f32`, that each last hidden state is multiplied by before the output layer.
const LAST_NORM: &str = "output_norm.weight";

/// Makes one of `draft`, in `folder`.
///
/// # Errors
/// Where it cannot be read, written or changed.
pub fn make(draft: &Path, folder: &Path) -> anyhow::Result<PathBuf> {
    let model = gguf::Model::open(draft)?;
    let norm = model
        .tensor(LAST_NORM)
        .context("the draft model has no last norm")?
        .tensor;
    let begin = usize::try_from(norm.offset)?;
    let end = begin + usize::try_from(norm.bytes)?;
    let mut bytes = fs::read(draft)?;
    let weights = bytes.get_mut(begin..end).context("the draft model is cut off")?;
    // The sign is the highest bit of the last byte.
    for weight in weights.chunks_exact_mut(size_of::<f32>()) {
        weight[3] ^= 0x80;
    }
    let path = folder.join("hopeless-draft.gguf");
    fs::write(&path, bytes)?;
    Ok(path)
}
