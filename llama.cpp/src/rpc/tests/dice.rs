//! Chance: reproducible, or the bytes of a fuzzer.

use std::collections::VecDeque;

/// Where numbers come from.
#[derive(Debug)]
pub(super) enum Dice {
    /// From this state.
    Seed(u64),
    /// From these bytes; zeros behind their end.
    Bytes(VecDeque<u8>),
}

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self::Seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        match self {
            Self::Seed(state) => {
                *state ^= *state << 13;
                *state ^= *state >> 7;
                *state ^= *state << 17;
                *state
            }
            Self::Bytes(bytes) => (0..8).fold(0, |number, _| {
                number << 8 | u64::from(bytes.pop_front().unwrap_or(0))
            }),
        }
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        match self {
            Self::Seed(_) => (self.next() >> 11) % limit,
            // No more bytes than the number needs.
            Self::Bytes(bytes) => {
                let needed = (u64::BITS - (limit - 1).leading_zeros()).div_ceil(8);
                let number = (0..needed).fold(0, |number, _| {
                    number << 8 | u64::from(bytes.pop_front().unwrap_or(0))
                });
                number % limit
            }
        }
    }

    /// Small mostly, and now and then at the edge of what numbers are.
    pub(super) fn number(&mut self) -> u64 {
        match self.below(8) {
            0 => u64::MAX - self.below(3),
            1 => 1 << self.below(64),
            2 => self.below(1 << 24),
            _ => self.below(48),
        }
    }

    pub(super) fn bytes(&mut self) -> Vec<u8> {
        let length = [0, 1, 64, 4096, 1 << 20][self.below(5) as usize];
        vec![self.next() as u8; length]
    }
}
