//! Products of matrices.

use llama_cpp_sys_2 as sys;

use super::On;
use super::operand::{Home, Node, Operand, Verdict, need};

const F32: u32 = sys::GGML_TYPE_F32;
const F16: u32 = sys::GGML_TYPE_F16;
const BF16: u32 = sys::GGML_TYPE_BF16;

/// Whether a node is one of those that `repack.cpp` computes with a repacked first source. Which types
/// and shapes can be repacked is known to whoever repacked it.
pub(super) fn reads_repacked(node: &Node<'_>) -> bool {
    let (Some(weight), Some(other)) = (node.optional(0), node.optional(1)) else {
        return false;
    };
    // Dimensions as `ggml_n_dims` counts them.
    let dimensions = (0..4).rev().find(|d| weight.ne(*d) > 1).map_or(1, |d| d + 1);
    let right = match node.op() {
        // A product with a Hadamard matrix would not look at the weight at all.
        sys::GGML_OP_MUL_MAT => dimensions == 2 && node.int(1) == 0,
        sys::GGML_OP_MUL_MAT_ID => dimensions == 3,
        _ => false,
    };
    // ggml finds the layout through the weight's own tensor, not through views of it.
    right && weight.tensor.view.is_none() && weight.packed() && other.is(F32) && other.ne(3) == 1
}

/// Types of the factors, and that their rows are as long and contiguous.
fn factors(node: &Node<'_>, a: &Operand<'_>, b: &Operand<'_>) -> Verdict {
    need(
        a.element.can_be_multiplied(),
        On::Source(0),
        "has a type that ggml cannot multiply",
    )?;
    let converted = match a.element.number {
        F16 => b.is(F16),
        BF16 => b.is(BF16),
        // `MUL_MAT` widens it, `MUL_MAT_ID` does not.
        F32 => node.op() == sys::GGML_OP_MUL_MAT && (b.is(F16) || b.is(BF16)),
        _ => false,
    };
    need(
        b.is(F32) || converted,
        On::Source(1),
        "has a type that ggml cannot multiply with the first source",
    )?;
    need(node.result.is(F32), On::Result, "is not F32")?;
    need(a.ne(0) == b.ne(0), On::Source(1), "has rows of another length")?;
    need(a.unit(), On::Source(0), "has no contiguous rows")?;
    need(b.unit(), On::Source(1), "has no contiguous rows")?;
    let blocks = a.ne(1) == 1 || a.nb(1).is_multiple_of(a.element.bytes);
    need(blocks, On::Source(0), "has rows that are no whole blocks apart")
}

/// MUL_MAT.
pub(super) fn product(node: &Node<'_>) -> Verdict {
    let (a, b) = (node.source(0)?, node.source(1)?);
    factors(node, &a, &b)?;
    if a.home == Home::Repacked {
        // It takes four rows at a time as if they were side by side.
        let apart = b.ne(1) == 1 || b.nb(1) >= b.row_bytes();
        need(apart, On::Source(1), "has rows that overlap")?;
    }
    let shape = [a.ne(1), b.ne(1), b.ne(2), b.ne(3)];
    match node.int(1).cast_unsigned() {
        sys::GGML_HINT_NONE => {
            for dimension in 2..4 {
                need(
                    b.ne(dimension).is_multiple_of(a.ne(dimension)),
                    On::Source(0),
                    "cannot be repeated along the second source",
                )?;
            }
        }
        // ggml transforms the rows of the second source without the first.
        sys::GGML_HINT_SRC0_IS_HADAMARD => {
            need(a.is(F32), On::Source(0), "is not F32")?;
            need(b.is(F32) || b.is(F16), On::Source(1), "is neither F32 nor F16")?;
            need(
                b.ne(0).is_power_of_two(),
                On::Source(1),
                "has rows of no power of two",
            )?;
            need(a.ne(0) == a.ne(1), On::Source(0), "is not square")?;
        }
        _ => need(false, On::Parameter(1), "is no known hint")?,
    }
    need(node.result.has_shape(shape), On::Result, "has the wrong shape")
}

/// MUL_MAT_ID.
pub(super) fn product_of_experts(node: &Node<'_>) -> Verdict {
    let (experts, b, ids) = (node.source(0)?, node.source(1)?, node.source(2)?);
    factors(node, &experts, &b)?;
    need(ids.is(sys::GGML_TYPE_I32), On::Source(2), "is not I32")?;
    need(experts.ne(3) == 1, On::Source(0), "has four dimensions")?;
    need(b.ne(3) == 1, On::Source(1), "has four dimensions")?;
    need(ids.ne(2) == 1 && ids.ne(3) == 1, On::Source(2), "is no matrix")?;
    need(
        ids.ne(1) == b.ne(2),
        On::Source(2),
        "has not as many rows as there are tokens",
    )?;
    need(
        ids.ne(0).is_multiple_of(b.ne(1)),
        On::Source(1),
        "cannot be repeated for each expert",
    )?;
    if experts.home == Home::Repacked {
        // Its scratch memory has as many rows for an expert as there are tokens.
        need(
            ids.ne(0) <= experts.ne(2),
            On::Source(2),
            "names more experts than there are",
        )?;
    }
    let shape = [experts.ne(1), ids.ne(0), b.ne(2), 1];
    need(node.result.has_shape(shape), On::Result, "has the wrong shape")
}

/// SOLVE_TRI.
pub(super) fn solve_triangular(node: &Node<'_>) -> Verdict {
    let (a, b) = (node.source(0)?, node.source(1)?);
    need(
        a.is(F32) && a.contiguous(),
        On::Source(0),
        "is not contiguous F32",
    )?;
    need(
        b.is(F32) && b.contiguous(),
        On::Source(1),
        "is not contiguous F32",
    )?;
    need(node.result.is(F32), On::Result, "is not F32")?;
    let shape = [b.ne(1), b.ne(1), b.ne(2), b.ne(3)];
    need(
        a.has_shape(shape),
        On::Source(0),
        "is not square, or of another size",
    )?;
    need(node.result.same_shape(&b), On::Result, "has the wrong shape")
}
