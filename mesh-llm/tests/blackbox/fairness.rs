//! Who shares the engine with others is not stopped by them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::json;

use crate::crashes::endless;
use crate::harness::{Kind, Start, model};

#[test]
fn a_running_stream_keeps_getting_tokens_while_a_long_prompt_is_computed() {
    const PROMPT: usize = 2000;
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
        // And the prompt does not starve.
        assert!(during < PROMPT / 2, "{during} tokens beside a prompt of {PROMPT}");
    });
}

#[test]
fn eight_answers_take_hardly_more_steps_than_one() {
    const TOKENS: usize = 600;
    // A step with a right guess brings two tokens.
    let daemon = Start::model(model(Kind::Endless))
        .flag("--parallel", "8")
        .flag("--speculate", "off")
        .ready();
    thread::scope(|scope| {
        for number in 0..8 {
            let request = json!({"prompt": format!("Story {number}:"), "max_tokens": TOKENS});
            let daemon = &daemon;
            scope.spawn(move || daemon.post("/v1/completions", &request).ok());
        }
    });
    // One after the other they would take 8 × 600. Some come a little later than others.
    daemon.until_idle();
    let steps = daemon.metric("steps_total") as usize;
    assert!((TOKENS..2 * TOKENS).contains(&steps), "{steps} steps");
}
