//! EAGLE-3: files with one layer that guesses what a certain model says, from hidden states of three of its layers. What
//! llama.cpp's graphs of them take for granted, and would abort on, is looked at here, before it sees the file.

use std::path::PathBuf;

use super::draft::Unfit;
use crate::gguf::{self, TensorType};
use crate::llama::{Model, Vocabulary};

/// llama.cpp's name of the architecture.
const ARCHITECTURE: &str = "eagle3";
/// Layers whose hidden states it takes.
const LAYERS: usize = 3;
/// Architectures of which llama.cpp's graphs say what their layers are given, and which were seen to be guessed for.
const TARGETS: [&str; 5] = ["gpt-oss", "llama", "qwen3", "qwen35", "qwen3moe"];

/// Such a file's own claims, which agree with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Eagle {
    /// Before which layers of the model it wants the hidden state.
    pub(super) layers: [u32; LAYERS],
    /// Numbers of a hidden state of the model's.
    target_length: u32,
    /// Numbers of its own.
    length: u32,
    /// Tokens of its vocabulary.
    tokens: u64,
    /// Tokens that it has embeddings of; it may use the model's.
    embeddings: Option<u64>,
    /// Whether it has an output layer of its own.
    output: bool,
}

/// An EAGLE-3 file that can guess for the model.
#[derive(Debug, Clone)]
pub(super) struct EagleFile {
    pub(super) path: PathBuf,
    pub(super) eagle: Eagle,
}

/// Why such a file cannot guess for a model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Mismatch {
    #[error("llama.cpp does not tell what the layers of {0} models are given")]
    Architecture(String),
    #[error("it is made for hidden states of {made_for} numbers, and the model's have {have}")]
    Length { made_for: u32, have: u32 },
    #[error("it takes the hidden state before layer {layer}, and the model has {layers}, the first being 0")]
    Layer { layer: u32, layers: u32 },
    #[error(
        "it has no {what} of its own, and cannot use the model's: its hidden states have {own} numbers and the model's {have}"
    )]
    Shared { what: &'static str, own: u32, have: u32 },
    #[error("it knows {own} tokens, and the model {have}")]
    Tokens { own: u64, have: u32 },
}

/// What an EAGLE-3 file is for, or what is wrong with it; `None` if it is of another kind.
pub(super) fn find(model: &gguf::Model) -> Option<Result<Eagle, String>> {
    let architecture = model.metadata().get::<&str>("general.architecture");
    matches!(architecture, Ok(Some(ARCHITECTURE))).then(|| read(model))
}

fn read(model: &gguf::Model) -> Result<Eagle, String> {
    let metadata = model.metadata();
    let fault = |fault: gguf::Fault| fault.to_string();
    let number = |key: &str| {
        metadata
            .require::<u32>(&format!("{ARCHITECTURE}.{key}"))
            .map_err(fault)
    };
    let given = |key: &str, otherwise: u32| {
        let given = metadata.get::<u32>(&format!("{ARCHITECTURE}.{key}"));
        given.map_err(fault).map(|given| given.unwrap_or(otherwise))
    };
    let must = |is: bool, what: &str| if is { Ok(()) } else { Err(what.to_owned()) };
    let wanted = metadata
        .require::<&gguf::Array>("eagle3.target_layers")
        .map_err(fault)?;
    let layers = wanted.to_u32s().and_then(|layers| layers.try_into().ok());
    let layers: [u32; LAYERS] =
        layers.ok_or_else(|| format!("eagle3.target_layers does not name {LAYERS} layers"))?;
    must(
        number("block_count")? == 1 && given("nextn_predict_layers", 0)? == 0,
        "llama.cpp knows heads of 1 layer only",
    )?;
    let length = number("embedding_length")?;
    must(
        [0, length].contains(&given("embedding_length_out", 0)?),
        "eagle3.embedding_length_out is not embedding_length",
    )?;
    let heads = number("attention.head_count")?;
    let heads_kv = given("attention.head_count_kv", heads)?;
    must(
        heads > 0 && heads_kv > 0 && heads.is_multiple_of(heads_kv),
        "eagle3.attention.head_count is no multiple of head_count_kv",
    )?;
    let key = given("attention.key_length", length / heads)?;
    must(
        given("attention.value_length", length / heads)? == key,
        "eagle3.attention.key_length and value_length differ",
    )?;
    let rotated = given("rope.dimension_count", key)?;
    must(
        rotated <= key && rotated.is_multiple_of(2),
        "eagle3.rope.dimension_count is not even, or over key_length",
    )?;
    let words = metadata
        .get::<&gguf::Array>("tokenizer.ggml.tokens")
        .map_err(fault)?;
    let tokens = words.map_or(0, gguf::Array::len) as u64;
    let output = model.tensor("output.weight").is_some();
    if let Some(chosen) = model.tensor("d2t") {
        must(
            output,
            "it has the tensor d2t, and no output.weight that it would be for",
        )?;
        check_words(&chosen, tokens)?;
    }
    let embeddings = model.tensor("token_embd.weight");
    Ok(Eagle {
        layers,
        target_length: number("target_hidden_size")?,
        length,
        tokens,
        embeddings: embeddings.map(|found| found.tensor.shape.get(1).copied().unwrap_or(1)),
        output,
    })
}

/// Whether the words that its output layer is for are among so many tokens.
fn check_words(chosen: &gguf::Location<'_>, tokens: u64) -> Result<(), String> {
    if chosen.tensor.tensor_type != TensorType::I64 {
        return Err(format!(
            "the tensor d2t is {}, and must be i64",
            chosen.tensor.tensor_type
        ));
    }
    if chosen.tensor.bytes > tokens * size_of::<i64>() as u64 {
        return Err(format!(
            "the tensor d2t is for more words than the {tokens} that there are"
        ));
    }
    let bytes = chosen.read().map_err(|error| error.to_string())?;
    let (numbers, _) = bytes.as_chunks();
    let mut numbers = numbers.iter().map(|bytes| i64::from_le_bytes(*bytes));
    match numbers.find(|token| !u64::try_from(*token).is_ok_and(|token| token < tokens)) {
        Some(token) => Err(format!(
            "the tensor d2t names token {token}, and there are {tokens}"
        )),
        None => Ok(()),
    }
}

impl Eagle {
    /// Whether it can guess for `target`. Of both the vocabulary is enough.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn check(&self, own: &Model, target: &Model) -> Result<(), Unfit> {
        let architecture = target.architecture();
        if !TARGETS.contains(&architecture.as_str()) {
            return Err(Mismatch::Architecture(architecture).into());
        }
        self.check_shape(target)?;
        Ok(Vocabulary::of(own).guesses_for(&Vocabulary::of(target))?)
    }

    fn check_shape(&self, target: &Model) -> Result<(), Mismatch> {
        // Those within the model, and those that it gives away.
        let lengths = [target.hidden_length(), target.embedding_width()];
        if let Some(have) = lengths.into_iter().find(|length| *length != self.target_length) {
            return Err(Mismatch::Length {
                made_for: self.target_length,
                have,
            });
        }
        let (have, layers, known) = (target.hidden_length(), target.layers(), target.vocab_size());
        if let Some(layer) = self.layers.into_iter().find(|layer| *layer >= layers) {
            return Err(Mismatch::Layer { layer, layers });
        }
        let missing = match (self.embeddings, self.output) {
            (None, _) => Some("embeddings"),
            (_, false) => Some("output layer"),
            _ => None,
        };
        if let Some(what) = missing.filter(|_| self.length != have) {
            return Err(Mismatch::Shared {
                what,
                own: self.length,
                have,
            });
        }
        // It is asked about each of the model's tokens, and each of its own may be its guess.
        let embeddings = self.embeddings.unwrap_or(known.into());
        if self.tokens != u64::from(known) || embeddings < known.into() {
            return Err(Mismatch::Tokens {
                own: embeddings.min(self.tokens),
                have: known,
            });
        }
        Ok(())
    }

    /// Bytes that the model's graph takes for the hidden states of so many tokens at once, wherever it is computed.
    pub(super) fn graph_bytes(&self, batch: u32) -> u64 {
        u64::from(batch) * self.taken() * size_of::<f32>() as u64
    }

    /// Bytes of this machine's memory that llama.cpp does not count, where the model computes so many tokens at once and
    /// the head so many: hidden states where the model keeps them, as they wait, and for the encoder, in and out; and the
    /// head's rows of logits.
    pub(super) fn host_bytes(&self, batch: u32, own_batch: u32) -> u64 {
        let own = 2 * self.taken() + 4 * u64::from(self.length) + self.tokens;
        let numbers = 2 * u64::from(batch) * self.taken() + u64::from(own_batch) * own;
        numbers * size_of::<f32>() as u64
    }

    /// Numbers of the model's hidden states that it takes for a token.
    fn taken(&self) -> u64 {
        LAYERS as u64 * u64::from(self.target_length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::random::{self, Architecture, Words};
    use crate::gguf::{Array, Gguf, Value, Writer};

    /// What is found in the file of a random head whose metadata was changed, and of which a tensor was lost or is
    /// given as numbers.
    fn found(
        change: impl Fn(&str) -> Option<Value>,
        lost: &str,
        numbers: Option<(TensorType, Vec<u8>)>,
    ) -> Option<Result<Eagle, String>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("eagle.gguf");
        let eagle = random::Eagle {
            target: random::small(Architecture::Llama, 1),
            layers: [0, 1, 3],
            mixture: 0.1,
            words: Words::Some(400),
        };
        eagle.write(&path).unwrap();
        let gguf = Gguf::open(&path).unwrap();
        let mut writer = Writer::new();
        for key in ["eagle3.nextn_predict_layers", "eagle3.embedding_length_out"] {
            writer.set(key, change(key).unwrap_or(Value::U32(0)));
        }
        for (key, value) in gguf.metadata().iter() {
            writer.set(key, change(key).unwrap_or_else(|| value.clone()));
        }
        let data = std::fs::read(&path).unwrap();
        for tensor in gguf.tensors().iter().filter(|tensor| tensor.name != lost) {
            let start = tensor.offset as usize;
            let own = (
                tensor.tensor_type,
                data[start..start + tensor.bytes as usize].to_vec(),
            );
            let given = numbers.clone().filter(|_| tensor.name == "d2t");
            let (tensor_type, bytes) = given.unwrap_or(own);
            let shape = match tensor.name.as_str() {
                "d2t" => vec![bytes.len() as u64 / tensor_type.block_bytes()],
                _ => tensor.shape.clone(),
            };
            writer.tensor(&tensor.name, shape, tensor_type, move |out| out.write_all(&bytes));
        }
        let path = folder.path().join("changed.gguf");
        writer.write(&path).unwrap();
        find(&gguf::Model::open(&path).unwrap())
    }

    fn changed(key: &'static str, value: impl Into<Value>) -> Option<Result<Eagle, String>> {
        let value = value.into();
        found(|known| (known == key).then(|| value.clone()), "", None)
    }

    #[test]
    fn what_a_head_is_for_is_read_from_its_file() {
        let expected = Eagle {
            layers: [0, 1, 3],
            target_length: 128,
            length: 128,
            tokens: 512,
            embeddings: Some(512),
            output: true,
        };
        assert_eq!(found(|_| None, "", None), Some(Ok(expected)));
        let without = Eagle {
            embeddings: None,
            ..expected
        };
        assert_eq!(found(|_| None, "token_embd.weight", None), Some(Ok(without)));
        assert_eq!(changed("general.architecture", "llama"), None);
    }

    #[test]
    fn files_that_llama_cpp_would_abort_on_are_refused() {
        let refused = |found: Option<Result<Eagle, String>>, why: &str| {
            let message = found.unwrap().unwrap_err();
            assert!(message.contains(why), "{message}");
        };
        refused(
            changed("eagle3.target_layers", Array::of_i32([1, 2])),
            "does not name 3 layers",
        );
        refused(
            changed("eagle3.target_layers", Array::of_i32([1, 2, -1])),
            "does not name 3 layers",
        );
        refused(changed("eagle3.block_count", 2u32), "heads of 1 layer only");
        refused(
            changed("eagle3.nextn_predict_layers", 1u32),
            "heads of 1 layer only",
        );
        refused(
            changed("eagle3.embedding_length_out", 64u32),
            "embedding_length_out",
        );
        refused(changed("eagle3.attention.value_length", 16u32), "differ");
        refused(changed("eagle3.attention.head_count_kv", 3u32), "no multiple");
        refused(changed("eagle3.attention.head_count", 0u32), "no multiple");
        refused(changed("eagle3.rope.dimension_count", 34u32), "over key_length");
        refused(changed("eagle3.rope.dimension_count", 15u32), "not even");
        refused(changed("eagle3.target_hidden_size", "long"), "target_hidden_size");
        refused(found(|_| None, "output.weight", None), "no output.weight");
        let words = |words: &[i64]| words.iter().flat_map(|word| word.to_le_bytes()).collect();
        refused(
            found(|_| None, "", Some((TensorType::I64, words(&[3, 512])))),
            "names token 512",
        );
        refused(
            found(|_| None, "", Some((TensorType::I64, words(&[-1])))),
            "names token -1",
        );
        refused(
            found(|_| None, "", Some((TensorType::I64, words(&[1; 513])))),
            "more words than the 512",
        );
        refused(
            found(|_| None, "", Some((TensorType::I32, vec![0; 64]))),
            "must be i64",
        );
    }
}
