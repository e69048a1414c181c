//! Random tensor data: drawn from the seed and the tensor's name alone, so that it does not depend on what
//! else a model has or in which order. Only the scale of what layers add to the hidden state depends on
//! how many layers there are.

use std::io::{self, Write};
use std::sync::Arc;

use half::f16;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

use super::super::TensorType;

/// What a tensor's numbers are.
#[derive(Clone, Debug)]
pub(super) struct Fill {
    /// Their mean.
    pub(super) mean: f32,
    /// Their standard deviation; they are spread evenly.
    pub(super) deviation: f32,
    /// The first number of each row, where it is not drawn.
    pub(super) first: First,
    /// Which rows are not drawn.
    pub(super) rows: Rows,
}

/// The first number of a row.
#[derive(Clone, Debug)]
pub(super) enum First {
    /// Drawn like the others.
    Drawn,
    /// The next of these; after the last one, from the beginning again.
    Given(Arc<[f32]>),
}

/// The rows of a matrix, or of each matrix in a stack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rows {
    /// All are alike.
    Alike,
    /// The first one is zero, so that the matrix leaves the first number of its results alone.
    FirstIsZero,
    /// The matrix adds the second half of what it is applied to, mixed, to the first, which it leaves as it is; to
    /// the first number of that it adds nothing.
    AddSecondHalf,
    /// The matrix leaves what it is applied to as it is.
    Identity,
}

/// A tensor to be made.
#[derive(Clone, Debug)]
pub(super) struct Weights {
    pub(super) name: String,
    /// The tensor whose numbers it has, if they are another's.
    pub(super) like: Option<String>,
    /// Innermost dimension first.
    pub(super) shape: Vec<u64>,
    pub(super) tensor_type: TensorType,
    pub(super) fill: Fill,
}

/// Elements in a block of Q8_0.
const BLOCK: usize = 32;
/// Bytes that are handed on at once.
const CHUNK_BYTES: usize = 1 << 16;

impl Weights {
    /// Writes the tensor's data.
    pub(super) fn write(&self, seed: u64, out: &mut dyn Write) -> io::Result<()> {
        let row = self.shape.first().copied().unwrap_or(1) as usize;
        let rows: u64 = self.shape.iter().skip(1).product();
        let rows_of_matrix = self.shape.get(1).copied().unwrap_or(1);
        let mut random = Generator::new(seed, self.like.as_ref().unwrap_or(&self.name));
        let mut chunk = Vec::with_capacity(2 * CHUNK_BYTES);
        for index in 0..rows {
            if self.fill.rows == Rows::FirstIsZero && index.is_multiple_of(rows_of_matrix) {
                // In all formats that are written here, zeros are zero bytes.
                let blocks = row / self.tensor_type.block_elements() as usize;
                let bytes = blocks * self.tensor_type.block_bytes() as usize;
                chunk.resize(chunk.len() + bytes, 0);
                continue;
            }
            let first = match &self.fill.first {
                First::Drawn => None,
                First::Given(values) => Some(values[(index % values.len() as u64) as usize]),
            };
            if self.fill.rows == Rows::Identity {
                let values = (0..row as u64).map(|column| f32::from(u8::from(column == index)));
                chunk.extend(values.flat_map(f32::to_le_bytes));
                continue;
            }
            if self.fill.rows == Rows::AddSecondHalf {
                for column in 0..row {
                    let drawn = self.fill.deviation * random.unit();
                    let value = match column.checked_sub(row / 2) {
                        None => f32::from(u8::from(column as u64 == index)),
                        Some(_) if index == 0 => 0.0,
                        Some(_) => drawn,
                    };
                    chunk.extend_from_slice(&value.to_le_bytes());
                }
                continue;
            }
            match self.tensor_type {
                TensorType::Q8_0 => self.put_q8_0(row, first, &mut random, &mut chunk),
                TensorType::F16 => self.put_plain(row, first, &mut random, |value| {
                    chunk.extend_from_slice(&f16::from_f32(value).to_le_bytes());
                }),
                _ => self.put_plain(row, first, &mut random, |value| {
                    chunk.extend_from_slice(&value.to_le_bytes());
                }),
            }
            if chunk.len() >= CHUNK_BYTES {
                out.write_all(&chunk)?;
                chunk.clear();
            }
        }
        out.write_all(&chunk)
    }

    fn put_plain(&self, row: usize, first: Option<f32>, random: &mut Generator, mut put: impl FnMut(f32)) {
        let Fill { mean, deviation, .. } = self.fill;
        for column in 0..row {
            let drawn = mean + deviation * random.unit();
            put(first.filter(|_| column == 0).unwrap_or(drawn));
        }
    }

    /// Blocks of Q8_0 whose scale is the same in the whole tensor, so that a block is its random bytes.
    /// Only a block with a given number is quantised.
    fn put_q8_0(&self, row: usize, first: Option<f32>, random: &mut Generator, chunk: &mut Vec<u8>) {
        // The deviation of whole numbers spread evenly from -127 to 127.
        const BYTE_DEVIATION: f32 = 73.611_14;
        let scale = f16::from_f32(self.fill.deviation / BYTE_DEVIATION);
        for block in 0..row / BLOCK {
            let bytes = random.block();
            match first.filter(|_| block == 0) {
                Some(first) => {
                    let mut values = bytes.map(|byte| f32::from(byte as i8) * scale.to_f32());
                    values[0] = first;
                    quantise_q8_0(&values, chunk);
                }
                None => {
                    chunk.extend_from_slice(&scale.to_le_bytes());
                    chunk.extend_from_slice(&bytes);
                }
            }
        }
    }
}

/// Appends a block as ggml's reference implementation has it.
fn quantise_q8_0(values: &[f32; BLOCK], chunk: &mut Vec<u8>) {
    let largest = values.iter().fold(0.0f32, |max, value| max.max(value.abs()));
    let scale = largest / 127.0;
    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    chunk.extend_from_slice(&f16::from_f32(scale).to_le_bytes());
    chunk.extend(values.iter().map(|value| (value * inverse).round() as i8 as u8));
}

/// Random numbers for one tensor.
struct Generator(Xoshiro256PlusPlus);

impl Generator {
    fn new(seed: u64, name: &str) -> Self {
        // FNV-1a over seed and name: fixed for ever, unlike the standard library's hash.
        let hash = seed
            .to_le_bytes()
            .iter()
            .chain(name.as_bytes())
            .fold(0xcbf2_9ce4_8422_2325u64, |hash, &byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
        Self(Xoshiro256PlusPlus::seed_from_u64(hash))
    }

    /// A number from an even spread with mean 0 and standard deviation 1.
    fn unit(&mut self) -> f32 {
        const SQRT_3: f32 = 1.732_050_8;
        // The upper half, as whole numbers of either sign.
        let drawn = (self.0.next_u64() >> 32) as u32 as i32;
        drawn as f32 * (SQRT_3 / 2_147_483_648.0)
    }

    /// 32 whole numbers from -127 to 127.
    fn block(&mut self) -> [u8; BLOCK] {
        let mut bytes = [0; BLOCK];
        for eight in bytes.chunks_exact_mut(8) {
            eight.copy_from_slice(&self.0.next_u64().to_le_bytes());
        }
        // Quantising never yields -128, and some kernels rely on that.
        bytes.map(|byte| if byte == 0x80 { 0x81 } else { byte })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(tensor_type: TensorType, first: First) -> Weights {
        Weights {
            name: "blk.0.attn_q.weight".to_owned(),
            like: None,
            shape: vec![64, 100],
            tensor_type,
            fill: Fill {
                mean: 0.0,
                deviation: 0.5,
                first,
                rows: Rows::Alike,
            },
        }
    }

    fn bytes(weights: &Weights, seed: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        weights.write(seed, &mut bytes).unwrap();
        bytes
    }

    fn values(tensor_type: TensorType, first: First) -> Vec<f32> {
        decoded(tensor_type, &bytes(&weights(tensor_type, first), 7))
    }

    fn decoded(tensor_type: TensorType, bytes: &[u8]) -> Vec<f32> {
        match tensor_type {
            TensorType::F32 => bytes
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
                .collect(),
            TensorType::F16 => bytes
                .chunks_exact(2)
                .map(|b| f16::from_le_bytes(b.try_into().unwrap()).to_f32())
                .collect(),
            _ => bytes
                .chunks_exact(34)
                .flat_map(|block| {
                    let scale = f16::from_le_bytes([block[0], block[1]]).to_f32();
                    block[2..].iter().map(move |&byte| f32::from(byte as i8) * scale)
                })
                .collect(),
        }
    }

    #[test]
    fn numbers_have_the_mean_and_deviation_asked_for() {
        for tensor_type in [TensorType::F32, TensorType::F16, TensorType::Q8_0] {
            let values = values(tensor_type, First::Drawn);
            assert_eq!(values.len(), 6400);
            let count = values.len() as f32;
            let mean = values.iter().sum::<f32>() / count;
            let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f32>() / count;
            assert!(mean.abs() < 0.02, "{tensor_type}: mean {mean}");
            let deviation = variance.sqrt();
            assert!(
                (deviation - 0.5).abs() < 0.01,
                "{tensor_type}: deviation {deviation}"
            );
        }
    }

    #[test]
    fn given_numbers_begin_each_row() {
        for tensor_type in [TensorType::F32, TensorType::F16, TensorType::Q8_0] {
            let values = values(tensor_type, First::Given([4.0, 0.0].into()));
            for (row, values) in values.chunks_exact(64).enumerate() {
                let expected = if row % 2 == 0 { 4.0 } else { 0.0 };
                assert!(
                    (values[0] - expected).abs() < 0.02,
                    "{tensor_type}: {}",
                    values[0]
                );
            }
        }
    }

    #[test]
    fn the_first_row_of_each_matrix_can_be_zero() {
        for tensor_type in [TensorType::F32, TensorType::F16, TensorType::Q8_0] {
            let mut stack = weights(tensor_type, First::Drawn);
            stack.shape = vec![64, 5, 2];
            stack.fill.rows = Rows::FirstIsZero;
            let values = decoded(tensor_type, &bytes(&stack, 7));
            for (row, values) in values.chunks_exact(64).enumerate() {
                let zero = values.iter().all(|&value| value == 0.0);
                assert_eq!(zero, row % 5 == 0, "{tensor_type}: row {row}");
            }
        }
    }

    #[test]
    fn bytes_depend_on_seed_and_name_and_nothing_else() {
        let one = weights(TensorType::F32, First::Drawn);
        let other = Weights {
            name: "blk.1.attn_q.weight".to_owned(),
            ..one.clone()
        };
        assert_eq!(bytes(&one, 1), bytes(&one, 1));
        assert_ne!(bytes(&one, 1), bytes(&one, 2));
        assert_ne!(bytes(&one, 1), bytes(&other, 1));
        let same = Weights {
            like: Some(one.name.clone()),
            ..other
        };
        assert_eq!(bytes(&one, 1), bytes(&same, 1));
    }

    #[test]
    fn a_matrix_can_add_a_second_half_to_the_first() {
        let mut matrix = weights(TensorType::F32, First::Drawn);
        matrix.shape = vec![8, 4];
        matrix.fill.rows = Rows::AddSecondHalf;
        let values = decoded(TensorType::F32, &bytes(&matrix, 7));
        for (row, values) in values.chunks_exact(8).enumerate() {
            for (column, value) in values[..4].iter().enumerate() {
                assert_eq!(*value == 1.0, row == column);
                assert_eq!(*value == 0.0, row != column);
            }
            assert_eq!(values[4..].iter().all(|value| *value == 0.0), row == 0);
        }
    }

    #[test]
    fn bytes_stay_what_they_have_always_been() {
        // Results that others recorded with a seed would no longer be comparable.
        let f32_bytes = bytes(&weights(TensorType::F32, First::Drawn), 1);
        let q8_0_bytes = bytes(&weights(TensorType::Q8_0, First::Drawn), 1);
        assert_eq!(f32_bytes[..8], [168, 105, 5, 63, 29, 155, 9, 63]);
        assert_eq!(q8_0_bytes[..8], [245, 30, 27, 131, 234, 68, 85, 159]);
    }

    #[test]
    fn blocks_never_hold_minus_128() {
        let bytes = bytes(&weights(TensorType::Q8_0, First::Drawn), 1);
        assert!(bytes.chunks_exact(34).all(|block| !block[2..].contains(&0x80)));
    }
}
