//! Rows that get sorted.
//!
//! ggml sorts with `std::sort`, and a row with NaN has no order: beyond 16 elements the sort may then
//! run out of the row, reading and writing what lies before it.

use llama_cpp_sys_2 as sys;
use thiserror::Error;

use super::operand::Node;
use crate::rpc::graph::Tensor;

/// `std::sort` sorts up to so many elements by plain, guarded insertion in all three libraries.
const ALWAYS_SAFE: u64 = 16;

/// Right before the node at `position` of the graph's nodes runs, [`OrderCheck::check`] must accept the
/// bytes of `tensor`. So the graph runs in pieces: ggml computes a range of nodes as well as all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OrderCheck {
    /// The sorting node's position in `Graph::nodes`.
    pub position: usize,
    /// Index of the tensor that it sorts.
    pub tensor: u32,
}

/// A row that has no order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum OrderFault {
    /// It has NaN in it.
    #[error("what is to be sorted has NaN at byte {0}")]
    NotANumber(u64),
    /// Not all of its bytes were given.
    #[error("{0} bytes are too few")]
    TooFew(usize),
}

impl OrderCheck {
    /// Whether what begins with `bytes` can be sorted. `tensor` is the graph's tensor of that index.
    ///
    /// # Errors
    /// The first NaN, and bytes that are fewer than the tensor's.
    pub fn check(&self, tensor: &Tensor, bytes: &[u8]) -> Result<(), OrderFault> {
        super::indices::for_each_row(tensor, |start| {
            let row = usize::try_from(start)
                .ok()
                .and_then(|start| {
                    bytes
                        .get(start..)?
                        .get(..usize::try_from(tensor.shape[0]).ok()? * 4)
                })
                .ok_or(OrderFault::TooFew(bytes.len()))?;
            let (values, _) = row.as_chunks();
            match values
                .iter()
                .position(|value| f32::from_ne_bytes(*value).is_nan())
            {
                Some(at) => Err(OrderFault::NotANumber(start + at as u64 * 4)),
                None => Ok(()),
            }
        })
    }
}

/// What a node that has passed `ops::check` needs.
pub(super) fn needed(node: &Node<'_>, position: usize) -> Option<OrderCheck> {
    let sorted = node.optional(0)?;
    let sorts = node.op() == sys::GGML_OP_ARGSORT && node.result.is_computed() && !node.result.is_empty();
    (sorts && sorted.ne(0) > ALWAYS_SAFE).then_some(OrderCheck {
        position,
        tensor: sorted.index,
    })
}
