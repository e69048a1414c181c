//! A session of a worker whose host wants what the bytes say: it ends with all done or with a cause, takes
//! no more than it reserved, and gives all of it back. Compiled with AddressSanitizer, ggml too, by
//! `just fuzz-split lying_host`.

#![no_main]

use std::cell::OnceCell;

use libfuzzer_sys::fuzz_target;
use llama_engine::rpc::tests::hosts::Ground;

thread_local! {
    /// The fuzzer calls the target from one thread, again and again.
    static GROUND: OnceCell<Ground> = const { OnceCell::new() };
}

fuzz_target!(|bytes: &[u8]| {
    GROUND.with(|ground| ground.get_or_init(Ground::default).run(bytes));
});
