//! Transformers of whose feed-forward networks each token uses a few: mixtures of experts.

use super::Spec;
use super::dense::{SLIDING_WINDOW, attention_biases, attention_matrices, feed_forward, query_and_key_norms};
use super::plan::{Plan, around};

/// Experts of a layer.
const EXPERTS: u32 = 8;
/// Experts that a token uses.
const EXPERTS_USED: u32 = 2;
/// `llama-hparams.h`'s `LLAMA_EXPERT_GATING_FUNC_TYPE_SIGMOID`.
const GATING_SIGMOID: u32 = 2;

fn expert_metadata(plan: &mut Plan<'_>) {
    let spec = plan.spec;
    plan.key("feed_forward_length", 2 * spec.feed_forward_length);
    plan.key("expert_feed_forward_length", spec.feed_forward_length);
    plan.key("expert_count", EXPERTS);
    plan.key("expert_used_count", EXPERTS_USED);
}

/// Layers without experts: the first one, unless it is the only one.
fn dense_layers(spec: &Spec) -> u32 {
    u32::from(spec.layers > 1)
}

/// The metadata of models with a dense layer first, then a shared expert beside the routed ones.
fn shared_expert_metadata(plan: &mut Plan<'_>) {
    expert_metadata(plan);
    plan.key("leading_dense_block_count", dense_layers(plan.spec));
    plan.key("expert_shared_count", 1u32);
    plan.key("expert_weights_scale", 1.0f32);
    plan.key("expert_weights_norm", true);
    plan.key("expert_gating_func", GATING_SIGMOID);
}

/// The router and the routed experts of a layer.
fn experts(plan: &mut Plan<'_>, layer: u32, additions: u32) {
    let (width, hidden) = (plan.spec.embedding_length, plan.spec.feed_forward_length);
    let router = around(0.0, 1.0 / (width as f32).sqrt());
    plan.plain(
        &format!("blk.{layer}.ffn_gate_inp.weight"),
        &[width, EXPERTS],
        router,
    );
    plan.matrix(
        &format!("blk.{layer}.ffn_gate_exps.weight"),
        &[width, hidden, EXPERTS],
    );
    plan.matrix(
        &format!("blk.{layer}.ffn_up_exps.weight"),
        &[width, hidden, EXPERTS],
    );
    plan.residual(
        &format!("blk.{layer}.ffn_down_exps.weight"),
        &[hidden, width, EXPERTS],
        additions,
    );
}

/// The first layer's dense network, or the routed and shared experts of later ones.
fn dense_or_shared_experts(plan: &mut Plan<'_>, layer: u32, additions: u32) {
    let (width, hidden) = (plan.spec.embedding_length, plan.spec.feed_forward_length);
    if layer < dense_layers(plan.spec) {
        feed_forward(plan, layer, 2 * hidden, additions);
        return;
    }
    experts(plan, layer, additions);
    plan.bias(&format!("blk.{layer}.exp_probs_b.bias"), &[EXPERTS]);
    plan.matrix(&format!("blk.{layer}.ffn_gate_shexp.weight"), &[width, hidden]);
    plan.matrix(&format!("blk.{layer}.ffn_up_shexp.weight"), &[width, hidden]);
    plan.residual(
        &format!("blk.{layer}.ffn_down_shexp.weight"),
        &[hidden, width],
        additions,
    );
}

/// `qwen3moe`.
pub(super) fn qwen3moe(plan: &mut Plan<'_>) {
    let spec = plan.spec;
    let additions = 2 * spec.layers;
    plan.attention();
    expert_metadata(plan);
    plan.embeddings();
    for layer in 0..spec.layers {
        plan.layer_norm(&format!("blk.{layer}.attn_norm.weight"));
        attention_matrices(plan, layer, additions);
        query_and_key_norms(plan, layer);
        plan.layer_norm(&format!("blk.{layer}.ffn_norm.weight"));
        experts(plan, layer, additions);
    }
    plan.output();
}

/// `glm4moe`, whose second norm bears another name.
pub(super) fn glm4moe(plan: &mut Plan<'_>) {
    let spec = plan.spec;
    let additions = 2 * spec.layers;
    plan.attention();
    shared_expert_metadata(plan);
    plan.embeddings();
    for layer in 0..spec.layers + spec.heads {
        if layer >= spec.layers {
            plan.head(layer);
        }
        plan.layer_norm(&format!("blk.{layer}.attn_norm.weight"));
        attention_matrices(plan, layer, additions);
        attention_biases(plan, layer);
        query_and_key_norms(plan, layer);
        plan.layer_norm(&format!("blk.{layer}.post_attention_norm.weight"));
        dense_or_shared_experts(plan, layer, additions);
    }
    plan.output();
}

/// `deepseek2`: keys and values of all heads come from one latent vector, which is all that is kept.
/// A head has `head_length` numbers without and as many with a rotary position.
pub(super) fn deepseek2(plan: &mut Plan<'_>) {
    let spec = plan.spec;
    let additions = 2 * spec.layers;
    let (width, head, heads) = (spec.embedding_length, spec.head_length, spec.head_count);
    let latent = 2 * head;
    let query_latent = 2 * head;
    // To the attention operator this is one head for keys and values: the latent vector.
    plan.key("attention.head_count", heads);
    plan.key("attention.head_count_kv", 1u32);
    plan.key("attention.key_length", latent + head);
    plan.key("attention.value_length", latent);
    plan.key("attention.key_length_mla", 2 * head);
    plan.key("attention.value_length_mla", head);
    plan.key("attention.q_lora_rank", query_latent);
    plan.key("attention.kv_lora_rank", latent);
    plan.key("rope.dimension_count", head);
    plan.key("rope.freq_base", 10_000.0f32);
    plan.rms_norm();
    shared_expert_metadata(plan);

    plan.embeddings();
    for layer in 0..spec.layers + spec.heads {
        if layer >= spec.layers {
            plan.head(layer);
        }
        let name = |suffix: &str| format!("blk.{layer}.{suffix}.weight");
        plan.layer_norm(&name("attn_norm"));
        plan.matrix(&name("attn_q_a"), &[width, query_latent]);
        plan.norm(&name("attn_q_a_norm"), query_latent);
        plan.matrix(&name("attn_q_b"), &[query_latent, heads * 2 * head]);
        plan.matrix(&name("attn_kv_a_mqa"), &[width, latent + head]);
        plan.norm(&name("attn_kv_a_norm"), latent);
        plan.matrix(&name("attn_k_b"), &[head, latent, heads]);
        plan.matrix(&name("attn_v_b"), &[latent, head, heads]);
        plan.residual(&name("attn_output"), &[heads * head, width], additions);
        plan.layer_norm(&name("ffn_norm"));
        dense_or_shared_experts(plan, layer, additions);
    }
    plan.output();
}

/// `gpt-oss`: biases everywhere, and for each head a sink that attention may go to instead of a token.
pub(super) fn gpt_oss(plan: &mut Plan<'_>) {
    let spec = plan.spec;
    let additions = 2 * spec.layers;
    let (width, hidden) = (spec.embedding_length, spec.feed_forward_length);
    plan.attention();
    plan.key("attention.sliding_window", SLIDING_WINDOW);
    expert_metadata(plan);
    plan.embeddings();
    for layer in 0..spec.layers {
        plan.layer_norm(&format!("blk.{layer}.attn_norm.weight"));
        attention_matrices(plan, layer, additions);
        attention_biases(plan, layer);
        plan.residual_bias(&format!("blk.{layer}.attn_output.bias"), &[width]);
        plan.plain(
            &format!("blk.{layer}.attn_sinks.weight"),
            &[spec.head_count],
            around(0.0, 1.0),
        );
        plan.layer_norm(&format!("blk.{layer}.post_attention_norm.weight"));
        experts(plan, layer, additions);
        plan.bias(&format!("blk.{layer}.ffn_gate_inp.bias"), &[EXPERTS]);
        plan.bias(&format!("blk.{layer}.ffn_gate_exps.bias"), &[hidden, EXPERTS]);
        plan.bias(&format!("blk.{layer}.ffn_up_exps.bias"), &[hidden, EXPERTS]);
        plan.residual_bias(&format!("blk.{layer}.ffn_down_exps.bias"), &[width, EXPERTS]);
    }
    plan.output();
}
