//! Who shares the engine with others is not stopped by them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::json;

use crate::crashes::endless;
use crate::harness::{DEADLINE, Kind, Start, eventually, model};

#[test]
fn a_running_stream_keeps_getting_tokens_while_a_long_prompt_is_computed() {
    const PROMPT: usize = 8000;
    let daemon = Start::model(model(Kind::Endless)).flag("--parallel", "2").ready();
    let mut stream = daemon.stream("/v1/completions", &endless("Once"));
    let tokens = AtomicUsize::new(0);
    let next = || {
        stream.next_text();
        tokens.fetch_add(1, Ordering::SeqCst) + 1
    };
    thread::scope(|scope| {
        let mut next = next;
        // The policy knows what a step costs once it has seen some.
        while next() < 50 {}
        let prefill = scope.spawn(|| {
            let request = json!({"prompt": vec![400; PROMPT], "max_tokens": 1});
            daemon.post("/v1/completions", &request).ok()
        });
        let begin = tokens.load(Ordering::SeqCst);
        while !prefill.is_finished() {
            next();
        }
        let during = tokens.load(Ordering::SeqCst) - begin;
        assert_eq!(prefill.join().unwrap()["usage"]["prompt_tokens"], PROMPT);
        // In steps that are full of the prompt there would be one for each 512 tokens of it.
        assert!(
            during > 2 * PROMPT / 512,
            "{during} tokens beside a prompt of {PROMPT}"
        );
    });
}

#[test]
fn eight_streams_advance_together() {
    let daemon = Start::model(model(Kind::Endless)).flag("--parallel", "8").ready();
    let counts: Vec<AtomicUsize> = (0..8).map(|_| AtomicUsize::new(0)).collect();
    const TOKENS: usize = 400;
    thread::scope(|scope| {
        for (number, count) in counts.iter().enumerate() {
            let daemon = &daemon;
            scope.spawn(move || {
                let mut stream = daemon.stream("/v1/completions", &endless(&format!("Story {number}:")));
                // The clients meet before they count: the first began alone.
                stream.next_text();
                daemon.until_metric("slots_busy", 8.0);
                for _ in 0..TOKENS {
                    stream.next_text();
                    count.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        eventually("all streams have their tokens", DEADLINE, || {
            counts
                .iter()
                .all(|count| count.load(Ordering::SeqCst) == TOKENS)
                .then_some(())
        });
    });
    // A step has a token for each of them: had one been left out, it would have taken more steps.
    let steps = daemon.metric("steps_total");
    let tokens = daemon.metric("completion_tokens_total");
    assert!(tokens >= 1.0 && steps > TOKENS as f64, "{tokens} {steps}");
}
