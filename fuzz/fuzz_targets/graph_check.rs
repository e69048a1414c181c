//! Any graph: the check refuses it, or ggml's CPU backend computes it without touching anything outside
//! of its buffers, which end exactly where its tensors do. Compiled with AddressSanitizer, ggml too, by
//! `just fuzz-graphs`.

#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use llama_engine::gguf::TensorType;
use llama_engine::rpc::graph::{self, Graph};
use llama_engine::rpc::worker::check::{Buffers, Checked, Placement, check};
use watched::Block;

#[path = "../../llama.cpp/src/rpc/worker/check/tests/execute.rs"]
mod execute;
#[allow(dead_code)]
#[path = "../../llama.cpp/src/rpc/worker/check/tests/mutate.rs"]
mod mutate;
#[path = "../../llama.cpp/src/rpc/worker/check/tests/watched.rs"]
mod watched;

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let mut dice = mutate::Dice::new(u64::from(seed));
    let Ok(mut graph) = postcard::from_bytes::<Graph>(&data[..size]) else {
        return fuzzer_mutate(data, size, max_size);
    };
    if dice.below(50) == 0 {
        return fuzzer_mutate(data, size, max_size);
    }
    mutate::mutate(&mut graph, &mut dice);
    match postcard::to_slice(&graph, &mut data[..max_size]) {
        Ok(bytes) => bytes.len(),
        Err(_) => size,
    }
});

fuzz_target!(|bytes: &[u8]| {
    if let Ok(graph) = postcard::from_bytes::<Graph>(bytes) {
        let seed = bytes
            .iter()
            .fold(1, |seed: u64, byte| seed.wrapping_mul(31) + u64::from(*byte));
        execute::execute(&graph, seed);
    }
});

/// Whether results may share some of their sources' bytes: AddressSanitizer takes offence at `memcpy`.
const MAY_OVERLAP: bool = false;
