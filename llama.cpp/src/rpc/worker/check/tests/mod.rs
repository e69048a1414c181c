mod builders;
mod capture;
mod completeness;
mod element;
mod mutate;
mod soundness;
mod units;

use std::collections::HashMap;

use super::{Buffers, Placement};
// `mutate` finds them here, for it is part of `fuzz/` too.
use crate::gguf::TensorType;
use crate::rpc::graph::{self, BufferId, Place};

/// Buffers by number: memory by its size, weights by their places.
#[derive(Debug, Clone, Default)]
struct Shelf {
    memory: HashMap<BufferId, u64>,
    weights: HashMap<Place, Placement>,
}

impl Buffers for Shelf {
    fn at(&self, place: Place) -> Option<Placement> {
        match self.memory.get(&place.buffer) {
            Some(bytes) => Some(Placement::Memory {
                bytes: bytes.checked_sub(place.offset)?,
            }),
            None => self.weights.get(&place).copied(),
        }
    }
}
