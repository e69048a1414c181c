//! Operations on each element, or on each row, whose result has the shape of a source or of its rows.

use llama_cpp_sys_2 as sys;

use super::On;
use super::operand::{Node, Operand, Verdict, need};

const F32: u32 = sys::GGML_TYPE_F32;
const F16: u32 = sys::GGML_TYPE_F16;
const BF16: u32 = sys::GGML_TYPE_BF16;

/// ADD, SUB, MUL, DIV: the second source is repeated.
pub(super) fn binary(node: &Node<'_>) -> Verdict {
    // First source, second source, result, as `binary_op` in ggml.
    const TYPES: [[u32; 3]; 7] = [
        [F32, F32, F32],
        [F16, F16, F16],
        [BF16, BF16, BF16],
        [BF16, F32, BF16],
        [BF16, F32, F32],
        [F16, F32, F16],
        [F16, F32, F32],
    ];
    let (a, b) = (node.source(0)?, node.source(1)?);
    let types = [a.element.number, b.element.number, node.result.element.number];
    need(
        TYPES.contains(&types),
        On::Operation,
        "has types that ggml cannot combine",
    )?;
    need(
        a.same_shape(&node.result),
        On::Source(0),
        "has not the result's shape",
    )?;
    need(
        b.repeats_into(&a),
        On::Source(1),
        "cannot be repeated to the result's shape",
    )?;
    need(a.unit(), On::Source(0), "has no contiguous rows")?;
    need(node.result.unit(), On::Result, "has no contiguous rows")
}

/// SQR, SQRT, LOG, SIN, COS.
pub(super) fn unary_float(node: &Node<'_>) -> Verdict {
    let source = node.source(0)?;
    need(source.element.is_float(), On::Source(0), "is no float")?;
    need(source.same_element(&node.result), On::Result, "has another type")?;
    need(source.same_shape(&node.result), On::Result, "has another shape")?;
    need(source.unit(), On::Source(0), "has no contiguous rows")?;
    need(node.result.unit(), On::Result, "has no contiguous rows")
}

/// UNARY.
pub(super) fn unary(node: &Node<'_>) -> Verdict {
    let operation = node.int(0).cast_unsigned();
    need(
        operation < sys::GGML_UNARY_OP_COUNT,
        On::Parameter(0),
        "is no function",
    )?;
    unary_float(node)?;
    if operation == sys::GGML_UNARY_OP_XIELU {
        need(node.source(0)?.contiguous_1(), On::Source(0), "is not contiguous")?;
        need(node.result.contiguous_1(), On::Result, "is not contiguous")?;
    }
    Ok(())
}

/// GLU: halves of one source, or two sources.
pub(super) fn gated(node: &Node<'_>) -> Verdict {
    let operation = node.int(0).cast_unsigned();
    need(
        operation < sys::GGML_GLU_OP_COUNT,
        On::Parameter(0),
        "is no function",
    )?;
    let source = node.source(0)?;
    let types: &[u32] = match operation {
        sys::GGML_GLU_OP_SWIGLU_OAI => &[F32],
        sys::GGML_GLU_OP_SWIGLU_CLAMP => &[F32, F16],
        _ => &[F32, F16, BF16],
    };
    need(
        types.contains(&source.element.number),
        On::Source(0),
        "has a type that the function lacks",
    )?;
    need(source.same_element(&node.result), On::Result, "has another type")?;
    let width = match node.optional(1) {
        Some(other) => {
            need(other.same_element(&source), On::Source(1), "has another type")?;
            need(other.same_shape(&source), On::Source(1), "has another shape")?;
            rows_apart(&other, On::Source(1))?;
            source.ne(0)
        }
        None => source.ne(0) / 2,
    };
    rows_apart(&source, On::Source(0))?;
    let shape = [width, source.ne(1), source.ne(2), source.ne(3)];
    need(node.result.has_shape(shape), On::Result, "has the wrong shape")
}

/// For kernels that step through all rows by `nb[1]`.
fn rows_apart(operand: &Operand<'_>, on: On) -> Verdict {
    need(
        operand.contiguous_1() && operand.linear_rows(),
        on,
        "has rows that are not evenly apart",
    )
}

fn f32_of_one_shape(node: &Node<'_>) -> Verdict {
    let source = node.source(0)?;
    need(source.is(F32), On::Source(0), "is not F32")?;
    need(node.result.is(F32), On::Result, "is not F32")?;
    need(source.same_shape(&node.result), On::Result, "has another shape")?;
    need(source.unit(), On::Source(0), "has no contiguous rows")?;
    need(node.result.unit(), On::Result, "has no contiguous rows")
}

/// CUMSUM.
pub(super) fn same_shape_f32(node: &Node<'_>) -> Verdict {
    f32_of_one_shape(node)
}

/// NORM, RMS_NORM, L2_NORM.
pub(super) fn norm(node: &Node<'_>) -> Verdict {
    f32_of_one_shape(node)?;
    need(node.float(0) >= 0.0, On::Parameter(0), "is below zero, or NaN")
}

/// GROUP_NORM.
pub(super) fn group_norm(node: &Node<'_>) -> Verdict {
    f32_of_one_shape(node)?;
    let groups = node.size(0)?;
    need(
        (1..=node.source(0)?.ne(2)).contains(&groups),
        On::Parameter(0),
        "are not as many groups as there can be",
    )
}

/// SCALE.
pub(super) fn scale(node: &Node<'_>) -> Verdict {
    let source = node.source(0)?;
    need(
        source.is(F32) || source.is(BF16),
        On::Source(0),
        "is neither F32 nor BF16",
    )?;
    need(source.same_element(&node.result), On::Result, "has another type")?;
    need(source.same_shape(&node.result), On::Result, "has another shape")?;
    for (operand, on) in [(&source, On::Source(0)), (&node.result, On::Result)] {
        need(
            operand.contiguous() && operand.linear_rows(),
            on,
            "is not contiguous",
        )?;
    }
    // The kernel finds the source's rows by the result's stride.
    need(
        source.rows() == 1 || source.nb(1) == node.result.nb(1),
        On::Source(0),
        "has other strides than the result",
    )
}

/// CLAMP.
pub(super) fn clamp(node: &Node<'_>) -> Verdict {
    let source = node.source(0)?;
    need(
        source.is(F32) || source.is(F16),
        On::Source(0),
        "is neither F32 nor F16",
    )?;
    need(source.same_element(&node.result), On::Result, "has another type")?;
    need(source.same_shape(&node.result), On::Result, "has another shape")?;
    rows_apart(&source, On::Source(0))?;
    rows_apart(&node.result, On::Result)
}

/// FILL.
pub(super) fn fill(node: &Node<'_>) -> Verdict {
    let source = node.source(0)?;
    need(
        source.is(F32) || source.is(F16),
        On::Source(0),
        "is neither F32 nor F16",
    )?;
    need(source.same_element(&node.result), On::Result, "has another type")?;
    need(node.result.unit(), On::Result, "has no contiguous rows")
}

/// SUM.
pub(super) fn sum(node: &Node<'_>) -> Verdict {
    let source = node.source(0)?;
    need(source.is(F32), On::Source(0), "is not F32")?;
    need(node.result.is(F32), On::Result, "is not F32")?;
    need(source.unit(), On::Source(0), "has no contiguous rows")?;
    need(node.result.has_shape([1; 4]), On::Result, "is not one number")
}

/// SUM_ROWS, MEAN.
pub(super) fn per_row(node: &Node<'_>) -> Verdict {
    let source = node.source(0)?;
    need(source.is(F32), On::Source(0), "is not F32")?;
    need(node.result.is(F32), On::Result, "is not F32")?;
    need(source.unit(), On::Source(0), "has no contiguous rows")?;
    let shape = [1, source.ne(1), source.ne(2), source.ne(3)];
    need(node.result.has_shape(shape), On::Result, "has the wrong shape")
}
