//! Rows that are taken, put, sorted. Which rows, `indices` looks at.

use llama_cpp_sys_2 as sys;

use super::On;
use super::operand::{Node, Operand, Verdict, need};

const F32: u32 = sys::GGML_TYPE_F32;
const F16: u32 = sys::GGML_TYPE_F16;
const I32: u32 = sys::GGML_TYPE_I32;
const I64: u32 = sys::GGML_TYPE_I64;

/// GET_ROWS.
pub(super) fn get_rows(node: &Node<'_>) -> Verdict {
    let (a, ids) = (node.source(0)?, node.source(1)?);
    need(ids.is(I32), On::Source(1), "is not I32")?;
    need(
        a.is(F32) || a.is(I32) || a.element.can_be_read(),
        On::Source(0),
        "has a type that ggml cannot read",
    )?;
    need(a.unit(), On::Source(0), "has no contiguous rows")?;
    need(
        a.ne(2) == ids.ne(1) && a.ne(3) == ids.ne(2) && ids.ne(3) == 1,
        On::Source(1),
        "has the wrong shape",
    )?;
    let made = if a.is(I32) { I32 } else { F32 };
    let shape = [a.ne(0), ids.ne(0), ids.ne(1), ids.ne(2)];
    need(
        node.result.is(made) && node.result.has_shape(shape),
        On::Result,
        "has the wrong type or shape",
    )
}

/// SET_ROWS: its result is a view of what its third source names, which it does not read.
pub(super) fn set_rows(node: &Node<'_>) -> Verdict {
    let (rows, ids, result) = (node.source(0)?, node.source(1)?, node.result);
    need(
        ids.is(I64) || ids.is(I32),
        On::Source(1),
        "is neither I64 nor I32",
    )?;
    // From F16, ggml converts in scratch memory that it plans for one thread but uses with all.
    need(
        rows.is(F32) && result.element.can_be_made() || rows.is(F16) && result.is(F16),
        On::Source(0),
        "has a type that ggml cannot convert to the result's",
    )?;
    need(rows.unit(), On::Source(0), "has no contiguous rows")?;
    need(result.unit(), On::Result, "has no contiguous rows")?;
    let shape = [rows.ne(0), result.ne(1), rows.ne(2), rows.ne(3)];
    need(result.has_shape(shape), On::Result, "has the wrong shape")?;
    if rows.is_empty() {
        return Ok(());
    }
    need(!ids.is_empty(), On::Source(1), "is empty")?;
    need(
        ids.ne(0) >= rows.ne(1)
            && rows.ne(2).is_multiple_of(ids.ne(1))
            && rows.ne(3).is_multiple_of(ids.ne(2)),
        On::Source(1),
        "has the wrong shape",
    )
}

/// ADD_ID.
pub(super) fn add_id(node: &Node<'_>) -> Verdict {
    let (a, rows, ids) = (node.source(0)?, node.source(1)?, node.source(2)?);
    for (operand, on) in [
        (a, On::Source(0)),
        (rows, On::Source(1)),
        (node.result, On::Result),
    ] {
        need(
            operand.is(F32) && operand.unit(),
            on,
            "is not F32 with contiguous rows",
        )?;
    }
    need(a.same_shape(&node.result), On::Result, "has another shape")?;
    need(a.ne(0) == rows.ne(0), On::Source(1), "has rows of another length")?;
    need(ids.is(I32), On::Source(2), "is not I32")?;
    need(
        ids.ne(0) == a.ne(1) && ids.ne(1) == a.ne(2),
        On::Source(2),
        "has the wrong shape",
    )
}

/// ARGMAX.
pub(super) fn argmax(node: &Node<'_>) -> Verdict {
    let a = node.source(0)?;
    need(
        a.is(F32) && a.unit(),
        On::Source(0),
        "is not F32 with contiguous rows",
    )?;
    need(a.ne(2) == 1 && a.ne(3) == 1, On::Source(0), "is no matrix")?;
    need(
        node.result.is(I32) && node.result.has_shape([a.ne(1), 1, 1, 1]),
        On::Result,
        "has the wrong type or shape",
    )
}

/// What is sorted: the kernels step through all rows by `nb[1]`.
fn sortable(a: &Operand<'_>) -> Verdict {
    need(
        a.is(F32) && a.contiguous_1() && a.linear_rows(),
        On::Source(0),
        "is not F32 with rows evenly apart",
    )
}

/// ARGSORT.
pub(super) fn argsort(node: &Node<'_>) -> Verdict {
    let a = node.source(0)?;
    sortable(&a)?;
    need(
        node.result.is(I32) && node.result.same_shape(&a),
        On::Result,
        "has the wrong type or shape",
    )?;
    // `std::sort` runs out of a row whose order changes meanwhile.
    need(
        !a.overlaps(&node.result),
        On::Source(0),
        "shares memory with the result",
    )?;
    need([0, 1].contains(&node.int(0)), On::Parameter(0), "is no order")
}

/// TOP_K.
pub(super) fn top_k(node: &Node<'_>) -> Verdict {
    let a = node.source(0)?;
    sortable(&a)?;
    let most = node.result.ne(0);
    need(most <= a.ne(0), On::Result, "is more than a row has")?;
    let shape = [most, a.ne(1), a.ne(2), a.ne(3)];
    need(
        node.result.is(I32) && node.result.has_shape(shape),
        On::Result,
        "has the wrong type or shape",
    )
}
