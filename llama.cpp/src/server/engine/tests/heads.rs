//! Heads inside a model change no token of its answers, however their guesses end.

use std::path::Path;

use super::architectures::{LENGTH, PROMPTS, greedy, prompt};
use super::{assert_likeliest, cancelled_after, options, start, whole};
use crate::gguf::random::{self, Architecture, Spec};
use crate::llama::Token;
use crate::server::engine::Engine;
use crate::server::engine::speculation::acceptance::SourceKind;
use crate::server::engine::task::{Finish, Generate};
use crate::server::guesses::Guesses;
use crate::server::options::{CacheType, Draft, Options, Origin, Speculation, SpeculationMode};
use tempfile::TempDir;

const ARCHITECTURES: [Architecture; 2] = [Architecture::DeepSeek2, Architecture::Glm4Moe];

/// A model with a head, what it says by itself, and the folder that it is in.
struct Lab {
    folder: TempDir,
    plain: Engine,
    answers: Vec<Vec<Token>>,
}

fn write(path: &Path, architecture: Architecture, layers: u32, heads: u32) {
    let spec = Spec {
        layers,
        heads,
        ..random::small(architecture, 7)
    };
    spec.write(path).unwrap();
}

impl Lab {
    /// The head of a model of one layer is almost always right, that of one of four now and then.
    fn new(architecture: Architecture, layers: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("model.gguf"), architecture, layers, 1);
        let plain = start(&settings(&folder, SpeculationMode::Off, 8, None));
        let ask = |length: &u32| whole(plain.generate(greedy(prompt(*length))).unwrap()).tokens();
        let answers = PROMPTS.iter().map(ask).collect();
        Self {
            folder,
            plain,
            answers,
        }
    }

    fn settings(&self, mode: SpeculationMode, most_window: u32, windows: Option<u32>) -> Options {
        settings(&self.folder, mode, most_window, windows)
    }

    /// What became of the guesses of answers alone and beside each other, which are those of the model.
    fn check(&self, guessing: &Engine, what: &str) -> Guesses {
        let mut guesses = Guesses::default();
        for asked in [&[0][..], &[1, 0, 1], &[1]] {
            let ask = |number: &usize| guessing.generate(greedy(prompt(PROMPTS[*number]))).unwrap();
            let answers: Vec<_> = asked.iter().map(ask).collect();
            for (number, events) in asked.iter().zip(answers) {
                let answer = whole(events);
                assert_eq!(answer.finish.completion_tokens, LENGTH, "{what}");
                assert_likeliest(&self.plain, &prompt(PROMPTS[*number]), &answer.tokens(), what);
                guesses += of_heads(&answer.finish);
            }
        }
        assert_eq!(guesses.drafted, guesses.accepted + guesses.wasted, "{what}");
        guesses
    }
}

fn settings(folder: &TempDir, mode: SpeculationMode, most_window: u32, windows: Option<u32>) -> Options {
    let speculation = Speculation {
        mode,
        most_window,
        windows,
        ..Speculation::default()
    };
    let mut options = options(folder.path().join("model.gguf"), speculation);
    (options.cache_type_k, options.cache_type_v) = (CacheType::F32, CacheType::F32);
    options
}

/// What became of what heads guessed.
fn of_heads(finish: &Finish) -> Guesses {
    finish.speculated.guesses.0[SourceKind::Heads.index()]
}

/// Most tokens of an answer were guessed: its heads know what was before.
fn assert_mostly_right(finish: &Finish, what: &str) {
    let guesses = of_heads(finish);
    assert!(2 * guesses.accepted > u64::from(LENGTH), "{what}: {guesses:?}");
}

#[test]
fn good_heads_are_mostly_right_and_change_no_token() {
    for architecture in ARCHITECTURES {
        let lab = Lab::new(architecture, 1);
        for mode in [SpeculationMode::Draft, SpeculationMode::Auto] {
            let guessing = start(&lab.settings(mode, 8, Some(1)));
            let guesses = lab.check(&guessing, &format!("{architecture}, {mode}"));
            println!("{architecture}, {mode}: {guesses:?}");
            assert!(
                guesses.accepted > guesses.wasted,
                "{architecture}, {mode}: {guesses:?}"
            );
        }
    }
}

#[test]
fn bad_heads_are_mostly_wrong_and_change_no_token() {
    // Not GLM-4-MoE, for what is said of it in `architectures`.
    let lab = Lab::new(Architecture::DeepSeek2, 4);
    for (most_window, windows) in [(8, Some(1)), (2, Some(1)), (8, None)] {
        let what = format!("{most_window} tokens, {windows:?}");
        let guessing = start(&lab.settings(SpeculationMode::Draft, most_window, windows));
        let guesses = lab.check(&guessing, &what);
        println!("{what}: {guesses:?}");
        // What pays depends on the machine.
        if windows.is_some() {
            assert!(
                guesses.accepted > 0 && guesses.wasted > guesses.accepted,
                "{what}: {guesses:?}"
            );
        }
    }
}

#[test]
fn without_room_for_guesses_in_a_window_answers_are_the_same_to_the_token() {
    for architecture in ARCHITECTURES {
        let lab = Lab::new(architecture, 4);
        let guessing = start(&lab.settings(SpeculationMode::Draft, 1, Some(1)));
        for (length, right) in PROMPTS.iter().zip(&lab.answers) {
            let answer = whole(guessing.generate(greedy(prompt(*length))).unwrap());
            assert_eq!(answer.tokens(), *right, "{architecture}");
            assert_eq!(of_heads(&answer.finish), Guesses::default(), "{architecture}");
        }
    }
}

#[test]
fn heads_guess_only_where_nobody_named_a_draft_model_and_models_may_guess() {
    let lab = Lab::new(Architecture::DeepSeek2, 1);
    let ask = |options: &Options| {
        let answer = whole(start(options).generate(greedy(prompt(PROMPTS[0]))).unwrap());
        answer.finish.speculated.guesses
    };
    let model = SourceKind::Model.index();
    // A draft that is late, as on a busy machine, is not waited for.
    let asks_until_drafted = |options: &Options| {
        (0..20).map(|_| ask(options)).any(|guesses| {
            assert_eq!(guesses.0[SourceKind::Heads.index()], Guesses::default());
            guesses.0[model].drafted > 0
        })
    };
    let draft = |origin| Draft {
        path: lab.folder.path().join("model.gguf"),
        origin,
    };
    for mode in [SpeculationMode::NGram, SpeculationMode::Off] {
        let guesses = ask(&lab.settings(mode, 8, Some(1)));
        assert_eq!(guesses.0[SourceKind::Heads.index()], Guesses::default(), "{mode}");
    }
    let mut options = lab.settings(SpeculationMode::Draft, 8, Some(1));
    options.speculation.draft = Some(draft(Origin::Asked));
    assert!(asks_until_drafted(&options));
    // One that the catalog has comes after them.
    options.speculation.draft = Some(draft(Origin::Found));
    let guesses = ask(&options);
    assert!(guesses.0[SourceKind::Heads.index()].drafted > 0, "{guesses:?}");
    assert_eq!(guesses.0[model], Guesses::default());
    // In a split they rest, and the draft model that was found guesses.
    super::split(&mut options, 1);
    options.tensor_split = vec![1, 1];
    assert!(asks_until_drafted(&options));
}

/// One slot: what is reused is what the request before left there.
fn one_slot(lab: &Lab) -> Engine {
    let mut options = lab.settings(SpeculationMode::Draft, 8, Some(1));
    options.slots = Some(1);
    start(&options)
}

/// The slot goes on from `said` and begins again as `right` has it, and the heads know what was before.
fn assert_reusable(lab: &Lab, engine: &Engine, asked: &[Token], said: &[Token], what: &str) {
    let on = [asked, said].concat();
    let answer = whole(engine.generate(greedy(on.clone())).unwrap());
    assert!(
        answer.cached as usize + 1 >= on.len(),
        "{what}: {} cached",
        answer.cached
    );
    assert_likeliest(&lab.plain, &on, &answer.tokens(), what);
    assert_mostly_right(&answer.finish, what);
    let answer = whole(engine.generate(greedy(asked.to_vec())).unwrap());
    assert_eq!(answer.cached as usize, asked.len() - 1, "{what}");
    assert_likeliest(&lab.plain, asked, &answer.tokens(), what);
    assert_mostly_right(&answer.finish, what);
}

#[test]
fn however_an_answer_ends_its_slot_and_the_heads_are_as_they_should_be() {
    for architecture in ARCHITECTURES {
        let lab = Lab::new(architecture, 1);
        let guessing = one_slot(&lab);
        let asked = prompt(PROMPTS[1]);
        // It said enough.
        for most in [1, 2, 5, 13] {
            let limited = Generate {
                max_tokens: Some(most),
                ..greedy(asked.clone())
            };
            let said = whole(guessing.generate(limited).unwrap()).tokens();
            assert_eq!(said.len(), most as usize);
            let what = format!("{architecture}, {most} tokens");
            assert_reusable(&lab, &guessing, &asked, &said, &what);
        }
        // Nobody listens any more.
        for pieces in [1, 9] {
            let mut endless = greedy(asked.clone());
            endless.max_tokens = None;
            let said = cancelled_after(&guessing, endless, pieces);
            let what = format!("{architecture}, cancelled after {}", said.len());
            assert_reusable(&lab, &guessing, &asked, &said, &what);
        }
        // It said a text that ends it.
        let whole_answer = whole(guessing.generate(greedy(asked.clone())).unwrap());
        let bytes = |at: usize| whole_answer.logprobs[at].bytes.clone();
        let stop = [bytes(10), bytes(11)].concat();
        let stopping = Generate {
            stop: vec![String::from_utf8(stop).unwrap()],
            ..greedy(asked.clone())
        };
        let stopped = whole(guessing.generate(stopping).unwrap());
        assert!(stopped.tokens().len() <= 12, "{architecture}");
        let what = format!("{architecture}, stopped");
        assert_reusable(&lab, &guessing, &asked, &stopped.tokens(), &what);
    }
}

#[test]
fn a_prompt_that_begins_like_another_slots_is_guessed_as_well() {
    for architecture in ARCHITECTURES {
        let lab = Lab::new(architecture, 1);
        let guessing = start(&lab.settings(SpeculationMode::Draft, 8, Some(1)));
        let first = prompt(PROMPTS[0]);
        whole(guessing.generate(greedy(first.clone())).unwrap());
        let mut second = first[..60].to_vec();
        second.extend([400, 401, 402]);
        // Both at once: one shares what the other has.
        let asked = [first.clone(), second.clone()];
        let events: Vec<_> = asked
            .iter()
            .map(|prompt| guessing.generate(greedy(prompt.clone())).unwrap())
            .collect();
        for (prompt, events) in asked.iter().zip(events) {
            let answer = whole(events);
            assert!(answer.cached >= 60, "{architecture}");
            assert_likeliest(&lab.plain, prompt, &answer.tokens(), architecture.name());
            assert_mostly_right(&answer.finish, architecture.name());
        }
    }
}

#[test]
fn where_cells_run_out_answers_wait_and_go_on_right() {
    for architecture in ARCHITECTURES {
        let lab = Lab::new(architecture, 1);
        let mut options = lab.settings(SpeculationMode::Draft, 8, Some(1));
        options.context = Some(256);
        let guessing = start(&options);
        let asked: Vec<_> = [70, 75, 80].map(prompt).to_vec();
        let events: Vec<_> = asked
            .iter()
            .map(|prompt| guessing.generate(greedy(prompt.clone())).unwrap())
            .collect();
        for (prompt, events) in asked.iter().zip(events) {
            let answer = whole(events);
            assert_eq!(answer.finish.completion_tokens, LENGTH, "{architecture}");
            assert_likeliest(&lab.plain, prompt, &answer.tokens(), architecture.name());
        }
    }
}

/// Half of the layers are recurrent: what was computed for wrong guesses is taken back from their states.
#[test]
fn heads_of_hybrid_models_change_no_token() {
    let lab = Lab::new(Architecture::Qwen35, 2);
    for (mode, windows) in [
        (SpeculationMode::Draft, Some(1)),
        (SpeculationMode::Auto, Some(1)),
        (SpeculationMode::Auto, None),
    ] {
        let guessing = start(&lab.settings(mode, 8, windows));
        let guesses = lab.check(&guessing, &format!("{mode}, {windows:?}"));
        println!("{mode}, {windows:?}: {guesses:?}");
        if windows.is_some() {
            assert!(
                guesses.accepted > 10 && guesses.wasted > 10,
                "{mode}: {guesses:?}"
            );
        }
    }
    let guessing = one_slot(&lab);
    let mut asked = prompt(PROMPTS[1]);
    for most in [5, 13, 24, 7] {
        let limited = Generate {
            max_tokens: Some(most),
            ..greedy(asked.clone())
        };
        let answer = whole(guessing.generate(limited).unwrap());
        assert_likeliest(&lab.plain, &asked, &answer.tokens(), "one after the other");
        asked.extend(answer.tokens());
        asked.extend([400, 401]);
    }
}
