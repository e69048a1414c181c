//! Transformers in which each weight works for each token.

use super::plan::{Plan, around};
use super::{Architecture, Pooling, Spec};

/// How many tokens a sliding window is wide.
pub(super) const SLIDING_WINDOW: u32 = 64;

/// The lengths of all queries and of all keys of a token.
pub(super) fn query_and_key_lengths(spec: &Spec) -> (u32, u32) {
    (
        spec.head_count * spec.head_length,
        spec.head_count_kv * spec.head_length,
    )
}

/// Query, key, value and output matrices of a layer.
pub(super) fn attention_matrices(plan: &mut Plan<'_>, layer: u32, additions: u32) {
    let width = plan.spec.embedding_length;
    let (query, key) = query_and_key_lengths(plan.spec);
    plan.matrix(&format!("blk.{layer}.attn_q.weight"), &[width, query]);
    plan.matrix(&format!("blk.{layer}.attn_k.weight"), &[width, key]);
    plan.matrix(&format!("blk.{layer}.attn_v.weight"), &[width, key]);
    plan.residual(
        &format!("blk.{layer}.attn_output.weight"),
        &[query, width],
        additions,
    );
}

/// Biases of queries, keys and values.
pub(super) fn attention_biases(plan: &mut Plan<'_>, layer: u32) {
    let (query, key) = query_and_key_lengths(plan.spec);
    plan.bias(&format!("blk.{layer}.attn_q.bias"), &[query]);
    plan.bias(&format!("blk.{layer}.attn_k.bias"), &[key]);
    plan.bias(&format!("blk.{layer}.attn_v.bias"), &[key]);
}

/// Norms of each query and each key.
pub(super) fn query_and_key_norms(plan: &mut Plan<'_>, layer: u32) {
    let length = plan.spec.head_length;
    plan.norm(&format!("blk.{layer}.attn_q_norm.weight"), length);
    plan.norm(&format!("blk.{layer}.attn_k_norm.weight"), length);
}

/// The gated feed-forward network of a layer.
pub(super) fn feed_forward(plan: &mut Plan<'_>, layer: u32, hidden: u32, additions: u32) {
    let width = plan.spec.embedding_length;
    plan.matrix(&format!("blk.{layer}.ffn_gate.weight"), &[width, hidden]);
    plan.matrix(&format!("blk.{layer}.ffn_up.weight"), &[width, hidden]);
    plan.residual(
        &format!("blk.{layer}.ffn_down.weight"),
        &[hidden, width],
        additions,
    );
}

/// `llama`, `qwen2` and `qwen3`.
pub(super) fn plain(plan: &mut Plan<'_>) {
    let spec = plan.spec;
    let additions = 2 * spec.layers;
    plan.attention();
    plan.key("feed_forward_length", spec.feed_forward_length);
    plan.embeddings();
    for layer in 0..spec.layers {
        plan.layer_norm(&format!("blk.{layer}.attn_norm.weight"));
        attention_matrices(plan, layer, additions);
        match spec.architecture {
            Architecture::Qwen2 => attention_biases(plan, layer),
            Architecture::Qwen3 => query_and_key_norms(plan, layer),
            _ => {}
        }
        plan.layer_norm(&format!("blk.{layer}.ffn_norm.weight"));
        feed_forward(plan, layer, spec.feed_forward_length, additions);
    }
    plan.output();
}

/// `gemma3`: norms before and after each half of a layer.
pub(super) fn gemma3(plan: &mut Plan<'_>) {
    let spec = plan.spec;
    let additions = 2 * spec.layers;
    plan.attention();
    plan.key("attention.sliding_window", SLIDING_WINDOW);
    plan.key("feed_forward_length", spec.feed_forward_length);
    plan.embeddings();
    for layer in 0..spec.layers {
        plan.layer_norm(&format!("blk.{layer}.attn_norm.weight"));
        attention_matrices(plan, layer, additions);
        query_and_key_norms(plan, layer);
        plan.residual_norm(&format!("blk.{layer}.post_attention_norm.weight"), additions);
        plan.layer_norm(&format!("blk.{layer}.ffn_norm.weight"));
        feed_forward(plan, layer, spec.feed_forward_length, additions);
        plan.residual_norm(&format!("blk.{layer}.post_ffw_norm.weight"), additions);
    }
    plan.output();
}

/// `phi3`: one matrix for query, key and value, one for gate and up.
pub(super) fn phi3(plan: &mut Plan<'_>) {
    let spec = plan.spec;
    let additions = 2 * spec.layers;
    let (width, hidden) = (spec.embedding_length, spec.feed_forward_length);
    let (query, key) = query_and_key_lengths(spec);
    plan.attention();
    plan.key("feed_forward_length", hidden);
    plan.embeddings();
    for layer in 0..spec.layers {
        plan.layer_norm(&format!("blk.{layer}.attn_norm.weight"));
        plan.matrix(&format!("blk.{layer}.attn_qkv.weight"), &[width, query + 2 * key]);
        plan.residual(
            &format!("blk.{layer}.attn_output.weight"),
            &[query, width],
            additions,
        );
        plan.layer_norm(&format!("blk.{layer}.ffn_norm.weight"));
        plan.matrix(&format!("blk.{layer}.ffn_up.weight"), &[width, 2 * hidden]);
        plan.residual(
            &format!("blk.{layer}.ffn_down.weight"),
            &[hidden, width],
            additions,
        );
    }
    plan.output();
}

/// `bert`: each token sees all others, and norms come after each half of a layer.
pub(super) fn bert(plan: &mut Plan<'_>) {
    const TOKEN_TYPES: u32 = 2;
    /// Of logits: scores far from one another, few of them all but 0 or 1.
    const RANK_DEVIATION: f32 = 2.0;
    let spec = plan.spec;
    let (width, hidden) = (spec.embedding_length, spec.feed_forward_length);
    let additions = 2 * spec.layers;
    plan.key("attention.head_count", spec.head_count);
    plan.key("attention.head_count_kv", spec.head_count_kv);
    plan.key("attention.layer_norm_epsilon", 1e-12f32);
    plan.key("attention.causal", false);
    plan.key("pooling_type", spec.pooling.number());
    plan.key("feed_forward_length", hidden);
    plan.set("tokenizer.ggml.token_type_count", TOKEN_TYPES);

    plan.embeddings();
    plan.plain(
        "position_embd.weight",
        &[width, spec.context_length],
        around(0.0, 0.5),
    );
    plan.plain("token_types.weight", &[width, TOKEN_TYPES], around(0.0, 0.1));
    norm_with_bias(plan, "token_embd_norm");
    for layer in 0..spec.layers {
        attention_matrices(plan, layer, additions);
        attention_biases(plan, layer);
        plan.bias(&format!("blk.{layer}.attn_output.bias"), &[width]);
        norm_with_bias(plan, &format!("blk.{layer}.attn_output_norm"));
        plan.matrix(&format!("blk.{layer}.ffn_up.weight"), &[width, hidden]);
        plan.bias(&format!("blk.{layer}.ffn_up.bias"), &[hidden]);
        plan.residual(
            &format!("blk.{layer}.ffn_down.weight"),
            &[hidden, width],
            additions,
        );
        plan.bias(&format!("blk.{layer}.ffn_down.bias"), &[width]);
        norm_with_bias(plan, &format!("blk.{layer}.layer_output_norm"));
    }
    if spec.pooling == Pooling::Rank {
        plan.matrix("cls.weight", &[width, width]);
        plan.bias("cls.bias", &[width]);
        plan.scaled_matrix("cls.output.weight", &[width, 1], RANK_DEVIATION);
        plan.bias("cls.output.bias", &[1]);
    }
}

fn norm_with_bias(plan: &mut Plan<'_>, name: &str) {
    let width = plan.spec.embedding_length;
    plan.norm(&format!("{name}.weight"), width);
    plan.bias(&format!("{name}.bias"), &[width]);
}
