//! The architectures of random models.

use std::fmt;
use std::str::FromStr;

/// The architectures of which random models can be made.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Architecture {
    /// Llama: the plain transformer.
    Llama,
    /// Qwen 2 and 2.5: biases on query, key and value.
    Qwen2,
    /// Qwen 3: normalised queries and keys.
    Qwen3,
    /// Qwen 3 with experts.
    Qwen3Moe,
    /// Gemma 3: a sliding window in five of six layers.
    Gemma3,
    /// Phi 3: fused tensors.
    Phi3,
    /// DeepSeek 2 and 3: multi-head latent attention, shared and routed experts.
    DeepSeek2,
    /// GLM 4.5: a dense layer, then shared and routed experts.
    Glm4Moe,
    /// gpt-oss: attention sinks, a sliding window in every other layer, experts with biases.
    GptOss,
    /// Mamba: recurrent, without attention.
    Mamba,
    /// Granite 4: Mamba 2 and attention in turn.
    GraniteHybrid,
    /// Qwen 3.5: gated delta nets and attention in turn.
    Qwen35,
    /// BERT: an encoder for embeddings.
    Bert,
}

impl Architecture {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Llama,
        Self::Qwen2,
        Self::Qwen3,
        Self::Qwen3Moe,
        Self::Gemma3,
        Self::Phi3,
        Self::DeepSeek2,
        Self::Glm4Moe,
        Self::GptOss,
        Self::Mamba,
        Self::GraniteHybrid,
        Self::Qwen35,
        Self::Bert,
    ];

    /// The name in `general.architecture`, such as `qwen3moe`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Qwen3Moe => "qwen3moe",
            Self::Gemma3 => "gemma3",
            Self::Phi3 => "phi3",
            Self::DeepSeek2 => "deepseek2",
            Self::Glm4Moe => "glm4moe",
            Self::GptOss => "gpt-oss",
            Self::Mamba => "mamba",
            Self::GraniteHybrid => "granitehybrid",
            Self::Qwen35 => "qwen35",
            Self::Bert => "bert",
        }
    }

    /// Whether the model turns text into an embedding instead of continuing it.
    pub fn is_encoder(self) -> bool {
        self == Self::Bert
    }

    /// Whether there can be layers that guess the token after the next one.
    pub fn can_have_heads(self) -> bool {
        matches!(self, Self::DeepSeek2 | Self::Glm4Moe | Self::Qwen35)
    }

    /// Whether a sequence's state can only be continued, not cut.
    pub fn is_recurrent(self) -> bool {
        matches!(self, Self::Mamba | Self::GraniteHybrid | Self::Qwen35)
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Architecture {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|architecture| architecture.name() == name)
            .ok_or_else(|| {
                let known: Vec<&str> = Self::ALL.iter().map(|known| known.name()).collect();
                format!("`{name}` is none of {}", known.join(", "))
            })
    }
}
