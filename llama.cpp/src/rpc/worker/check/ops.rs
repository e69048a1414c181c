//! The operations that are known, and what holds for all of them.

use std::ffi::CStr;

use llama_cpp_sys_2 as sys;

use super::operand::{Fault, Home, Node, Verdict, need};
use super::{On, Refused, attention, elementwise, matmul, recurrent, rows, shape_ops};

/// Largest scratch memory that ggml may plan for one operation, for all threads together or for one.
const MOST_WORK_BYTES: u64 = 1 << 31;

/// How the result of an operation may lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Packed,
    /// A view of a source, with its strides. The rule looks at them.
    AnyStrides,
}

/// A known operation.
struct Rule {
    op: u32,
    /// Sources that it must have, from the first.
    required: usize,
    /// All that it may have.
    most: usize,
    result: Form,
    check: fn(&Node<'_>) -> Verdict,
}

macro_rules! rules {
    ($($op:ident $required:literal..=$most:literal $result:ident $check:path;)*) => {
        &[$(Rule {
            op: sys::$op,
            required: $required,
            most: $most,
            result: Form::$result,
            check: $check,
        }),*]
    };
}

/// What llama.cpp's graphs of text models use.
const RULES: &[Rule] = rules! {
    GGML_OP_DUP 1..=1 Packed shape_ops::same_type_copy;
    GGML_OP_ADD 2..=2 AnyStrides elementwise::binary;
    GGML_OP_ADD_ID 3..=3 Packed rows::add_id;
    GGML_OP_SUB 2..=2 AnyStrides elementwise::binary;
    GGML_OP_MUL 2..=2 AnyStrides elementwise::binary;
    GGML_OP_DIV 2..=2 AnyStrides elementwise::binary;
    GGML_OP_SQR 1..=1 AnyStrides elementwise::unary_float;
    GGML_OP_SQRT 1..=1 AnyStrides elementwise::unary_float;
    GGML_OP_LOG 1..=1 AnyStrides elementwise::unary_float;
    GGML_OP_SIN 1..=1 AnyStrides elementwise::unary_float;
    GGML_OP_COS 1..=1 AnyStrides elementwise::unary_float;
    GGML_OP_SUM 1..=1 Packed elementwise::sum;
    GGML_OP_SUM_ROWS 1..=1 Packed elementwise::per_row;
    GGML_OP_CUMSUM 1..=1 Packed elementwise::same_shape_f32;
    GGML_OP_MEAN 1..=1 Packed elementwise::per_row;
    GGML_OP_ARGMAX 1..=1 Packed rows::argmax;
    GGML_OP_REPEAT 1..=1 Packed shape_ops::repeat;
    GGML_OP_CONCAT 2..=2 Packed shape_ops::concat;
    GGML_OP_NORM 1..=1 AnyStrides elementwise::norm;
    GGML_OP_RMS_NORM 1..=1 AnyStrides elementwise::norm;
    GGML_OP_GROUP_NORM 1..=1 AnyStrides elementwise::group_norm;
    GGML_OP_L2_NORM 1..=1 AnyStrides elementwise::norm;
    GGML_OP_MUL_MAT 2..=2 Packed matmul::product;
    GGML_OP_MUL_MAT_ID 3..=3 Packed matmul::product_of_experts;
    GGML_OP_SCALE 1..=1 AnyStrides elementwise::scale;
    GGML_OP_SET 2..=2 Packed shape_ops::set;
    GGML_OP_CPY 1..=2 AnyStrides shape_ops::copy;
    GGML_OP_CONT 1..=1 Packed shape_ops::same_type_copy;
    GGML_OP_GET_ROWS 2..=2 Packed rows::get_rows;
    GGML_OP_SET_ROWS 2..=3 AnyStrides rows::set_rows;
    GGML_OP_DIAG 1..=1 Packed shape_ops::diagonal;
    GGML_OP_SOFT_MAX 1..=3 Packed attention::soft_max;
    GGML_OP_ROPE 2..=3 AnyStrides attention::rope;
    GGML_OP_ROPE_BACK 2..=3 AnyStrides attention::rope;
    GGML_OP_CLAMP 1..=1 AnyStrides elementwise::clamp;
    GGML_OP_IM2COL 2..=2 Packed shape_ops::im2col;
    GGML_OP_POOL_2D 1..=1 Packed shape_ops::pool_2d;
    GGML_OP_PAD 1..=1 Packed shape_ops::pad;
    GGML_OP_ARANGE 0..=0 Packed shape_ops::arange;
    GGML_OP_ARGSORT 1..=1 Packed rows::argsort;
    GGML_OP_TOP_K 1..=1 Packed rows::top_k;
    GGML_OP_TRI 1..=1 Packed shape_ops::triangle;
    GGML_OP_FILL 1..=1 AnyStrides elementwise::fill;
    GGML_OP_FLASH_ATTN_EXT 3..=5 Packed attention::flash;
    GGML_OP_SSM_CONV 2..=2 Packed recurrent::ssm_conv;
    GGML_OP_SSM_SCAN 7..=7 Packed recurrent::ssm_scan;
    GGML_OP_RWKV_WKV6 6..=6 Packed recurrent::rwkv_6;
    GGML_OP_GATED_LINEAR_ATTN 5..=5 Packed recurrent::gated_linear;
    GGML_OP_RWKV_WKV7 7..=7 Packed recurrent::rwkv_7;
    GGML_OP_SOLVE_TRI 2..=2 Packed matmul::solve_triangular;
    GGML_OP_GATED_DELTA_NET 6..=6 Packed recurrent::gated_delta;
    GGML_OP_LIGHTNING_INDEXER 4..=4 Packed attention::lightning_indexer;
    GGML_OP_DSV4_HC_COMB 3..=3 Packed recurrent::hyper_comb;
    GGML_OP_DSV4_HC_PRE 2..=2 Packed recurrent::hyper_pre;
    GGML_OP_DSV4_HC_POST 3..=4 Packed recurrent::hyper_post;
    GGML_OP_UNARY 1..=1 AnyStrides elementwise::unary;
    GGML_OP_GLU 1..=2 Packed elementwise::gated;
};

/// Whether an operation computes nothing: its result is a way to look at its source.
pub(super) fn only_looks(op: u32) -> bool {
    matches!(
        op,
        sys::GGML_OP_NONE
            | sys::GGML_OP_RESHAPE
            | sys::GGML_OP_VIEW
            | sys::GGML_OP_PERMUTE
            | sys::GGML_OP_TRANSPOSE
    )
}

/// ggml's name of an operation.
pub(super) fn name(op: u32) -> &'static str {
    if op >= sys::GGML_OP_COUNT {
        return "no operation";
    }
    // SAFETY: the number is within ggml's table of names, which are string literals.
    unsafe { CStr::from_ptr(sys::ggml_op_name(op)) }
        .to_str()
        .unwrap_or("an operation")
}

/// Whether ggml survives one operation, as far as its operands' forms say.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check(node: &Node<'_>) -> Result<(), Refused> {
    if only_looks(node.op()) {
        return Ok(());
    }
    let checked = RULES
        .iter()
        .find(|rule| rule.op == node.op())
        .ok_or(Fault {
            on: On::Operation,
            why: "is none that a worker computes",
        })
        .and_then(|rule| {
            general(node, rule)?;
            Ok(rule)
        })
        .map_err(|fault| node.refused(fault));
    let rule = checked?;
    if node.result.is_empty() {
        // ggml computes nothing.
        return Ok(());
    }
    repacked(node)?;
    (rule.check)(node).map_err(|fault| node.refused(fault))
}

fn general(node: &Node<'_>, rule: &Rule) -> Verdict {
    for number in 0..rule.required {
        node.source(number)?;
    }
    for (number, source) in node.sources() {
        let on = On::Source(u8::try_from(number).unwrap_or(u8::MAX));
        need(number < rule.most, on, "is one too many")?;
        if !node.result.is_empty() {
            need(
                !source.is_empty() || may_be_empty(node.op(), number),
                on,
                "is empty",
            )?;
            need(
                source.is_empty() || source.home != Home::Nowhere,
                on,
                "lies nowhere",
            )?;
        }
    }
    need(
        work(node).is_some_and(|bytes| bytes <= MOST_WORK_BYTES),
        On::Operation,
        "takes too much scratch memory",
    )?;
    if node.result.is_empty() {
        return Ok(());
    }
    need(
        node.result.home == Home::Memory,
        On::Result,
        "does not lie in memory that a graph may write",
    )?;
    need(
        rule.result == Form::AnyStrides || node.result.packed(),
        On::Result,
        "is not contiguous",
    )
}

/// Whether a source may be empty though the result is not.
fn may_be_empty(op: u32, source: usize) -> bool {
    matches!(
        (op, source),
        (sys::GGML_OP_CONCAT, 0 | 1) | (sys::GGML_OP_SET_ROWS, 0 | 1)
    )
}

/// Refuses repacked weights wherever a plain one would be read.
fn repacked(node: &Node<'_>) -> Result<(), Refused> {
    for (number, source) in node.sources() {
        if source.home == Home::Repacked && !(number == 0 && matmul::reads_repacked(node)) {
            let weight = match source.tensor.view {
                Some(view) => view.of,
                None => source.index,
            };
            let Some(place) = source.tensor.place else {
                continue;
            };
            let place = match source.tensor.view {
                Some(view) => crate::rpc::graph::Place {
                    offset: place.offset - view.offset,
                    ..place
                },
                None => place,
            };
            return Err(Refused::NeedsPlain {
                weight,
                place,
                tensor: node.result.index,
                op: name(node.op()),
            });
        }
    }
    Ok(())
}

/// An upper bound of what ggml plans as scratch memory for a node, in bytes: what is shared, or what
/// each thread gets, whichever is more. `None` if it overflows.
fn work(node: &Node<'_>) -> Option<u64> {
    let ne = |source: usize, dimension: usize| node.optional(source).map_or(1, |source| source.ne(dimension));
    let elements = |source: usize| {
        let shape = node.optional(source).map_or([1; 4], |source| source.tensor.shape);
        shape
            .iter()
            .try_fold(1, |all: u64, n| all.checked_mul((*n).max(1)))
    };
    match node.op() {
        sys::GGML_OP_MUL_MAT => elements(1)?.checked_mul(4),
        sys::GGML_OP_MUL_MAT_ID => {
            let experts = ne(0, 2).max(1);
            // Rows of each expert, 8 bytes each, and a counter and a cache line.
            let rows = elements(2)?
                .checked_add(16)?
                .checked_mul(experts)?
                .checked_mul(8)?;
            elements(1)?.checked_mul(4)?.checked_add(rows)
        }
        sys::GGML_OP_FLASH_ATTN_EXT => {
            // Tiles of 64 by 64 with both head sizes, or a head's partial sums.
            let sizes = ne(1, 0).checked_add(ne(2, 0))?;
            let tiles = sizes.checked_mul(2 * 64 * 2)?.checked_add(2 * 64 * 64)?;
            let heads = ne(0, 2).checked_mul(sizes.checked_add(2)?)?;
            tiles.checked_add(heads)?.checked_mul(4)
        }
        sys::GGML_OP_GATED_DELTA_NET => {
            let size = ne(2, 0);
            size.checked_mul(size.checked_add(1)?)?.checked_mul(4)
        }
        _ => node.result.ne(0).max(ne(0, 0)).max(ne(1, 0)).checked_mul(4),
    }
}
