//! What goes into a random model's file: metadata and tensors, with weights so scaled that logits vary,
//! depend on the whole context, and seldom end the text.
//!
//! The first number of a hidden state is set apart: all tokens' embeddings have the same large value
//! there, no layer looks at it or changes it, and only the output matrix uses it. So each token's logit
//! has a part that does not depend on the context, [`MARGIN`] for usual tokens and less for those that
//! should be rare.

use super::super::{TensorType, Value, Writer};
use super::vocabulary::{self, Chance, Vocabulary};
use super::weights::{Fill, First, Rows, Weights};
use super::{Architecture, Output, Spec};

/// How far the logits of tokens that are never generated lie below the others.
pub(super) const MARGIN: f32 = 20.0;
/// The standard deviation of logits over the usual tokens.
const LOGIT_DEVIATION: f32 = 3.0;
/// How much larger the first number of an embedding is than the others.
const FIRST: f32 = 8.0;
/// About the standard deviation of what a layer's half computes from weights of deviation
/// `1 / sqrt(inputs)`.
const HALF_LAYER: f32 = 0.5;

/// Metadata and tensors of a model, under construction.
pub(super) struct Plan<'a> {
    pub(super) spec: &'a Spec,
    pub(super) metadata: Vec<(String, Value)>,
    pub(super) tensors: Vec<Weights>,
    tokens: Vec<Chance>,
    scale: Scale,
}

/// Standard deviations along the residual stream.
struct Scale {
    /// What the graph multiplies embeddings by.
    gain: f32,
    /// Of embeddings in the file.
    embedding: f32,
    /// Of all that the layers add.
    layers: f32,
    /// The first number of hidden states.
    first: f32,
}

impl Scale {
    fn new(spec: &Spec) -> Self {
        let length = spec.embedding_length as f32;
        let gain = match spec.architecture {
            Architecture::Gemma3 => length.sqrt(),
            _ => 1.0,
        };
        let (embedding, outweigh) = match spec.output {
            Output::Own => (1.0 / gain, 1.0),
            // The same matrix must give logits of the right size. Layers outweigh embeddings, or what
            // follows a token would be what it follows. These values gave the longest text without
            // repetition.
            Output::Tied => (LOGIT_DEVIATION / length.sqrt(), 2.0),
        };
        let layers = outweigh * embedding * gain * spec.layers_weight;
        Self {
            gain,
            embedding,
            layers,
            first: FIRST * embedding * gain,
        }
    }
}

impl<'a> Plan<'a> {
    /// A plan with the metadata that all models have.
    pub(super) fn new(spec: &'a Spec, vocabulary: &Vocabulary) -> Self {
        let mut plan = Self {
            spec,
            metadata: Vec::new(),
            tensors: Vec::new(),
            tokens: vocabulary.tokens.iter().map(|token| token.chance).collect(),
            scale: Scale::new(spec),
        };
        plan.general();
        plan.tokenizer(vocabulary);
        plan
    }

    /// The file that was planned.
    pub(super) fn into_writer(self) -> Writer<'static> {
        let mut writer = Writer::new();
        for (key, value) in self.metadata {
            writer.set(key, value);
        }
        let seed = self.spec.seed;
        for weights in self.tensors {
            let (name, shape) = (weights.name.clone(), weights.shape.clone());
            writer.tensor(name, shape, weights.tensor_type, move |out| {
                weights.write(seed, out)
            });
        }
        writer
    }

    fn general(&mut self) {
        let spec = self.spec;
        self.set("general.architecture", spec.architecture.name());
        self.set("general.type", "model");
        // Without the architecture: in names such as `phi3` llama.cpp sees a model with that model's
        // special tokens.
        self.set("general.name", format!("Random weights {}", spec.seed));
        self.set("general.file_type", spec.weight_type.file_type());
        self.set("general.quantization_version", 2u32);
        self.key("vocab_size", spec.vocabulary_size);
        self.key("context_length", spec.context_length);
        self.key("embedding_length", spec.embedding_length);
        self.key("block_count", spec.layers + spec.heads);
        if spec.heads > 0 {
            self.key("nextn_predict_layers", spec.heads);
        }
    }

    fn tokenizer(&mut self, vocabulary: &Vocabulary) {
        self.set("tokenizer.ggml.model", "llama");
        self.set("tokenizer.ggml.pre", "default");
        self.set("tokenizer.ggml.tokens", vocabulary.texts());
        self.set("tokenizer.ggml.scores", vocabulary.scores());
        self.set("tokenizer.ggml.token_type", vocabulary.kinds());
        self.set("tokenizer.ggml.bos_token_id", vocabulary::BEGIN_OF_SEQUENCE);
        self.set("tokenizer.ggml.eos_token_id", vocabulary::END_OF_SEQUENCE);
        self.set("tokenizer.ggml.eot_token_id", vocabulary::END_OF_TURN);
        self.set("tokenizer.ggml.unknown_token_id", vocabulary::UNKNOWN);
        self.set("tokenizer.ggml.add_bos_token", true);
        self.set(
            "tokenizer.ggml.add_eos_token",
            self.spec.architecture.is_encoder(),
        );
        // Text comes back from the tokenizer as it went in.
        self.set("tokenizer.ggml.add_space_prefix", false);
        if let Some(template) = &self.spec.chat_template {
            self.set("tokenizer.chat_template", template.as_str());
        }
    }

    /// The metadata of attention whose heads are all alike.
    pub(super) fn attention(&mut self) {
        let spec = self.spec;
        self.key("attention.head_count", spec.head_count);
        self.key("attention.head_count_kv", spec.head_count_kv);
        self.key("attention.key_length", spec.head_length);
        self.key("attention.value_length", spec.head_length);
        self.key("rope.dimension_count", spec.head_length);
        self.key("rope.freq_base", 10_000.0f32);
        self.rms_norm();
    }

    /// The metadata of RMS norms.
    pub(super) fn rms_norm(&mut self) {
        self.key("attention.layer_norm_rms_epsilon", 1e-6f32);
    }

    /// Sets a metadata key.
    pub(super) fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.metadata.push((key.to_owned(), value.into()));
    }

    /// Sets a metadata key of the architecture.
    pub(super) fn key(&mut self, key: &str, value: impl Into<Value>) {
        self.set(&format!("{}.{key}", self.spec.architecture.name()), value);
    }

    /// The token embeddings, before the layers.
    pub(super) fn embeddings(&mut self) {
        let first = match (self.spec.output, self.spec.architecture.is_encoder()) {
            (_, true) => First::Drawn,
            (Output::Own, _) => First::Given([self.scale.first / self.scale.gain].into()),
            (Output::Tied, _) => self.token_firsts(self.tied_first()),
        };
        self.tokens_matrix("token_embd.weight", self.scale.embedding, first);
    }

    /// What comes before `layer`, one of the model's heads: it turns the token after the last hidden state, and a
    /// little of that, into the hidden state that the model would begin with at that token.
    pub(super) fn head(&mut self, layer: u32) {
        /// Of the hidden state, against the token.
        const LITTLE: f32 = 0.03;
        let length = self.spec.embedding_length;
        let width = length as f32;
        let usual = self.scale.embedding * self.scale.gain;
        // What normalising an embedding takes from it.
        let size = (usual.powi(2) + self.scale.first.powi(2) / width).sqrt();
        self.vector(
            &format!("blk.{layer}.nextn.enorm.weight"),
            length,
            around(size, 0.0),
        );
        self.layer_norm(&format!("blk.{layer}.nextn.hnorm.weight"));
        let fill = Fill {
            rows: Rows::AddSecondHalf,
            ..around(0.0, LITTLE * usual / width.sqrt())
        };
        self.plain(
            &format!("blk.{layer}.nextn.eh_proj.weight"),
            &[2 * length, length],
            fill,
        );
    }

    /// The norm and the output matrix, after the layers.
    pub(super) fn output(&mut self) {
        let scale = &self.scale;
        let length = self.spec.embedding_length as f32;
        let usual = match self.spec.output {
            Output::Own => 1.0,
            Output::Tied => self.tied_first(),
        };
        let variance =
            (scale.embedding * scale.gain).powi(2) + scale.layers.powi(2) + scale.first.powi(2) / length;
        let normalised_first = scale.first / variance.sqrt();
        let first = MARGIN / (usual * normalised_first);
        let norm = match self.spec.output {
            Output::Own => NORM,
            // Of either sign, or the last token would always be its own most likely successor.
            Output::Tied => around(0.0, 1.0),
        };
        self.vector(
            "output_norm.weight",
            self.spec.embedding_length,
            norm.beginning_with(first),
        );
        if self.spec.output == Output::Own {
            let firsts = self.token_firsts(usual);
            self.tokens_matrix("output.weight", LOGIT_DEVIATION / length.sqrt(), firsts);
        }
    }

    fn tied_first(&self) -> f32 {
        self.scale.first / self.scale.gain
    }

    /// The output matrix's first column, of which usual tokens have this.
    fn token_firsts(&self, usual: f32) -> First {
        let end = usual * (1.0 + self.spec.end_of_generation / MARGIN);
        First::Given(
            self.tokens
                .iter()
                .map(|chance| match chance {
                    Chance::Usual => usual,
                    Chance::EndOfGeneration => end,
                    Chance::Never => 0.0,
                })
                .collect(),
        )
    }

    fn tokens_matrix(&mut self, name: &str, deviation: f32, first: First) {
        let shape = [self.spec.embedding_length, self.spec.vocabulary_size];
        let fill = Fill {
            first,
            ..around(0.0, deviation)
        };
        self.push(name, &shape, self.spec.weight_type.tensor_type(), fill);
    }

    /// A matrix whose results are as large as what it is applied to. Sizes innermost first: inputs,
    /// outputs, and, for a stack of matrices, their count.
    pub(super) fn matrix(&mut self, name: &str, shape: &[u32]) {
        self.scaled_matrix(name, shape, 1.0);
    }

    /// A matrix whose results are so many times as large as what it is applied to.
    pub(super) fn scaled_matrix(&mut self, name: &str, shape: &[u32], factor: f32) {
        let fill = around(0.0, factor / (shape[0] as f32).sqrt());
        self.push(name, shape, self.matrix_type(shape), fill);
    }

    /// A matrix whose results are added to the hidden state, in a model whose layers add so many.
    pub(super) fn residual(&mut self, name: &str, shape: &[u32], additions: u32) {
        let factor = self.share(additions) / HALF_LAYER;
        let fill = Fill {
            rows: Rows::FirstIsZero,
            ..around(0.0, factor / (shape[0] as f32).sqrt())
        };
        self.push(name, shape, self.matrix_type(shape), fill);
    }

    /// The bias of what is added to the hidden state.
    pub(super) fn residual_bias(&mut self, name: &str, shape: &[u32]) {
        self.plain(name, shape, BIAS.beginning_with(0.0));
    }

    /// The standard deviation of each of so many additions to the hidden state.
    fn share(&self, additions: u32) -> f32 {
        self.scale.layers / (additions as f32).sqrt()
    }

    fn matrix_type(&self, shape: &[u32]) -> TensorType {
        match self.spec.weight_type.tensor_type() {
            // As llama.cpp's own tool does with rows that are not whole blocks.
            blocks if !u64::from(shape[0]).is_multiple_of(blocks.block_elements()) => TensorType::F32,
            tensor_type => tensor_type,
        }
    }

    /// The norm before a layer's half, which hides the first number of the hidden state from it.
    pub(super) fn layer_norm(&mut self, name: &str) {
        self.vector(name, self.spec.embedding_length, NORM.beginning_with(0.0));
    }

    /// A norm within a layer.
    pub(super) fn norm(&mut self, name: &str, length: u32) {
        self.vector(name, length, NORM);
    }

    /// The norm of what is added to the hidden state, in a model whose layers add so many.
    pub(super) fn residual_norm(&mut self, name: &str, additions: u32) {
        let share = self.share(additions);
        self.vector(name, self.spec.embedding_length, around(share, share / 10.0));
    }

    /// A bias.
    pub(super) fn bias(&mut self, name: &str, shape: &[u32]) {
        self.plain(name, shape, BIAS);
    }

    /// A vector of such numbers.
    fn vector(&mut self, name: &str, length: u32, fill: Fill) {
        self.plain(name, &[length], fill);
    }

    /// A tensor in F32, whatever the matrices are in.
    pub(super) fn plain(&mut self, name: &str, shape: &[u32], fill: Fill) {
        self.push(name, shape, TensorType::F32, fill);
    }

    /// A head is like the last layer of the model.
    fn like(&self, name: &str) -> Option<String> {
        let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
        let is_head = layer.parse::<u32>().is_ok_and(|layer| layer >= self.spec.layers);
        is_head.then(|| format!("blk.{}.{rest}", self.spec.layers - 1))
    }

    fn push(&mut self, name: &str, shape: &[u32], tensor_type: TensorType, fill: Fill) {
        self.tensors.push(Weights {
            name: name.to_owned(),
            like: self.like(name),
            shape: shape.iter().map(|&size| size.into()).collect(),
            tensor_type,
            fill,
        });
    }
}

/// The weights of norms.
const NORM: Fill = around(1.0, 0.1);
/// Biases.
const BIAS: Fill = around(0.0, 0.1);

/// Numbers with this mean and standard deviation.
pub(super) const fn around(mean: f32, deviation: f32) -> Fill {
    Fill {
        mean,
        deviation,
        first: First::Drawn,
        rows: Rows::Alike,
    }
}

impl Fill {
    fn beginning_with(self, first: f32) -> Self {
        Self {
            first: First::Given([first].into()),
            ..self
        }
    }
}
