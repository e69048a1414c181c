//! However a request wants its tokens chosen, guesses change none of them.

use super::{Exact, TEXTS, Whole, prompt, request, start, whole, with};
use crate::llama::{Token, json_schema_to_grammar};
use crate::server::engine::Engine;
use crate::server::engine::task::{FinishReason, Generate, Grammar, GrammarSource, Sampling, TokenLogprob};
use crate::server::guesses::Guesses;
use crate::server::options::{Speculation, SpeculationMode};

/// How far log probabilities may be apart where llama.cpp adds up in another order.
const ALIKE: f32 = 0.02;

fn sampled(seed: u32) -> Sampling {
    Sampling {
        seed,
        temperature: 0.9,
        top_k: 40,
        top_p: 0.95,
        min_p: 0.02,
        ..Sampling::greedy()
    }
}

fn grammar(source: GrammarSource, gbnf: String) -> Option<Grammar> {
    Some(Grammar {
        source,
        gbnf,
        lazy: false,
        triggers: Vec::new(),
    })
}

/// Every kind of choice, greedy and sampled, by name.
fn choices(banned: Token, wanted: Token) -> Vec<(&'static str, Sampling)> {
    let schema = serde_json::json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 12},
            "age": {"type": "integer", "minimum": 0, "maximum": 99},
            "kind": {"enum": ["fox", "mesh", "list"]},
        },
        "required": ["name", "age", "kind"],
        "additionalProperties": false,
    });
    let schema = json_schema_to_grammar(&schema).unwrap();
    let words = r#"root ::= ("the " | "a ") [a-z]+ (" " [a-z]+)* "." "#;
    let mut choices = Vec::new();
    for base in [Sampling::greedy(), sampled(7), sampled(8)] {
        let json = grammar(GrammarSource::Schema, schema.clone());
        let own = grammar(GrammarSource::User, words.into());
        choices.extend([
            ("plain", base.clone()),
            (
                "schema",
                Sampling {
                    grammar: json,
                    ..base.clone()
                },
            ),
            (
                "grammar",
                Sampling {
                    grammar: own,
                    ..base.clone()
                },
            ),
            (
                "penalties",
                Sampling {
                    repeat_last_n: 64,
                    repeat_penalty: 1.2,
                    frequency_penalty: 0.3,
                    presence_penalty: 0.2,
                    ..base.clone()
                },
            ),
            (
                "bias",
                Sampling {
                    logit_bias: vec![(banned, f32::NEG_INFINITY), (wanted, 3.0)],
                    ignore_eos: true,
                    ..base
                },
            ),
        ]);
    }
    choices
}

/// Asks for each choice with each text.
fn ask_all(engine: &Engine, choices: &[(&'static str, Sampling)]) -> Vec<(String, Sampling, Whole)> {
    let mut answers = Vec::new();
    for (name, sampling) in choices {
        for text in &TEXTS[..2] {
            let request = Generate {
                max_tokens: Some(48),
                logprobs: Some(5),
                ..request(prompt(engine, text), sampling.clone())
            };
            let what = format!("{name}, temperature {}, {text}", sampling.temperature);
            answers.push((what, sampling.clone(), whole(engine.generate(request).unwrap())));
        }
    }
    answers
}

/// Two tokens that come up by themselves.
fn usual(plain: &Engine) -> (Token, Token) {
    let request = request(prompt(plain, TEXTS[0]), Sampling::greedy());
    let tokens = whole(plain.generate(request).unwrap()).tokens();
    (tokens[3], tokens[8])
}

fn guesses(answers: &[(String, Sampling, Whole)]) -> Guesses {
    let of = |(_, _, answer): &(String, Sampling, Whole)| answer.finish.speculated.guesses.total();
    answers
        .iter()
        .map(of)
        .fold(Guesses::default(), |all, more| all + more)
}

/// What is said of a token is the same, but for the order in which llama.cpp adds up.
fn assert_alike(own: &TokenLogprob, right: &TokenLogprob, what: &str) {
    assert!(
        (own.logprob - right.logprob).abs() < ALIKE,
        "{what}: {own:?}, {right:?}"
    );
    assert_eq!(own.bytes, right.bytes, "{what}");
    assert_eq!(own.top.len(), right.top.len(), "{what}");
    for (own, right) in own.top.iter().zip(&right.top) {
        assert!((own.2 - right.2).abs() < ALIKE, "{what}: {own:?}, {right:?}");
    }
}

fn assert_obeys(what: &str, sampling: &Sampling, answer: &Whole) {
    let banned = sampling.logit_bias.first().map(|(token, _)| *token);
    assert!(
        answer.logprobs.iter().all(|token| Some(token.token) != banned),
        "{what}"
    );
    let source = sampling.grammar.as_ref().map(|grammar| grammar.source);
    if source == Some(GrammarSource::Schema) && answer.finish.reason != FinishReason::Length {
        let value: serde_json::Value = serde_json::from_str(&answer.text).unwrap();
        assert!(
            value["name"].is_string() && value["age"].is_u64() && value["kind"].is_string(),
            "{value}"
        );
    }
}

#[test]
fn all_choices_are_the_same_with_guesses() {
    let exact = Exact::new();
    let plain = start(&exact.options(0, with(SpeculationMode::Off, None)));
    let (banned, wanted) = usual(&plain);
    let choices = choices(banned, wanted);
    let right = ask_all(&plain, &choices);
    // Windows of one token are steps of the same shape as without guesses.
    for (workers, most_window, windows) in [
        (0, 8, Some(1)),
        (1, 1, Some(8)),
        (2, 1, Some(4)),
        (1, 8, Some(4)),
        (1, 8, None),
    ] {
        let speculation = Speculation {
            most_window,
            ..with(SpeculationMode::Auto, windows)
        };
        let guessing = start(&exact.options(workers, speculation));
        let answers = ask_all(&guessing, &choices);
        let mut same = 0;
        for ((what, sampling, answer), (_, _, right)) in answers.iter().zip(&right) {
            let what = format!("{workers} workers, {windows:?} windows of {most_window}: {what}");
            // Steps of another shape may tip the scales, seldom: what is said up to there is the same.
            let common = answer.logprobs.iter().zip(&right.logprobs);
            let common = common.take_while(|(own, right)| own.token == right.token);
            for (own, right) in common {
                assert_alike(own, right, &what);
            }
            same += usize::from(answer.tokens() == right.tokens());
            if most_window == 1 {
                assert_eq!(answer.tokens(), right.tokens(), "{what}");
                assert_eq!(answer.text, right.text, "{what}");
                assert_eq!(answer.finish.reason, right.finish.reason, "{what}");
            }
            assert_obeys(&what, sampling, answer);
        }
        let guesses = guesses(&answers);
        println!("{workers} workers, {windows:?} windows of {most_window}: {guesses:?}");
        assert!(
            windows.is_none() || (guesses.accepted > 50 && guesses.wasted > 50),
            "{guesses:?}"
        );
    }
}
