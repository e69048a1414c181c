mod builders;
mod capture;
mod completeness;
mod element;
mod execute;
mod mutate;
mod soundness;
mod units;
#[allow(dead_code, reason = "what `fuzz/` has in place of `Block`")]
mod watched;

use std::collections::HashMap;

use super::{Buffers, Checked, Placement, check};
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

/// Whether results may share some of their sources' bytes.
const MAY_OVERLAP: bool = true;

/// Memory that ends where a page begins that nobody may touch.
struct Block {
    mapping: *mut u8,
    mapped: usize,
    size: usize,
}

impl Block {
    const PAGE: usize = 16384;

    fn new(size: usize) -> Self {
        let mapped = size.next_multiple_of(Self::PAGE) + 2 * Self::PAGE;
        // SAFETY: new pages, which are nobody's yet.
        let mapping = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(std::ptr::null_mut(), mapped, protection, flags, -1, 0)
        };
        assert_ne!(mapping, libc::MAP_FAILED);
        for guard in [0, mapped - Self::PAGE] {
            // SAFETY: a page of that mapping.
            let status = unsafe { libc::mprotect(mapping.byte_add(guard), Self::PAGE, libc::PROT_NONE) };
            assert_eq!(status, 0);
        }
        Self {
            mapping: mapping.cast(),
            mapped,
            size,
        }
    }

    fn start(&self) -> *mut u8 {
        self.mapping.wrapping_add(self.mapped - Self::PAGE - self.size)
    }

    fn size(&self) -> usize {
        self.size
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: mapped so, and unmapped only here.
        unsafe { libc::munmap(self.mapping.cast(), self.mapped) };
    }
}
