//! All kinds of choices, each with what a plain engine answers.

use serde_json::{Value, json};

use super::super::{TEXTS, Whole, prompt, request, whole};
use crate::llama::{GrammarTrigger, json_schema_to_grammar};
use crate::server::engine::Engine;
use crate::server::engine::task::{FinishReason, Generate, Grammar, GrammarSource, Sampling, TokenLogprob};

/// Tokens of an answer, if nothing ends it before.
const LENGTH: u32 = 48;
/// Alternatives that are reported of each token.
const ALTERNATIVES: u32 = 5;
/// Tokens of a prediction from one that is wrong to the next: three find the place again.
const WRONG_EACH: usize = 7;
/// A trigger that is a word, by llama.cpp's number.
const WORD: u8 = 1;

pub fn ask(engine: &Engine, task: Generate) -> Whole {
    whole(engine.generate(task).unwrap())
}

fn greedy(engine: &Engine, text: &str) -> Generate {
    Generate {
        max_tokens: Some(LENGTH),
        logprobs: Some(ALTERNATIVES),
        ..request(prompt(engine, text), Sampling::greedy())
    }
}

fn grammar(source: GrammarSource, gbnf: String, triggers: &[&str]) -> Option<Grammar> {
    let trigger = |word: &&str| GrammarTrigger {
        kind: WORD,
        value: (*word).to_owned(),
        token: 0,
    };
    Some(Grammar {
        source,
        gbnf,
        lazy: !triggers.is_empty(),
        triggers: triggers.iter().map(trigger).collect(),
    })
}

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 12},
            "sizes": {"type": "array", "items": {"enum": [1, 20, 300]}, "minItems": 2, "maxItems": 4},
            "open": {"type": "boolean"},
        },
        "required": ["name", "sizes", "open"],
        "additionalProperties": false,
    })
}

/// The first word that the model says from its token `from` on and says only once, and that token's number.
fn word(said: &[TokenLogprob], from: usize) -> (usize, &str) {
    let words = said.iter().enumerate().skip(from).filter_map(|(number, token)| {
        let text = std::str::from_utf8(&token.bytes).ok()?.trim();
        let is_word = text.len() > 1 && text.bytes().all(|byte| byte.is_ascii_alphabetic());
        let times = said.iter().filter(|other| other.token == token.token).count();
        (is_word && times == 1).then_some((number, text))
    });
    words.into_iter().next().unwrap()
}

/// A call that begins with one of these words.
fn call(words: &[&str]) -> Option<Grammar> {
    let begins: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    let rules = format!(
        "root ::= ({}) \"{{\" [a-z]{{3,9}} (\",\" [a-z]{{3,9}}){{2,4}} \"}}\"",
        begins.join(" | ")
    );
    grammar(GrammarSource::ToolCalls, rules, words)
}

/// How an answer must look for its request to have been understood.
pub enum Meant {
    Anything,
    /// It ends where the grammar does.
    Ended,
    /// It fits the schema.
    Json,
    /// The first word calls nothing, the second does.
    Called(Option<String>, String),
    /// At a text of two tokens, so that it may come up in the middle of a window.
    Stopped,
}

impl Meant {
    /// Fails if the answer does not.
    pub fn check(&self, answer: &Whole) {
        let (text, reason) = (&answer.text, &answer.finish.reason);
        match self {
            Self::Anything => {}
            Self::Ended => assert_eq!(*reason, FinishReason::EndOfText, "{text}"),
            Self::Json => {
                let value: Value = serde_json::from_str(text).unwrap();
                assert!(
                    value["sizes"].as_array().is_some_and(|sizes| sizes.len() > 1),
                    "{text}"
                );
            }
            Self::Called(thought, word) => {
                let (before, _) = text.split_once('{').unwrap();
                assert!(before.ends_with(word), "{text}");
                assert!(
                    thought.as_ref().is_none_or(|thought| before.contains(thought)),
                    "{text}"
                );
            }
            Self::Stopped => assert!(matches!(reason, FinishReason::StopText(_)), "{text}"),
        }
    }
}

fn sampled(seed: u32, temperature: f32) -> Sampling {
    Sampling {
        seed,
        temperature,
        ..Sampling::greedy()
    }
}

/// All kinds of choices, by a number; `said` is the likeliest answer.
fn choice(number: usize, said: &[TokenLogprob]) -> Option<(&'static str, Sampling, Meant)> {
    let base = Sampling::greedy();
    let any = Meant::Anything;
    Some(match number {
        0 => ("the likeliest", base, any),
        1 => ("a seed and a temperature", sampled(11, 1.0), any),
        2 => (
            "top-k",
            Sampling {
                top_k: 8,
                ..sampled(12, 0.9)
            },
            any,
        ),
        3 => (
            "top-p",
            Sampling {
                top_p: 0.8,
                ..sampled(13, 1.2)
            },
            any,
        ),
        4 => (
            "min-p",
            Sampling {
                min_p: 0.05,
                ..sampled(14, 1.5)
            },
            any,
        ),
        5 => (
            "typical-p",
            Sampling {
                typical_p: 0.7,
                ..sampled(15, 1.0)
            },
            any,
        ),
        6 => {
            let penalty = Sampling {
                repeat_last_n: 24,
                repeat_penalty: 1.4,
                ..base
            };
            ("a penalty on what repeats", penalty, any)
        }
        7 => {
            let penalties = Sampling {
                repeat_last_n: -1,
                frequency_penalty: 0.7,
                presence_penalty: 0.4,
                ..sampled(16, 0.8)
            };
            ("penalties on what is frequent or present", penalties, any)
        }
        8 => {
            let bias = |(at, bias): (usize, f32)| (said[at].token, bias);
            let logit_bias = [
                (2, f32::NEG_INFINITY),
                (5, -4.0),
                (9, 3.0),
                (12, f32::NEG_INFINITY),
            ];
            let logit_bias = logit_bias.map(bias).to_vec();
            (
                "biases and bans",
                Sampling {
                    logit_bias,
                    ignore_eos: true,
                    ..base
                },
                any,
            )
        }
        9 => {
            let rules = "root ::= word (\",\" word){5,9} \".\"\nword ::= \" \"? [a-z]{2,5}";
            let grammar = grammar(GrammarSource::User, rules.to_owned(), &[]);
            (
                "a grammar",
                Sampling {
                    grammar,
                    ..sampled(17, 1.0)
                },
                Meant::Ended,
            )
        }
        10 => {
            let rules = json_schema_to_grammar(&schema()).unwrap();
            let grammar = grammar(GrammarSource::Schema, rules, &[]);
            (
                "a schema",
                Sampling {
                    grammar,
                    ..sampled(18, 0.7)
                },
                Meant::Json,
            )
        }
        11 => {
            let (_, trigger) = word(said, 5);
            let sampling = Sampling {
                grammar: call(&[trigger]),
                ..base
            };
            ("a tool call", sampling, Meant::Called(None, trigger.into()))
        }
        12 => {
            let (start, _) = word(said, 1);
            let (at, thought) = word(said, start + 1);
            let (end, _) = word(said, at + 1);
            let (_, trigger) = word(said, end + 1);
            let sampling = Sampling {
                grammar: call(&[thought, trigger]),
                thinking_start: vec![said[start].token],
                thinking_ends: vec![vec![said[end].token]],
                ..base
            };
            let meant = Meant::Called(Some(thought.into()), trigger.into());
            ("a tool call after reasoning", sampling, meant)
        }
        13 => ("a stop text", base, Meant::Stopped),
        14 => ("a stop text and a seed", sampled(19, 0.6), Meant::Stopped),
        _ => return None,
    })
}

/// What is asked, and what a plain engine answers.
pub struct Asked {
    pub what: &'static str,
    pub task: Generate,
    pub right: Whole,
    pub meant: Meant,
}

impl Asked {
    /// Everything.
    pub fn all(plain: &Engine) -> Vec<Self> {
        let texts = [TEXTS[1], TEXTS[0], TEXTS[3]];
        let said = texts.map(|text| ask(plain, greedy(plain, text)).logprobs);
        let asked = (0..).map_while(|number| {
            let (text, said) = (texts[number % texts.len()], &said[number % texts.len()]);
            let (what, sampling, meant) = choice(number, said)?;
            let mut task = Generate {
                sampling,
                ..greedy(plain, text)
            };
            match meant {
                Meant::Json => task.max_tokens = Some(2 * LENGTH),
                Meant::Stopped => {
                    let free = ask(plain, task.clone()).logprobs;
                    let bytes = free[19..21].iter().flat_map(|token| token.bytes.clone());
                    let stop = String::from_utf8(bytes.collect()).unwrap();
                    task.stop = vec!["no such text".into(), stop];
                }
                _ => {}
            }
            let right = ask(plain, task.clone());
            meant.check(&right);
            Some(Self {
                what,
                task,
                right,
                meant,
            })
        });
        asked.collect()
    }

    /// With a prediction of the answer that is wrong here and there.
    pub fn predicted(&self) -> Generate {
        let mut prediction = self.right.tokens();
        for at in (3..prediction.len()).step_by(WRONG_EACH) {
            prediction[at] = prediction[at - 1];
        }
        Generate {
            prediction,
            ..self.task.clone()
        }
    }
}
