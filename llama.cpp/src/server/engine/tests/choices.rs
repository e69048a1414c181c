//! Whatever is asked of the choice of tokens, guesses change nothing of an answer: not a bit of what is reported.
//!
//! llama.cpp's kernels add up in another order for steps of another shape. So the answers compared here are of
//! steps of the same shape, of one token each; or of a model for which the shape does not matter.

mod asked;

use std::path::PathBuf;

use tempfile::TempDir;

use super::{Whole, alike, alike_options, asset, options, split, start, whole};
use crate::gguf::random::Architecture;
use crate::llama::Token;
use crate::server::engine::Engine;
use crate::server::engine::task::TokenLogprob;
use crate::server::guesses::Guesses;
use crate::server::options::{Draft, Options, Origin, Speculation, SpeculationMode};
use asked::{Asked, Meant, ask};

/// Answers beside each other: more than there are slots.
const AT_ONCE: usize = 8;

/// How answers are guessed.
#[derive(Debug, Clone, Copy)]
struct Case {
    workers: usize,
    mode: SpeculationMode,
    most_window: u32,
    windows: Option<u32>,
}

const fn case(workers: usize, mode: SpeculationMode, most_window: u32, windows: Option<u32>) -> Case {
    Case {
        workers,
        mode,
        most_window,
        windows,
    }
}

/// A model that answers and guesses.
struct Lab {
    model: PathBuf,
    draft: PathBuf,
    /// Of a model that was made for this.
    folder: Option<TempDir>,
}

impl Lab {
    /// A model for which a step's shape does not matter.
    fn alike() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("model.gguf");
        alike(Architecture::Llama, 7).write(&model).unwrap();
        Self {
            draft: model.clone(),
            model,
            folder: Some(folder),
        }
    }

    /// The trained pair, to be asked for steps of one token.
    fn trained() -> Self {
        Self {
            model: asset("mesh-tiny.gguf"),
            draft: asset("mesh-tiny-draft.gguf"),
            folder: None,
        }
    }

    fn options(&self, speculation: Speculation, workers: usize, slots: u32) -> Options {
        let mut options = options(self.model.clone(), speculation);
        options.slots = Some(slots);
        split(&mut options, workers);
        match self.folder {
            Some(_) => alike_options(options),
            None => options,
        }
    }

    fn plain(&self) -> Engine {
        let off = Speculation {
            mode: SpeculationMode::Off,
            ..Speculation::default()
        };
        start(&self.options(off, 0, 1))
    }

    fn guessing(&self, case: Case, slots: u32) -> Engine {
        let draft = Draft {
            path: self.draft.clone(),
            origin: Origin::Asked,
        };
        let speculation = Speculation {
            draft: case.mode.uses_draft().then_some(draft),
            most_window: case.most_window,
            mode: case.mode,
            windows: case.windows,
            ..Speculation::default()
        };
        start(&self.options(speculation, case.workers, slots))
    }
}

/// Of a token all that is reported, its log probabilities bit by bit.
fn reported(token: &TokenLogprob) -> (Token, u32, Vec<(Token, u32)>) {
    let top = token.top.iter();
    let top = top.map(|(token, _, logprob)| (*token, logprob.to_bits()));
    (token.token, token.logprob.to_bits(), top.collect())
}

/// Not a bit is different.
fn assert_same(answer: &Whole, right: &Whole, what: &str) {
    assert_eq!(answer.tokens(), right.tokens(), "{what}");
    assert_eq!(answer.text, right.text, "{what}");
    assert_eq!(answer.finish.reason, right.finish.reason, "{what}");
    assert_eq!(
        answer.finish.completion_tokens, right.finish.completion_tokens,
        "{what}"
    );
    for (number, (token, right)) in answer.logprobs.iter().zip(&right.logprobs).enumerate() {
        assert_eq!(reported(token), reported(right), "{what}, token {number}");
    }
}

/// Every answer is the one without guesses, if it has the devices for itself, and, if `beside`, keeps to the rules
/// that it was given among others: what is cached is then in another order, and so added up in another.
fn check(lab: &Lab, cases: &[Case], beside: bool) {
    let asked = Asked::all(&lab.plain());
    let mut of_models = Guesses::default();
    for case in cases {
        let copies = case.mode == SpeculationMode::NGram;
        let task = |asked: &Asked| match case.mode {
            SpeculationMode::Draft => asked.task.clone(),
            _ => asked.predicted(),
        };
        let alone = lab.guessing(*case, 1);
        for one in &asked {
            let what = format!("{case:?}, {}", one.what);
            let answer = ask(&alone, task(one));
            assert_same(&answer, &one.right, &what);
            let guesses = answer.finish.speculated.guesses.total();
            if copies {
                assert!(guesses.accepted > 0 && guesses.wasted > 0, "{what}: {guesses:?}");
            } else {
                of_models += guesses;
            }
        }
        drop(alone);
        if !beside {
            continue;
        }
        let together = lab.guessing(*case, 3);
        let bound = asked
            .iter()
            .filter(|one| matches!(one.meant, Meant::Ended | Meant::Json));
        let bound: Vec<_> = bound.cycle().take(AT_ONCE).collect();
        let answers: Vec<_> = bound
            .iter()
            .map(|one| together.generate(task(one)).unwrap())
            .collect();
        for (one, answer) in bound.iter().zip(answers) {
            one.meant.check(&whole(answer));
        }
    }
    // How many there are of one answer depends on how busy the machine is.
    assert!(of_models.accepted > 0 && of_models.wasted > 0, "{of_models:?}");
}

#[test]
fn guesses_of_one_token_in_flight_change_no_choice() {
    let cases = [
        case(1, SpeculationMode::NGram, 1, Some(4)),
        case(1, SpeculationMode::Draft, 1, Some(4)),
        case(2, SpeculationMode::Auto, 1, Some(8)),
    ];
    check(&Lab::trained(), &cases, false);
}

#[test]
fn windows_of_guesses_change_no_choice() {
    let cases = [
        case(0, SpeculationMode::NGram, 8, Some(1)),
        case(0, SpeculationMode::Draft, 8, Some(1)),
        case(1, SpeculationMode::NGram, 3, Some(4)),
        case(1, SpeculationMode::Draft, 3, Some(4)),
        case(2, SpeculationMode::NGram, 1, Some(6)),
        case(2, SpeculationMode::Auto, 8, None),
    ];
    check(&Lab::alike(), &cases, true);
}
