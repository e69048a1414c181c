//! A whole engine: that guesses change nothing but the time.

mod architectures;
mod choices;
mod distribution;
mod endings;
mod heads;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use super::Engine;
use super::task::{Event, Events, Finish, Generate, Sampling, TokenLogprob};
use crate::gguf::random::{self, Architecture, Spec, WeightType};
use crate::llama::Token;
use crate::rpc::tests::lab;
use crate::server::load::load;
use crate::server::options::{CacheType, Draft, Listen, Options, Origin, Speculation, SpeculationMode};

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
    let mut options = options(asset("mesh-tiny.gguf"), speculation);
    split(&mut options, workers);
    start(&options)
}

fn options(model: PathBuf, speculation: Speculation) -> Options {
    let mut options = Options::new(Listen::Tcp(([127, 0, 0, 1], 0).into()), model, "tiny".into());
    options.context = Some(2048);
    options.slots = Some(3);
    options.threads = Some(1);
    options.speculation = speculation;
    options
}

/// Splits over so many workers, with as many layers each.
fn split(options: &mut Options, workers: usize) {
    if workers > 0 {
        let folder = options.model.parent().map_or(Path::new("."), |folder| folder);
        let started = (0..workers).map(|_| lab::worker(folder));
        options.rpc = started.collect();
        options.rpc_secret = Some(lab::SECRET.into());
        options.tensor_split = vec![2; workers + 1];
    }
}

/// A model of which all is in 32 bits, and one that mostly guesses well for it: steps of another shape, for which
/// llama.cpp adds up in another order, come to almost the same. And the folder that they are in.
struct Exact {
    folder: TempDir,
}

impl Exact {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let own = random::small(Architecture::Llama, 7);
        own.write(folder.path().join("model.gguf")).unwrap();
        let draft = Spec {
            weight_type: WeightType::Q8_0,
            ..own
        };
        draft.write(folder.path().join("draft.gguf")).unwrap();
        Self { folder }
    }

    /// Over this machine and so many workers.
    fn options(&self, workers: usize, speculation: Speculation) -> Options {
        let mut speculation = speculation;
        if let Some(draft) = &mut speculation.draft {
            draft.path = self.folder.path().join("draft.gguf");
        }
        let mut options = options(self.folder.path().join("model.gguf"), speculation);
        options.cache_type_k = CacheType::F32;
        options.cache_type_v = CacheType::F32;
        split(&mut options, workers);
        options
    }
}

/// A model of which llama.cpp computes a token almost alike in whatever step it is. Its kernels for several tokens at
/// once are for matrices of a multiple of 4 rows, and here few are; its attention takes fewer than 64 tokens one by
/// one. See [`alike_options`].
fn alike(architecture: Architecture, seed: u64) -> Spec {
    Spec {
        embedding_length: 102,
        head_count: 3,
        head_count_kv: 1,
        head_length: 34,
        feed_forward_length: 258,
        vocabulary_size: 514,
        ..random::small(architecture, seed)
    }
}

/// As such models need it: steps of few tokens, and a cache that rounds nothing.
fn alike_options(mut options: Options) -> Options {
    options.batch_size = Some(32);
    options.cache_type_k = CacheType::F32;
    options.cache_type_v = CacheType::F32;
    options
}

fn start(options: &Options) -> Engine {
    // A llama-server loads one model in its life, and llama.cpp's loading is not made for two at once.
    static LOADING: Mutex<()> = Mutex::new(());
    // One that failed in another test has left nothing behind.
    let _loading = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
    // It blocks, and this thread may belong to a runtime.
    let loaded = thread::scope(|scope| scope.spawn(|| load(options)).join().unwrap());
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
    let whole = whole(engine.generate(request).unwrap());
    (whole.tokens(), whole.finish)
}

/// All of an answer.
struct Whole {
    cached: u32,
    text: String,
    logprobs: Vec<TokenLogprob>,
    finish: Finish,
}

impl Whole {
    fn tokens(&self) -> Vec<Token> {
        self.logprobs.iter().map(|token| token.token).collect()
    }
}

/// The tokens that came, at least `pieces` of them, before nobody listened any more and the slot became free.
fn cancelled_after(engine: &Engine, request: Generate, pieces: usize) -> Vec<Token> {
    let cancelled = engine.state().cancelled_total;
    let mut events = engine.generate(request).unwrap();
    let mut said = Vec::new();
    while said.len() < pieces {
        match events.blocking_recv().unwrap() {
            Event::Text(piece) => said.extend(piece.tokens.iter().map(|token| token.token)),
            Event::Started(_) => {}
            other => panic!("{other:?}"),
        }
    }
    drop(events);
    lab::eventually("the slot is free", || {
        let state = engine.state();
        (state.cancelled_total > cancelled && state.busy_slots == 0).then_some(())
    });
    said
}

fn whole(mut events: Events) -> Whole {
    let (mut cached, mut text, mut logprobs) = (0, String::new(), Vec::new());
    loop {
        match events.blocking_recv().unwrap() {
            Event::Started(started) => cached = started.cached_tokens,
            Event::Text(piece) => {
                text.push_str(&piece.text);
                logprobs.extend(piece.tokens);
            }
            Event::Done(finish) => {
                return Whole {
                    cached,
                    text,
                    logprobs,
                    finish,
                };
            }
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
fn assert_likeliest(plain: &Engine, prompt: &[Token], tokens: &[Token], what: &str) {
    let mut judged = request([prompt, tokens].concat(), Sampling::greedy());
    judged.max_tokens = Some(1);
    judged.logprobs = Some(1);
    judged.prompt_logprobs = true;
    let (_, finish) = answer(plain, judged);
    for judged in &finish.prompt_logprobs[prompt.len() - 1..] {
        let (_, _, likeliest) = judged.top[0];
        assert!(likeliest - judged.logprob < 0.05, "{what}: {judged:?}");
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
        assert_likeliest(plain, &prompt(plain, text), tokens, text);
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

/// Of the tokens of these answers, how many were guessed right.
fn guessed(answers: Vec<Events>) -> f64 {
    let finishes: Vec<Finish> = answers.into_iter().map(|events| whole(events).finish).collect();
    let of = |finish: &Finish| finish.speculated.guesses.total().accepted;
    let accepted: u64 = finishes.iter().map(of).sum();
    let tokens: u32 = finishes.iter().map(|finish| finish.completion_tokens).sum();
    accepted as f64 / f64::from(tokens)
}

#[test]
fn on_one_node_answers_that_run_at_once_leave_with_their_guesses() {
    const AT_ONCE: usize = 8;
    // Where other tests have the cores, drafts may be late.
    const ROUNDS: usize = 5;
    for most_window in [2, 4] {
        let speculation = Speculation {
            most_window,
            ..with(SpeculationMode::Draft, Some(1))
        };
        let mut options = options(asset("mesh-tiny.gguf"), speculation);
        options.slots = Some(AT_ONCE as u32);
        options.step_delay = Duration::from_millis(5);
        let engine = start(&options);
        let code = [TEXTS[0], TEXTS[3]].into_iter().cycle();
        let ask = |text: &str| {
            engine
                .generate(request(prompt(&engine, text), Sampling::greedy()))
                .unwrap()
        };
        let alone = code.clone().take(2).map(|text| guessed(vec![ask(text)]));
        let alone = alone.fold(f64::MAX, f64::min);
        let beside = |_| guessed(code.clone().take(AT_ONCE).map(ask).collect());
        let beside: Vec<f64> = (0..ROUNDS).map(beside).collect();
        assert!(
            beside.iter().any(|beside| *beside > 0.6 * alone),
            "windows of {most_window}: {beside:?} of the tokens, {alone} alone"
        );
    }
}

#[test]
fn on_one_node_a_draft_model_reads_a_prompt_that_takes_too_long_to_wait_for() {
    let engine = engine(0, with(SpeculationMode::Draft, Some(1)));
    let long = prompt(&engine, &format!("{}{}", TEXTS[2].repeat(100), TEXTS[1]));
    let (_, finish) = answer(&engine, request(long, Sampling::greedy()));
    let guesses = finish.speculated.guesses.total();
    let tokens = finish.completion_tokens;
    assert!(guesses.accepted > 0, "{guesses:?} of {tokens} tokens");
}
