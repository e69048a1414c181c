//! Each tensor alone: whether its numbers make sense and its data are where they may be.

use super::element::Element;
use super::operand::{Home, Operand};
use super::{Buffers, Layout, Placement, Refused};
use crate::rpc::graph::{Graph, Tensor};

/// Most elements of one dimension, and most rows: ggml's kernels count them in an `int`.
const MOST: u64 = i32::MAX as u64;
/// Most elements of a tensor; far from where sizes in bytes overflow.
const MOST_ELEMENTS: u64 = 1 << 44;
/// Largest stride in bytes.
const WIDEST_STRIDE: u64 = 1 << 48;

/// All tensors of a graph whose form has been checked.
///
/// # Errors
/// The first that cannot be.
pub(super) fn operands<'a>(graph: &'a Graph, buffers: &impl Buffers) -> Result<Vec<Operand<'a>>, Refused> {
    let mut operands = Vec::with_capacity(graph.tensors.len());
    for (index, tensor) in (0..).zip(&graph.tensors) {
        let operand = operand(index, tensor, &operands, buffers).map_err(|why| Refused::Tensor {
            tensor: index,
            op: super::ops::name(tensor.op),
            why,
        })?;
        operands.push(operand);
    }
    Ok(operands)
}

fn operand<'a>(
    index: u32,
    tensor: &'a Tensor,
    before: &[Operand<'a>],
    buffers: &impl Buffers,
) -> Result<Operand<'a>, &'static str> {
    let element = Element::of(tensor.element).ok_or("ggml has no such type of elements")?;
    let extent = extent(tensor, element)?;
    let (home, room) = if extent == 0 {
        (Home::Nowhere, 0)
    } else {
        home(tensor, before, buffers)?
    };
    if home != Home::Nowhere && extent > room {
        return Err("it reaches beyond what lies there");
    }
    if let (Some(place), true) = (tensor.place, extent > 0)
        && !place.offset.is_multiple_of(element.alignment())
    {
        return Err("its offset is not aligned");
    }
    Ok(Operand {
        index,
        tensor,
        element,
        home,
        extent,
        room,
    })
}

/// Bytes from a tensor's first to behind its last.
fn extent(tensor: &Tensor, element: Element) -> Result<u64, &'static str> {
    if tensor.shape.iter().any(|elements| *elements > MOST) {
        return Err("a dimension is too large");
    }
    // Zeros do not make up for what is too large beside them: ggml multiplies before it looks.
    let product = |shape: &[u64]| {
        shape
            .iter()
            .try_fold(1, |all: u64, n| all.checked_mul((*n).max(1)))
    };
    if product(&tensor.shape[1..]).is_none_or(|rows| rows > MOST) {
        return Err("it has too many rows");
    }
    if product(&tensor.shape).is_none_or(|elements| elements > MOST_ELEMENTS) {
        return Err("it has too many elements");
    }
    if !tensor.shape[0].is_multiple_of(element.block) {
        return Err("its rows are no whole blocks");
    }
    if tensor.strides.iter().any(|stride| *stride > WIDEST_STRIDE) {
        return Err("a stride is too large");
    }
    if tensor.shape.contains(&0) {
        return Ok(0);
    }
    let steps = [
        tensor.shape[0] / element.block - 1,
        tensor.shape[1] - 1,
        tensor.shape[2] - 1,
        tensor.shape[3] - 1,
    ];
    let mut extent = element.bytes;
    for (steps, stride) in steps.into_iter().zip(tensor.strides) {
        if steps > 0 && !stride.is_multiple_of(element.alignment()) {
            return Err("a stride is not aligned");
        }
        extent = steps
            .checked_mul(stride)
            .and_then(|bytes| extent.checked_add(bytes))
            .ok_or("it is too large")?;
    }
    Ok(extent)
}

/// Where a tensor's data are, and how many bytes from its first may be read.
fn home(
    tensor: &Tensor,
    before: &[Operand<'_>],
    buffers: &impl Buffers,
) -> Result<(Home, u64), &'static str> {
    let Some(place) = tensor.place else {
        return Ok((Home::Nowhere, 0));
    };
    // A view's place must be in its owner: in a weight, nothing else says what lies there.
    if let Some(view) = tensor.view {
        let owner = &before[view.of as usize];
        let Some(base) = owner.tensor.place else {
            return Err("it is a view of what lies nowhere");
        };
        if base.buffer != place.buffer || base.offset.checked_add(view.offset) != Some(place.offset) {
            return Err("it is not where its view is");
        }
        match owner.home {
            Home::Weight => return Ok((Home::Weight, owner.room.saturating_sub(view.offset))),
            Home::Repacked => return Ok((Home::Repacked, owner.room.saturating_sub(view.offset))),
            Home::Memory | Home::Nowhere => {}
        }
    }
    match buffers.at(place).ok_or("nothing lies at its place")? {
        Placement::Memory { bytes } => Ok((Home::Memory, bytes)),
        Placement::Weight { .. } if tensor.view.is_some() => Err("it is a view of another weight"),
        Placement::Weight {
            element,
            shape,
            bytes,
            layout,
        } => {
            if element != tensor.element || shape != tensor.shape {
                return Err("the weight at its place has another type or shape");
            }
            let home = match layout {
                Layout::Plain => Home::Weight,
                Layout::Repacked => Home::Repacked,
            };
            Ok((home, bytes))
        }
    }
}
