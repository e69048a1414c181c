//! Changes to graphs, small and large, sensible and not. `fuzz/` includes this file too, so it names
//! things through its parent.

use super::graph::{BufferId, Graph, Place, Tensor, View};
use super::{TensorType, graph};

/// A source of numbers that depends on its seed alone.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap_or(0) % bound.max(1)
    }

    fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

/// Changes one to four things.
pub(super) fn mutate(graph: &mut Graph, dice: &mut Dice) {
    for _ in 0..=dice.below(4) {
        change(graph, dice);
    }
}

fn change(graph: &mut Graph, dice: &mut Dice) {
    if graph.tensors.is_empty() {
        return;
    }
    let count = graph.tensors.len();
    let index = match graph.nodes.get(dice.below(graph.nodes.len())) {
        Some(node) if dice.below(2) == 0 => *node as usize % count,
        _ => dice.below(count),
    };
    let other = graph.tensors[dice.below(count)].clone();
    let tensor = &mut graph.tensors[index];
    let dimension = dice.below(4);
    match dice.below(17) {
        0 => tensor.shape[dimension] = near(tensor.shape[dimension], dice),
        1 => tensor.strides[dimension] = near(tensor.strides[dimension], dice),
        2 => pack(tensor),
        3 => {
            tensor.element = u32::try_from(dice.below(44)).unwrap_or(0);
            pack(tensor);
        }
        4 => tensor.op = u32::try_from(dice.below(102)).unwrap_or(0),
        5 | 6 => {
            let number = dice.below(tensor.params.len());
            let now = tensor.params[number];
            tensor.params[number] = match dice.below(4) {
                0 => dice
                    .pick(&[0.0_f32, 1.0, -1.0, f32::NAN, f32::INFINITY, 1e-5])
                    .to_bits()
                    .cast_signed(),
                1 => dice.pick(&[-1, i32::MIN, i32::MAX, 0, 1, 2, 8, 24, 40]),
                _ => i32::try_from(near(u64::from(now.cast_unsigned()), dice)).unwrap_or(now),
            };
        }
        7 => {
            let number = dice.below(tensor.sources.len() + 1);
            let source = (dice.below(6) > 0).then(|| u32::try_from(dice.below(index.max(1))).unwrap_or(0));
            match tensor.sources.get_mut(number) {
                Some(slot) => *slot = source,
                None => tensor.sources.push(source),
            }
        }
        8 => {
            if let Some(place) = &mut tensor.place {
                place.offset = near(place.offset, dice);
            }
        }
        9 => {
            let second = dice.below(4);
            tensor.shape.swap(dimension, second);
            if dice.below(2) == 0 {
                tensor.strides.swap(dimension, second);
            }
        }
        10 => {
            tensor.shape = other.shape;
            pack(tensor);
        }
        11 => tensor.place = other.place,
        12 => {
            let flat = tensor.shape.iter().fold(1, |all: u64, n| all.wrapping_mul(*n));
            tensor.shape = [1; 4];
            tensor.shape[dimension] = flat;
            pack(tensor);
        }
        13 => {
            let of = u32::try_from(dice.below(index.max(1))).unwrap_or(0);
            tensor.view = (dice.below(3) > 0).then_some(View { of, offset: 0 });
        }
        14 => tensor.flags ^= 1 << dice.below(6),
        _ => resize(graph, index, dimension, dice),
    }
}

/// Gives all dimensions of the same size another, so that the graph has a chance to stay as consistent
/// as it is.
fn resize(graph: &mut Graph, index: usize, dimension: usize, dice: &mut Dice) {
    let old = graph.tensors[index].shape[dimension];
    let new = near(old, dice);
    for tensor in &mut graph.tensors {
        let was_packed = packed(tensor) == Some(tensor.strides);
        for size in &mut tensor.shape {
            if *size == old {
                *size = new;
            }
        }
        if was_packed {
            pack(tensor);
        }
    }
}

fn near(value: u64, dice: &mut Dice) -> u64 {
    match dice.below(9) {
        0 => value.wrapping_add(1),
        1 => value.saturating_sub(1),
        2 => value.wrapping_mul(2),
        3 => value / 2,
        4 => value ^ (1 << dice.below(63)),
        5 => value.wrapping_add(4),
        6 => dice.pick(&[
            1 << 31,
            u64::from(u32::MAX),
            u64::MAX,
            1 << 48,
            (1 << 31) - 1,
            1 << 62,
        ]),
        _ => dice.pick(&[
            0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 31, 32, 33, 64, 127, 128, 256, 512, 1000,
        ]),
    }
}

fn packed(tensor: &Tensor) -> Option<[u64; 4]> {
    let format = TensorType::from_id(tensor.element)?;
    let mut strides = [format.block_bytes(); 4];
    strides[1] = (tensor.shape[0] / format.block_elements()).checked_mul(format.block_bytes())?;
    strides[2] = strides[1].checked_mul(tensor.shape[1])?;
    strides[3] = strides[2].checked_mul(tensor.shape[2])?;
    Some(strides)
}

fn pack(tensor: &mut Tensor) {
    if let Some(strides) = packed(tensor) {
        tensor.strides = strides;
    }
}

/// Bytes from a tensor's first to behind its last, if that can be said.
pub(super) fn extent(tensor: &Tensor) -> Option<u64> {
    if tensor.shape.contains(&0) {
        return Some(0);
    }
    let format = TensorType::from_id(tensor.element)?;
    let mut last =
        (tensor.shape[0].checked_sub(1)? / format.block_elements()).checked_mul(tensor.strides[0])?;
    for dimension in 1..graph::DIMENSIONS {
        last = last.checked_add((tensor.shape[dimension] - 1).checked_mul(tensor.strides[dimension])?)?;
    }
    last.checked_add(format.block_bytes())
}

/// The node at `position` alone, each of its operands in a buffer of its own.
pub(super) fn isolated(graph: &Graph, position: usize) -> Graph {
    let mut alone = Graph::default();
    let mut known: Vec<(u32, u32)> = Vec::new();
    let node = graph.nodes[position];
    let place = |index: usize| {
        Some(Place {
            buffer: BufferId(u32::try_from(index).unwrap_or(0)),
            offset: 0,
        })
    };
    let mut tensor = graph.tensors[node as usize].clone();
    for source in tensor.sources.iter_mut().flatten() {
        let found = known.iter().find(|(from, _)| from == source);
        *source = if let Some((_, to)) = found {
            *to
        } else {
            let to = alone.tensors.len();
            alone.tensors.push(Tensor {
                op: 0,
                sources: Vec::new(),
                view: None,
                place: place(to),
                ..graph.tensors[*source as usize].clone()
            });
            let to = u32::try_from(to).unwrap_or(0);
            known.push((*source, to));
            to
        };
    }
    alone.nodes.push(u32::try_from(alone.tensors.len()).unwrap_or(0));
    tensor.view = None;
    tensor.place = place(alone.tensors.len());
    alone.tensors.push(tensor);
    alone
}
