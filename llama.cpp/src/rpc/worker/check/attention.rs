//! Attention and what belongs to it: softmax, positions, indexers.

use llama_cpp_sys_2 as sys;

use super::On;
use super::operand::{Node, Verdict, need};

const F32: u32 = sys::GGML_TYPE_F32;
const F16: u32 = sys::GGML_TYPE_F16;
const I32: u32 = sys::GGML_TYPE_I32;

/// SOFT_MAX with an optional mask and optional sinks.
pub(super) fn soft_max(node: &Node<'_>) -> Verdict {
    let a = node.source(0)?;
    need(
        a.is(F32) && a.contiguous() && a.unit(),
        On::Source(0),
        "is not contiguous F32",
    )?;
    need(node.result.is(F32), On::Result, "is not F32")?;
    need(node.result.same_shape(&a), On::Result, "has another shape")?;
    if let Some(mask) = node.optional(1) {
        let on = On::Source(1);
        need(mask.is(F32) || mask.is(F16), on, "is neither F32 nor F16")?;
        need(mask.contiguous() && mask.unit(), on, "is not contiguous")?;
        need(mask.ne(0) == a.ne(0) && mask.ne(1) >= a.ne(1), on, "is too small")?;
        need(
            a.ne(2).is_multiple_of(mask.ne(2)) && a.ne(3).is_multiple_of(mask.ne(3)),
            on,
            "cannot be repeated to the shape of the first",
        )?;
    }
    if let Some(sinks) = node.optional(2) {
        let on = On::Source(2);
        need(sinks.is(F32) && sinks.unit(), on, "is not contiguous F32")?;
        need(
            sinks.ne(0) >= a.ne(2),
            on,
            "has fewer elements than there are heads",
        )?;
    }
    Ok(())
}

/// ROPE, ROPE_BACK.
pub(super) fn rope(node: &Node<'_>) -> Verdict {
    let (a, positions) = (node.source(0)?, node.source(1)?);
    need(a.is(F32) || a.is(F16), On::Source(0), "is neither F32 nor F16")?;
    need(a.same_element(&node.result), On::Result, "has another type")?;
    need(a.same_shape(&node.result), On::Result, "has another shape")?;
    need(a.unit(), On::Source(0), "has no contiguous rows")?;
    need(node.result.unit(), On::Result, "has no contiguous rows")?;
    // The kernel takes pairs up to the end of a row.
    need(a.ne(0).is_multiple_of(2), On::Source(0), "has rows of odd length")?;

    let rotated = node.size(1)?;
    let first = node.size(15)?;
    // Without any, ggml steps back and forth for ever.
    need(
        rotated > 0 && rotated.is_multiple_of(2),
        On::Parameter(1),
        "is no number of pairs",
    )?;
    need(first.is_multiple_of(2), On::Parameter(15), "is odd")?;
    need(
        first + rotated <= a.ne(0),
        On::Parameter(1),
        "is more than a row has",
    )?;

    let mode = node.int(2);
    let sections = match mode {
        sys::LLAMA_ROPE_TYPE_NORM | sys::LLAMA_ROPE_TYPE_NEOX => false,
        sys::LLAMA_ROPE_TYPE_MROPE | sys::LLAMA_ROPE_TYPE_IMROPE => true,
        sys::LLAMA_ROPE_TYPE_VISION => {
            need(rotated == a.ne(0) / 2, On::Parameter(1), "is not half a row")?;
            need(first == 0, On::Parameter(15), "is not zero")?;
            true
        }
        _ => return need(false, On::Parameter(2), "is no way to rotate"),
    };
    let mut positions_each = 1;
    if sections {
        positions_each = 4;
        let mut sum = 0;
        for number in 11..15 {
            sum += node.size(number)?;
        }
        // ggml divides by the sum of the sections, of which it wants one of the first three.
        let some = (11..14).any(|number| node.int(number) > 0);
        need(
            some && sum <= a.ne(0),
            On::Parameter(11),
            "begins sections that do not fit",
        )?;
    }
    let on = On::Source(1);
    need(positions.is(I32) && positions.unit(), on, "is not contiguous I32")?;
    need(
        positions.ne(0) >= a.ne(2) * positions_each,
        on,
        "has fewer positions than there are tokens",
    )?;
    if let Some(factors) = node.optional(2) {
        let on = On::Source(2);
        need(factors.is(F32) && factors.unit(), on, "is not contiguous F32")?;
        need(
            factors.ne(0) >= rotated / 2,
            on,
            "has fewer factors than there are pairs",
        )?;
        // The kernel reads one for each pair of the row, also for those that it does not rotate.
        need(
            a.ne(0) / 2 * 4 <= factors.room,
            on,
            "ends too close to the end of its memory",
        )?;
    }
    Ok(())
}

/// FLASH_ATTN_EXT with an optional mask and optional sinks.
pub(super) fn flash(node: &Node<'_>) -> Verdict {
    let (q, k, v) = (node.source(0)?, node.source(1)?, node.source(2)?);
    need(
        q.is(F32) && q.unit(),
        On::Source(0),
        "is not F32 with contiguous rows",
    )?;
    for (keys, number) in [(&k, 1), (&v, 2)] {
        let on = On::Source(number);
        need(keys.unit(), on, "has no contiguous rows")?;
        need(
            q.ne(2).is_multiple_of(keys.ne(2)),
            on,
            "does not divide the heads",
        )?;
        need(q.ne(3) == keys.ne(3), on, "has another number of streams")?;
        need(keys.ne(1) == k.ne(1), on, "has another number of rows")?;
    }
    need(
        k.element.can_be_multiplied(),
        On::Source(1),
        "has a type that ggml cannot multiply",
    )?;
    need(
        v.is(F32) || v.element.can_be_read(),
        On::Source(2),
        "has a type that ggml cannot read",
    )?;
    need(q.ne(0) == k.ne(0), On::Source(1), "has rows of another length")?;
    if let Some(mask) = node.optional(3) {
        let on = On::Source(3);
        need(
            mask.is(F16) && mask.contiguous() && mask.unit(),
            on,
            "is not contiguous F16",
        )?;
        need(mask.ne(0) >= k.ne(1) && mask.ne(1) >= q.ne(1), on, "is too small")?;
        need(
            q.ne(2).is_multiple_of(mask.ne(2)) && q.ne(3).is_multiple_of(mask.ne(3)),
            on,
            "cannot be repeated for each head",
        )?;
    }
    if let Some(sinks) = node.optional(4) {
        let on = On::Source(4);
        need(sinks.is(F32) && sinks.unit(), on, "is not contiguous F32")?;
        need(
            sinks.ne(0) >= q.ne(2),
            on,
            "has fewer elements than there are heads",
        )?;
    }
    need(
        [0, 10].contains(&node.int(3)),
        On::Parameter(3),
        "is no precision",
    )?;
    let shape = [v.ne(0), q.ne(2), q.ne(1), q.ne(3)];
    need(
        node.result.is(F32) && node.result.has_shape(shape),
        On::Result,
        "has the wrong type or shape",
    )
}

/// LIGHTNING_INDEXER.
pub(super) fn lightning_indexer(node: &Node<'_>) -> Verdict {
    let (q, k, weights, mask) = (node.source(0)?, node.source(1)?, node.source(2)?, node.source(3)?);
    let [size, heads, tokens, streams] = q.tensor.shape;
    let rows = k.ne(2);
    need(
        q.is(F32) && q.unit(),
        On::Source(0),
        "is not F32 with contiguous rows",
    )?;
    let keys = k.is(F32) || k.element.can_be_read();
    need(
        keys && k.unit(),
        On::Source(1),
        "cannot be read, or has no contiguous rows",
    )?;
    need(
        k.has_shape([size, 1, rows, streams]),
        On::Source(1),
        "has the wrong shape",
    )?;
    need(
        weights.is(F32) && weights.unit() && weights.has_shape([heads, tokens, 1, streams]),
        On::Source(2),
        "has the wrong type or shape",
    )?;
    let mask_streams = mask.ne(3);
    need(
        mask.is(F16) && mask.unit() && mask.has_shape([rows, tokens, 1, mask_streams]),
        On::Source(3),
        "has the wrong type or shape",
    )?;
    need(
        streams.is_multiple_of(mask_streams),
        On::Source(3),
        "cannot be repeated for each stream",
    )?;
    need(
        node.result.is(F32) && node.result.has_shape([rows, tokens, 1, streams]),
        On::Result,
        "has the wrong type or shape",
    )
}
