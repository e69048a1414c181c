//! Copies, and what makes a tensor of another shape.

use llama_cpp_sys_2 as sys;

use super::On;
use super::operand::{Node, Operand, Verdict, need};

const F32: u32 = sys::GGML_TYPE_F32;
const F16: u32 = sys::GGML_TYPE_F16;
const I32: u32 = sys::GGML_TYPE_I32;

/// Most elements of what ggml counts in an `int`.
const MOST_ELEMENTS: u64 = i32::MAX as u64;

/// CONT, DUP.
pub(super) fn same_type_copy(node: &Node<'_>) -> Verdict {
    // ggml plans no scratch memory for a conversion.
    need(
        node.source(0)?.same_element(&node.result),
        On::Result,
        "has another type",
    )?;
    copied(&node.source(0)?, &node.result)
}

/// CPY: into a view of the second source, or a cast to a new tensor.
pub(super) fn copy(node: &Node<'_>) -> Verdict {
    if let Some(target) = node.optional(1) {
        let same = target.same_element(&node.result)
            && target.same_shape(&node.result)
            && target.tensor.strides == node.result.tensor.strides;
        need(same, On::Source(1), "is not what the result is a view of")?;
    }
    copied(&node.source(0)?, &node.result)
}

fn copied(from: &Operand<'_>, to: &Operand<'_>) -> Verdict {
    let (source, result) = (On::Source(0), On::Result);
    need(
        from.elements() == to.elements(),
        result,
        "has another number of elements",
    )?;
    need(from.elements() <= MOST_ELEMENTS, source, "has too many elements")?;
    if from.same_element(to) {
        return same_type(from, to);
    }
    if from.element.is_quantized() {
        need(
            to.is(F32) && from.element.can_be_read(),
            source,
            "cannot be converted to the result's type",
        )?;
        // The kernel takes the source block by block, each to one run of the result.
        need(
            from.unit() && to.unit(),
            source,
            "or the result has no contiguous rows",
        )?;
        return need(
            to.ne(0).is_multiple_of(from.element.block) || to.contiguous(),
            result,
            "has rows that are no whole blocks",
        );
    }
    let known = from.element.is_float() && (to.element.is_float() || to.element.is_quantized())
        || from.is(F32) && to.is(I32)
        || from.is(I32) && to.is(F32);
    need(known, source, "cannot be converted to the result's type")?;
    if !to.element.is_quantized() {
        return Ok(());
    }
    need(
        to.element.can_be_made(),
        result,
        "is of a type that ggml cannot make",
    )?;
    need(to.contiguous() && to.unit(), result, "is not contiguous")?;
    need(from.unit(), source, "has no contiguous rows")?;
    need(
        from.ne(0).is_multiple_of(to.element.block),
        source,
        "has rows that are no whole blocks of the result",
    )?;
    // Scratch memory is planned by the result's rows, and used by the source's.
    need(from.ne(0) <= to.ne(0), source, "has longer rows than the result")
}

fn same_type(from: &Operand<'_>, to: &Operand<'_>) -> Verdict {
    let whole = from.contiguous() && to.contiguous();
    let by_rows = from.same_shape(to) && from.unit() && to.unit();
    // With anything else, the kernel counts a row's elements for blocks.
    need(
        !from.element.is_quantized() || whole || by_rows,
        On::Source(0),
        "is quantized and not contiguous",
    )
}

/// REPEAT.
pub(super) fn repeat(node: &Node<'_>) -> Verdict {
    let a = node.source(0)?;
    let types = [F32, I32, F16, sys::GGML_TYPE_BF16, sys::GGML_TYPE_I16];
    need(
        types.contains(&a.element.number),
        On::Source(0),
        "has a type that ggml cannot repeat",
    )?;
    need(a.same_element(&node.result), On::Result, "has another type")?;
    need(a.unit(), On::Source(0), "has no contiguous rows")?;
    need(
        a.repeats_into(&node.result),
        On::Source(0),
        "cannot be repeated to the result's shape",
    )
}

/// CONCAT.
pub(super) fn concat(node: &Node<'_>) -> Verdict {
    let (a, b) = (node.source(0)?, node.source(1)?);
    let along = usize::try_from(node.size(0)?).unwrap_or(usize::MAX);
    need(along < 4, On::Parameter(0), "is no dimension")?;
    need(a.same_element(&node.result), On::Source(0), "has another type")?;
    need(b.same_element(&node.result), On::Source(1), "has another type")?;
    for dimension in 0..4 {
        let (first, second, all) = (a.ne(dimension), b.ne(dimension), node.result.ne(dimension));
        let fits = if dimension == along {
            first + second == all
        } else {
            first == all && second == all
        };
        need(fits, On::Result, "has the wrong shape")?;
    }
    let by_element = [
        F32,
        I32,
        F16,
        sys::GGML_TYPE_BF16,
        sys::GGML_TYPE_I16,
        sys::GGML_TYPE_I8,
    ];
    if by_element.contains(&a.element.number) {
        return Ok(());
    }
    need(a.unit(), On::Source(0), "has no contiguous rows")?;
    need(b.unit(), On::Source(1), "has no contiguous rows")
}

/// SET: the second source is put into a copy of the first, or into the first itself.
pub(super) fn set(node: &Node<'_>) -> Verdict {
    let (a, b) = (node.source(0)?, node.source(1)?);
    need(a.is(F32) || a.is(I32), On::Source(0), "is neither F32 nor I32")?;
    need(a.same_element(&b), On::Source(1), "has another type")?;
    need(a.same_element(&node.result), On::Result, "has another type")?;
    need(a.same_shape(&node.result), On::Result, "has another shape")?;
    need(a.contiguous() && a.unit(), On::Source(0), "is not contiguous")?;
    need(b.unit(), On::Source(1), "has no contiguous rows")?;
    // The first three parameters are the strides of the part, the fourth its offset, all in bytes.
    let mut end = node.size(3)? + b.row_bytes();
    for dimension in 1..4 {
        let stride = node.size(dimension - 1)?;
        let steps = b.ne(dimension) - 1;
        let on = On::Parameter(u8::try_from(dimension - 1).unwrap_or(u8::MAX));
        need(steps == 0 || stride.is_multiple_of(4), on, "is not aligned")?;
        // Both below 2^31.
        end += stride * steps;
    }
    need(
        node.size(3)?.is_multiple_of(4),
        On::Parameter(3),
        "is not aligned",
    )?;
    need(
        end <= node.result.extent,
        On::Source(1),
        "reaches beyond the result",
    )
}

/// DIAG.
pub(super) fn diagonal(node: &Node<'_>) -> Verdict {
    let a = node.source(0)?;
    need(
        a.is(F32) && a.unit(),
        On::Source(0),
        "is not F32 with contiguous rows",
    )?;
    need(a.ne(1) == 1, On::Source(0), "is no row")?;
    need(
        node.result.is(F32) && node.result.has_shape([a.ne(0), a.ne(0), a.ne(2), a.ne(3)]),
        On::Result,
        "has the wrong type or shape",
    )
}

/// TRI.
pub(super) fn triangle(node: &Node<'_>) -> Verdict {
    let a = node.source(0)?;
    need(
        a.is(F32) && a.contiguous() && a.unit(),
        On::Source(0),
        "is not contiguous F32",
    )?;
    need(
        node.result.is(F32) && node.result.same_shape(&a),
        On::Result,
        "has the wrong type or shape",
    )?;
    need((0..4).contains(&node.int(0)), On::Parameter(0), "is no triangle")
}

/// PAD, with zeros.
pub(super) fn pad(node: &Node<'_>) -> Verdict {
    let a = node.source(0)?;
    need(a.is(F32), On::Source(0), "is not F32")?;
    need(node.result.is(F32), On::Result, "is not F32")?;
    // Around a ring, padding that is larger than the source reads before it.
    need(node.int(8) == 0, On::Parameter(8), "asks for a ring")?;
    for dimension in 0..4 {
        let all = node.size(2 * dimension)? + a.ne(dimension) + node.size(2 * dimension + 1)?;
        need(
            node.result.ne(dimension) == all,
            On::Result,
            "has the wrong shape",
        )?;
    }
    Ok(())
}

/// ARANGE.
pub(super) fn arange(node: &Node<'_>) -> Verdict {
    let (start, stop, step) = (node.float(0), node.float(1), node.float(2));
    // Beyond that, an F32 is no whole number of elements any more.
    let steps = ((stop - start) / step).ceil();
    let on = On::Parameter(2);
    need(
        (1.0..=16_777_216.0).contains(&steps),
        on,
        "makes no sensible number of steps",
    )?;
    // In range, so exact.
    let right = node.result.elements() == steps as u64;
    need(
        node.result.is(F32) && right,
        On::Result,
        "has the wrong type or shape",
    )
}

/// IM2COL.
pub(super) fn im2col(node: &Node<'_>) -> Verdict {
    let (kernel, image, result) = (node.source(0)?, node.source(1)?, node.result);
    let flat = match node.int(6) {
        0 => true,
        1 => false,
        _ => return need(false, On::Parameter(6), "is no yes or no"),
    };
    let types = result.is(F32) && image.is(F32) || result.is(F16) && (image.is(F32) || image.is(F16));
    need(
        types,
        On::Source(1),
        "has a type that ggml cannot convert to the result's",
    )?;
    need(
        image.contiguous() && image.unit(),
        On::Source(1),
        "is not contiguous",
    )?;
    // The kernel has strides in an `int`.
    need(image.extent <= MOST_ELEMENTS, On::Source(1), "is too large")?;
    for number in 0..6 {
        let on = On::Parameter(number);
        need(
            (0..1 << 16).contains(&node.int(usize::from(number))),
            on,
            "is too large",
        )?;
    }
    let shape = if flat {
        need(
            image.ne(3) == 1 && image.ne(1) == kernel.ne(1),
            On::Source(1),
            "has the wrong shape",
        )?;
        [kernel.ne(0) * image.ne(1), result.ne(1), image.ne(2), 1]
    } else {
        need(image.ne(2) == kernel.ne(2), On::Source(1), "has the wrong shape")?;
        let patch = kernel
            .ne(0)
            .checked_mul(kernel.ne(1))
            .and_then(|area| area.checked_mul(image.ne(2)))
            .unwrap_or(u64::MAX);
        [patch, result.ne(1), result.ne(2), image.ne(3)]
    };
    need(result.has_shape(shape), On::Result, "has the wrong shape")
}

/// POOL_2D.
pub(super) fn pool_2d(node: &Node<'_>) -> Verdict {
    let (a, result) = (node.source(0)?, node.result);
    need(a.is(F32) || a.is(F16), On::Source(0), "is neither F32 nor F16")?;
    // The kernel takes planes by stride until the source ends.
    need(a.packed(), On::Source(0), "is not contiguous")?;
    need(
        [0, 1].contains(&node.int(0)),
        On::Parameter(0),
        "is no way to pool",
    )?;
    for number in 1..7 {
        let on = On::Parameter(number);
        let least = if number < 5 { 1 } else { 0 };
        need(
            (least..1 << 12).contains(&node.int(usize::from(number))),
            on,
            "is out of range",
        )?;
    }
    // So that positions in the source stay within an `int`.
    need(
        result.ne(0) < 1 << 18 && result.ne(1) < 1 << 18,
        On::Result,
        "is too large",
    )?;
    need(
        result.is(F32) && result.ne(2) == a.ne(2) && result.ne(3) == a.ne(3),
        On::Result,
        "has the wrong type or shape",
    )
}
