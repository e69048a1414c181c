//! Operations with a state that goes from token to token, and DeepSeek's hyper-connections.

use llama_cpp_sys_2 as sys;

use super::On;
use super::operand::{Fault, Node, Operand, Verdict, need};

const F32: u32 = sys::GGML_TYPE_F32;

/// Most elements of a state: ggml counts them in an `int`.
const MOST_ELEMENTS: u64 = i32::MAX as u64;

fn f32(operand: &Operand<'_>, on: On) -> Verdict {
    need(operand.is(F32), on, "is not F32")
}

/// The source of that number, F32 and contiguous.
fn contiguous<'a>(node: &Node<'a>, number: u8) -> Result<Operand<'a>, Fault> {
    let source = node.source(usize::from(number))?;
    f32(&source, On::Source(number))?;
    need(source.contiguous(), On::Source(number), "is not contiguous")?;
    Ok(source)
}

/// SSM_CONV.
pub(super) fn ssm_conv(node: &Node<'_>) -> Verdict {
    let (x, kernel, result) = (node.source(0)?, node.source(1)?, node.result);
    let [channels, tokens, sequences, _] = result.tensor.shape;
    f32(&x, On::Source(0))?;
    f32(&result, On::Result)?;
    let width = kernel.ne(0);
    need(
        x.has_shape([width - 1 + tokens, channels, sequences, 1]) && result.ne(3) == 1,
        On::Source(0),
        "has the wrong shape",
    )?;
    need(
        x.unit() && x.nb(1) == x.row_bytes(),
        On::Source(0),
        "is not contiguous",
    )?;
    need(
        kernel.is(F32) && kernel.packed() && kernel.has_shape([width, channels, 1, 1]),
        On::Source(1),
        "is not contiguous F32 of the right shape",
    )
}

/// SSM_SCAN. Its last source says where each sequence's state is.
pub(super) fn ssm_scan(node: &Node<'_>) -> Verdict {
    let (states, x, ids) = (node.source(0)?, node.source(1)?, node.source(6)?);
    let [size, width, heads, _] = states.tensor.shape;
    let [_, _, tokens, sequences] = x.tensor.shape;
    f32(&states, On::Source(0))?;
    // The kernel uses a state's stride for the result's states too.
    need(states.packed(), On::Source(0), "is not contiguous")?;
    f32(&x, On::Source(1))?;
    need(
        x.ne(0) == width && x.ne(1) == heads && x.unit() && (heads == 1 || x.nb(1) == x.row_bytes()),
        On::Source(1),
        "has the wrong shape or strides",
    )?;
    let steps = contiguous(node, 2)?;
    need(
        steps.has_shape([heads, tokens, sequences, 1]) && steps.unit(),
        On::Source(2),
        "has the wrong shape",
    )?;
    let decay = contiguous(node, 3)?;
    let scalar = decay.ne(0) == 1;
    need(
        (scalar || decay.ne(0) == size) && decay.has_shape([decay.ne(0), heads, 1, 1]) && decay.unit(),
        On::Source(3),
        "has the wrong shape",
    )?;
    // Some vectors of some ARM processors, with nothing for what is left over.
    need(
        scalar || size.is_multiple_of(16),
        On::Source(0),
        "has states of no multiple of 16",
    )?;
    let groups = node.source(4)?.ne(1);
    for number in [4, 5] {
        let source = node.source(usize::from(number))?;
        let on = On::Source(number);
        f32(&source, on)?;
        need(
            source.has_shape([size, groups, tokens, sequences]),
            on,
            "has the wrong shape",
        )?;
        need(
            source.unit() && (groups == 1 || source.nb(1) == source.row_bytes()),
            on,
            "has no contiguous rows",
        )?;
    }
    need(
        heads.is_multiple_of(groups),
        On::Source(4),
        "does not divide the heads",
    )?;
    need(
        ids.is(sys::GGML_TYPE_I32) && ids.unit() && ids.has_shape([sequences, 1, 1, 1]),
        On::Source(6),
        "has the wrong type or shape",
    )?;
    let snapshots = node.size(0)?;
    need(
        snapshots >= 1 && (scalar || snapshots == 1),
        On::Parameter(0),
        "is no number of snapshots",
    )?;
    let state = size * width * heads;
    need(state <= MOST_ELEMENTS, On::Source(0), "is too large")?;
    let elements = snapshots
        .checked_mul(sequences)
        .and_then(|states| states.checked_mul(state))
        .and_then(|elements| elements.checked_add(x.elements()));
    f32(&node.result, On::Result)?;
    need(
        elements == Some(node.result.elements()),
        On::Result,
        "has the wrong shape",
    )
}

/// RWKV_WKV6.
pub(super) fn rwkv_6(node: &Node<'_>) -> Verdict {
    let factors = contiguous(node, 3)?;
    let [size, heads, ..] = node.source(0)?.tensor.shape;
    need(
        factors.elements() == size * heads,
        On::Source(3),
        "has the wrong shape",
    )?;
    linear(node, &[0, 1, 2, 4], 5)
}

/// RWKV_WKV7.
pub(super) fn rwkv_7(node: &Node<'_>) -> Verdict {
    // ggml's widest vectors, taken several at a time, with nothing for what is left over.
    let size = node.source(0)?.ne(0);
    need(
        size.is_multiple_of(64),
        On::Source(0),
        "has heads of no multiple of 64",
    )?;
    linear(node, &[0, 1, 2, 3, 4, 5], 6)
}

/// GATED_LINEAR_ATTN.
pub(super) fn gated_linear(node: &Node<'_>) -> Verdict {
    linear(node, &[0, 1, 2, 3], 4)
}

/// Heads of `size` with a state of `size` squared each. The result is the tokens' outputs, then the
/// states.
fn linear(node: &Node<'_>, inputs: &[u8], state: u8) -> Verdict {
    let shape = node.source(0)?.tensor.shape;
    let [size, heads, tokens, _] = shape;
    for number in inputs {
        let input = contiguous(node, *number)?;
        need(
            input.has_shape([size, heads, tokens, 1]),
            On::Source(*number),
            "has the wrong shape",
        )?;
    }
    let states = contiguous(node, state)?;
    let sequences = states.ne(1);
    let on = On::Source(state);
    // ggml divides by the tokens of a sequence.
    need(tokens.is_multiple_of(sequences), on, "does not divide the tokens")?;
    let elements = size
        .checked_mul(size)
        .and_then(|square| square.checked_mul(heads))
        .and_then(|one| one.checked_mul(sequences))
        .filter(|all| *all <= MOST_ELEMENTS);
    need(elements == Some(states.elements()), on, "has the wrong shape")?;
    f32(&node.result, On::Result)?;
    let shape = [size * heads, tokens + size * sequences, 1, 1];
    need(node.result.has_shape(shape), On::Result, "has the wrong shape")
}

/// GATED_DELTA_NET.
pub(super) fn gated_delta(node: &Node<'_>) -> Verdict {
    let v = node.source(2)?;
    let [size, heads, tokens, sequences] = v.tensor.shape;
    for number in 0..3 {
        let on = On::Source(number);
        let source = node.source(usize::from(number))?;
        f32(&source, on)?;
        need(source.unit(), on, "has no contiguous rows")?;
        need(
            source.ne(0) == size
                && source.ne(2) == tokens
                && heads.is_multiple_of(source.ne(1))
                && sequences.is_multiple_of(source.ne(3)),
            on,
            "has the wrong shape",
        )?;
    }
    let gate = contiguous(node, 3)?;
    let width = gate.ne(0);
    need(
        (width == 1 || width == size) && gate.has_shape([width, heads, tokens, sequences]),
        On::Source(3),
        "has the wrong shape",
    )?;
    let beta = contiguous(node, 4)?;
    need(
        beta.has_shape([1, heads, tokens, sequences]),
        On::Source(4),
        "has the wrong shape",
    )?;
    let state = contiguous(node, 5)?;
    need(
        state.has_shape([size, size, heads, sequences]),
        On::Source(5),
        "has the wrong shape",
    )?;
    let snapshots = node.size(0)?;
    need(snapshots >= 1, On::Parameter(0), "is no number of snapshots")?;
    f32(&node.result, On::Result)?;
    let rows = snapshots
        .checked_mul(size)
        .and_then(|rows| rows.checked_add(tokens))
        .and_then(|rows| rows.checked_mul(sequences))
        .unwrap_or(u64::MAX);
    need(
        node.result.has_shape([size * heads, rows, 1, 1]),
        On::Result,
        "has the wrong shape",
    )
}

/// DSV4_HC_COMB: ggml has it for four streams.
pub(super) fn hyper_comb(node: &Node<'_>) -> Verdict {
    const STREAMS: u64 = 4;
    const MIXES: u64 = (2 + STREAMS) * STREAMS;
    let (mixes, scale, base) = (node.source(0)?, node.source(1)?, node.source(2)?);
    for (operand, on) in [
        (&mixes, On::Source(0)),
        (&scale, On::Source(1)),
        (&base, On::Source(2)),
        (&node.result, On::Result),
    ] {
        f32(operand, on)?;
    }
    let tokens = mixes.ne(1);
    need(
        mixes.has_shape([MIXES, tokens, 1, 1]),
        On::Source(0),
        "has the wrong shape",
    )?;
    need(scale.ne(0) >= 3, On::Source(1), "has too few elements")?;
    need(base.ne(0) == MIXES, On::Source(2), "has the wrong shape")?;
    need(
        (1..=1000).contains(&node.int(1)),
        On::Parameter(1),
        "is no number of rounds",
    )?;
    need(
        node.result.has_shape([STREAMS, STREAMS, tokens, 1]),
        On::Result,
        "has the wrong shape",
    )
}

/// DSV4_HC_PRE.
pub(super) fn hyper_pre(node: &Node<'_>) -> Verdict {
    let (x, weights) = (node.source(0)?, node.source(1)?);
    let [size, streams, tokens, _] = x.tensor.shape;
    for (operand, on) in [
        (&x, On::Source(0)),
        (&weights, On::Source(1)),
        (&node.result, On::Result),
    ] {
        f32(operand, on)?;
    }
    need(x.ne(3) == 1, On::Source(0), "has four dimensions")?;
    let shape = if node.int(1) == 0 {
        [streams, tokens, 1, 1]
    } else {
        [size, streams, tokens, 1]
    };
    need(weights.has_shape(shape), On::Source(1), "has the wrong shape")?;
    need(
        node.result.has_shape([size, tokens, 1, 1]),
        On::Result,
        "has the wrong shape",
    )
}

/// DSV4_HC_POST.
pub(super) fn hyper_post(node: &Node<'_>) -> Verdict {
    let (x, residual, post) = (node.source(0)?, node.source(1)?, node.source(2)?);
    let [size, tokens, ..] = x.tensor.shape;
    let streams = residual.ne(1);
    let whole = [size, streams, tokens, 1];
    let shapes = [
        (x, On::Source(0), [size, tokens, 1, 1]),
        (residual, On::Source(1), whole),
        (post, On::Source(2), [streams, tokens, 1, 1]),
        (node.result, On::Result, whole),
    ];
    let comb = node.optional(3);
    let comb = comb.map(|comb| (comb, On::Source(3), [streams, streams, tokens, 1]));
    for (operand, on, shape) in shapes.into_iter().chain(comb) {
        f32(&operand, on)?;
        need(operand.has_shape(shape), on, "has the wrong shape")?;
    }
    Ok(())
}
