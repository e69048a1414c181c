//! A split over workers that know the secret and lie as the bytes say: whoever uses it gets results or an
//! error, what is computed is right where no number was changed, and all memory comes back. Compiled with
//! AddressSanitizer, ggml too, by `just fuzz-split`.

#![no_main]

use std::cell::OnceCell;
use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use llama_engine::rpc::tests::lying::Ground;

thread_local! {
    /// The fuzzer calls the target from one thread, again and again.
    static GROUND: OnceCell<Arc<Ground>> = const { OnceCell::new() };
}

fuzz_target!(|bytes: &[u8]| {
    GROUND.with(|ground| ground.get_or_init(Arc::default).run(bytes));
});
