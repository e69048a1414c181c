//! Makes ggml's structs of a graph that was checked.

use std::ptr::{self, NonNull};

use llama_cpp_sys_2 as sys;

use super::Fault;
use super::account::Room;
use super::check::{self, Buffers, Checked, IndexCheck, Layout, OrderCheck, Placement, Refused};
use super::device::{Backend, Device, status_text};
use super::memory::{Buffer, Memory};
use crate::rpc::graph::{BufferId, Graph, MOST_SOURCES, Place, Tensor};

/// A graph that can run again and again, as long as its buffers live.
#[derive(Debug)]
pub(super) struct Prepared {
    graph: Graph,
    /// What ggml knows of them; graphs of ggml's point into it.
    tensors: Box<[sys::ggml_tensor]>,
    indices: Vec<IndexCheck>,
    pieces: Vec<Piece>,
    /// For all of it, once it is kept.
    room: Option<Room>,
}

/// Bytes that ggml's graph has for a node, in its list and in its table.
const NODE_BYTES: usize = 64;

// SAFETY: the pointers lead to its own memory and to that of the queue which holds it.
unsafe impl Send for Prepared {}

/// Nodes that run in one go, after a look at what the first of them sorts.
#[derive(Debug)]
struct Piece {
    context: NonNull<sys::ggml_context>,
    graph: *mut sys::ggml_cgraph,
    orders: Vec<OrderCheck>,
}

impl Drop for Piece {
    fn drop(&mut self) {
        // SAFETY: made by `ggml_init` and freed only here.
        unsafe { sys::ggml_free(self.context.as_ptr()) };
    }
}

impl Buffers for Memory {
    fn at(&self, place: Place) -> Option<Placement> {
        match self.get(place.buffer)? {
            Buffer::Memory(allocation) => Some(Placement::Memory {
                bytes: allocation.bytes().checked_sub(place.offset)?,
            }),
            Buffer::Weights { weights, .. } => {
                let weight = weights.get(&place.offset)?;
                Some(Placement::Weight {
                    element: weight.tensor.type_,
                    shape: weight.tensor.ne.map(|length| length as u64),
                    bytes: weight.allocated(),
                    layout: if weight.plain {
                        Layout::Plain
                    } else {
                        Layout::Repacked
                    },
                })
            }
        }
    }
}

/// What keeps a graph from being prepared.
#[derive(Debug)]
pub(super) enum Obstacle {
    /// It is refused.
    Fault(Fault),
    /// The weight at this place must be in ggml's own layout first.
    NeedsPlain(Place),
}

impl Prepared {
    /// Checks a graph and makes ggml's structs of it.
    pub(super) fn new(graph: Graph, memory: &Memory) -> Result<Self, Obstacle> {
        let Checked { indices, orders } = match check::check(&graph, memory) {
            Ok(checked) => checked,
            Err(Refused::NeedsPlain { place, .. }) => return Err(Obstacle::NeedsPlain(place)),
            Err(refused) => return Err(Obstacle::Fault(Fault::Graph(refused.to_string()))),
        };
        let mut tensors: Box<[sys::ggml_tensor]> = graph
            .tensors
            .iter()
            .map(|tensor| plain_tensor(tensor, memory))
            .collect();
        let base = tensors.as_mut_ptr();
        for (index, tensor) in graph.tensors.iter().enumerate() {
            link(base, index, tensor);
        }
        if !memory.device().is_cpu() {
            supported(memory.device(), &graph, &tensors).map_err(Obstacle::Fault)?;
        }
        let pieces = cut(&graph, &orders, base).map_err(Obstacle::Fault)?;
        Ok(Self {
            graph,
            tensors,
            indices,
            pieces,
            room: None,
        })
    }

    /// Bytes that a graph is kept in, at least about.
    pub(super) fn bytes_for(graph: &Graph) -> u64 {
        let tensor = |tensor: &Tensor| {
            size_of::<sys::ggml_tensor>()
                + size_of::<Tensor>()
                + size_of::<Option<u32>>() * tensor.sources.capacity()
        };
        let tensors: usize = graph.tensors.iter().map(tensor).sum();
        (tensors + graph.nodes.len() * (NODE_BYTES + size_of::<u32>())) as u64
    }

    /// The same, kept.
    pub(super) fn kept_in(mut self, room: Room) -> Self {
        self.room = Some(room);
        self
    }

    /// The graph that it was made of.
    pub(super) fn into_graph(self) -> Graph {
        self.graph
    }

    /// How many tensors it is kept with.
    pub(super) fn tensors(&self) -> usize {
        self.tensors.len()
    }

    /// Whether it uses this buffer, whose end is its own, too.
    pub(super) fn uses(&self, buffer: BufferId) -> bool {
        let places = self.graph.tensors.iter().filter_map(|tensor| tensor.place);
        places.map(|place| place.buffer).any(|used| used == buffer)
    }

    /// Computes it. Only who has the device's turn may.
    pub(super) fn run(&self, backend: &Backend, device: &Device) -> Result<(), Fault> {
        for check in &self.indices {
            let bytes = self.bytes(check.tensor);
            let described = &self.graph.tensors[check.tensor as usize];
            check
                .check(described, &bytes)
                .map_err(|fault| Fault::Graph(fault.to_string()))?;
        }
        for piece in &self.pieces {
            for order in &piece.orders {
                let bytes = self.bytes(order.tensor);
                let described = &self.graph.tensors[order.tensor as usize];
                order
                    .check(described, &bytes)
                    .map_err(|fault| Fault::Graph(fault.to_string()))?;
            }
            // SAFETY: the graph was checked against the buffers it lies in, which are live; the backend
            // is used by one thread at a time.
            let status = unsafe { sys::ggml_backend_graph_compute(backend.as_ptr(), piece.graph) };
            if status != sys::GGML_STATUS_SUCCESS {
                return Err(Fault::Device {
                    device: device.name().to_owned(),
                    what: format!("did not compute: {}", status_text(status)),
                });
            }
        }
        Ok(())
    }

    /// The bytes that a tensor spans.
    fn bytes(&self, index: u32) -> Vec<u8> {
        let tensor = &self.tensors[index as usize];
        // SAFETY: the tensor was checked: its extent lies in its buffer.
        unsafe {
            let length = sys::ggml_nbytes(tensor);
            let mut bytes: Vec<u8> = Vec::with_capacity(length);
            if length > 0 && !tensor.data.is_null() {
                let over = super::memory::bytes_tensor(tensor.buffer, tensor.data, length);
                sys::ggml_backend_tensor_get(&over, bytes.as_mut_ptr().cast(), 0, length);
                bytes.set_len(length);
            }
            bytes
        }
    }
}

/// A tensor with its data, but without its references.
fn plain_tensor(tensor: &Tensor, memory: &Memory) -> sys::ggml_tensor {
    let mut out = super::memory::blank_tensor();
    out.type_ = tensor.element;
    out.ne = tensor.shape.map(|length| length as i64);
    out.nb = tensor.strides.map(|stride| stride as usize);
    out.op = tensor.op;
    out.op_params = tensor.params;
    out.flags = tensor.flags as i32;
    let Some(place) = tensor.place else { return out };
    match memory.get(place.buffer) {
        Some(Buffer::Memory(allocation)) => {
            out.buffer = allocation.handle();
            out.data = allocation.at(place.offset);
        }
        Some(Buffer::Weights { weights, .. }) => {
            let offset = tensor.view.map_or(0, |view| view.offset);
            if let Some(weight) = weights.get(&place.offset.wrapping_sub(offset)) {
                out.buffer = weight.tensor.buffer;
                out.data = weight.tensor.data.wrapping_byte_add(offset as usize);
                out.extra = weight.tensor.extra;
            }
        }
        None => {}
    }
    out
}

/// Sets a tensor's references.
fn link(base: *mut sys::ggml_tensor, index: usize, tensor: &Tensor) {
    debug_assert!(tensor.sources.len() <= MOST_SOURCES);
    // SAFETY: `base` is the start of as many tensors as the graph has; all indices were checked to lie
    // below this tensor's.
    unsafe {
        let own = base.add(index);
        for (number, source) in tensor.sources.iter().enumerate() {
            (*own).src[number] = source.map_or(ptr::null_mut(), |source| base.add(source as usize));
        }
        if tensor.op == sys::GGML_OP_CPY && tensor.sources.get(1).is_none_or(Option::is_none) {
            // ggml's casts name their result as second source.
            (*own).src[1] = own;
        }
        if let Some(view) = tensor.view {
            (*own).view_src = base.add(view.of as usize);
            (*own).view_offs = view.offset as usize;
        }
    }
}

/// Whether a device other than the CPU computes every node.
fn supported(device: &Device, graph: &Graph, tensors: &[sys::ggml_tensor]) -> Result<(), Fault> {
    for node in &graph.nodes {
        let tensor = &tensors[*node as usize];
        // SAFETY: the tensor and all that it refers to are live.
        if !unsafe { sys::ggml_backend_dev_supports_op(device.raw(), tensor) } {
            // SAFETY: the operation's number was checked.
            let name = unsafe { std::ffi::CStr::from_ptr(sys::ggml_op_name(tensor.op)) };
            let remedy = match device.is_cpu() {
                true => "",
                false => "; its machine leaves it alone with --gpu-layers 0, an rpc-server with --device CPU",
            };
            return Err(Fault::Device {
                device: device.name().to_owned(),
                what: format!("does not compute {}{remedy}", name.to_string_lossy()),
            });
        }
    }
    Ok(())
}

/// Graphs of ggml's, cut where something must be looked at.
fn cut(graph: &Graph, orders: &[OrderCheck], base: *mut sys::ggml_tensor) -> Result<Vec<Piece>, Fault> {
    let mut starts: Vec<usize> = orders.iter().map(|order| order.position).collect();
    starts.push(0);
    starts.push(graph.nodes.len());
    starts.sort_unstable();
    starts.dedup();
    starts
        .windows(2)
        .map(|range| {
            let nodes = &graph.nodes[range[0]..range[1]];
            let orders = orders.iter().filter(|order| order.position == range[0]);
            piece(nodes, base, orders.copied().collect())
        })
        .collect()
}

fn piece(nodes: &[u32], base: *mut sys::ggml_tensor, orders: Vec<OrderCheck>) -> Result<Piece, Fault> {
    let none = || Fault::protocol("a graph too large for memory");
    // SAFETY: the context is made for just this graph; its nodes live in `base`.
    unsafe {
        let params = sys::ggml_init_params {
            mem_size: sys::ggml_graph_overhead_custom(nodes.len(), false) + 4096,
            mem_buffer: ptr::null_mut(),
            no_alloc: true,
        };
        let context = NonNull::new(sys::ggml_init(params)).ok_or_else(none)?;
        let cgraph = sys::ggml_new_graph_custom(context.as_ptr(), nodes.len(), false);
        for node in nodes {
            sys::ggml_graph_add_node(cgraph, base.add(*node as usize));
        }
        Ok(Piece {
            context,
            graph: cgraph,
            orders,
        })
    }
}
