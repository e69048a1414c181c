//! Computes graphs that were accepted, with ggml's CPU backend, in buffers that end exactly where their
//! tensors do. `fuzz/` includes this file too, so it names things through its parent, which also has the
//! `Block`s of memory whose neighbourhood nobody may touch.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_possible_wrap
)]

use std::collections::HashMap;
use std::ffi::c_void;
use std::ptr;

use llama_cpp_sys_2 as sys;

use super::graph::{BufferId, Graph, Place};
use super::mutate::{Dice, extent};
use super::{Block, Buffers, Checked, MAY_OVERLAP, Placement, check};

/// Buffers of more bytes, all together, are not worth their time.
const MOST_BYTES: u64 = 1 << 22;
/// The same for elements that operations look at.
const MOST_ELEMENTS: u64 = 1 << 20;
/// The same for multiplications.
const MOST_PRODUCTS: u64 = 1 << 25;
/// Computes `graph`, if it is accepted and cheap; whether it was.
pub(super) fn execute(graph: &Graph, seed: u64) -> bool {
    let Some(sizes) = Sizes::of(graph) else {
        return false;
    };
    let Ok(checked) = check(graph, &sizes) else {
        return false;
    };
    if !is_cheap(graph) || !MAY_OVERLAP && overlaps(graph) {
        return false;
    }
    let memory = Memory::new(&sizes, seed);
    memory.make_indices_right(graph, &checked)
        && Computation::new(graph, &memory).run(graph, &checked, &memory, 1 + (seed >> 20) % 3)
}

/// Where each buffer ends.
pub(super) struct Sizes(HashMap<BufferId, u64>);

impl Sizes {
    fn of(graph: &Graph) -> Option<Self> {
        let mut sizes: HashMap<BufferId, u64> = HashMap::new();
        for tensor in &graph.tensors {
            if let Some(place) = tensor.place {
                let end = place.offset.checked_add(extent(tensor)?)?;
                let size = sizes.entry(place.buffer).or_default();
                *size = end.max(*size);
            }
        }
        let all: Option<u64> = sizes
            .values()
            .try_fold(0, |all: u64, size| all.checked_add(*size));
        all.is_some_and(|all| all <= MOST_BYTES).then_some(Self(sizes))
    }
}

impl Buffers for Sizes {
    fn at(&self, place: Place) -> Option<Placement> {
        let bytes = self.0.get(&place.buffer)?.checked_sub(place.offset)?;
        Some(Placement::Memory { bytes })
    }
}

/// Whether a node's result shares bytes with a source otherwise than by being the same. Such a graph
/// computes nonsense, but in its own memory.
fn overlaps(graph: &Graph) -> bool {
    graph.nodes.iter().any(|node| {
        let result = &graph.tensors[*node as usize];
        result.sources.iter().flatten().any(|source| {
            let source = &graph.tensors[*source as usize];
            let same =
                (source.place, source.shape, source.strides) == (result.place, result.shape, result.strides);
            let (Some(a), Some(b)) = (source.place, result.place) else {
                return false;
            };
            let end = |place: Place, tensor| place.offset + extent(tensor).unwrap_or(0);
            !same && a.buffer == b.buffer && a.offset < end(b, result) && b.offset < end(a, source)
        })
    })
}

/// Strides of zero make a large tensor of a small buffer.
fn is_cheap(graph: &Graph) -> bool {
    let elements = |index: u32| -> u64 {
        let shape = graph.tensors[index as usize].shape;
        shape.iter().fold(1, |all: u64, n| all.saturating_mul(*n))
    };
    graph.nodes.iter().all(|node| {
        let tensor = &graph.tensors[*node as usize];
        let sources: Vec<u32> = tensor.sources.iter().flatten().copied().collect();
        let most = sources.iter().map(|source| elements(*source)).max().unwrap_or(0);
        // Inner dimensions of all kinds of products.
        let inner = match tensor.op {
            sys::GGML_OP_MUL_MAT | sys::GGML_OP_MUL_MAT_ID => {
                sources.first().map_or(1, |a| graph.tensors[*a as usize].shape[0])
            }
            sys::GGML_OP_FLASH_ATTN_EXT => sources.get(1).map_or(1, |k| graph.tensors[*k as usize].shape[1]),
            sys::GGML_OP_SOLVE_TRI => tensor.shape[1],
            sys::GGML_OP_POOL_2D => {
                let [_, a, b, ..] = tensor.params;
                u64::from(a.unsigned_abs()).saturating_mul(u64::from(b.unsigned_abs()))
            }
            sys::GGML_OP_GATED_DELTA_NET | sys::GGML_OP_LIGHTNING_INDEXER => 64,
            _ => 1,
        };
        let all = elements(*node);
        all.max(most) <= MOST_ELEMENTS && all.max(most).saturating_mul(inner) <= MOST_PRODUCTS
    })
}

/// Allocated buffers with data of all kinds in them.
pub(super) struct Memory(HashMap<BufferId, Block>);

impl Memory {
    fn new(sizes: &Sizes, seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        // NaN is refused where it would be sorted.
        let tame = dice.below(2) == 0;
        let mut buffers: Vec<_> = sizes.0.iter().collect();
        buffers.sort_unstable();
        let allocated = buffers
            .into_iter()
            .filter(|(_, size)| **size > 0)
            .map(|(id, size)| {
                let block = Block::new(*size as usize);
                // SAFETY: so many bytes were just allocated, for nobody else.
                let bytes = unsafe { std::slice::from_raw_parts_mut(block.start(), block.size()) };
                for word in bytes.chunks_mut(4) {
                    let value = match dice.below(64) + usize::from(tame) * 4 {
                        0 => f32::NAN,
                        1 => f32::INFINITY,
                        2 => f32::NEG_INFINITY,
                        3 => f32::from_bits(dice.below(usize::MAX) as u32),
                        _ => dice.below(4096) as f32 / 1024.0 - 2.0,
                    };
                    word.copy_from_slice(&value.to_ne_bytes()[..word.len()]);
                }
                (*id, block)
            });
        Self(allocated.collect())
    }

    fn at(&self, place: Option<Place>) -> *mut u8 {
        match place.and_then(|place| Some((place.offset as usize, self.0.get(&place.buffer)?))) {
            Some((offset, block)) if offset <= block.size() => block.start().wrapping_add(offset),
            _ => ptr::null_mut(),
        }
    }

    #[allow(clippy::mut_from_ref)]
    fn from(&self, place: Option<Place>) -> &mut [u8] {
        let Some((place, block)) = place.and_then(|place| Some((place, self.0.get(&place.buffer)?))) else {
            return &mut [];
        };
        let start = self.at(Some(place));
        // SAFETY: the block is so long, and the slice is used before anything else looks at it.
        unsafe { std::slice::from_raw_parts_mut(start, block.size() - place.offset as usize) }
    }

    /// Writes indices in range; whether that made all of them right.
    fn make_indices_right(&self, graph: &Graph, checked: &Checked) -> bool {
        for one in &checked.indices {
            let tensor = &graph.tensors[one.tensor as usize];
            let wide = tensor.element == sys::GGML_TYPE_I64;
            let bytes = self.from(tensor.place);
            let [n0, n1, n2, n3] = tensor.shape;
            for number in 0..n0 * n1 * n2 * n3 {
                let at = [
                    number % n0,
                    number / n0 % n1,
                    number / n0 / n1 % n2,
                    number / n0 / n1 / n2,
                ];
                let offset: u64 = at.iter().zip(tensor.strides).map(|(i, stride)| i * stride).sum();
                let index = (number * 7 + at[1]) % one.bound.max(1);
                if wide {
                    bytes[offset as usize..][..8].copy_from_slice(&index.to_ne_bytes());
                } else {
                    bytes[offset as usize..][..4].copy_from_slice(&(index as u32).to_ne_bytes());
                }
            }
        }
        checked.indices.iter().all(|one| {
            let tensor = &graph.tensors[one.tensor as usize];
            one.check(tensor, self.from(tensor.place)).is_ok()
        })
    }
}

/// A graph as ggml's.
struct Computation {
    context: *mut sys::ggml_context,
    tensors: Vec<*mut sys::ggml_tensor>,
}

impl Drop for Computation {
    fn drop(&mut self) {
        // SAFETY: it is ours, and nothing of it is used any more.
        unsafe { sys::ggml_free(self.context) };
    }
}

impl Computation {
    fn new(graph: &Graph, memory: &Memory) -> Self {
        let nodes = graph.nodes.len() + graph.tensors.len() + 16;
        // SAFETY: these read constants.
        let bytes = unsafe {
            sys::ggml_tensor_overhead() * (graph.tensors.len() + 1)
                + sys::ggml_graph_overhead_custom(nodes, false) * (graph.nodes.len().min(64) + 2)
        };
        let params = sys::ggml_init_params {
            mem_size: bytes,
            mem_buffer: ptr::null_mut::<c_void>(),
            no_alloc: true,
        };
        // SAFETY: plain parameters.
        let context = unsafe { sys::ggml_init(params) };
        let mut tensors: Vec<*mut sys::ggml_tensor> = Vec::new();
        let mut computed = graph.nodes.iter().peekable();
        for (index, tensor) in (0..).zip(&graph.tensors) {
            let is_node = computed.next_if_eq(&&index).is_some();
            // SAFETY: the context has room; the new tensor is ours alone.
            let made = unsafe { &mut *sys::ggml_new_tensor_1d(context, sys::GGML_TYPE_F32, 1) };
            made.type_ = tensor.element;
            made.ne = tensor.shape.map(|n| n as i64);
            made.nb = tensor.strides.map(|n| n as usize);
            made.op_params = tensor.params;
            made.data = memory.at(tensor.place).cast();
            made.view_src = tensor
                .view
                .map_or(ptr::null_mut(), |view| tensors[view.of as usize]);
            made.view_offs = tensor.view.map_or(0, |view| view.offset as usize);
            if is_node {
                made.op = tensor.op;
                for (slot, source) in made.src.iter_mut().zip(&tensor.sources) {
                    *slot = source.map_or(ptr::null_mut(), |source| tensors[source as usize]);
                }
                if made.op == sys::GGML_OP_CPY && made.src[1].is_null() {
                    made.src[1] = made;
                }
            }
            tensors.push(made);
        }
        Self { context, tensors }
    }

    /// Computes all nodes, in pieces where something has to be checked between them.
    fn run(&self, graph: &Graph, checked: &Checked, memory: &Memory, threads: u64) -> bool {
        let mut from = 0;
        for order in checked.orders.iter().take(60) {
            self.compute(graph, from..order.position, threads);
            from = order.position;
            let tensor = &graph.tensors[order.tensor as usize];
            if order.check(tensor, memory.from(tensor.place)).is_err() {
                return false;
            }
        }
        if checked.orders.len() > 60 {
            return false;
        }
        self.compute(graph, from..graph.nodes.len(), threads);
        true
    }

    fn compute(&self, graph: &Graph, nodes: std::ops::Range<usize>, threads: u64) {
        // SAFETY: the tensors and their data live until the end of the computation, which is in here.
        // That the graph can be computed is what is being tested.
        unsafe {
            let whole = nodes == (0..graph.nodes.len());
            let cgraph =
                sys::ggml_new_graph_custom(self.context, graph.nodes.len() + graph.tensors.len() + 16, false);
            for node in &graph.nodes[nodes] {
                let tensor = self.tensors[*node as usize];
                if whole {
                    // So that uses are counted, and operations fused.
                    sys::ggml_build_forward_expand(cgraph, tensor);
                } else {
                    sys::ggml_graph_add_node(cgraph, tensor);
                }
            }
            for (tensor, made) in graph.tensors.iter().zip(&self.tensors) {
                (**made).flags = tensor.flags as i32;
            }
            let mut plan = sys::ggml_graph_plan(cgraph, threads as i32, ptr::null_mut());
            let work = Block::new(plan.work_size.max(1));
            plan.work_data = work.start();
            assert_eq!(
                sys::ggml_graph_compute(cgraph, &raw mut plan),
                sys::GGML_STATUS_SUCCESS
            );
        }
    }
}
