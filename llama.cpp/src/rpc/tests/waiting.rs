//! What steps wait for each other is told, so that nobody takes it for the network.

use std::sync::Arc;
use std::time::Duration;

use super::lab::{self, Sample};
use crate::gguf::random::Architecture;
use crate::rpc::client::Span;
use crate::rpc::wire::HOST;
use crate::server::engine::pipeline::Pipeline;
use crate::server::options::CacheType;

const STEPS: u32 = 6;

/// What a worker that takes long computed of so many steps, `at_once` of them on their way.
fn spans(pipeline: &mut Pipeline<()>, first: u32, at_once: u32) -> Vec<Span> {
    let mut on_their_way = 0;
    for step in first..first + STEPS {
        lab::submit(pipeline, &[(20 + step as i32, step, 0, true)]);
        on_their_way += 1;
        if on_their_way == at_once {
            on_their_way -= 1;
            lab::take(pipeline, 1);
        }
    }
    (0..on_their_way).for_each(|_| drop(lab::take(pipeline, 1)));
    let mut spans = Vec::new();
    lab::eventually("all is told", || {
        let split = pipeline.split().unwrap();
        spans.extend(
            split
                .shared()
                .take_timeline()
                .into_iter()
                .filter(|span| span.node != HOST),
        );
        (spans.len() == STEPS as usize).then_some(())
    });
    spans
}

#[test]
fn a_worker_tells_how_long_a_step_waited_for_others() {
    let sample = Sample::new(Architecture::Llama);
    let slow = Duration::from_millis(50);
    let device = Arc::into_inner(lab::cpu(1 << 30)).unwrap().delayed(slow);
    let worker = lab::worker_with(Arc::new(device), sample.folder.path());
    let mut pipeline = lab::split(&sample.path, lab::context_params(CacheType::F32), &[worker], &[1]);
    let alone = spans(&mut pipeline, 0, 1);
    let crowded = spans(&mut pipeline, STEPS, STEPS);
    assert!(alone.iter().chain(&crowded).all(|span| span.time >= slow));
    let waited = |spans: &[Span]| spans.iter().map(|span| span.waited).sum::<Duration>();
    // The second waits for the first, the third for both.
    assert!(waited(&crowded) > 5 * slow, "{crowded:?}");
    assert!(waited(&alone) < waited(&crowded) / 4, "{alone:?} {crowded:?}");
    assert!(crowded.last().unwrap().waited > crowded[0].waited, "{crowded:?}");
}
