//! Graphs that would be the end of ggml, one by one.

use llama_cpp_sys_2 as sys;

use super::Shelf;
use crate::rpc::graph::{BufferId, Graph, Place, Tensor, View};
use crate::rpc::worker::check::{IndexCheck, IndexFault, Layout, On, OrderCheck, OrderFault};
use crate::rpc::worker::check::{Placement, Refused, check};

const F32: u32 = sys::GGML_TYPE_F32;
const I32: u32 = sys::GGML_TYPE_I32;

/// A graph whose tensors lie one after the other in one buffer of 1 MB.
#[derive(Default)]
struct Sketch {
    graph: Graph,
    next: u64,
    shelf: Shelf,
}

impl Sketch {
    fn leaf(&mut self, element: u32, shape: [u64; 4]) -> u32 {
        let place = Some(Place {
            buffer: BufferId(0),
            offset: self.next,
        });
        self.shelf.memory.insert(BufferId(0), 1 << 20);
        let row = shape[0] * 4;
        self.next += (row * shape[1] * shape[2] * shape[3]).next_multiple_of(64);
        self.graph.tensors.push(Tensor {
            element,
            shape,
            strides: [4, row, row * shape[1], row * shape[1] * shape[2]],
            op: sys::GGML_OP_NONE,
            params: [0; 16],
            flags: 0,
            sources: Vec::new(),
            view: None,
            place,
        });
        u32::try_from(self.graph.tensors.len() - 1).unwrap()
    }

    fn node(&mut self, op: u32, element: u32, shape: [u64; 4], sources: &[u32]) -> u32 {
        let index = self.leaf(element, shape);
        let tensor = self.at(index);
        tensor.op = op;
        tensor.flags = sys::GGML_TENSOR_FLAG_COMPUTE;
        tensor.sources = sources.iter().map(|source| Some(*source)).collect();
        self.graph.nodes.push(index);
        index
    }

    fn at(&mut self, index: u32) -> &mut Tensor {
        &mut self.graph.tensors[index as usize]
    }

    /// What is wrong with an operation.
    fn why(&self) -> (&'static str, On, &'static str) {
        match check(&self.graph, &self.shelf) {
            Err(Refused::Operation { op, on, why, .. }) => (op, on, why),
            other => panic!("{other:?}"),
        }
    }

    fn indices(&self) -> Vec<IndexCheck> {
        check(&self.graph, &self.shelf).unwrap().indices
    }
}

#[test]
fn an_operation_that_nobody_looked_at_is_refused_by_name() {
    let mut sketch = Sketch::default();
    let a = sketch.leaf(F32, [4, 1, 1, 1]);
    let node = sketch.node(sys::GGML_OP_CUSTOM, F32, [4, 1, 1, 1], &[a]);
    let refused = check(&sketch.graph, &sketch.shelf).unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!("CUSTOM of tensor {node}: the operation is none that a worker computes")
    );
    sketch.at(node).op = 4711;
    assert_eq!(sketch.why().0, "no operation");
}

#[test]
fn a_tensor_beyond_its_buffer_is_refused() {
    let mut sketch = Sketch::default();
    let a = sketch.leaf(F32, [4, 2, 1, 1]);
    sketch.node(sys::GGML_OP_SQR, F32, [4, 2, 1, 1], &[a]);
    assert!(check(&sketch.graph, &sketch.shelf).is_ok());
    for stride in [1 << 20, u64::MAX, (1 << 20) - 16] {
        sketch.at(a).strides[1] = stride;
        let expected = Refused::Tensor {
            tensor: a,
            op: "NONE",
            why: if stride == u64::MAX {
                "a stride is too large"
            } else {
                "it reaches beyond what lies there"
            },
        };
        if stride == (1 << 20) - 16 {
            // The last row just fits.
            assert!(check(&sketch.graph, &sketch.shelf).is_ok());
        } else {
            assert_eq!(check(&sketch.graph, &sketch.shelf), Err(expected));
        }
    }
}

#[test]
fn rotation_that_never_ends_is_refused() {
    let mut sketch = Sketch::default();
    let a = sketch.leaf(F32, [8, 2, 3, 1]);
    let positions = sketch.leaf(I32, [3, 1, 1, 1]);
    let node = sketch.node(sys::GGML_OP_ROPE, F32, [8, 2, 3, 1], &[a, positions]);
    // No pairs at all: ggml steps back by two for each step forward.
    assert_eq!(sketch.why().1, On::Parameter(1));
    sketch.at(node).params[1] = -2;
    assert_eq!(sketch.why().2, "is below zero");
    sketch.at(node).params[1] = 8;
    assert!(check(&sketch.graph, &sketch.shelf).is_ok());
    // Sections whose sum is zero: ggml divides by it.
    sketch.at(node).params[2] = sys::LLAMA_ROPE_TYPE_MROPE;
    assert_eq!(sketch.why().1, On::Parameter(11));
}

#[test]
fn factors_that_rotation_reads_beyond_are_refused() {
    let mut sketch = Sketch::default();
    let a = sketch.leaf(F32, [64, 1, 1, 1]);
    let positions = sketch.leaf(I32, [1, 1, 1, 1]);
    let factors = sketch.leaf(F32, [16, 1, 1, 1]);
    let node = sketch.node(sys::GGML_OP_ROPE, F32, [64, 1, 1, 1], &[a, positions, factors]);
    sketch.at(node).params[1] = 32;
    sketch.at(factors).place = Some(Place {
        buffer: BufferId(7),
        offset: 0,
    });
    // 16 factors for 32 rotated elements, but the kernel reads 32 for 64 elements.
    sketch.shelf.memory.insert(BufferId(7), 64);
    assert_eq!(sketch.why().1, On::Source(2));
    sketch.shelf.memory.insert(BufferId(7), 128);
    assert!(check(&sketch.graph, &sketch.shelf).is_ok());
}

#[test]
fn what_is_not_contiguous_only_where_it_does_not_matter_is_found() {
    // One row in the second dimension, so that ggml calls any stride contiguous, but steps by it.
    let mut sketch = Sketch::default();
    let a = sketch.leaf(F32, [4, 1, 3, 1]);
    let node = sketch.node(sys::GGML_OP_SCALE, F32, [4, 1, 3, 1], &[a]);
    assert!(check(&sketch.graph, &sketch.shelf).is_ok());
    sketch.at(node).strides[1] = 1 << 40;
    assert_eq!(sketch.why(), ("SCALE", On::Result, "is not contiguous"));
}

#[test]
fn indices_from_the_host_are_checked_before_the_run() {
    let mut sketch = Sketch::default();
    let table = sketch.leaf(F32, [4, 10, 1, 1]);
    let ids = sketch.leaf(I32, [2, 1, 1, 1]);
    sketch.node(sys::GGML_OP_GET_ROWS, F32, [4, 2, 1, 1], &[table, ids]);
    let [one] = sketch.indices()[..] else { panic!() };
    assert_eq!(
        (one.tensor, one.bound, one.distinct, one.fixed),
        (ids, 10, false, false)
    );
    let bytes = |values: [i32; 2]| values.map(i32::to_ne_bytes).concat();
    let tensor = &sketch.graph.tensors[ids as usize];
    assert_eq!(one.check(tensor, &bytes([9, 0])), Ok(()));
    let outside = |index, at| Err(IndexFault::Range { at, index, bound: 10 });
    assert_eq!(one.check(tensor, &bytes([0, 10])), outside(10, 4));
    assert_eq!(one.check(tensor, &bytes([-1, 0])), outside(-1, 0));
    assert_eq!(one.check(tensor, &[0; 7]), Err(IndexFault::TooFew(7)));
    let distinct = IndexCheck {
        distinct: true,
        ..one
    };
    assert_eq!(distinct.check(tensor, &bytes([3, 3])), Err(IndexFault::Twice(0)));
    assert_eq!(distinct.check(tensor, &bytes([3, 4])), Ok(()));
}

#[test]
fn indices_that_the_graph_overwrites_are_refused() {
    let mut sketch = Sketch::default();
    let table = sketch.leaf(F32, [4, 10, 1, 1]);
    let ids = sketch.leaf(I32, [2, 1, 1, 1]);
    let other = sketch.leaf(F32, [4, 1, 1, 1]);
    let writer = sketch.node(sys::GGML_OP_SQR, F32, [4, 1, 1, 1], &[other]);
    sketch.node(sys::GGML_OP_GET_ROWS, F32, [4, 2, 1, 1], &[table, ids]);
    assert_eq!(sketch.indices().len(), 1);
    sketch.at(writer).place = sketch.graph.tensors[ids as usize].place;
    let why = "has indices that are overwritten before they are used";
    assert_eq!(sketch.why(), ("GET_ROWS", On::Source(1), why));
}

#[test]
fn sorted_indices_need_no_check_while_they_are_few_enough() {
    let mut sketch = Sketch::default();
    let values = sketch.leaf(F32, [8, 3, 1, 1]);
    let table = sketch.leaf(F32, [4, 8, 3, 1]);
    let sorted = sketch.node(sys::GGML_OP_ARGSORT, I32, [8, 3, 1, 1], &[values]);
    let best = sketch.leaf(I32, [2, 3, 1, 1]);
    let place = sketch.graph.tensors[sorted as usize].place;
    let view = Some(View {
        of: sorted,
        offset: 0,
    });
    let tensor = sketch.at(best);
    (tensor.place, tensor.view, tensor.strides) = (place, view, [4, 32, 96, 96]);
    let node = sketch.node(sys::GGML_OP_GET_ROWS, F32, [4, 2, 3, 1], &[table, best]);
    assert_eq!(sketch.indices(), []);
    // A table of fewer rows than there are places in the order.
    sketch.at(table).shape[1] = 7;
    assert_eq!(sketch.why().2, "has indices that may be out of range");
    sketch.at(table).shape[1] = 8;
    // What is not computed orders nothing.
    sketch.at(sorted).flags = 0;
    assert_eq!(sketch.indices().len(), 1);
    sketch.at(sorted).flags = sys::GGML_TENSOR_FLAG_COMPUTE;
    // Computed otherwise.
    sketch.at(sorted).op = sys::GGML_OP_CPY;
    assert_eq!(sketch.why().2, "has indices that are computed");
    assert_eq!(sketch.graph.nodes, [sorted, node]);
}

#[test]
fn long_rows_are_sorted_only_without_nan() {
    let mut sketch = Sketch::default();
    let values = sketch.leaf(F32, [17, 2, 1, 1]);
    sketch.node(sys::GGML_OP_ARGSORT, I32, [17, 2, 1, 1], &[values]);
    let checked = check(&sketch.graph, &sketch.shelf).unwrap();
    let order = OrderCheck {
        position: 0,
        tensor: values,
    };
    assert_eq!(checked.orders, [order]);
    let tensor = &sketch.graph.tensors[values as usize];
    let mut bytes = vec![0; 17 * 2 * 4];
    assert_eq!(order.check(tensor, &bytes), Ok(()));
    assert_eq!(
        order.check(tensor, &bytes[1..]),
        Err(OrderFault::TooFew(17 * 2 * 4 - 1))
    );
    bytes[80..84].copy_from_slice(&f32::NAN.to_ne_bytes());
    assert_eq!(order.check(tensor, &bytes), Err(OrderFault::NotANumber(80)));
}

#[test]
fn repacked_weights_are_only_multiplied() {
    let weight = Place {
        buffer: BufferId(9),
        offset: 0,
    };
    let mut sketch = Sketch::default();
    let a = sketch.leaf(sys::GGML_TYPE_Q4_0, [32, 8, 1, 1]);
    let b = sketch.leaf(F32, [32, 2, 1, 1]);
    sketch.at(a).strides = [18, 18, 144, 144];
    sketch.at(a).place = Some(weight);
    let placement = Placement::Weight {
        element: sys::GGML_TYPE_Q4_0,
        shape: [32, 8, 1, 1],
        bytes: 144,
        layout: Layout::Repacked,
    };
    sketch.shelf.weights.insert(weight, placement);
    sketch.node(sys::GGML_OP_MUL_MAT, F32, [8, 2, 1, 1], &[a, b]);
    assert!(check(&sketch.graph, &sketch.shelf).is_ok());
    let ids = sketch.leaf(I32, [2, 1, 1, 1]);
    let taken = sketch.node(sys::GGML_OP_GET_ROWS, F32, [32, 2, 1, 1], &[a, ids]);
    let needs = Refused::NeedsPlain {
        weight: a,
        place: weight,
        tensor: taken,
        op: "GET_ROWS",
    };
    assert_eq!(check(&sketch.graph, &sketch.shelf), Err(needs));
}

#[test]
fn weights_are_never_written() {
    let weight = Place {
        buffer: BufferId(9),
        offset: 0,
    };
    let mut sketch = Sketch::default();
    let a = sketch.leaf(F32, [4, 1, 1, 1]);
    let node = sketch.node(sys::GGML_OP_SQR, F32, [4, 1, 1, 1], &[a]);
    sketch.at(node).place = Some(weight);
    let placement = Placement::Weight {
        element: F32,
        shape: [4, 1, 1, 1],
        bytes: 16,
        layout: Layout::Plain,
    };
    sketch.shelf.weights.insert(weight, placement);
    assert_eq!(sketch.why().1, On::Result);
}
