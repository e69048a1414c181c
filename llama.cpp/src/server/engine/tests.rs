//! A whole engine: that guesses change nothing but the time.

use std::path::PathBuf;
use std::sync::Mutex;
use std::thread;

use super::Engine;
use super::task::{Event, Finish, FinishReason, Generate, Sampling};
use crate::llama::Token;
use crate::rpc::tests::lab;
use crate::server::load::load;
use crate::server::options::{Draft, Listen, Options, Origin, Speculation, SpeculationMode};

/// The trained pair: code and stories that the small one guesses well.
fn asset(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../mesh-llm/assets")).join(name)
}

fn draft() -> Draft {
    Draft {
        path: asset("mesh-tiny-draft.gguf"),
        origin: Origin::Asked,
    }
}

/// An engine over this machine and so many workers.
fn engine(workers: usize, speculation: Speculation) -> Engine {
    // A llama-server loads one model in its life, and llama.cpp's loading is not made for two at once.
    static LOADING: Mutex<()> = Mutex::new(());
    let _loading = LOADING.lock().unwrap();
    let mut options = Options::new(
        Listen::Tcp(([127, 0, 0, 1], 0).into()),
        asset("mesh-tiny.gguf"),
        "tiny".into(),
    );
    options.context = Some(2048);
    options.slots = Some(3);
    options.threads = Some(1);
    options.speculation = speculation;
    if workers > 0 {
        options.rpc = (0..workers).map(|_| lab::worker(&asset(""))).collect();
        options.rpc_secret = Some(lab::SECRET.into());
        options.tensor_split = vec![2; workers + 1];
    }
    // It blocks, and this thread may belong to a runtime.
    let loaded = thread::scope(|scope| scope.spawn(|| load(&options)).join().unwrap());
    loaded
        .unwrap_or_else(|refused| panic!("{}", refused.message))
        .engine
}

fn prompt(engine: &Engine, text: &str) -> Vec<Token> {
    let text = format!("<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n");
    engine.model().tokenize(&text, true, true).unwrap()
}

fn request(prompt: Vec<Token>, sampling: Sampling) -> Generate {
    Generate {
        prompt,
        max_tokens: Some(120),
        sampling,
        stop: Vec::new(),
        logprobs: Some(0),
        prompt_logprobs: false,
        visible_tokens: Vec::new(),
        prediction: Vec::new(),
    }
}

/// The tokens of an answer, and how it ended.
fn answer(engine: &Engine, request: Generate) -> (Vec<Token>, Finish) {
    let mut events = engine.generate(request).unwrap();
    let mut tokens = Vec::new();
    loop {
        match events.blocking_recv().unwrap() {
            Event::Started(_) => {}
            Event::Text(piece) => tokens.extend(piece.tokens.iter().map(|token| token.token)),
            Event::Done(finish) => return (tokens, finish),
            Event::Failed(failure) => panic!("{failure}"),
        }
    }
}

const TEXTS: [&str; 4] = [
    "Write a Python function that adds two numbers.",
    "Tell me a story about a fox.",
    "What is a mesh?",
    "Write a Python function that reverses a list.",
];

/// Every token of an answer is the likeliest after those before it, for an engine that guesses nothing.
/// llama.cpp's kernels add up in another order for steps of another shape, so of two that are almost as
/// likely either may be chosen.
fn assert_likeliest(plain: &Engine, text: &str, tokens: &[Token]) {
    let prompt = prompt(plain, text);
    let begins = prompt.len();
    let mut judged = request(prompt, Sampling::greedy());
    judged.prompt.extend(tokens);
    judged.max_tokens = Some(1);
    judged.logprobs = Some(1);
    judged.prompt_logprobs = true;
    let (_, finish) = answer(plain, judged);
    for judged in &finish.prompt_logprobs[begins - 1..] {
        let (_, _, likeliest) = judged.top[0];
        assert!(likeliest - judged.logprob < 0.05, "{text}: {judged:?}");
    }
}

/// Answers of `guessing` are those of `plain`, alone and beside each other; how many guesses were right.
fn assert_same(plain: &Engine, guessing: &Engine) -> u64 {
    let ask = |text| answer(guessing, request(prompt(guessing, text), Sampling::greedy()));
    let alone: Vec<_> = TEXTS.iter().map(|text| ask(text)).collect();
    let beside: Vec<_> = thread::scope(|scope| {
        let asked: Vec<_> = TEXTS.iter().map(|text| scope.spawn(|| ask(text))).collect();
        asked.into_iter().map(|asked| asked.join().unwrap()).collect()
    });
    let mut accepted = 0;
    for (text, (tokens, finish)) in TEXTS.iter().chain(&TEXTS).zip(alone.iter().chain(&beside)) {
        assert_likeliest(plain, text, tokens);
        let guesses = finish.speculated.guesses.total();
        assert_eq!(guesses.drafted, guesses.accepted + guesses.wasted, "{guesses:?}");
        accepted += guesses.accepted;
    }
    accepted
}

fn with(mode: SpeculationMode, windows: Option<u32>) -> Speculation {
    Speculation {
        draft: mode.uses_draft().then(draft),
        mode,
        windows,
        ..Speculation::default()
    }
}

#[test]
fn on_one_node_guesses_change_no_token() {
    let plain = engine(0, with(SpeculationMode::Off, None));
    for (mode, windows) in [
        (SpeculationMode::Draft, Some(1)),
        (SpeculationMode::NGram, Some(1)),
        (SpeculationMode::Auto, None),
    ] {
        let guessing = engine(0, with(mode, windows));
        let accepted = assert_same(&plain, &guessing);
        assert!(windows.is_none() || accepted > 0, "{mode}: no guess was right");
    }
}

#[test]
fn over_several_nodes_windows_in_flight_change_no_token() {
    let plain = engine(0, with(SpeculationMode::Off, None));
    for (workers, windows) in [(1, Some(8)), (2, Some(3)), (2, None)] {
        let guessing = engine(workers, with(SpeculationMode::Auto, windows));
        let accepted = assert_same(&plain, &guessing);
        assert!(
            accepted > 0,
            "{workers} workers, {windows:?} windows: no guess was right"
        );
    }
}

#[test]
fn a_request_that_ends_with_windows_in_flight_leaves_its_slot_with_what_is_certain() {
    let plain = engine(0, with(SpeculationMode::Off, None));
    let guessing = engine(1, with(SpeculationMode::Auto, Some(8)));
    let text = prompt(&plain, TEXTS[0]);
    let (tokens, _) = answer(&plain, request(text.clone(), Sampling::greedy()));
    for most in [1, 5, 17, 40] {
        let mut limited = request(text.clone(), Sampling::greedy());
        limited.max_tokens = Some(most);
        let (begun, finish) = answer(&guessing, limited);
        assert_eq!(
            (begun.as_slice(), finish.reason),
            (&tokens[..most as usize], FinishReason::Length)
        );
        // Someone goes away in the middle.
        drop(
            guessing
                .generate(request(text.clone(), Sampling::greedy()))
                .unwrap(),
        );
        // Goes on from the cache.
        let mut longer = text.clone();
        longer.extend(&begun);
        let mut longer = request(longer, Sampling::greedy());
        longer.max_tokens = Some(120 - most);
        let (rest, _) = answer(&guessing, longer);
        assert_eq!(rest, tokens[most as usize..]);
    }
}
