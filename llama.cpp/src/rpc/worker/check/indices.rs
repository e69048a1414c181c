//! Rows that data choose: where ggml uses an index unchecked, or ends the process over it.
//!
//! An index is in range because a sort of few enough elements made it, or because its bytes are checked
//! before the graph runs. Both hold only while nothing overwrites them, which is checked here too.

use std::collections::HashMap;

use llama_cpp_sys_2 as sys;
use thiserror::Error;

use super::operand::{Fault, Home, Node, Operand};
use super::{On, Refused, ops};
use crate::rpc::graph::{Graph, Tensor};

/// How many copies between a sort and its use are followed.
const MOST_STEPS: usize = 16;
/// Most ranges of bytes that must be left alone at a time.
const MOST_HELD: usize = 256;

/// Before each run of the graph, [`IndexCheck::check`] must accept the bytes of `tensor`, which the
/// graph does not compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IndexCheck {
    /// Index of the tensor; its elements are I32 or I64.
    pub tensor: u32,
    /// All its elements must be below, and not below zero.
    pub bound: u64,
    /// Whether the elements of a row must differ: ggml's products with repacked experts reserve too
    /// little memory otherwise.
    pub distinct: bool,
    /// Whether it is a weight, so that one check is enough.
    pub fixed: bool,
}

/// An index that ggml would not survive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum IndexFault {
    /// Out of range.
    #[error("index {index} at byte {at} is not below {bound}")]
    Range {
        /// Its first byte, from the tensor's first.
        at: u64,
        /// The index.
        index: i64,
        /// What it must be below.
        bound: u64,
    },
    /// Twice in a row of indices that must differ.
    #[error("an index comes twice in the row at byte {0}")]
    Twice(u64),
    /// Not all of the tensor's bytes were given.
    #[error("{0} bytes are too few")]
    TooFew(usize),
}

impl IndexCheck {
    /// Whether all indices in `bytes`, which begin with the tensor's first, are in range. `tensor` is
    /// the graph's tensor of that index.
    ///
    /// # Errors
    /// The first that is not, and bytes that are fewer than the tensor's.
    pub fn check(&self, tensor: &Tensor, bytes: &[u8]) -> Result<(), IndexFault> {
        let mut row = Vec::new();
        for_each_row(tensor, |start| {
            row.clear();
            for column in 0..tensor.shape[0] {
                let at = start + column * tensor.strides[0];
                let index = read(tensor.element, bytes, at).ok_or(IndexFault::TooFew(bytes.len()))?;
                if u64::try_from(index).is_ok_and(|index| index < self.bound) {
                    row.push(index);
                } else {
                    let bound = self.bound;
                    return Err(IndexFault::Range { at, index, bound });
                }
            }
            row.sort_unstable();
            if self.distinct && row.windows(2).any(|pair| pair[0] == pair[1]) {
                return Err(IndexFault::Twice(start));
            }
            Ok(())
        })
    }
}

fn read(element: u32, bytes: &[u8], at: u64) -> Option<i64> {
    let from = bytes.get(usize::try_from(at).ok()?..)?;
    if element == sys::GGML_TYPE_I64 {
        from.first_chunk().copied().map(i64::from_ne_bytes)
    } else {
        from.first_chunk().copied().map(i32::from_ne_bytes).map(i64::from)
    }
}

/// Calls `look` with each row's first byte, from the first of `tensor`.
pub(super) fn for_each_row<E>(tensor: &Tensor, mut look: impl FnMut(u64) -> Result<(), E>) -> Result<(), E> {
    let [_, rows, planes, cubes] = tensor.shape;
    let [_, row, plane, cube] = tensor.strides;
    if tensor.shape.contains(&0) {
        return Ok(());
    }
    for i3 in 0..cubes {
        for i2 in 0..planes {
            for i1 in 0..rows {
                look(i3 * cube + i2 * plane + i1 * row)?;
            }
        }
    }
    Ok(())
}

/// A source that chooses rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Use<'a> {
    node: Node<'a>,
    /// The node's position among the graph's nodes.
    position: usize,
    source: u8,
    bound: u64,
    distinct: bool,
}

/// What a node that has passed `ops::check` chooses by data.
pub(super) fn use_of<'a>(node: &Node<'a>, position: usize) -> Option<Use<'a>> {
    if node.result.is_empty() || !node.result.is_computed() {
        return None;
    }
    let (source, bound) = match node.op() {
        sys::GGML_OP_GET_ROWS => (1, node.optional(0)?.ne(1)),
        sys::GGML_OP_SET_ROWS => (1, node.result.ne(1)),
        sys::GGML_OP_MUL_MAT_ID => (2, node.optional(0)?.ne(2)),
        sys::GGML_OP_ADD_ID => (2, node.optional(1)?.ne(1)),
        sys::GGML_OP_SSM_SCAN => (6, node.optional(0)?.ne(3)),
        _ => return None,
    };
    let distinct = node.op() == sys::GGML_OP_MUL_MAT_ID && node.optional(0)?.home == Home::Repacked;
    Some(Use {
        node: *node,
        position,
        source,
        bound,
        distinct,
    })
}

/// Bytes that no node at these positions may write.
#[derive(Debug, Clone, Copy)]
struct Held<'a> {
    what: Operand<'a>,
    from: usize,
    to: usize,
    by: Use<'a>,
}

/// Proves all uses in range, as far as that can be before the data are there.
///
/// # Errors
/// The first use that cannot be.
pub(super) fn prove<'a>(
    graph: &Graph,
    operands: &[Operand<'a>],
    uses: &[Use<'a>],
) -> Result<Vec<IndexCheck>, Refused> {
    if uses.is_empty() {
        return Ok(Vec::new());
    }
    let mut proof = Proof {
        operands,
        computed: vec![None; operands.len()],
        checks: HashMap::new(),
        held: HashMap::new(),
    };
    for (position, index) in graph.nodes.iter().enumerate() {
        if operands[*index as usize].is_computed() {
            proof.computed[*index as usize] = Some(position);
        }
    }
    for one in uses {
        proof.follow(one)?;
    }
    let mut held: Vec<Held<'_>> = proof.held.into_values().collect();
    nothing_overwrites(graph, operands, &mut held)?;
    let mut checks: Vec<IndexCheck> = proof.checks.into_values().collect();
    checks.sort_unstable_by_key(|check| check.tensor);
    Ok(checks)
}

struct Proof<'o, 'a> {
    operands: &'o [Operand<'a>],
    /// Positions of the nodes that are computed, by tensor.
    computed: Vec<Option<usize>>,
    checks: HashMap<u32, IndexCheck>,
    /// By the tensor's index.
    held: HashMap<u32, Held<'a>>,
}

impl<'a> Proof<'_, 'a> {
    fn follow(&mut self, one: &Use<'a>) -> Result<(), Refused> {
        let fault = |why| {
            let on = On::Source(one.source);
            one.node.refused(Fault { on, why })
        };
        let weight = one.node.optional(0);
        let not_distinct = || match (
            one.distinct,
            weight,
            weight.and_then(|weight| weight.tensor.place),
        ) {
            (true, Some(weight), Some(place)) => Refused::NeedsPlain {
                weight: weight.index,
                place,
                tensor: one.node.result.index,
                op: ops::name(one.node.op()),
            },
            _ => fault("has indices that may be out of range"),
        };
        let mut indices = one
            .node
            .source(usize::from(one.source))
            .map_err(|fault| one.node.refused(fault))?;
        let mut until = one.position;
        for _ in 0..MOST_STEPS {
            let Some((maker, position)) = self.maker(&indices) else {
                self.check_before_the_run(one, indices, until);
                return Ok(());
            };
            if maker.index != indices.index && !is_within(&indices, &maker) {
                return Err(fault("is not within what it is a view of"));
            }
            if !maker.is(sys::GGML_TYPE_I32) {
                return Err(fault("is a view of another type"));
            }
            if one.distinct && !rows_of_rows(&indices, &maker) {
                return Err(not_distinct());
            }
            self.hold(one, maker, position + 1, until);
            let node = Node::new(self.operands, maker.index);
            let from = node.source(0).map_err(|fault| node.refused(fault))?;
            match node.op() {
                sys::GGML_OP_ARGSORT | sys::GGML_OP_TOP_K if from.ne(0) <= one.bound => return Ok(()),
                sys::GGML_OP_ARGMAX if from.ne(0) <= one.bound && !one.distinct => return Ok(()),
                sys::GGML_OP_CONT | sys::GGML_OP_DUP | sys::GGML_OP_CPY
                    if !one.distinct || from.same_shape(&maker) => {}
                sys::GGML_OP_REPEAT if !one.distinct => {}
                sys::GGML_OP_GET_ROWS => {}
                _ if one.distinct => return Err(not_distinct()),
                _ => return Err(fault("has indices that may be out of range")),
            }
            if !from.is(sys::GGML_TYPE_I32) {
                return Err(fault("has indices that are computed"));
            }
            indices = from;
            until = position;
        }
        Err(fault("has indices that were copied too often"))
    }

    /// The node that wrote what `indices` shows, if one of this graph did.
    fn maker(&self, indices: &Operand<'a>) -> Option<(Operand<'a>, usize)> {
        let made = |operand: Operand<'a>| {
            let position = self.computed[operand.index as usize]?;
            (!ops::only_looks(operand.tensor.op)).then_some((operand, position))
        };
        made(*indices).or_else(|| {
            let owner = indices.tensor.view?.of as usize;
            made(self.operands[owner])
        })
    }

    fn check_before_the_run(&mut self, one: &Use<'a>, indices: Operand<'a>, until: usize) {
        let fixed = indices.home == Home::Weight;
        let check = self.checks.entry(indices.index).or_insert(IndexCheck {
            tensor: indices.index,
            bound: one.bound,
            distinct: false,
            fixed,
        });
        check.bound = check.bound.min(one.bound);
        check.distinct |= one.distinct;
        if !fixed {
            self.hold(one, indices, 0, until);
        }
    }

    fn hold(&mut self, by: &Use<'a>, what: Operand<'a>, from: usize, to: usize) {
        let by = *by;
        let held = self.held.entry(what.index).or_insert(Held { what, from, to, by });
        held.from = held.from.min(from);
        if to > held.to {
            held.to = to;
            held.by = by;
        }
    }
}

/// Whether all bytes of `inner` are some of `outer`'s, which must be packed.
fn is_within(inner: &Operand<'_>, outer: &Operand<'_>) -> bool {
    let (Some(inside), Some(outside)) = (inner.tensor.place, outer.tensor.place) else {
        return false;
    };
    outer.packed()
        && inside.buffer == outside.buffer
        && inside.offset >= outside.offset
        && inside.offset + inner.extent <= outside.offset + outer.extent
}

/// Whether each row of `inner`, which is within `outer`, is part of one row of `outer`.
fn rows_of_rows(inner: &Operand<'_>, outer: &Operand<'_>) -> bool {
    let (Some(inside), Some(outside)) = (inner.tensor.place, outer.tensor.place) else {
        return false;
    };
    let row = outer.row_bytes();
    let begins = (inside.offset - outside.offset) % row;
    inner.index == outer.index
        || inner.unit()
            && begins + inner.row_bytes() <= row
            && (1..4).all(|dimension| inner.ne(dimension) == 1 || inner.nb(dimension).is_multiple_of(row))
}

/// Whether no node writes to bytes while they are held.
fn nothing_overwrites(graph: &Graph, operands: &[Operand<'_>], held: &mut [Held<'_>]) -> Result<(), Refused> {
    held.sort_unstable_by_key(|held| (held.from, held.what.index));
    let mut waiting = held.iter().peekable();
    let mut active: Vec<&Held<'_>> = Vec::new();
    for (position, index) in graph.nodes.iter().enumerate() {
        active.retain(|held| held.to >= position);
        while let Some(held) = waiting.next_if(|held| held.from <= position) {
            active.push(held);
        }
        let written = &operands[*index as usize];
        if ops::only_looks(written.tensor.op) || !written.is_computed() {
            continue;
        }
        if let Some(held) = active.iter().find(|held| held.what.overlaps(written)) {
            let on = On::Source(held.by.source);
            let why = "has indices that are overwritten before they are used";
            return Err(held.by.node.refused(Fault { on, why }));
        }
        if let Some(held) = active.get(MOST_HELD) {
            let on = On::Source(held.by.source);
            let why = "is one of too many sources of indices";
            return Err(held.by.node.refused(Fault { on, why }));
        }
    }
    Ok(())
}
