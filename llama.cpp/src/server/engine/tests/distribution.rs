//! Guesses leave the distribution of sampled answers alone.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::{options, request, split, start, whole};
use crate::gguf::random::{Architecture, Spec, small};
use crate::llama::Token;
use crate::server::engine::Engine;
use crate::server::engine::task::{Generate, Sampling};
use crate::server::guesses::Guesses;
use crate::server::options::{CacheType, Draft, Origin, Speculation, SpeculationMode};

const ANSWERS: u32 = 50_000;
/// Where answers take longer.
const FEWER: u32 = 10_000;
/// Tokens of an answer: nobody can guess the first, and nobody needs to guess the last.
const LENGTH: usize = 4;
/// Likeliest tokens, of which one is chosen.
const KEPT: usize = 3;
/// Answers that are asked for at once: more than there are slots, fewer than can wait.
const AT_ONCE: usize = 64;
/// Classes that fewer answers are expected in count as one.
const LEAST_EXPECTED: f64 = 5.0;
/// Standard deviations above what is expected of chance: one in a thousand.
const LIKELY: f64 = 3.09;

/// By how much the last token that is kept is likelier than the first that is not.
const LEAST_GAP: f32 = 0.001;

type Distribution = HashMap<Vec<Token>, f64>;

/// A model that takes no time.
fn model(folder: &Path) -> PathBuf {
    let path = folder.join("model.gguf");
    let spec = Spec {
        layers: 2,
        embedding_length: 64,
        head_count: 2,
        head_count_kv: 1,
        feed_forward_length: 64,
        vocabulary_size: 400,
        ..small(Architecture::Llama, 11)
    };
    spec.write(&path).unwrap();
    path
}

fn prompt(variant: Token) -> Vec<Token> {
    (0..12).map(|n| 270 + (variant + n * 37) % 101).collect()
}

/// The likeliest tokens after `answer`, and how often each is to be chosen. `None` where steps of another
/// shape could keep another one.
fn next(plain: &Engine, prompt: &[Token], answer: &[Token]) -> Option<Vec<(Token, f64)>> {
    let mut judged = request([prompt, answer].concat(), Sampling::greedy());
    judged.max_tokens = Some(1);
    judged.logprobs = Some(KEPT as u32 + 1);
    let judged = whole(plain.generate(judged).unwrap());
    let top = &judged.logprobs[0].top;
    if top[KEPT - 1].2 - top[KEPT].2 < LEAST_GAP {
        return None;
    }
    let chances = top[..KEPT]
        .iter()
        .map(|(_, _, logprob)| f64::from(*logprob).exp());
    let sum: f64 = chances.clone().sum();
    let tokens = top.iter().map(|(token, _, _)| *token);
    Some(tokens.zip(chances.map(|chance| chance / sum)).collect())
}

/// How likely each answer is, as the model says.
fn exact(plain: &Engine, prompt: &[Token]) -> Option<Distribution> {
    let mut answers = vec![(Vec::new(), 1.0)];
    for _ in 0..LENGTH {
        let mut longer = Vec::new();
        for (answer, chance) in answers {
            for (token, next) in next(plain, prompt, &answer)? {
                longer.push(([&answer[..], &[token]].concat(), chance * next));
            }
        }
        answers = longer;
    }
    Some(answers.into_iter().collect())
}

/// The n-th request. Whatever comes first, its prediction has an opinion of the two tokens after it, and all
/// opinions come up as often.
fn nth(n: u32, prompt: &[Token], likeliest: &HashMap<Vec<Token>, Vec<Token>>, predicted: bool) -> Generate {
    let mut prediction = Vec::new();
    if predicted {
        for first in &likeliest[&Vec::new()] {
            let second = likeliest[&vec![*first]][n as usize % KEPT];
            let third = likeliest[&vec![*first, second]][n as usize / KEPT % KEPT];
            prediction.extend(&prompt[prompt.len() - 2..]);
            prediction.extend([*first, second, third]);
        }
    }
    let sampling = Sampling {
        // Neighbours would be seeds as good.
        seed: n.wrapping_mul(0x9e37_79b9),
        temperature: 1.0,
        top_k: KEPT as i32,
        ..Sampling::greedy()
    };
    Generate {
        max_tokens: Some(LENGTH as u32),
        prediction,
        ..request(prompt.to_vec(), sampling)
    }
}

/// How far the answers are from `exact`, in standard deviations of what chance alone would do.
fn distance(counts: &HashMap<Vec<Token>, u32>, exact: &Distribution) -> f64 {
    let answers: u32 = counts.values().sum();
    assert!(counts.keys().all(|answer| exact.contains_key(answer)));
    let sum: f64 = exact.values().sum();
    let (mut chi_square, mut classes) = (0.0, 0);
    let mut add = |count: f64, expected: f64| {
        chi_square += (count - expected).powi(2) / expected;
        classes += 1;
    };
    let (mut rare, mut rare_expected) = (0.0, 0.0);
    for (answer, chance) in exact {
        let expected = f64::from(answers) * chance / sum;
        let count = counts.get(answer).copied().map_or(0.0, f64::from);
        if expected < LEAST_EXPECTED {
            rare += count;
            rare_expected += expected;
        } else {
            add(count, expected);
        }
    }
    if rare_expected > 0.0 {
        add(rare, rare_expected);
    }
    // Wilson and Hilferty: the cube root is almost normal.
    let freedom = f64::from(classes - 1);
    let spread = 2.0 / (9.0 * freedom);
    ((chi_square / freedom).cbrt() - (1.0 - spread)) / spread.sqrt()
}

/// Answers of an engine that guesses so come as often as the model says.
fn check(mode: SpeculationMode, workers: usize, most_window: u32, windows: u32, answers: u32) {
    let folder = tempfile::tempdir().unwrap();
    let model = model(folder.path());
    let off = Speculation {
        mode: SpeculationMode::Off,
        ..Speculation::default()
    };
    let mut plain = options(model.clone(), off);
    (plain.cache_type_k, plain.cache_type_v) = (CacheType::F32, CacheType::F32);
    let plain = start(&plain);
    let usable = |prompt: Vec<Token>| Some((exact(&plain, &prompt)?, prompt));
    let (exact, prompt) = (0..50).map(prompt).find_map(usable).unwrap();
    let mut likeliest: HashMap<Vec<Token>, Vec<Token>> = HashMap::new();
    for answer in exact.keys() {
        for length in 0..LENGTH {
            let next = likeliest.entry(answer[..length].to_vec()).or_default();
            if !next.contains(&answer[length]) {
                next.push(answer[length]);
            }
        }
    }
    likeliest.values_mut().for_each(|tokens| tokens.sort_unstable());
    let draft = Draft {
        path: model.clone(),
        origin: Origin::Asked,
    };
    let mut guessing = options(
        model,
        Speculation {
            draft: mode.uses_draft().then_some(draft),
            mode,
            most_window,
            windows: Some(windows),
            ..Speculation::default()
        },
    );
    guessing.slots = Some(8);
    (guessing.cache_type_k, guessing.cache_type_v) = (CacheType::F32, CacheType::F32);
    split(&mut guessing, workers);
    let guessing = start(&guessing);
    let mut counts: HashMap<Vec<Token>, u32> = HashMap::new();
    let mut guesses = Guesses::default();
    let all: Vec<u32> = (0..answers).collect();
    for some in all.chunks(AT_ONCE) {
        let ask = |n| {
            guessing
                .generate(nth(n, &prompt, &likeliest, !mode.uses_draft()))
                .unwrap()
        };
        let asked: Vec<_> = some.iter().map(|n| ask(*n)).collect();
        for events in asked {
            let answer = whole(events);
            *counts.entry(answer.tokens()).or_default() += 1;
            guesses += answer.finish.speculated.guesses.total();
        }
    }
    let distance_of = distance(&counts, &exact);
    println!("{mode}, {workers} workers: {answers} answers, {guesses:?}, {distance_of:.2}");
    // How many there are of the draft model depends on how busy the machine is.
    let some = u64::from(answers) / 200;
    assert!(guesses.accepted > some && guesses.wasted > some, "{guesses:?}");
    assert!(distance_of < LIKELY, "{distance_of}");

    // One that takes a token a little too often would be found out.
    let likeliest_second = likeliest[&likeliest[&Vec::new()][..1]][0];
    let tilted = exact.iter().map(|(answer, chance)| {
        let tilt = if answer[1] == likeliest_second { 1.3 } else { 1.0 };
        (answer.clone(), chance * tilt)
    });
    let tilted = distance(&counts, &tilted.collect());
    assert!(tilted > LIKELY, "{tilted}");
}

#[test]
fn with_copied_guesses_answers_have_the_distribution_of_the_model() {
    check(SpeculationMode::NGram, 0, 8, 1, ANSWERS);
}

#[test]
fn with_a_draft_model_answers_have_the_distribution_of_the_model() {
    check(SpeculationMode::Draft, 0, 8, 1, FEWER);
}

#[test]
fn with_windows_in_flight_answers_have_the_distribution_of_the_model() {
    check(SpeculationMode::NGram, 1, 1, 3, FEWER);
}
