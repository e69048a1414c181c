//! Whether ggml's CPU backend survives a graph that a hostile host sent. Pure.
//!
//! ggml trusts whoever builds its graphs: a wrong shape ends the process, a wrong stride reads or
//! writes anywhere. [`check`] refuses a graph unless each of its operations is on a list, has the
//! form that ggml's own builders give it, and stays within its buffers. What depends on data that are
//! not there yet, the caller checks right before it runs the graph: [`Checked`] says what that is.
//!
//! `extent` looks at each tensor alone, `ops` at each operation by the rules of its family (the files
//! `elementwise`, `matmul`, ...), `indices` at rows that are chosen by data.

mod attention;
mod element;
mod elementwise;
mod extent;
mod indices;
mod matmul;
mod operand;
mod ops;
mod order;
mod recurrent;
mod rows;
mod shape_ops;
#[cfg(test)]
mod tests;

use thiserror::Error;

use self::operand::Node;
use super::super::graph::{DIMENSIONS, FormFault, Graph, Place};

pub use self::indices::{IndexCheck, IndexFault};
pub use self::order::{OrderCheck, OrderFault};

/// The layout of a weight in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layout {
    /// As in the file.
    Plain,
    /// As the CPU backend's repacking buffer type makes it. Only its own matrix products can read it.
    Repacked,
}

/// What lies at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Placement {
    /// Bytes that graphs read and write.
    Memory {
        /// From the place to the buffer's end.
        bytes: u64,
    },
    /// The start of a loaded weight. Graphs only read it.
    Weight {
        /// ggml's number of the type of its elements.
        element: u32,
        /// Elements by dimension.
        shape: [u64; DIMENSIONS],
        /// Bytes that may be read from its start: its size, and what padding is allocated behind it.
        /// With partial rotation, ggml's ROPE reads behind the end of its factors: without padding
        /// such a graph is refused.
        bytes: u64,
        /// How it lies there.
        layout: Layout,
    },
}

/// The buffers of a session. Their bases, and those of weights, must be aligned to 32 bytes or more,
/// as ggml's own are, and different buffers must not overlap.
pub trait Buffers {
    /// What lies at `place`; `None` where nothing does, in the middle of a weight too.
    fn at(&self, place: Place) -> Option<Placement>;
}

/// A graph that ggml survives, once what it says here has been seen to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Checked {
    /// To be checked against the data before the graph runs, each time.
    pub indices: Vec<IndexCheck>,
    /// To be checked in the middle of the run, each right before its node.
    pub orders: Vec<OrderCheck>,
}

/// Why a graph is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refused {
    /// Its references cannot be followed.
    #[error(transparent)]
    Form(#[from] FormFault),
    /// A tensor that cannot be, whatever is done with it.
    #[error("tensor {tensor}, result of {op}: {why}")]
    Tensor {
        /// Its index.
        tensor: u32,
        /// The operation that makes it.
        op: &'static str,
        /// What is wrong.
        why: &'static str,
    },
    /// An operation that ggml would not survive, or that nobody has looked at.
    #[error("{op} of tensor {tensor}: {on} {why}")]
    Operation {
        /// Its result.
        tensor: u32,
        /// Its name in ggml.
        op: &'static str,
        /// Which of its operands.
        on: On,
        /// What is wrong.
        why: &'static str,
    },
    /// The graph would be accepted if this weight lay there as in its file.
    #[error("weight {weight} is repacked, which {op} of tensor {tensor} cannot read")]
    NeedsPlain {
        /// The weight's index.
        weight: u32,
        /// Where it lies.
        place: Place,
        /// The operation's result.
        tensor: u32,
        /// The operation's name in ggml.
        op: &'static str,
    },
}

/// What of an operation is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum On {
    /// The operation itself.
    #[error("the operation")]
    Operation,
    /// Its result.
    #[error("the result")]
    Result,
    /// A source, by number.
    #[error("source {0}")]
    Source(u8),
    /// A parameter, by number.
    #[error("parameter {0}")]
    Parameter(u8),
}

/// Whether ggml's CPU backend survives `graph`, whose weights and memory are in `buffers`: it neither
/// ends the process nor touches anything outside of them.
///
/// A CPY without a second source is a cast, whose second source in ggml is its own result: that one
/// the caller sets when it builds the graph. Where a tensor has a place, that is where its data are,
/// whatever it is a view of. The graph must run with the flags it has here: nodes without
/// `GGML_TENSOR_FLAG_COMPUTE` stay without, though `ggml_build_forward_expand` sets it. llama.cpp's
/// graphs have such nodes, whose indices are not set, so they count as not computed.
///
/// # Errors
/// The first fault.
pub fn check(graph: &Graph, buffers: &impl Buffers) -> Result<Checked, Refused> {
    graph.check_form()?;
    let operands = extent::operands(graph, buffers)?;
    let mut uses = Vec::new();
    let mut orders = Vec::new();
    for (position, index) in graph.nodes.iter().enumerate() {
        let node = Node::new(&operands, *index);
        ops::check(&node)?;
        uses.extend(indices::use_of(&node, position));
        orders.extend(order::needed(&node, position));
    }
    let indices = indices::prove(graph, &operands, &uses)?;
    Ok(Checked { indices, orders })
}
