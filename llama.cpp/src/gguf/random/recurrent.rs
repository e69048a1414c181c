//! Models with a state that each token changes, instead of or beside attention.

use super::super::Array;
use super::dense::{attention_matrices, feed_forward, query_and_key_lengths, query_and_key_norms};
use super::plan::{Plan, around};

/// Tokens that the convolution of a state-space layer sees.
const CONVOLUTION: u32 = 4;

/// The decay of states: negative, as the file has it. Slower than in real models, so that states of few
/// layers remember a prompt.
const DECAY: (f32, f32) = (-1.0, 0.4);
/// The bias of time steps, before a softplus makes them small and positive.
const TIME_STEP_BIAS: (f32, f32) = (-3.0, 0.8);

/// `mamba`.
pub(super) fn mamba(plan: &mut Plan<'_>) {
    // CUDA's kernel for the first kind of Mamba knows no other length.
    const STATE: u32 = 16;
    let spec = plan.spec;
    let additions = spec.layers;
    let width = spec.embedding_length;
    let inner = 2 * width;
    let rank = width.div_ceil(16);
    plan.key("attention.head_count", 0u32);
    plan.key("feed_forward_length", 0u32);
    plan.rms_norm();
    plan.key("ssm.conv_kernel", CONVOLUTION);
    plan.key("ssm.inner_size", inner);
    plan.key("ssm.state_size", STATE);
    plan.key("ssm.time_step_rank", rank);

    plan.embeddings();
    for layer in 0..spec.layers {
        let name = |suffix: &str| format!("blk.{layer}.{suffix}");
        plan.layer_norm(&name("attn_norm.weight"));
        plan.matrix(&name("ssm_in.weight"), &[width, 2 * inner]);
        convolution(plan, layer, inner);
        // Large, or what a state holds would be lost beside what its input passes on directly.
        plan.scaled_matrix(&name("ssm_x.weight"), &[inner, rank + 2 * STATE], 2.0);
        plan.matrix(&name("ssm_dt.weight"), &[rank, inner]);
        plan.plain(
            &name("ssm_dt.bias"),
            &[inner],
            around(TIME_STEP_BIAS.0, TIME_STEP_BIAS.1),
        );
        plan.plain(&name("ssm_a"), &[STATE, inner], around(DECAY.0, DECAY.1));
        plan.plain(&name("ssm_d"), &[inner], around(0.5, 0.1));
        plan.residual(&name("ssm_out.weight"), &[inner, width], additions);
    }
    plan.output();
}

/// `granitehybrid`: Mamba 2 in even layers, attention in odd ones, a feed-forward network in all.
pub(super) fn granite_hybrid(plan: &mut Plan<'_>) {
    // CUDA's kernel for Mamba 2 knows 128 and 256.
    const STATE: u32 = 128;
    const HEADS: u32 = 8;
    const GROUPS: u32 = 1;
    let spec = plan.spec;
    let additions = 2 * spec.layers;
    let width = spec.embedding_length;
    let inner = 2 * width;
    let convolved = inner + 2 * GROUPS * STATE;
    let recurrent = |layer: u32| layer.is_multiple_of(2);
    plan.key("attention.head_count", spec.head_count);
    // A layer without heads is a recurrent one.
    let heads = (0..spec.layers).map(|layer| if recurrent(layer) { 0 } else { spec.head_count_kv });
    plan.key("attention.head_count_kv", Array::of_u32(heads));
    plan.key("rope.dimension_count", spec.head_length);
    plan.rms_norm();
    plan.key("feed_forward_length", spec.feed_forward_length);
    plan.key("ssm.conv_kernel", CONVOLUTION);
    plan.key("ssm.inner_size", inner);
    plan.key("ssm.state_size", STATE);
    plan.key("ssm.time_step_rank", HEADS);
    plan.key("ssm.group_count", GROUPS);

    plan.embeddings();
    for layer in 0..spec.layers {
        let name = |suffix: &str| format!("blk.{layer}.{suffix}");
        plan.layer_norm(&name("attn_norm.weight"));
        if recurrent(layer) {
            plan.matrix(&name("ssm_in.weight"), &[width, inner + convolved + HEADS]);
            convolution(plan, layer, convolved);
            plan.plain(
                &name("ssm_dt.bias"),
                &[HEADS],
                around(TIME_STEP_BIAS.0, TIME_STEP_BIAS.1),
            );
            plan.plain(&name("ssm_a"), &[1, HEADS], around(DECAY.0, DECAY.1));
            plan.plain(&name("ssm_d"), &[1, HEADS], around(1.0, 0.1));
            plan.plain(
                &name("ssm_norm.weight"),
                &[inner / GROUPS, GROUPS],
                around(1.0, 0.1),
            );
            plan.residual(&name("ssm_out.weight"), &[inner, width], additions);
        } else {
            attention_matrices(plan, layer, additions);
        }
        plan.layer_norm(&name("ffn_norm.weight"));
        feed_forward(plan, layer, spec.feed_forward_length, additions);
    }
    plan.output();
}

/// Of so many layers of `qwen35` one has attention.
pub(super) const ATTENTION_INTERVAL: u32 = 2;

/// `qwen35`: every second layer, the last one among them, has attention, whose output is gated, the others a gated
/// delta net.
pub(super) fn qwen35(plan: &mut Plan<'_>) {
    const STATE: u32 = 32;
    const VALUE_HEADS: u32 = 8;
    const KEY_HEADS: u32 = 4;
    let spec = plan.spec;
    let additions = 2 * spec.layers;
    let width = spec.embedding_length;
    let (keys, values) = (KEY_HEADS * STATE, VALUE_HEADS * STATE);
    let convolved = 2 * keys + values;
    let (query, key) = query_and_key_lengths(spec);
    plan.attention();
    // Pairs of numbers that turn with the position: in a text all positions are the same.
    let pairs = spec.head_length / 2;
    let sections = [pairs - 2 * (pairs / 3), pairs / 3, pairs / 3, 0];
    plan.key("rope.dimension_sections", Array::of_u32(sections));
    plan.key("full_attention_interval", ATTENTION_INTERVAL);
    plan.key("feed_forward_length", spec.feed_forward_length);
    plan.key("ssm.conv_kernel", CONVOLUTION);
    plan.key("ssm.inner_size", values);
    plan.key("ssm.state_size", STATE);
    plan.key("ssm.time_step_rank", VALUE_HEADS);
    plan.key("ssm.group_count", KEY_HEADS);

    plan.embeddings();
    for layer in 0..spec.layers + spec.heads {
        let recurrent = layer < spec.layers && !(layer + 1).is_multiple_of(ATTENTION_INTERVAL);
        if layer >= spec.layers {
            plan.head(layer);
        }
        let name = |suffix: &str| format!("blk.{layer}.{suffix}");
        plan.layer_norm(&name("attn_norm.weight"));
        if recurrent {
            plan.matrix(&name("attn_qkv.weight"), &[width, convolved]);
            plan.matrix(&name("attn_gate.weight"), &[width, values]);
            plan.plain(
                &name("ssm_conv1d.weight"),
                &[CONVOLUTION, convolved],
                around(0.0, 1.0 / (CONVOLUTION as f32).sqrt()),
            );
            plan.plain(
                &name("ssm_dt.bias"),
                &[VALUE_HEADS],
                around(TIME_STEP_BIAS.0, TIME_STEP_BIAS.1),
            );
            plan.plain(&name("ssm_a"), &[VALUE_HEADS], around(DECAY.0, DECAY.1));
            plan.matrix(&name("ssm_beta.weight"), &[width, VALUE_HEADS]);
            plan.matrix(&name("ssm_alpha.weight"), &[width, VALUE_HEADS]);
            plan.norm(&name("ssm_norm.weight"), STATE);
            plan.residual(&name("ssm_out.weight"), &[values, width], additions);
        } else {
            // Beside each head's query is its gate.
            plan.matrix(&name("attn_q.weight"), &[width, 2 * query]);
            plan.matrix(&name("attn_k.weight"), &[width, key]);
            plan.matrix(&name("attn_v.weight"), &[width, key]);
            plan.residual(&name("attn_output.weight"), &[query, width], additions);
            query_and_key_norms(plan, layer);
        }
        plan.layer_norm(&name("post_attention_norm.weight"));
        feed_forward(plan, layer, spec.feed_forward_length, additions);
    }
    plan.output();
}

fn convolution(plan: &mut Plan<'_>, layer: u32, channels: u32) {
    let deviation = 1.0 / (CONVOLUTION as f32).sqrt();
    plan.plain(
        &format!("blk.{layer}.ssm_conv1d.weight"),
        &[CONVOLUTION, channels],
        around(0.0, deviation),
    );
    plan.bias(&format!("blk.{layer}.ssm_conv1d.bias"), &[channels]);
}
