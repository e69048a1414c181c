//! However a request ends with windows in flight, its slot has what is certain, and the next one is right.

use std::sync::mpsc;
use std::thread;

use super::{
    Exact, TEXTS, Whole, assert_likeliest, asset, cancelled_after, engine, options, prompt, request, split,
    start, whole, with,
};
use crate::llama::Token;
use crate::rpc::tests::lab;
use crate::rpc::tests::proxy::{Mode, Proxy};
use crate::server::engine::Engine;
use crate::server::engine::task::{Event, Failure, FinishReason, Generate, Sampling};
use crate::server::options::SpeculationMode;

/// On one node; over a worker; over two, as many windows as pay.
const ENGINES: [(usize, Option<u32>); 3] = [(0, Some(1)), (1, Some(8)), (2, None)];

/// An engine with one slot: what is reused is what the request before left there.
fn guessing(exact: &Exact, workers: usize, windows: Option<u32>, context: u32) -> Engine {
    let mut options = exact.options(workers, with(SpeculationMode::Auto, windows));
    options.context = Some(context);
    options.slots = Some(1);
    start(&options)
}

fn plain(exact: &Exact) -> Engine {
    start(&exact.options(0, with(SpeculationMode::Off, None)))
}

fn greedy(prompt: Vec<Token>, most: Option<u32>) -> Generate {
    Generate {
        max_tokens: most,
        ..request(prompt, Sampling::greedy())
    }
}

fn ask(engine: &Engine, task: Generate) -> Whole {
    whole(engine.generate(task).unwrap())
}

/// The slot has the prompt and `said`; what goes on from there is `right`, and so is what begins again.
fn assert_reusable(engine: &Engine, prompt: &[Token], said: &[Token], right: &[Token], what: &str) {
    // Of what was said last the cache may or may not have the token.
    let known = (prompt.len() + said.len()).saturating_sub(1);
    let left = (right.len() - said.len()).min(20);
    if left > 0 {
        let on = ask(engine, greedy([prompt, said].concat(), Some(left as u32)));
        assert!(
            on.cached as usize >= known,
            "{what}: {} of {known} cached",
            on.cached
        );
        assert_eq!(on.tokens(), right[said.len()..][..left], "{what}");
    }
    let most = right.len().min(30);
    let again = ask(engine, greedy(prompt.to_vec(), Some(most as u32)));
    assert_eq!(again.cached as usize, prompt.len() - 1, "{what}");
    assert_eq!(again.tokens(), right[..most], "{what}");
}

/// Has every engine checked with two prompts, each with what a plain one answers.
fn on_each_engine(check: impl Fn(&Engine, &[Token], &Whole, &str)) {
    let exact = Exact::new();
    let plain = plain(&exact);
    for (workers, windows) in ENGINES {
        let guessing = guessing(&exact, workers, windows, 1024);
        for text in &TEXTS[..2] {
            let prompt = prompt(&plain, text);
            let right = ask(&plain, greedy(prompt.clone(), Some(80)));
            check(
                &guessing,
                &prompt,
                &right,
                &format!("{workers} workers, {windows:?}, {text}"),
            );
        }
    }
}

#[test]
fn one_that_is_cancelled() {
    on_each_engine(|guessing, prompt, right, what| {
        // The last goes away before anything is said; its prompt is cached, as others had it before.
        for pieces in [1, 9, 25, 0] {
            let said = cancelled_after(guessing, greedy(prompt.to_vec(), None), pieces);
            let what = format!("{what}, after {}", said.len());
            assert_reusable(guessing, prompt, &said, &right.tokens(), &what);
        }
    });
}

#[test]
fn one_that_is_cancelled_leaves_its_guesses_in_the_totals() {
    let exact = Exact::new();
    let plain = plain(&exact);
    let mut options = exact.options(1, with(SpeculationMode::NGram, Some(8)));
    options.slots = Some(1);
    let guessing = start(&options);
    let prompt = prompt(&plain, TEXTS[0]);
    let mut task = greedy(prompt.clone(), Some(80));
    task.prediction = ask(&plain, task.clone()).tokens();
    task.max_tokens = None;
    let mut events = guessing.generate(task).unwrap();
    // As many as a prediction that is right gives only by guesses that are.
    let mut said = 0;
    while said < 40 {
        if let Event::Text(piece) = events.blocking_recv().unwrap() {
            said += piece.tokens.len();
        }
    }
    drop(events);
    lab::eventually("the slot is free", || {
        (guessing.state().busy_slots == 0).then_some(())
    });
    let total = guessing.state().guesses_total.total();
    assert!(total.accepted > 0, "{total:?}");
    assert_eq!(total.drafted, total.accepted + total.wasted, "{total:?}");
}

#[test]
fn one_whose_context_is_full() {
    const CONTEXT: usize = 256;
    let exact = Exact::new();
    for (workers, windows) in ENGINES {
        let guessing = guessing(&exact, workers, windows, CONTEXT as u32);
        // Nothing ends it before.
        let endless = |prompt: Vec<Token>, most| Generate {
            sampling: Sampling {
                ignore_eos: true,
                ..Sampling::greedy()
            },
            ..greedy(prompt, most)
        };
        let prompt = prompt(&guessing, TEXTS[0]);
        let full = ask(&guessing, endless(prompt.clone(), None));
        let what = format!("{workers} workers, {windows:?}");
        let said = full.tokens();
        assert_eq!(full.finish.reason, FinishReason::Length, "{what}");
        assert_eq!(prompt.len() + said.len(), CONTEXT, "{what}");
        let guesses = full.finish.speculated.guesses.total();
        assert!(windows.is_none() || guesses.accepted > 0, "{what}: {guesses:?}");
        // The last that has room for a token.
        let most = CONTEXT - 1;
        let longest = [&prompt[..], &said].concat()[..most].to_vec();
        let last = ask(&guessing, endless(longest, None));
        assert_eq!(last.cached as usize, most - 1, "{what}");
        assert_eq!(last.tokens(), said[said.len() - 1..], "{what}");
        let again = ask(&guessing, endless(prompt.clone(), None));
        assert_eq!(again.cached as usize, prompt.len() - 1, "{what}");
        assert_eq!(again.tokens()[..100], said[..100], "{what}");
    }
}

#[test]
fn one_that_has_said_enough() {
    on_each_engine(|guessing, prompt, right, what| {
        for most in [1, 2, 6, 13, 40] {
            let said = ask(guessing, greedy(prompt.to_vec(), Some(most)));
            let what = format!("{what}, {most} tokens");
            let whole = right.tokens();
            let most = whole.len().min(most as usize);
            assert_eq!(said.tokens(), whole[..most], "{what}");
            assert_reusable(guessing, prompt, &said.tokens(), &whole, &what);
        }
    });
}

#[test]
fn one_that_says_a_stop_text() {
    on_each_engine(|guessing, prompt, right, what| {
        let tokens = right.tokens();
        for at in [3, 10, 21].into_iter().filter(|at| at + 2 <= tokens.len()) {
            // Of two tokens, so that it may come up in the middle of a window.
            let bytes: Vec<u8> = right.logprobs[at..at + 2]
                .iter()
                .flat_map(|token| token.bytes.clone())
                .collect();
            let stop = String::from_utf8(bytes).unwrap();
            let stopped = Generate {
                stop: vec![stop.clone()],
                ..greedy(prompt.to_vec(), Some(80))
            };
            let said = ask(guessing, stopped);
            let what = format!("{what}, {stop:?}");
            assert_eq!(said.finish.reason, FinishReason::StopText(stop.clone()), "{what}");
            assert_eq!(said.text, right.text[..right.text.find(&stop).unwrap()], "{what}");
            // What was held back may be cached, too.
            let said = said.finish.completion_tokens as usize;
            assert_reusable(guessing, prompt, &tokens[..said], &tokens, &what);
        }
    });
}

#[test]
fn one_that_the_model_ends() {
    // The trained pair: its answers end.
    let plain = engine(0, with(SpeculationMode::Off, None));
    let mut ends = 0;
    for (workers, windows) in ENGINES {
        let mut options = options(asset("mesh-tiny.gguf"), with(SpeculationMode::Auto, windows));
        options.slots = Some(1);
        split(&mut options, workers);
        let guessing = start(&options);
        for text in TEXTS {
            let what = format!("{workers} workers, {windows:?}, {text}");
            let prompt = prompt(&plain, text);
            let said = ask(&guessing, greedy(prompt.clone(), Some(400)));
            let tokens = said.tokens();
            assert_likeliest(&plain, &prompt, &tokens, &what);
            if said.finish.reason != FinishReason::EndOfText {
                continue;
            }
            ends += 1;
            // All that was said is cached, and no more.
            let next = [&prompt[..], &tokens, &prompt].concat();
            let on = ask(&guessing, greedy(next, Some(1)));
            assert_eq!(on.cached as usize, prompt.len() + tokens.len(), "{what}");
            let again = ask(&guessing, greedy(prompt.clone(), Some(400)));
            assert_eq!(again.cached as usize, prompt.len() - 1, "{what}");
            assert_eq!(again.finish.reason, FinishReason::EndOfText, "{what}");
            assert_likeliest(&plain, &prompt, &again.tokens(), &what);
        }
    }
    assert!(ends >= ENGINES.len(), "{ends} answers ended");
}

/// How a request ended that lost its worker.
fn lost(engine: &Engine, task: Generate, begun: &mpsc::Sender<()>) -> Failure {
    let mut events = engine.generate(task).unwrap();
    loop {
        match events.blocking_recv().expect("a last event") {
            Event::Text(_) => drop(begun.send(())),
            Event::Failed(failure) => return failure,
            Event::Started(_) => {}
            Event::Done(finish) => panic!("{finish:?}"),
        }
    }
}

fn check_lost(mode: Mode) {
    let mut options = options(asset("mesh-tiny.gguf"), with(SpeculationMode::Auto, Some(8)));
    split(&mut options, 2);
    let proxy = Proxy::to(&options.rpc[1]);
    options.rpc[1] = proxy.address.clone();
    let guessing = start(&options);
    let endless = |text: &str| Generate {
        sampling: Sampling {
            ignore_eos: true,
            ..Sampling::greedy()
        },
        ..greedy(prompt(&guessing, text), None)
    };
    let (begun, begins) = mpsc::channel();
    thread::scope(|scope| {
        let ask = |text: &&str| {
            let (guessing, task, begun) = (&guessing, endless(text), begun.clone());
            scope.spawn(move || lost(guessing, task, &begun))
        };
        let asked: Vec<_> = TEXTS[..3].iter().map(ask).collect();
        // Answers run, and the next windows are on their way.
        (0..30).for_each(|_| begins.recv().unwrap());
        proxy.set(mode);
        for asked in asked {
            let failure = asked.join().unwrap();
            assert!(matches!(failure, Failure::Lost(_)), "{failure:?}");
        }
    });
    lab::eventually("the loop ends", || {
        let refused = guessing.generate(endless(TEXTS[0])).err()?;
        matches!(refused, Failure::Lost(_)).then_some(())
    });
    assert!(guessing.lost().is_some());
}

#[test]
fn those_that_lose_a_worker_with_windows_in_flight() {
    check_lost(Mode::Cut);
}

#[test]
fn those_whose_worker_falls_silent_with_windows_in_flight() {
    check_lost(Mode::Stall);
}
