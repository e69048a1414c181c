//! The hashes that make a fingerprint, as DESIGN.md's "Fingerprint" defines them. Pure.
//!
//! SHA-256, as it is here already, and a header's megabytes take it some milliseconds.

use super::fingerprint::Hash;
use crate::gguf::{Metadata, SPLIT_KEYS, Tensor, Value};
use sha2::{Digest, Sha256};

/// How long a sample is, in bytes; the whole tensor where that is shorter.
pub(super) const SAMPLE_BYTES: u64 = 4096;
/// Samples that are spread evenly over all bytes.
const SAMPLES_BY_BYTES: u64 = 96;
/// Samples that are spread evenly over all tensors, for those that are too small to be met by the others.
const SAMPLES_BY_TENSOR: u64 = 64;

/// A piece of a tensor's data that is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sample {
    /// Which tensor, by the order of names.
    pub tensor: usize,
    /// Where it begins, in bytes from the beginning of the tensor.
    pub offset: u64,
    /// Its length in bytes, at most [`SAMPLE_BYTES`].
    pub bytes: u64,
}

/// A SHA-256 of things whose ends cannot be mistaken.
pub(super) struct Hasher(Sha256);

impl Hasher {
    /// A hash for one purpose: no two purposes can have the same input.
    pub fn new(purpose: &str) -> Self {
        let mut hasher = Self(Sha256::new());
        hasher.bytes(b"mesh-llm fingerprint 1");
        hasher.bytes(purpose.as_bytes());
        hasher
    }

    /// A number of four bytes.
    pub fn u32(&mut self, number: u32) {
        self.0.update(number.to_le_bytes());
    }

    /// A number of eight bytes.
    pub fn u64(&mut self, number: u64) {
        self.0.update(number.to_le_bytes());
    }

    /// Bytes, after their length.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.u64(bytes.len() as u64);
        self.0.update(bytes);
    }

    /// The hash of all that.
    pub fn end(self) -> Hash {
        self.0.finalize().into()
    }
}

/// The hash of what a model's metadata says, but for how the model is divided.
pub(super) fn metadata_hash(metadata: &Metadata) -> Hash {
    let mut entries: Vec<(&str, &Value)> = metadata
        .iter()
        .filter(|(key, _)| !SPLIT_KEYS.contains(key))
        .collect();
    entries.sort_unstable_by_key(|(key, _)| *key);
    let mut hasher = Hasher::new("metadata");
    hasher.u64(entries.len() as u64);
    for (key, value) in entries {
        hasher.bytes(key.as_bytes());
        hasher.u32(value.value_type().id());
        put(&mut hasher, value);
    }
    hasher.end()
}

/// A value as GGUF files have it.
fn put(hasher: &mut Hasher, value: &Value) {
    match value {
        Value::U8(value) => hasher.0.update(value.to_le_bytes()),
        Value::I8(value) => hasher.0.update(value.to_le_bytes()),
        Value::U16(value) => hasher.0.update(value.to_le_bytes()),
        Value::I16(value) => hasher.0.update(value.to_le_bytes()),
        Value::U32(value) => hasher.0.update(value.to_le_bytes()),
        Value::I32(value) => hasher.0.update(value.to_le_bytes()),
        Value::U64(value) => hasher.0.update(value.to_le_bytes()),
        Value::I64(value) => hasher.0.update(value.to_le_bytes()),
        Value::F32(value) => hasher.0.update(value.to_le_bytes()),
        Value::F64(value) => hasher.0.update(value.to_le_bytes()),
        Value::Bool(value) => hasher.0.update([u8::from(*value)]),
        Value::String(text) => hasher.bytes(text.as_bytes()),
        Value::Array(array) => {
            hasher.u32(array.element_type().id());
            hasher.u64(array.len() as u64);
            hasher.0.update(array.bytes());
        }
    }
}

/// The hash of a tensor table, whose entries come sorted by name. Where a tensor lies is no part of it.
pub(super) fn table_hash(tensors: &[&Tensor]) -> Hash {
    let mut hasher = Hasher::new("tensors");
    hasher.u64(tensors.len() as u64);
    for tensor in tensors {
        hasher.bytes(tensor.name.as_bytes());
        hasher.u32(tensor.tensor_type.id());
        // llama.cpp's tool for dividing and joining drops the last sizes if they are 1.
        let end = tensor
            .shape
            .iter()
            .rposition(|&size| size != 1)
            .map_or(0, |at| at + 1);
        hasher.u64(end as u64);
        for &size in &tensor.shape[..end] {
            hasher.u64(size);
        }
    }
    hasher.end()
}

/// What the positions of samples are derived from.
pub(super) fn seed(metadata: &Hash, table: &Hash) -> Hash {
    let mut hasher = Hasher::new("seed");
    hasher.bytes(metadata);
    hasher.bytes(table);
    hasher.end()
}

/// Where samples are taken of tensors of these lengths, in bytes, in the order of their names.
///
/// At most 160 of them: each of 96 equal stretches of all data, and of 64 equal stretches of the list of
/// tensors, has one, at a place that the seed decides.
pub(super) fn samples(seed: &Hash, lengths: &[u64]) -> Vec<Sample> {
    let mut random = Random::new(seed);
    let mut samples = by_bytes(&mut random, lengths);
    samples.extend(by_tensor(&mut random, lengths));
    samples
}

fn by_bytes(random: &mut Random, lengths: &[u64]) -> Vec<Sample> {
    let total: u64 = lengths.iter().fold(0, |sum, &length| sum.saturating_add(length));
    let mut samples = Vec::new();
    let (mut tensor, mut begin) = (0, 0);
    for stretch in stretches(total, SAMPLES_BY_BYTES) {
        let position = random.within(stretch.0, stretch.1);
        // Positions ascend, so the tensor is this one or a later one.
        while position - begin >= lengths[tensor] {
            begin += lengths[tensor];
            tensor += 1;
        }
        let length = lengths[tensor];
        let bytes = length.min(SAMPLE_BYTES);
        samples.push(Sample {
            tensor,
            offset: (position - begin).min(length - bytes),
            bytes,
        });
    }
    samples
}

fn by_tensor(random: &mut Random, lengths: &[u64]) -> Vec<Sample> {
    let filled: Vec<usize> = (0..lengths.len()).filter(|&tensor| lengths[tensor] > 0).collect();
    stretches(filled.len() as u64, SAMPLES_BY_TENSOR)
        .map(|(from, to)| {
            let tensor = filled[random.within(from, to) as usize];
            let bytes = lengths[tensor].min(SAMPLE_BYTES);
            let offset = random.within(0, lengths[tensor] - bytes + 1);
            Sample {
                tensor,
                offset,
                bytes,
            }
        })
        .collect()
}

/// So many stretches `[from, to)` of `0..total`, as equal as can be, without the empty ones.
fn stretches(total: u64, count: u64) -> impl Iterator<Item = (u64, u64)> {
    // At most `total`, so it fits.
    let bound = move |index: u64| (u128::from(total) * u128::from(index) / u128::from(count)) as u64;
    (0..count)
        .map(move |index| (bound(index), bound(index + 1)))
        .filter(|(from, to)| from < to)
}

/// Numbers that a seed decides: each is the beginning of a hash of the seed and a counter.
struct Random {
    seed: Hash,
    drawn: u64,
}

impl Random {
    fn new(seed: &Hash) -> Self {
        Self {
            seed: *seed,
            drawn: 0,
        }
    }

    /// A number of `from..to`, which is not empty. Evenly but for what 64 bits divided by `to - from`
    /// leave over.
    fn within(&mut self, from: u64, to: u64) -> u64 {
        let mut hasher = Hasher::new("position");
        hasher.bytes(&self.seed);
        hasher.u64(self.drawn);
        self.drawn += 1;
        let hash = hasher.end();
        let number = hash[..8]
            .iter()
            .rev()
            .fold(0, |number, &byte| number << 8 | u64::from(byte));
        from + number % (to - from)
    }
}
