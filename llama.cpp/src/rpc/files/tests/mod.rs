//! Fingerprints, their memory and the search, over files.

mod identity;
mod library;
mod memory;
mod reading;
mod samples;

use super::{Identity, Memory, WeightFile};
use crate::gguf::{TensorType, Writer};
use std::path::Path;
use std::time::Duration;

/// A model with metadata, small tensors and a large one, all of whose bytes follow from `salt`.
fn model(salt: u8) -> Writer<'static> {
    let mut writer = Writer::new();
    writer.set("general.architecture", "llama").set("salt", salt);
    for layer in 0..4u8 {
        writer.tensor(
            format!("blk.{layer}.attn_norm.weight"),
            [8],
            TensorType::F32,
            move |out| out.write_all(&[layer ^ salt; 32]),
        );
    }
    writer.tensor("token_embd.weight", [64, 1024], TensorType::F32, move |out| {
        let bytes: Vec<u8> = (0..64 * 1024 * 4u32).map(|at| (at / 7) as u8 ^ salt).collect();
        out.write_all(&bytes)
    });
    writer
}

/// A memory that trusts files that were written just now, as those of tests are.
fn memory(file: Option<&Path>) -> Memory {
    Memory::new(file.map(Path::to_owned), Duration::ZERO)
}

fn identity(path: impl AsRef<Path>) -> Identity {
    WeightFile::open(path).unwrap().identify(&memory(None)).unwrap()
}
