//! Heads, inside a model or made for it, change no token of its answers, however their guesses end.

use std::path::{Path, PathBuf};

use super::architectures::{LENGTH, PROMPTS, greedy, prompt};
use super::{assert_likeliest, cancelled_after, options, start, whole};
use crate::gguf::random::{self, Architecture, Eagle, Spec, Words};
use crate::llama::Token;
use crate::server::engine::Engine;
use crate::server::engine::speculation::acceptance::SourceKind;
use crate::server::engine::task::{Finish, Generate};
use crate::server::guesses::Guesses;
use crate::server::load::load;
use crate::server::options::{CacheType, Draft, Options, Origin, Speculation, SpeculationMode};
use tempfile::TempDir;

const ARCHITECTURES: [Architecture; 2] = [Architecture::DeepSeek2, Architecture::Glm4Moe];
/// Of an EAGLE-3 head that is mostly right, and of one that is not.
const LITTLE_MIXED: f32 = 0.05;
const MUCH_MIXED: f32 = 0.6;

/// A model with a head, what it says by itself, and the folder that it is in.
struct Lab {
    name: String,
    folder: TempDir,
    /// An EAGLE-3 head, unless the model's own is meant.
    eagle: Option<PathBuf>,
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
        Self::of(architecture.to_string(), folder, None)
    }

    /// An EAGLE-3 head for a model whose layers add little to what a token says by itself.
    fn eagle(architecture: Architecture, mixture: f32, words: Words) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let target = Spec {
            layers: 4,
            layers_weight: 0.05,
            ..random::small(architecture, 7)
        };
        target.write(folder.path().join("model.gguf")).unwrap();
        let path = folder.path().join("eagle.gguf");
        let eagle = Eagle {
            target,
            layers: [1, 2, 3],
            mixture,
            words,
        };
        eagle.write(&path).unwrap();
        Self::of(format!("EAGLE-3 for {architecture}"), folder, Some(path))
    }

    /// Without any.
    fn plain(spec: &Spec) -> Self {
        let folder = tempfile::tempdir().unwrap();
        spec.write(folder.path().join("model.gguf")).unwrap();
        Self::of(spec.architecture.to_string(), folder, None)
    }

    /// Those that are mostly right.
    fn good() -> impl Iterator<Item = Self> {
        let inside = ARCHITECTURES
            .into_iter()
            .map(|architecture| Self::new(architecture, 1));
        let eagles = [
            (Architecture::Llama, Words::Own),
            (Architecture::Qwen3, Words::Models),
            (Architecture::Qwen3Moe, Words::Some(500)),
            (Architecture::GptOss, Words::Own),
        ];
        let eagles = eagles.into_iter();
        inside.chain(eagles.map(|(architecture, words)| Self::eagle(architecture, LITTLE_MIXED, words)))
    }

    fn of(name: String, folder: TempDir, eagle: Option<PathBuf>) -> Self {
        let plain = start(&settings(&folder, SpeculationMode::Off, 8, None));
        let ask = |length: &u32| whole(plain.generate(greedy(prompt(*length))).unwrap()).tokens();
        let answers = PROMPTS.iter().map(ask).collect();
        Self {
            name,
            folder,
            eagle,
            plain,
            answers,
        }
    }

    fn settings(&self, mode: SpeculationMode, most_window: u32, windows: Option<u32>) -> Options {
        let mut options = settings(&self.folder, mode, most_window, windows);
        options.speculation.draft = self.eagle.clone().map(|path| Draft {
            path,
            origin: Origin::Asked,
        });
        options
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
    for lab in Lab::good() {
        for mode in [SpeculationMode::Draft, SpeculationMode::Auto] {
            let guessing = start(&lab.settings(mode, 8, Some(1)));
            let what = format!("{}, {mode}", lab.name);
            let guesses = lab.check(&guessing, &what);
            println!("{what}: {guesses:?}");
            assert!(guesses.accepted > guesses.wasted, "{what}: {guesses:?}");
        }
    }
}

#[test]
fn bad_heads_are_mostly_wrong_and_change_no_token() {
    // Not GLM-4-MoE, for what is said of it in `architectures`.
    let labs = [
        Lab::new(Architecture::DeepSeek2, 4),
        Lab::eagle(Architecture::Llama, MUCH_MIXED, Words::Own),
    ];
    let windows = [(8, Some(1)), (2, Some(1)), (8, None)];
    for (lab, (most_window, windows)) in labs.iter().flat_map(|lab| windows.map(|window| (lab, window))) {
        let what = format!("{}, {most_window} tokens, {windows:?}", lab.name);
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
    for lab in Lab::good() {
        let name = &lab.name;
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
            let what = format!("{name}, {most} tokens");
            assert_reusable(&lab, &guessing, &asked, &said, &what);
        }
        // Nobody listens any more.
        for pieces in [1, 9] {
            let mut endless = greedy(asked.clone());
            endless.max_tokens = None;
            let said = cancelled_after(&guessing, endless, pieces);
            let what = format!("{name}, cancelled after {}", said.len());
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
        assert!(stopped.tokens().len() <= 12, "{name}");
        let what = format!("{name}, stopped");
        assert_reusable(&lab, &guessing, &asked, &stopped.tokens(), &what);
    }
}

#[test]
fn a_prompt_that_begins_like_another_slots_is_guessed_as_well() {
    for lab in Lab::good() {
        let name = &lab.name;
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
            assert!(answer.cached >= 60, "{name}");
            assert_likeliest(&lab.plain, prompt, &answer.tokens(), name);
            assert_mostly_right(&answer.finish, name);
        }
    }
}

#[test]
fn where_cells_run_out_answers_wait_and_go_on_right() {
    for lab in Lab::good() {
        let name = &lab.name;
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
            assert_eq!(answer.finish.completion_tokens, LENGTH, "{name}");
            assert_likeliest(&lab.plain, prompt, &answer.tokens(), name);
        }
    }
}

/// Half of the layers are recurrent: what was computed for wrong guesses is taken back from their states.
#[test]
fn heads_of_hybrid_models_change_no_token() {
    check_hybrid(&Lab::new(Architecture::Qwen35, 2));
    check_hybrid(&Lab::eagle(Architecture::Qwen35, MUCH_MIXED / 2.0, Words::Own));
}

fn check_hybrid(lab: &Lab) {
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
    let guessing = one_slot(lab);
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

/// What is said of an EAGLE-3 head that a user named.
fn refusal(lab: &Lab, eagle: &Eagle) -> String {
    let path = lab.folder.path().join("other.gguf");
    eagle.write(&path).unwrap();
    let mut options = lab.settings(SpeculationMode::Auto, 8, None);
    options.speculation.draft = Some(Draft {
        path,
        origin: Origin::Asked,
    });
    load(&options)
        .err()
        .map_or_else(String::new, |refused| refused.message)
}

#[test]
fn an_eagle_head_that_is_made_for_another_model_is_refused_with_the_reason() {
    let lab = Lab::eagle(Architecture::Llama, LITTLE_MIXED, Words::Own);
    let small = random::small(Architecture::Llama, 7);
    let right = Eagle {
        target: small.clone(),
        layers: [0, 1, 3],
        mixture: LITTLE_MIXED,
        words: Words::Own,
    };
    assert_eq!(refusal(&lab, &right), "");
    let of_target = |target| Eagle {
        target,
        ..right.clone()
    };
    let longer = of_target(Spec {
        embedding_length: 256,
        head_length: 64,
        ..small.clone()
    });
    let deeper = Eagle {
        layers: [1, 2, 4],
        ..right.clone()
    };
    let wordier = of_target(Spec {
        vocabulary_size: 600,
        ..small
    });
    let cases = [
        (longer, "hidden states of 256 numbers, and the model's have 128"),
        (deeper, "before layer 4, and the model has 4"),
        (wordier, "it knows 600 tokens, and the model 512"),
    ];
    for (eagle, why) in cases {
        let message = refusal(&lab, &eagle);
        assert!(
            message.contains(why) && message.contains("leave it out"),
            "{message}"
        );
    }
    // Layers that guess for themselves are none of the model's others.
    let spec = Spec {
        heads: 1,
        ..random::small(Architecture::Qwen35, 7)
    };
    let beyond = Eagle {
        layers: [0, 1, spec.layers],
        ..of_target(spec.clone())
    };
    let message = refusal(&Lab::plain(&spec), &beyond);
    assert!(
        message.contains("before layer 4, and the model has 4"),
        "{message}"
    );
    // llama.cpp's graph of these does not say what its layers are given.
    let message = refusal(&Lab::plain(&random::small(Architecture::Qwen2, 7)), &right);
    assert!(message.contains("layers of qwen2 models"), "{message}");
}

#[test]
fn in_a_split_an_eagle_head_rests_and_answers_are_the_same() {
    let lab = Lab::eagle(Architecture::Llama, LITTLE_MIXED, Words::Own);
    let mut options = lab.settings(SpeculationMode::Draft, 8, None);
    super::split(&mut options, 1);
    let split = start(&options);
    let answer = whole(split.generate(greedy(prompt(PROMPTS[0]))).unwrap());
    assert_likeliest(&lab.plain, &prompt(PROMPTS[0]), &answer.tokens(), "in a split");
    assert_eq!(of_heads(&answer.finish), Guesses::default());
}
