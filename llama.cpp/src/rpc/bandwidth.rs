//! How fast a machine reads its memory: what decides how long a token takes on a processor.

use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

/// Bytes that are read to measure a memory's bandwidth: more than caches hold.
const PROBE: usize = 192 << 20;

/// Bytes a second that so many threads read from memory.
pub fn measure(threads: u32) -> u64 {
    let threads = threads.max(1) as usize;
    let bytes = vec![1_u64; PROBE / 8];
    let read = || {
        let begin = Instant::now();
        thread::scope(|scope| {
            for part in bytes.chunks(bytes.len().div_ceil(threads)) {
                scope.spawn(|| black_box(part.iter().fold(0_u64, |sum, word| sum.wrapping_add(*word))));
            }
        });
        begin.elapsed()
    };
    let best = read().min(read()).max(Duration::from_micros(1));
    (PROBE as f64 / best.as_secs_f64()) as u64
}
