//! Tensors and operations as the rules see them.

use llama_cpp_sys_2 as sys;

use super::element::Element;
use super::{On, Refused};
use crate::rpc::graph::{MOST_SOURCES, Tensor};

/// Where an operand's data are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Home {
    /// It has none.
    Nowhere,
    /// In memory that graphs write.
    Memory,
    /// In a weight as in its file, or a view of it.
    Weight,
    /// It is a repacked weight.
    Repacked,
}

/// A tensor that could be: its numbers do not overflow and it is within its home.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operand<'a> {
    pub(super) index: u32,
    pub(super) tensor: &'a Tensor,
    pub(super) element: Element,
    pub(super) home: Home,
    /// Bytes from its first to behind its last; 0 where it is empty.
    pub(super) extent: u64,
    /// Bytes from its first to behind the last that may be read.
    pub(super) room: u64,
}

impl Operand<'_> {
    pub(super) fn ne(&self, dimension: usize) -> u64 {
        self.tensor.shape[dimension]
    }

    pub(super) fn nb(&self, dimension: usize) -> u64 {
        self.tensor.strides[dimension]
    }

    pub(super) fn is(&self, element: u32) -> bool {
        self.element.number == element
    }

    /// Whether ggml computes it where it is a node: llama.cpp leaves nodes in a graph that it does not
    /// want computed, whose inputs are not set.
    pub(super) fn is_computed(&self) -> bool {
        self.tensor.flags & sys::GGML_TENSOR_FLAG_COMPUTE != 0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tensor.shape.contains(&0)
    }

    /// Does not overflow, by the limits of `extent`.
    pub(super) fn elements(&self) -> u64 {
        self.tensor.shape.iter().product()
    }

    /// Rows: all dimensions but the first.
    pub(super) fn rows(&self) -> u64 {
        self.tensor.shape[1..].iter().product()
    }

    /// Bytes of a row whose elements are side by side.
    pub(super) fn row_bytes(&self) -> u64 {
        self.ne(0) / self.element.block * self.element.bytes
    }

    /// Whether the elements of a row are side by side, in ggml's strict sense (`nb[0]` is right even
    /// where it is never used).
    pub(super) fn unit(&self) -> bool {
        self.nb(0) == self.element.bytes
    }

    pub(super) fn same_shape(&self, other: &Self) -> bool {
        self.tensor.shape == other.tensor.shape
    }

    pub(super) fn same_element(&self, other: &Self) -> bool {
        self.element == other.element
    }

    /// Whether `shape` is its shape.
    pub(super) fn has_shape(&self, shape: [u64; 4]) -> bool {
        self.tensor.shape == shape
    }

    /// As `ggml_is_contiguous`: strides of dimensions of one element do not count.
    pub(super) fn contiguous(&self) -> bool {
        self.contiguous_above(0)
    }

    /// As `ggml_is_contiguous_1`: rows may be apart.
    pub(super) fn contiguous_1(&self) -> bool {
        self.contiguous_above(1)
    }

    fn contiguous_above(&self, above: usize) -> bool {
        if self.ne(0) != self.element.block && !self.unit() {
            return false;
        }
        let mut next = self.row_bytes();
        for dimension in 1..4 {
            if dimension > above {
                if self.ne(dimension) != 1 && self.nb(dimension) != next {
                    return false;
                }
                next = next.saturating_mul(self.ne(dimension));
            } else {
                next = self.ne(dimension).saturating_mul(self.nb(dimension));
            }
        }
        true
    }

    /// Whether all strides are as in a new tensor: for kernels that use a stride as a size.
    pub(super) fn packed(&self) -> bool {
        let mut next = self.row_bytes();
        self.unit()
            && (1..4).all(|dimension| {
                let is = self.nb(dimension) == next;
                next = next.saturating_mul(self.ne(dimension));
                is
            })
    }

    /// Whether a kernel that finds row `i` of all rows at `i * nb[1]` stays within it.
    pub(super) fn linear_rows(&self) -> bool {
        self.unit()
            && self.rows() > 0
            && (self.rows() - 1)
                .checked_mul(self.nb(1))
                .and_then(|last| last.checked_add(self.row_bytes()))
                .is_some_and(|end| end <= self.extent)
    }

    /// Whether a byte may be in both.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        match (self.tensor.place, other.tensor.place) {
            (Some(a), Some(b)) => {
                a.buffer == b.buffer
                    && self.extent > 0
                    && other.extent > 0
                    && a.offset < b.offset.saturating_add(other.extent)
                    && b.offset < a.offset.saturating_add(self.extent)
            }
            _ => false,
        }
    }

    /// As `ggml_can_repeat`, for tensors that are not empty.
    pub(super) fn repeats_into(&self, other: &Self) -> bool {
        !self.is_empty() && (0..4).all(|dimension| other.ne(dimension).is_multiple_of(self.ne(dimension)))
    }
}

/// What is wrong with an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) on: On,
    pub(super) why: &'static str,
}

/// What a rule says.
pub(super) type Verdict = Result<(), Fault>;

/// Refuses, unless `holds`.
pub(super) fn need(holds: bool, on: On, why: &'static str) -> Verdict {
    if holds { Ok(()) } else { Err(Fault { on, why }) }
}

/// An operation with its operands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node<'a> {
    pub(super) result: Operand<'a>,
    sources: [Option<Operand<'a>>; MOST_SOURCES],
}

impl<'a> Node<'a> {
    /// The node of tensor `index`; the graph's form must have been checked.
    pub(super) fn new(operands: &[Operand<'a>], index: u32) -> Self {
        let result = operands[index as usize];
        let mut sources = [None; MOST_SOURCES];
        for (slot, source) in sources.iter_mut().zip(&result.tensor.sources) {
            *slot = source.map(|source| operands[source as usize]);
        }
        Self { result, sources }
    }

    pub(super) fn op(&self) -> u32 {
        self.result.tensor.op
    }

    /// A source that the operation may have.
    pub(super) fn optional(&self, number: usize) -> Option<Operand<'a>> {
        self.sources.get(number).copied().flatten()
    }

    /// A source that the operation must have.
    pub(super) fn source(&self, number: usize) -> Result<Operand<'a>, Fault> {
        let on = On::Source(u8::try_from(number).unwrap_or(u8::MAX));
        self.optional(number).ok_or(Fault {
            on,
            why: "is missing",
        })
    }

    /// All sources that there are, by number.
    pub(super) fn sources(&self) -> impl Iterator<Item = (usize, Operand<'a>)> + '_ {
        (0..MOST_SOURCES).filter_map(|number| Some((number, self.sources[number]?)))
    }

    pub(super) fn int(&self, number: usize) -> i32 {
        self.result.tensor.params[number]
    }

    /// A parameter that must not be below zero.
    pub(super) fn size(&self, number: usize) -> Result<u64, Fault> {
        let on = On::Parameter(u8::try_from(number).unwrap_or(u8::MAX));
        let why = "is below zero";
        u64::try_from(self.int(number)).map_err(|_| Fault { on, why })
    }

    pub(super) fn float(&self, number: usize) -> f32 {
        f32::from_bits(self.int(number).cast_unsigned())
    }

    pub(super) fn refused(&self, fault: Fault) -> Refused {
        Refused::Operation {
            tensor: self.result.index,
            op: super::ops::name(self.op()),
            on: fault.on,
            why: fault.why,
        }
    }
}
