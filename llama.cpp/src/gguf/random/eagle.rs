//! EAGLE-3 files for random models: one layer that guesses the token after the next one.
//!
//! Its attention sees little but the token itself, of which it makes what the model would without its layers; to that it
//! adds a mixture of the model's hidden states. So it is often right where the model's layers add little and the
//! mixture is small, and what it says depends on each hidden state that it is given.

use std::path::Path;

use super::plan::{Plan, around};
use super::vocabulary::Vocabulary;
use super::weights::{Fill, Rows};
use super::{Error, Fault, Spec, Writer};
use crate::gguf::{Array, TensorType, Value};

/// llama.cpp's name of the architecture.
const ARCHITECTURE: &str = "eagle3";

/// What such a file is like.
#[derive(Clone, PartialEq, Debug)]
pub struct Eagle {
    /// The model that it is for, of which a hidden state is as long as its attention heads together.
    pub target: Spec,
    /// The layers before which it takes the model's hidden states.
    pub layers: [u32; 3],
    /// How much of these, or of its own, it mixes into what it says; at 0.05 little, at 0.6 it says something else.
    pub mixture: f32,
    /// What it has of the vocabulary.
    pub words: Words,
}

/// What an EAGLE-3 file has of the vocabulary.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Words {
    /// Embeddings and an output layer of its own.
    Own,
    /// Nothing: it uses the model's.
    Models,
    /// Embeddings of its own, and an output layer for so many words only, the first ones.
    Some(u32),
}

impl Eagle {
    /// Writes it as one file.
    ///
    /// # Errors
    ///
    /// As [`Spec::write`].
    pub fn write(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let path = path.as_ref();
        self.writer().map_err(|fault| fault.of(path))?.write(path)
    }

    fn writer(&self) -> Result<Writer<'static>, Fault> {
        self.target.check()?;
        let vocabulary = Vocabulary::new(&self.target)?;
        let mut plan = Plan::new(&self.target, &vocabulary);
        self.tensors(&mut plan);
        plan.metadata.retain(|(key, _)| key.starts_with("tokenizer."));
        plan.metadata.extend(self.metadata());
        let mut writer = plan.into_writer();
        if let Words::Some(count) = self.words {
            writer.tensor("d2t", vec![count.into()], TensorType::I64, move |out| {
                (0..i64::from(count)).try_for_each(|token| out.write_all(&token.to_le_bytes()))
            });
        }
        Ok(writer)
    }

    fn metadata(&self) -> Vec<(String, Value)> {
        let target = &self.target;
        let own = |key: &str, value: Value| (format!("{ARCHITECTURE}.{key}"), value);
        let layers = self.layers.map(|layer| layer.cast_signed());
        vec![
            ("general.architecture".into(), ARCHITECTURE.into()),
            own("vocab_size", target.vocabulary_size.into()),
            own("context_length", target.context_length.into()),
            own("embedding_length", target.embedding_length.into()),
            own("block_count", 1u32.into()),
            own("feed_forward_length", target.feed_forward_length.into()),
            own("attention.head_count", target.head_count.into()),
            own("attention.head_count_kv", target.head_count.into()),
            own("attention.key_length", target.head_length.into()),
            own("attention.value_length", target.head_length.into()),
            own("attention.layer_norm_rms_epsilon", 1e-6f32.into()),
            own("rope.dimension_count", target.head_length.into()),
            own("rope.freq_base", 10_000.0f32.into()),
            own("target_layers", Array::of_i32(layers).into()),
            own("target_hidden_size", target.embedding_length.into()),
            // Else its own hidden state, from which it goes on, would weigh as much as the token.
            own("norm_before_residual", true.into()),
        ]
    }

    fn tensors(&self, plan: &mut Plan<'_>) {
        /// By which queries and keys are longer than a token's normalised embedding: so each token sees itself.
        const SHARPNESS: f32 = 2.0;
        let (length, hidden) = (self.target.embedding_length, self.target.feed_forward_length);
        let mixed = |inputs: u32| around(0.0, 1.0 / (inputs as f32).sqrt());
        if self.words != Words::Models {
            plan.embeddings();
        }
        plan.plain(
            "fc.weight",
            &[3 * length, length],
            Fill {
                rows: Rows::FirstIsZero,
                ..mixed(3 * length)
            },
        );
        let norms = [
            ("attn_norm", SHARPNESS),
            ("attn_norm_2", self.mixture),
            ("ffn_norm", 1.0),
        ];
        for (norm, weight) in norms {
            plan.plain(&format!("blk.0.{norm}.weight"), &[length], around(weight, 0.0));
        }
        for matrix in ["attn_q", "attn_k", "attn_v"] {
            let fill = Fill {
                rows: Rows::AddSecondHalf,
                ..mixed(length)
            };
            plan.plain(&format!("blk.0.{matrix}.weight"), &[2 * length, length], fill);
        }
        let fill = Fill {
            rows: Rows::Identity,
            ..around(0.0, 0.0)
        };
        plan.plain("blk.0.attn_output.weight", &[length, length], fill);
        plan.matrix("blk.0.ffn_gate.weight", &[length, hidden]);
        plan.matrix("blk.0.ffn_up.weight", &[length, hidden]);
        let fill = Fill {
            rows: Rows::FirstIsZero,
            ..around(0.0, self.mixture / (hidden as f32).sqrt())
        };
        plan.plain("blk.0.ffn_down.weight", &[hidden, length], fill);
        plan.output();
        match self.words {
            Words::Own => {}
            Words::Models => plan.tensors.retain(|tensor| tensor.name != "output.weight"),
            Words::Some(count) => {
                let output = plan
                    .tensors
                    .iter_mut()
                    .filter(|tensor| tensor.name == "output.weight");
                output.for_each(|tensor| tensor.shape[1] = count.into());
            }
        }
    }
}
