//! Makes a graph for the wire of one of ggml's.

use std::collections::HashMap;

use llama_cpp_sys_2 as sys;

use crate::rpc::graph::{Graph, Place, Tensor, View};

/// Where a tensor lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Location {
    /// In a buffer of the device.
    Own(Place),
    /// Nowhere.
    None,
    /// In memory that the device does not have.
    Foreign,
}

/// Why a graph cannot be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum CaptureFault {
    /// A tensor elsewhere.
    #[error("llama.cpp left a tensor of the graph outside of the device's memory")]
    Foreign,
}

struct Capture<L> {
    locate: L,
    graph: Graph,
    known: HashMap<*const sys::ggml_tensor, u32>,
}

/// The graph of these nodes, in order. `locate` says where a tensor lies.
///
/// # Safety
/// The nodes, and all tensors that they refer to, are live.
pub(super) unsafe fn capture(
    nodes: &[*mut sys::ggml_tensor],
    locate: impl Fn(&sys::ggml_tensor) -> Location,
) -> Result<Graph, CaptureFault> {
    let mut capture = Capture {
        locate,
        graph: Graph::default(),
        known: HashMap::with_capacity(nodes.len() * 2),
    };
    for node in nodes {
        // SAFETY: the caller says that the node lives, and what it refers to.
        let node = unsafe { &**node };
        // ggml leaves views of other devices' tensors between the nodes; they compute nothing.
        if only_looks(node.op) && (capture.locate)(node) == Location::Foreign {
            continue;
        }
        // SAFETY: as above.
        let index = unsafe { capture.node(node)? };
        capture.graph.nodes.push(index);
    }
    Ok(capture.graph)
}

/// Whether an operation makes nothing.
fn only_looks(op: sys::ggml_op) -> bool {
    [
        sys::GGML_OP_NONE,
        sys::GGML_OP_VIEW,
        sys::GGML_OP_RESHAPE,
        sys::GGML_OP_PERMUTE,
        sys::GGML_OP_TRANSPOSE,
    ]
    .contains(&op)
}

impl<L: Fn(&sys::ggml_tensor) -> Location> Capture<L> {
    unsafe fn node(&mut self, node: &sys::ggml_tensor) -> Result<u32, CaptureFault> {
        let last = node.src.iter().rposition(|source| !source.is_null());
        let mut sources = Vec::with_capacity(last.map_or(0, |last| last + 1));
        for source in &node.src[..last.map_or(0, |last| last + 1)] {
            sources.push(if source.is_null() || std::ptr::eq(*source, node) {
                None
            } else {
                // SAFETY: sources of a live node are live.
                Some(unsafe { self.source(&**source)? })
            });
        }
        // SAFETY: as above.
        let mut tensor = unsafe { self.tensor(node)? };
        tensor.op = node.op;
        tensor.params = node.op_params;
        tensor.sources = sources;
        Ok(self.add(node, tensor))
    }

    /// A tensor that is there already: how it was made does not matter.
    unsafe fn source(&mut self, source: &sys::ggml_tensor) -> Result<u32, CaptureFault> {
        if let Some(known) = self.known.get(&std::ptr::from_ref(source)) {
            return Ok(*known);
        }
        // SAFETY: the tensor and its view's owner are live.
        let tensor = unsafe { self.tensor(source)? };
        Ok(self.add(source, tensor))
    }

    fn add(&mut self, tensor: &sys::ggml_tensor, added: Tensor) -> u32 {
        let index = self.graph.tensors.len() as u32;
        self.graph.tensors.push(added);
        self.known.insert(tensor, index);
        index
    }

    /// What a tensor is, without what makes it.
    unsafe fn tensor(&mut self, tensor: &sys::ggml_tensor) -> Result<Tensor, CaptureFault> {
        let view = if tensor.view_src.is_null() {
            None
        } else {
            // SAFETY: the owner of a view outlives it.
            let of = unsafe { self.source(&*tensor.view_src)? };
            let offset = tensor.view_offs as u64;
            Some(View { of, offset })
        };
        let place = match (self.locate)(tensor) {
            Location::Foreign => return Err(CaptureFault::Foreign),
            Location::None => None,
            Location::Own(place) => Some(place),
        };
        Ok(Tensor {
            element: tensor.type_,
            shape: tensor.ne.map(|length| length as u64),
            strides: tensor.nb.map(|stride| stride as u64),
            op: sys::GGML_OP_NONE,
            params: [0; 16],
            flags: tensor.flags as u32,
            sources: Vec::new(),
            view,
            place,
        })
    }
}
