//! What a graph is on the wire. Pure.
//!
//! Nothing in it is trusted by the one who receives it: [`Graph::check_form`] says whether its
//! references can be followed at all, `worker::check` whether ggml would survive it.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Dimensions of a tensor, as in ggml.
pub const DIMENSIONS: usize = 4;
/// Most sources of an operation, as in ggml.
pub const MOST_SOURCES: usize = 10;
/// Words of an operation's parameters, as in ggml.
pub const PARAMETERS: usize = 16;
/// Most tensors of a graph.
pub const MOST_TENSORS: usize = 1 << 17;

/// A buffer of a session; the host chooses the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BufferId(pub u32);

/// Where a tensor's data begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Place {
    /// The buffer.
    pub buffer: BufferId,
    /// Bytes from its start.
    pub offset: u64,
}

impl Place {
    /// So many bytes further.
    pub fn ahead(self, bytes: u64) -> Self {
        Self {
            offset: self.offset.wrapping_add(bytes),
            ..self
        }
    }
}

/// What a view looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct View {
    /// Index of the tensor that owns the data; it is no view itself, as in ggml.
    pub of: u32,
    /// Bytes from its start.
    pub offset: u64,
}

/// A tensor, and the operation that makes it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tensor {
    /// ggml's number of the type of its elements (`ggml_type`).
    pub element: u32,
    /// Elements by dimension (`ne`).
    pub shape: [u64; DIMENSIONS],
    /// Bytes from one element, or block, to the next, by dimension (`nb`).
    pub strides: [u64; DIMENSIONS],
    /// ggml's number of the operation (`ggml_op`).
    pub op: u32,
    /// The operation's parameters (`op_params`).
    pub params: [i32; PARAMETERS],
    /// ggml's flags.
    pub flags: u32,
    /// Indices of its sources; all below its own index.
    pub sources: Vec<Option<u32>>,
    /// What it is a view of.
    pub view: Option<View>,
    /// Where its data are. `None` where it has none: an unused input.
    pub place: Option<Place>,
}

/// A graph that one device computes in one go.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Graph {
    /// All tensors, each behind those that it refers to.
    pub tensors: Vec<Tensor>,
    /// Indices of those that are computed, in order. The others are there already.
    pub nodes: Vec<u32>,
}

/// Why a graph's references cannot be followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FormFault {
    /// Too large.
    #[error("{0} tensors are more than {MOST_TENSORS}")]
    TooMany(usize),
    /// A reference forwards, to itself or outside.
    #[error("tensor {0} refers to a tensor that does not come before it")]
    Reference(usize),
    /// Too many sources.
    #[error("tensor {0} has more than {MOST_SOURCES} sources")]
    Sources(usize),
    /// A view of a view.
    #[error("tensor {0} is a view of a view")]
    ViewOfView(usize),
    /// A node that is not there, or twice, or out of order.
    #[error("node {0} names no tensor, or not in ascending order")]
    Node(usize),
}

impl Graph {
    /// Whether every reference leads to an earlier tensor and every node is named once, in order.
    ///
    /// # Errors
    /// The first fault.
    pub fn check_form(&self) -> Result<(), FormFault> {
        if self.tensors.len() > MOST_TENSORS {
            return Err(FormFault::TooMany(self.tensors.len()));
        }
        for (index, tensor) in self.tensors.iter().enumerate() {
            if tensor.sources.len() > MOST_SOURCES {
                return Err(FormFault::Sources(index));
            }
            let mut references = tensor.sources.iter().flatten().copied();
            if references.any(|source| source as usize >= index) {
                return Err(FormFault::Reference(index));
            }
            if let Some(view) = tensor.view {
                let owner = view.of as usize;
                if owner >= index {
                    return Err(FormFault::Reference(index));
                }
                if self.tensors[owner].view.is_some() {
                    return Err(FormFault::ViewOfView(index));
                }
            }
        }
        let mut next = 0;
        for (position, node) in self.nodes.iter().enumerate() {
            if (*node as usize) < next || *node as usize >= self.tensors.len() {
                return Err(FormFault::Node(position));
            }
            next = *node as usize + 1;
        }
        Ok(())
    }
}
