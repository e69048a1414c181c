//! What a model needs where it is served, as far as its header says.

use llama_engine::gguf::{self, Metadata, Model};
use llama_engine::rpc::plan::{MOST_LAYERS, Work};
use std::path::Path;

/// Tokens of context without which no model is served, unless its user says so.
const LEAST_CONTEXT: u32 = 4096;

/// Bytes of a number in a KV cache that nobody asked to be smaller.
const CACHED_NUMBER: u64 = 2;

/// What a model needs. The engine computes it exactly, once it has the model; this is what others plan with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Need {
    /// What there is to compute, and so to hold.
    pub work: Work,
    /// Bytes of the cache beside the weights. Buffers are not in it: better is an engine that says that it has not the room
    /// for them than a model that waits though there is room.
    pub beside: u64,
}

impl Need {
    /// Reads the headers of a model's files. `context`: tokens that its user wants; none: the least.
    ///
    /// # Errors
    /// Where a file is damaged, or a part is missing.
    pub fn read(path: &Path, context: Option<u32>) -> Result<Self, gguf::Error> {
        let model = Model::open(path)?;
        let first = model.first();
        let architecture: &str = first.require("general.architecture")?;
        let layers = number(first.metadata(), architecture, "block_count").unwrap_or(0);
        let work = Work::of(&model, u32::try_from(layers).unwrap_or(0).min(MOST_LAYERS));
        let context = u64::from(context.unwrap_or(LEAST_CONTEXT));
        let cache = cached_numbers(first.metadata(), architecture)
            .saturating_mul(layers)
            .saturating_mul(context)
            .saturating_mul(CACHED_NUMBER);
        Ok(Self { work, beside: cache })
    }

    /// Bytes of all of it.
    pub fn bytes(&self) -> u64 {
        let weights = self.work.layers.iter().sum::<u64>() + self.work.head;
        weights.saturating_add(self.beside)
    }
}

/// Numbers that a layer's KV cache holds of a token; 0 of layers that keep something else.
fn cached_numbers(metadata: &Metadata, architecture: &str) -> u64 {
    let number = |key| number(metadata, architecture, key);
    let Some(heads) = number("attention.head_count") else {
        return 0;
    };
    let each = number("embedding_length")
        .unwrap_or(0)
        .checked_div(heads)
        .unwrap_or(0);
    let key = number("attention.key_length").unwrap_or(each);
    let value = number("attention.value_length").unwrap_or(each);
    let heads = number("attention.head_count_kv").unwrap_or(heads);
    heads.saturating_mul(key.saturating_add(value))
}

/// A number of the architecture's; of a list with one for each layer, the greatest.
fn number(metadata: &Metadata, architecture: &str, key: &str) -> Option<u64> {
    let key = format!("{architecture}.{key}");
    if let Ok(Some(number)) = metadata.get::<u32>(&key) {
        return Some(number.into());
    }
    let list = metadata.get::<&gguf::Array>(&key).ok().flatten()?;
    list.to_u32s()?.into_iter().max().map(u64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_model_needs_its_weights_and_a_cache_that_grows_with_the_context() {
        let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/mesh-tiny.gguf");
        let least = Need::read(&tiny, None).unwrap();
        let weights = least.work.layers.iter().sum::<u64>() + least.work.head;
        let file = tiny.metadata().unwrap().len();
        assert!((file / 2..=file).contains(&weights), "{weights} of {file}");
        assert!(least.work.layers.iter().all(|bytes| *bytes > 0) && least.work.head > 0);
        let longer = Need::read(&tiny, Some(3 * LEAST_CONTEXT)).unwrap();
        assert!(least.beside > 0);
        assert_eq!(longer.beside, 3 * least.beside);
        assert_eq!(least.bytes(), weights + least.beside);
    }
}
