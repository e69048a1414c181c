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
            .and_then(file_type)
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

/// llama.cpp's name for `general.file_type` (`enum llama_ftype` in `llama.h`).
fn file_type(number: u32) -> Option<&'static str> {
    Some(match number {
        0 => "F32",
        1 => "F16",
        2 => "Q4_0",
        3 => "Q4_1",
        7 => "Q8_0",
        8 => "Q5_0",
        9 => "Q5_1",
        10 => "Q2_K",
        11 => "Q3_K_S",
        12 => "Q3_K_M",
        13 => "Q3_K_L",
        14 => "Q4_K_S",
        15 => "Q4_K_M",
        16 => "Q5_K_S",
        17 => "Q5_K_M",
        18 => "Q6_K",
        19 => "IQ2_XXS",
        20 => "IQ2_XS",
        21 => "Q2_K_S",
        22 => "IQ3_XS",
        23 => "IQ3_XXS",
        24 => "IQ1_S",
        25 => "IQ4_NL",
        26 => "IQ3_S",
        27 => "IQ3_M",
        28 => "IQ2_S",
        29 => "IQ2_M",
        30 => "IQ4_XS",
        31 => "IQ1_M",
        32 => "BF16",
        36 => "TQ1_0",
        37 => "TQ2_0",
        38 => "MXFP4",
        _ => return None,
    })
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
