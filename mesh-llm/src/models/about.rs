//! What a model's files say of it.

use llama_engine::gguf::{self, Model};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// What is shown of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// As `qwen3`.
    pub architecture: String,
    /// Numbers in its tensors.
    pub parameters: u64,
    /// As `Q4_K_M`; by the tensors' types where the file does not say.
    pub quantization: String,
    /// Tokens that it was trained for, where the file says.
    pub context: Option<u64>,
    /// The length of all its files.
    pub bytes: u64,
    /// All its files.
    pub files: Vec<PathBuf>,
}

impl About {
    /// Reads the headers of a model's files.
    ///
    /// # Errors
    /// Where a file is damaged, or a part is missing.
    pub fn read(path: &Path) -> Result<Self, gguf::Error> {
        let model = Model::open(path)?;
        let first = model.first();
        let architecture: &str = first.require("general.architecture")?;
        let context = first.get(&format!("{architecture}.context_length"))?;
        let quantization = first
            .get::<u32>("general.file_type")
            .ok()
            .flatten()
            .and_then(gguf::file_type)
            .map_or_else(|| commonest_type(&model), str::to_owned);
        Ok(Self {
            architecture: architecture.to_owned(),
            parameters: model
                .tensors()
                .map(|location| location.tensor.shape.iter().product::<u64>())
                .sum(),
            quantization,
            context,
            bytes: model.file_bytes(),
            files: model.parts().iter().map(|part| part.file().to_owned()).collect(),
        })
    }
}

/// The type that most bytes are in.
fn commonest_type(model: &Model) -> String {
    let mut bytes: HashMap<&str, u64> = HashMap::new();
    for location in model.tensors() {
        *bytes.entry(location.tensor.tensor_type.name()).or_default() += location.tensor.bytes;
    }
    let commonest = bytes.into_iter().max_by_key(|(name, bytes)| (*bytes, *name));
    commonest.map_or_else(|| "?".to_owned(), |(name, _)| name.to_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_s_header_says_what_it_is() {
        let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/mesh-tiny.gguf");
        let about = About::read(&tiny).unwrap();
        assert_eq!(
            (about.architecture.as_str(), about.quantization.as_str()),
            ("llama", "Q8_0")
        );
        assert_eq!(about.bytes, tiny.metadata().unwrap().len());
        assert!(
            (about.bytes / 2..about.bytes * 2).contains(&about.parameters),
            "{about:?}"
        );
        assert!(about.context.is_some());
    }
}
