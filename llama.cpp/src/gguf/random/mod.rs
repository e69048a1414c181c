//! Whole models with random weights: files that llama.cpp loads and runs like real ones, for tests and
//! benchmarks.
//!
//! What they generate is made-up words, always valid UTF-8, and depends on the seed and on the whole
//! prompt. [`small`] makes models of below 20 MB of many architectures, [`qwen2_half_billion`] one that
//! computes like a real model.
//!
//! ```
//! use llama_engine::gguf::random::{self, Architecture};
//!
//! # fn main() -> Result<(), llama_engine::gguf::Error> {
//! # let directory = tempfile::tempdir().unwrap();
//! # let path = directory.path().join("model.gguf");
//! random::small(Architecture::Qwen3, 42).write(&path)?;
//! # Ok(())
//! # }
//! ```

mod architecture;
mod dense;
mod eagle;
mod experts;
mod plan;
mod recurrent;
#[cfg(test)]
mod tests;
mod vocabulary;
mod weights;

use std::path::{Path, PathBuf};
use std::str::FromStr;

pub use self::architecture::Architecture;
pub use self::eagle::{Eagle, Words};
use self::plan::Plan;
use self::vocabulary::Vocabulary;
use super::{Error, Fault, TensorType, Writer};

/// The format of matrices. Everything else is F32, as in real models.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WeightType {
    /// Four bytes a weight.
    F32,
    /// Two bytes a weight.
    F16,
    /// 34 bytes for 32 weights.
    Q8_0,
}

impl WeightType {
    fn tensor_type(self) -> TensorType {
        match self {
            Self::F32 => TensorType::F32,
            Self::F16 => TensorType::F16,
            Self::Q8_0 => TensorType::Q8_0,
        }
    }

    /// The number in `general.file_type`, by `llama.h`'s `enum llama_ftype`.
    fn file_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q8_0 => 7,
        }
    }
}

impl FromStr for WeightType {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "f32" => Ok(Self::F32),
            "f16" => Ok(Self::F16),
            "q8_0" => Ok(Self::Q8_0),
            _ => Err(format!("`{name}` is none of f32, f16, q8_0")),
        }
    }
}

/// Which matrix turns hidden states into logits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Output {
    /// One of its own.
    Own,
    /// The one that turns tokens into hidden states. What a small model of this kind generates by always
    /// taking the likeliest token soon repeats itself. `gpt-oss` cannot be so.
    Tied,
}

/// What an encoder makes of its tokens' vectors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// How well a document answers a query, from the first of them.
    Rank,
}

impl Pooling {
    /// The number by `llama.h`'s `enum llama_pooling_type`.
    fn number(self) -> u32 {
        match self {
            Self::Mean => 1,
            Self::Rank => 4,
        }
    }
}

/// What tokens for bytes outside printable ASCII decode to. Such a token is never generated, but in
/// a prompt each byte of a character that the vocabulary does not have becomes one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ByteTokens {
    /// Text such as `<0xC3>`: whatever tokens are put together, they decode to valid UTF-8.
    Text,
    /// That byte, as in real models.
    Bytes,
}

/// The value of [`Spec::end_of_generation`] at which generation in practice never ends by itself.
pub const ENDLESS: f32 = -plan::MARGIN;

/// A chat template in the ChatML format, whose markers are tokens of the vocabulary.
pub const CHATML: &str = "{%- for message in messages -%}{{ '<|im_start|>' + message.role + '\\n' + \
    message.content + '<|im_end|>\\n' }}{%- endfor -%}{%- if add_generation_prompt -%}\
    {{ '<|im_start|>assistant\\n' }}{%- endif -%}";

/// What a random model is like. Lengths count numbers, not bytes.
#[derive(Clone, PartialEq, Debug)]
pub struct Spec {
    /// The architecture.
    pub architecture: Architecture,
    /// How many layers it has, heads aside. A multiple of 2 for `qwen35`.
    pub layers: u32,
    /// Layers after those that guess the token after the next one, 0 or 1; only `deepseek2`, `glm4moe` and `qwen35`
    /// can have one. It says what the model would if that had its last layer alone: of one layer, almost always the same.
    pub heads: u32,
    /// The length of a hidden state. A multiple of 32 where matrices are in Q8_0.
    pub embedding_length: u32,
    /// Attention heads of a layer.
    pub head_count: u32,
    /// Heads for keys and values of a layer, at most as many, where the architecture lets them differ.
    pub head_count_kv: u32,
    /// The length of a head. `phi3`, `qwen2`, `granitehybrid` and `bert` have `embedding_length` divided
    /// by `head_count`.
    pub head_length: u32,
    /// The length of the feed-forward network's hidden state; of one expert's where there are experts.
    pub feed_forward_length: u32,
    /// How many tokens the vocabulary has, at least 385. Those beyond common words are made-up words.
    pub vocabulary_size: u32,
    /// The context in tokens that the model says it was trained for.
    pub context_length: u32,
    /// The format of matrices.
    pub weight_type: WeightType,
    /// Which matrix turns hidden states into logits.
    pub output: Output,
    /// What tokens for bytes outside printable ASCII decode to.
    pub byte_tokens: ByteTokens,
    /// What `bert` makes of its tokens' vectors.
    pub pooling: Pooling,
    /// How much layers add to a token's embedding, against that: 1 by default. With less, what follows depends more on the
    /// last token alone.
    pub layers_weight: f32,
    /// About how much is added to the logits of `</s>` and `<|im_end|>`: [`ENDLESS`], the default, for
    /// practically never, 0 for as readily as any other token. Logits have a standard deviation of 3.
    pub end_of_generation: f32,
    /// The chat template in Jinja, if the model has one.
    pub chat_template: Option<String>,
    /// What all weights are derived from.
    pub seed: u64,
}

/// A model of this architecture that loads and runs in an instant: 4 layers (6 for `gemma3`), 128 wide,
/// 512 tokens, F32.
pub fn small(architecture: Architecture, seed: u64) -> Spec {
    Spec {
        architecture,
        // A sliding window in five of six layers needs six to have one without.
        layers: if architecture == Architecture::Gemma3 {
            6
        } else {
            4
        },
        heads: 0,
        embedding_length: 128,
        head_count: 4,
        head_count_kv: if architecture.is_encoder() { 4 } else { 2 },
        head_length: 32,
        feed_forward_length: 256,
        vocabulary_size: 512,
        // An encoder has a vector for each position.
        context_length: if architecture.is_encoder() { 512 } else { 32_768 },
        weight_type: WeightType::F32,
        output: Output::Own,
        byte_tokens: ByteTokens::Text,
        pooling: Pooling::Mean,
        layers_weight: 1.0,
        end_of_generation: ENDLESS,
        chat_template: (!architecture.is_encoder()).then(|| CHATML.to_owned()),
        seed,
    }
}

/// A model of the shape of Qwen2.5-0.5B in Q8_0, 430 MB: 24 layers, 896 wide. Only its vocabulary is
/// smaller, 50,000 of 151,936 tokens; with that [`vocabulary_size`](Spec::vocabulary_size) it is 530 MB.
pub fn qwen2_half_billion(seed: u64) -> Spec {
    Spec {
        layers: 24,
        embedding_length: 896,
        head_count: 14,
        head_count_kv: 2,
        head_length: 64,
        feed_forward_length: 4864,
        vocabulary_size: 50_000,
        weight_type: WeightType::Q8_0,
        output: Output::Tied,
        ..small(Architecture::Qwen2, seed)
    }
}

impl Spec {
    /// Writes the model as one file.
    ///
    /// # Errors
    ///
    /// [`Error::Content`] where there can be no such model, [`Error::Write`] where the disk refuses.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let path = path.as_ref();
        self.writer().map_err(|fault| fault.of(path))?.write(path)
    }

    /// Writes the model in parts, as [`Writer::write_parts`] does, and returns their names.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write), and where `tensors_per_part` does not sum up to
    /// [`tensor_count`](Self::tensor_count).
    pub fn write_parts(
        &self,
        prefix: impl AsRef<Path>,
        tensors_per_part: &[usize],
    ) -> Result<Vec<PathBuf>, Error> {
        let prefix = prefix.as_ref();
        self.writer()
            .map_err(|fault| fault.of(prefix))?
            .write_parts(prefix, tensors_per_part)
    }

    /// How many tensors the model has.
    ///
    /// # Errors
    ///
    /// [`Fault::Specification`] where there can be no such model.
    pub fn tensor_count(&self) -> Result<usize, Fault> {
        Ok(self.plan()?.tensors.len())
    }

    fn writer(&self) -> Result<Writer<'static>, Fault> {
        Ok(self.plan()?.into_writer())
    }

    fn plan(&self) -> Result<Plan<'_>, Fault> {
        self.check()?;
        let vocabulary = Vocabulary::new(self)?;
        let mut plan = Plan::new(self, &vocabulary);
        match self.architecture {
            Architecture::Llama | Architecture::Qwen2 | Architecture::Qwen3 => dense::plain(&mut plan),
            Architecture::Gemma3 => dense::gemma3(&mut plan),
            Architecture::Phi3 => dense::phi3(&mut plan),
            Architecture::Bert => dense::bert(&mut plan),
            Architecture::Qwen3Moe => experts::qwen3moe(&mut plan),
            Architecture::DeepSeek2 => experts::deepseek2(&mut plan),
            Architecture::Glm4Moe => experts::glm4moe(&mut plan),
            Architecture::GptOss => experts::gpt_oss(&mut plan),
            Architecture::Mamba => recurrent::mamba(&mut plan),
            Architecture::GraniteHybrid => recurrent::granite_hybrid(&mut plan),
            Architecture::Qwen35 => recurrent::qwen35(&mut plan),
        }
        Ok(plan)
    }

    fn check(&self) -> Result<(), Fault> {
        let refuse = |what: String| Err(Fault::Specification { what });
        let lengths = [
            ("layers", self.layers),
            ("attention heads", self.head_count),
            ("heads for keys and values", self.head_count_kv),
            ("numbers in a head", self.head_length),
            ("numbers in the feed-forward network", self.feed_forward_length),
            ("tokens of context", self.context_length),
        ];
        if let Some((what, _)) = lengths.iter().find(|&&(_, length)| length == 0) {
            return refuse(format!("no {what}"));
        }
        let block = self.weight_type.tensor_type().block_elements();
        if self.embedding_length == 0 || !u64::from(self.embedding_length).is_multiple_of(block) {
            return refuse(format!(
                "hidden states of {} numbers: a multiple of {block} is needed",
                self.embedding_length
            ));
        }
        if !self.head_count.is_multiple_of(self.head_count_kv) {
            return refuse(format!(
                "{} attention heads for {} heads of keys and values: a multiple is needed",
                self.head_count, self.head_count_kv
            ));
        }
        if self.architecture == Architecture::GptOss && self.output == Output::Tied {
            return refuse("gpt-oss without an output matrix of its own".to_owned());
        }
        if self.architecture == Architecture::Qwen35
            && !self.layers.is_multiple_of(recurrent::ATTENTION_INTERVAL)
        {
            return refuse(format!(
                "{} layers: half of those of qwen35 are recurrent",
                self.layers
            ));
        }
        let most_heads = u32::from(self.architecture.can_have_heads());
        if self.heads > most_heads {
            return refuse(format!("{} heads of {}", self.heads, self.architecture));
        }
        let fixed = matches!(
            self.architecture,
            Architecture::Phi3 | Architecture::Qwen2 | Architecture::GraniteHybrid | Architecture::Bert
        );
        if fixed && self.head_count.checked_mul(self.head_length) != Some(self.embedding_length) {
            return refuse(format!(
                "{} heads of {} numbers: {} needs {} numbers in all",
                self.head_count, self.head_length, self.architecture, self.embedding_length
            ));
        }
        Ok(())
    }
}
