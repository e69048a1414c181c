//! Greedy answers are those of a bare llama.cpp loop, token by token.
//!
//! llama.cpp's sums depend a little on what else is in a batch. So where the batches are known, the
//! bare loop computes the same ones and everything must be equal. Where they depend on timing, each
//! token must be the likeliest for a bare loop that was given the ones before it, but for near-ties.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use llama_engine::gguf::random::Architecture;
use llama_engine::llama::{Model, Token};
use llama_engine::server::engine::Engine;
use llama_engine::server::engine::task::{Event, Generate, Sampling};
use serde_json::json;

use crate::harness::{Bare, Client, DEADLINE, Daemon, Kind, Part, Start, bare, eventually, model};

/// The embedded model's file.
fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/mesh-tiny.gguf")
}

/// A greedy completion of tokens, with what each token was and how likely.
struct Completion {
    tokens: Vec<String>,
    logprobs: Vec<f32>,
    cached: usize,
}

fn complete(client: &Client, prompt: &[Token], most: usize) -> Completion {
    let request = json!({"prompt": prompt, "temperature": 0, "max_tokens": most, "logprobs": 0});
    let answer = client.post("/v1/completions", &request).ok();
    let logprobs = &answer["choices"][0]["logprobs"];
    Completion {
        tokens: serde_json::from_value(logprobs["tokens"].clone()).unwrap(),
        logprobs: serde_json::from_value(logprobs["token_logprobs"].clone()).unwrap(),
        cached: answer["usage"]["prompt_tokens_details"]["cached_tokens"]
            .as_u64()
            .unwrap() as usize,
    }
}

fn text(model: &Model, token: Token) -> String {
    String::from_utf8_lossy(&model.piece(token, false)).into_owned()
}

fn texts(model: &Model, tokens: &[Token]) -> Vec<String> {
    tokens.iter().map(|token| text(model, *token)).collect()
}

/// The tokens with these texts, of which the model has one each.
pub fn tokens(model: &Model, texts: &[String]) -> Vec<Token> {
    let by_text: HashMap<String, Token> = (0..model.vocab_size() as Token)
        .map(|token| (text(model, token), token))
        .collect();
    let tokens: Vec<Token> = texts.iter().map(|text| by_text[text]).collect();
    assert_eq!(self::texts(model, &tokens), texts);
    tokens
}

fn params(daemon: &Daemon) -> llama_engine::llama::ContextParams {
    let props = daemon.get("/props").ok();
    let context = props["default_generation_settings"]["n_ctx"].as_u64().unwrap();
    let slots = props["total_slots"].as_u64().unwrap();
    bare::context_params(context.try_into().unwrap(), slots.try_into().unwrap())
}

/// A prompt of so many tokens that no other seed shares.
fn prompt(model: &Model, seed: usize, length: usize) -> Vec<Token> {
    let vocabulary = model.vocab_size() as usize;
    // Tokens from 300 on are words in all models of these tests.
    (0..length)
        .map(|at| (300 + (seed * 7919 + at * at * 31 + at * 17 + seed) % (vocabulary - 300)) as Token)
        .collect()
}

/// One request after the other, the later ones beginning with what is in the cache.
#[test]
fn alone_a_daemon_s_tokens_are_those_of_a_bare_loop() {
    for path in [tiny(), model(Kind::Endless)] {
        // Windows of guesses are steps of another shape, in which kernels add up in another order.
        let daemon = Start::model(&path).flag("--speculate", "off").ready();
        let model = bare::load(&path);
        let mut loop_ = Bare::warmed_up(&model, params(&daemon));
        let bos = model.bos().or(model.eos()).unwrap_or(0);
        let mut prompt: Vec<Token> = vec![bos];
        prompt.extend(
            model
                .tokenize("Once upon a time there was a dog. The dog", false, false)
                .unwrap(),
        );
        for turn in 0..3 {
            let completion = complete(&daemon, &prompt, 64);
            assert!(completion.cached > 0, "turn {turn} begins with what the slot has");
            loop_.truncate(0, completion.cached);
            let chosen = loop_.greedy(0, &prompt, completion.cached, 64);
            let tokens: Vec<Token> = chosen.iter().map(|(token, _)| *token).collect();
            assert_eq!(
                completion.tokens,
                texts(&model, &tokens),
                "turn {turn} of {}",
                path.display()
            );
            for ((token, row), logprob) in chosen.iter().zip(&completion.logprobs) {
                assert!(
                    (row.logprob(*token) - logprob).abs() < 1e-4,
                    "{} {logprob}",
                    row.logprob(*token)
                );
            }
            prompt.extend(tokens);
            // Longer than a step, so that it is computed in several.
            prompt.extend(self::prompt(&model, turn, 600));
        }
    }
}

/// A greedy request of the engine.
fn generate(prompt: Vec<Token>, most: u32) -> Generate {
    Generate {
        prompt,
        max_tokens: Some(most),
        sampling: Sampling::greedy(),
        stop: Vec::new(),
        logprobs: Some(0),
        prompt_logprobs: false,
        visible_tokens: Vec::new(),
        prediction: Vec::new(),
    }
}

/// So many requests are in every step.
const SLOTS: usize = 8;
/// So many tokens has each answer.
const TOKENS: usize = 40;

/// The tokens of eight requests that went in together, and the number of steps that they took.
fn together(engine: &Engine, prompts: &[Vec<Token>]) -> (Vec<Vec<Token>>, u64) {
    let before = engine.state().steps_total;
    // While the engine computes this, the requests gather.
    let busy = engine.embed(prompts.concat()[..200].to_vec()).unwrap();
    let requests: Vec<_> = prompts
        .iter()
        .map(|prompt| engine.generate(generate(prompt.clone(), TOKENS as u32)).unwrap())
        .collect();
    busy.blocking_recv().unwrap().unwrap();
    let mut answers = Vec::new();
    for mut events in requests {
        let mut tokens = Vec::new();
        while let Some(event) = events.blocking_recv() {
            match event {
                Event::Text(piece) => tokens.extend(piece.tokens.iter().map(|token| token.token)),
                Event::Failed(failure) => panic!("{failure}"),
                Event::Started(_) | Event::Done(_) => {}
            }
        }
        answers.push(tokens);
    }
    // What the last step changed is told a moment after its tokens.
    let after = eventually("the engine is at rest", DEADLINE, || {
        Some(engine.state()).filter(|state| state.busy_slots == 0)
    });
    (answers, after.steps_total - before)
}

/// What the bare loop makes of the same eight prompts in the same batches.
fn bare_together(model: &Arc<Model>, prompts: &[Vec<Token>]) -> Vec<Vec<Token>> {
    let mut bare = Bare::new(model, bare::context_params(4096, SLOTS as u32));
    let mut answers = vec![Vec::new(); SLOTS];
    let mut parts: Vec<(usize, Vec<Token>)> = prompts.iter().map(|prompt| (0, prompt.clone())).collect();
    for _ in 0..TOKENS {
        let views: Vec<Part<'_>> = parts
            .iter()
            .enumerate()
            .map(|(slot, (position, tokens))| Part {
                sequence: slot as i32,
                position: *position,
                tokens,
            })
            .collect();
        for (slot, row) in bare.step(&views).into_iter().enumerate() {
            let token = row.likeliest();
            answers[slot].push(token);
            parts[slot] = (parts[slot].0 + parts[slot].1.len(), vec![token]);
        }
    }
    answers
}

#[test]
fn within_full_batches_tokens_are_those_of_a_bare_loop_with_the_same_batches() {
    for architecture in Architecture::ALL
        .into_iter()
        .filter(|architecture| !architecture.is_encoder())
    {
        let model = bare::load(&model(Kind::Of(architecture)));
        let prompts: Vec<Vec<Token>> = (0..SLOTS)
            .map(|slot| prompt(&model, slot, 20 + 5 * slot))
            .collect();
        let expected = bare_together(&model, &prompts);
        // One step for all prompts, then one for each token. An engine that woke up before all
        // requests were there took more: then another one is tried.
        let answers = (0..50).find_map(|_| {
            let engine = bare::engine(&model, bare::context_params(4096, SLOTS as u32), 0);
            let (answers, steps) = together(&engine, &prompts);
            (steps == TOKENS as u64).then_some(answers)
        });
        let answers = answers.expect("in 50 attempts, the requests never came together");
        assert_eq!(answers, expected, "{architecture}");
    }
}

/// The tokens of a greedy answer, and how many tokens of the prompt were in the cache.
fn answer(engine: &Engine, prompt: &[Token]) -> (Vec<Token>, usize) {
    let mut events = engine.generate(generate(prompt.to_vec(), 24)).unwrap();
    let (mut tokens, mut cached) = (Vec::new(), 0);
    while let Some(event) = events.blocking_recv() {
        match event {
            Event::Started(started) => cached = started.cached_tokens as usize,
            Event::Text(piece) => tokens.extend(piece.tokens.iter().map(|token| token.token)),
            Event::Done(_) => {}
            Event::Failed(failure) => panic!("{failure}"),
        }
    }
    (tokens, cached)
}

/// A conversation that goes on, is taken back, is shared, and goes on again: whatever of a cache is
/// used, the tokens are those of a loop without one.
#[test]
fn what_is_reused_of_a_cache_changes_no_token() {
    for architecture in Architecture::ALL
        .into_iter()
        .filter(|architecture| !architecture.is_encoder())
    {
        let model = bare::load(&model(Kind::Of(architecture)));
        let engine = bare::engine(&model, bare::context_params(4096, 3), 0);
        let mut bare = Bare::new(&model, bare::context_params(4096, 1));
        let (mut reused, mut shortfalls) = (0, Vec::new());
        let mut check = |prompt: &[Token]| {
            let (tokens, cached) = answer(&engine, prompt);
            shortfalls.extend(bare.shortfalls(prompt, &tokens));
            reused += cached;
            [prompt, &tokens].concat()
        };
        let more = |tokens: &[Token], seed| [tokens, &prompt(&model, seed, 150)].concat();
        let begin = prompt(&model, 1, 700);
        let first = check(&begin);
        let second = check(&more(&first, 2));
        check(&more(&begin, 3));
        check(&more(&first[..400], 4));
        check(&more(&second, 5));
        bare::assert_greedy(&shortfalls);
        assert!(reused > 0, "{architecture} reused nothing");
    }
}

#[test]
fn within_batches_of_any_shape_each_token_is_the_likeliest_of_a_bare_loop_alone() {
    let path = model(Kind::Endless);
    let daemon = Start::model(&path)
        .flag("--ctx-size", "2048")
        .flag("--parallel", "8")
        .ready();
    let model = bare::load(&path);
    // A third of them begin alike, so that cells are shared while they are in use.
    let alike = prompt(&model, 99, 100);
    let request = |seed: usize| {
        let own = prompt(&model, seed, 3 + seed * seed * 29 % 500);
        let begin: &[Token] = if seed.is_multiple_of(3) { &alike } else { &[] };
        ([begin, &own].concat(), 10 + seed * 7 % 60)
    };
    let requests: Vec<(Vec<Token>, usize)> = (0..40).map(request).collect();
    let completions: Vec<Completion> = thread::scope(|scope| {
        let complete = |(prompt, most): &(Vec<Token>, usize)| complete(&daemon, prompt, *most);
        let threads: Vec<_> = requests
            .iter()
            .map(|request| scope.spawn(move || complete(request)))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut bare = Bare::new(&model, bare::context_params(2048, 1));
    let mut shortfalls = Vec::new();
    for ((prompt, most), completion) in requests.iter().zip(&completions) {
        assert_eq!(completion.tokens.len(), *most);
        shortfalls.extend(bare.shortfalls(prompt, &tokens(&model, &completion.tokens)));
    }
    bare::assert_greedy(&shortfalls);
}
