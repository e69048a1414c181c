//! Whatever the heads were told on the way, they guess what they would if they had been told it at once.

use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::gguf::random::{self, Architecture, Spec, Words};
use crate::llama::{HeadLayers, Model, ModelParams};
use crate::rpc::tests::lab;
use crate::server::options::CacheType;

const SLOT: SlotId = SlotId(0);
/// What adding up in another order may change of a probability.
const CLOSE: f32 = 1e-3;

/// A model with heads, its context, and the heads.
struct Lab {
    _folder: TempDir,
    heads: Heads,
    target: Context,
}

/// Tokens that have nothing to do with each other.
fn text(length: usize, seed: usize) -> Vec<Token> {
    (0..length)
        .map(|n| 300 + ((n * n * 31 + n * 7919 + seed * 17) % 200) as Token)
        .collect()
}

fn load(path: &Path, heads: HeadLayers) -> Arc<Model> {
    let params = ModelParams {
        devices: Some(Vec::new()),
        gpu_layers: Some(0),
        heads,
        ..ModelParams::default()
    };
    Arc::new(Model::load(path, &params, |_| {}).unwrap())
}

impl Lab {
    /// With heads inside the model.
    fn inside(architecture: Architecture) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        let spec = Spec {
            heads: 1,
            layers: 1,
            ..random::small(architecture, 7)
        };
        spec.write(&path).unwrap();
        let model = load(&path, HeadLayers::Loaded);
        // SAFETY: the model has a head of a kind that llama.cpp knows, and it was loaded.
        let heads = unsafe { HeadsContext::of_model(lab::context_params(CacheType::F32)) };
        Self::new(folder, model, heads)
    }

    /// With an EAGLE-3 head.
    fn eagle(architecture: Architecture, words: Words) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (path, own) = (folder.path().join("model.gguf"), folder.path().join("eagle.gguf"));
        let target = Spec {
            layers: 4,
            ..random::small(architecture, 7)
        };
        target.write(&path).unwrap();
        let layers = [1, 2, 3];
        let eagle = random::Eagle {
            target,
            layers,
            mixture: 0.5,
            words,
        };
        eagle.write(&own).unwrap();
        let params = lab::context_params(CacheType::F32);
        let (model, own) = (load(&path, HeadLayers::LeftOut), load(&own, HeadLayers::LeftOut));
        // SAFETY: the head is made for the model, whose graph says what its layers are given.
        let heads = unsafe { HeadsContext::of_eagle(own, layers.to_vec(), params) };
        Self::new(folder, model, heads)
    }

    fn new(folder: TempDir, model: Arc<Model>, heads: HeadsContext) -> Self {
        let mut target = Context::new(model, lab::context_params(CacheType::F32)).unwrap();
        // SAFETY: the heads are the model's, whose context is dropped with them.
        let heads = unsafe { Heads::new(&mut target, heads, 0.0) }.unwrap();
        Self {
            _folder: folder,
            heads,
            target,
        }
    }

    /// Computes tokens of a slot, and tells the heads so many of them.
    fn compute(&mut self, slot: SlotId, position: usize, tokens: &[Token], certain: usize) {
        let mut batch = Batch::default();
        for (token, position) in tokens.iter().zip(position..) {
            batch.push(*token, position as u32, slot.0 as i32, true);
        }
        assert_eq!(self.target.decode(&mut batch).unwrap(), Decoded::Done);
        let fed = self
            .heads
            .feed(slot, position, &tokens[..certain], &mut self.target, 0);
        fed.unwrap();
        let end = (position + certain) as u32;
        assert!(self.target.truncate(slot.0 as i32, end));
    }

    /// So many guesses after `certain`, of which the model has not computed the last one.
    fn guess(&mut self, slot: SlotId, certain: &[Token], count: usize) -> Vec<Guessed> {
        let mut stream = certain.to_vec();
        let mut guesses = Vec::new();
        for _ in 0..count {
            let ask = Ask {
                slot,
                stream: &stream,
                certain: certain.len(),
            };
            let Some(guess) = self.heads.guess(&[ask]).unwrap()[0] else {
                break;
            };
            stream.push(guess.token);
            guesses.push(guess);
        }
        guesses
    }

    /// The same by heads that are told everything at once, in a slot that nobody used.
    fn guess_anew(&mut self, certain: &[Token], count: usize) -> Vec<Guessed> {
        let slot = SlotId(3);
        self.target.truncate(3, 0);
        self.heads.truncate(slot, 0);
        let known = certain.len() - 1;
        self.compute(slot, 0, &certain[..known], known);
        self.guess(slot, certain, count)
    }

    fn assert_guesses_as_if_new(&mut self, slot: SlotId, certain: &[Token], what: &str) {
        let guesses = self.guess(slot, certain, 4);
        let anew = self.guess_anew(certain, 4);
        assert_eq!(anew.len(), 4, "{what}");
        assert_same(&guesses, &anew, what);
    }
}

fn assert_same(guesses: &[Guessed], others: &[Guessed], what: &str) {
    let same = guesses
        .iter()
        .zip(others)
        .all(|(one, other)| one.token == other.token && (one.probability - other.probability).abs() < CLOSE);
    assert!(
        same && guesses.len() == others.len(),
        "{what}: {guesses:?} {others:?}"
    );
}

fn for_each_kind(check: impl Fn(Lab)) {
    for architecture in [Architecture::Glm4Moe, Architecture::DeepSeek2] {
        check(Lab::inside(architecture));
    }
    check(Lab::eagle(Architecture::Llama, Words::Own));
    check(Lab::eagle(Architecture::Qwen3, Words::Models));
    check(Lab::eagle(Architecture::GptOss, Words::Some(450)));
}

#[test]
fn rejected_guesses_leave_no_trace() {
    for_each_kind(|mut lab| {
        let text = text(60, 1);
        lab.compute(SLOT, 0, &text[..20], 20);
        // Of each window so many tokens turn out to be right, the first one always.
        let mut computed = 20;
        for (window, right) in [(4, 1), (4, 4), (1, 1), (3, 2), (5, 1), (8, 6)] {
            lab.assert_guesses_as_if_new(SLOT, &text[..=computed], &format!("{computed} computed"));
            let mut tokens = text[computed..computed + right].to_vec();
            tokens.resize(window, 301);
            lab.compute(SLOT, computed, &tokens, right);
            computed += right;
        }
        lab.assert_guesses_as_if_new(SLOT, &text[..=computed], "the end");
    });
}

#[test]
fn what_comes_in_pieces_is_as_what_comes_at_once() {
    for_each_kind(|mut lab| {
        let text = text(61, 2);
        let mut computed = 0;
        for piece in [1, 30, 2, 16, 11] {
            lab.compute(SLOT, computed, &text[computed..computed + piece], piece);
            computed += piece;
        }
        lab.assert_guesses_as_if_new(SLOT, &text, "pieces");
    });
}

#[test]
fn a_slot_that_goes_on_from_what_it_had_or_begins_anew_guesses_as_if_new() {
    for_each_kind(|mut lab| {
        let first = text(40, 3);
        lab.compute(SLOT, 0, &first[..39], 39);
        lab.guess(SLOT, &first, 3);
        lab.compute(SLOT, 39, &[first[39], 301, 302], 1);
        // Goes on from all of it.
        lab.heads.truncate(SLOT, 40);
        let longer = text(50, 3);
        lab.compute(SLOT, 40, &longer[40..49], 9);
        lab.assert_guesses_as_if_new(SLOT, &longer, "longer");
        // Computes something again that it had.
        lab.heads.truncate(SLOT, 49);
        lab.target.truncate(0, 0);
        lab.compute(SLOT, 0, &longer[..49], 49);
        lab.assert_guesses_as_if_new(SLOT, &longer, "again");
        // Has something else.
        let other = text(30, 4);
        lab.target.truncate(0, 0);
        lab.compute(SLOT, 0, &other[..29], 29);
        lab.assert_guesses_as_if_new(SLOT, &other, "other");
    });
}

#[test]
fn a_slot_that_begins_like_another_guesses_almost_as_if_new() {
    for_each_kind(|mut lab| {
        let (text, to) = (text(40, 5), SlotId(1));
        lab.compute(SLOT, 0, &text[..30], 30);
        lab.guess(SLOT, &text[..31], 3);
        // What the slot had before is gone.
        lab.compute(to, 0, &[400, 401, 402], 3);
        lab.target.truncate(1, 0);
        lab.target.share(0, 1, 25);
        lab.heads.share(SLOT, to, 25).unwrap();
        lab.compute(to, 25, &text[25..39], 14);
        let shared = lab.guess(to, &text, 4);
        let anew = lab.guess_anew(&text, 4);
        // The hidden state before the first of its own tokens is not known.
        let tokens = |guesses: &[Guessed]| guesses.iter().map(|guess| guess.token).collect::<Vec<_>>();
        assert_eq!(tokens(&shared), tokens(&anew));
        // The one that it shares with goes on as before.
        lab.compute(SLOT, 30, &text[30..39], 9);
        lab.assert_guesses_as_if_new(SLOT, &text, "the donor");
    });
}

#[test]
fn where_the_beginning_is_not_known_the_rest_has_to_do() {
    for_each_kind(|mut lab| {
        let text = text(41, 6);
        lab.compute(SLOT, 0, &text[..20], 0);
        lab.target.truncate(0, 0);
        let mut batch = Batch::default();
        for (token, position) in text[..20].iter().zip(0..) {
            batch.push(*token, position, 0, false);
        }
        lab.target.decode(&mut batch).unwrap();
        assert_eq!(lab.guess(SLOT, &text[..21], 1), [], "nothing is known");
        lab.compute(SLOT, 20, &text[20..40], 20);
        assert_eq!(lab.guess(SLOT, &text, 4).len(), 4);
        // One that begins before that is no continuation.
        lab.target.truncate(0, 10);
        lab.heads.truncate(SLOT, 10);
        lab.compute(SLOT, 10, &text[10..40], 30);
        assert_eq!(lab.guess(SLOT, &text, 4).len(), 4);
    });
}

#[test]
fn nothing_is_guessed_after_what_others_guessed() {
    for_each_kind(|mut lab| {
        let text = text(20, 7);
        lab.compute(SLOT, 0, &text[..10], 10);
        let ask = |stream| Ask {
            slot: SLOT,
            stream,
            certain: 11,
        };
        assert_eq!(lab.heads.guess(&[ask(&text[..12])]).unwrap(), [None]);
        let guess = lab.heads.guess(&[ask(&text[..11])]).unwrap()[0].unwrap();
        let other = [&text[..11], &[guess.token ^ 1]].concat();
        assert_eq!(lab.heads.guess(&[ask(&other)]).unwrap(), [None]);
        let own = [&text[..11], &[guess.token]].concat();
        assert!(lab.heads.guess(&[ask(&own)]).unwrap()[0].is_some());
    });
}

#[test]
fn guesses_that_are_not_likely_enough_are_not_made() {
    for_each_kind(|mut lab| {
        let text = text(20, 8);
        lab.compute(SLOT, 0, &text[..10], 10);
        let likely = lab.guess(SLOT, &text[..11], 1)[0].probability;
        lab.heads.least_probability = likely + 0.01;
        lab.compute(SLOT, 10, &text[10..11], 1);
        lab.heads.truncate(SLOT, 10);
        lab.target.truncate(0, 10);
        lab.compute(SLOT, 10, &text[10..11], 1);
        lab.heads.truncate(SLOT, 0);
        lab.target.truncate(0, 0);
        lab.compute(SLOT, 0, &text[..10], 10);
        assert_eq!(lab.guess(SLOT, &text[..11], 1), []);
    });
}

#[test]
fn a_full_cache_costs_guesses_and_nothing_else() {
    for_each_kind(|mut lab| {
        // More than the context, by slots that the target's cells are taken from again.
        for slot in 0..3 {
            for position in (0..240).step_by(48) {
                let text = text(48, slot as usize + position);
                lab.compute(SlotId(slot), position, &text, 48);
            }
            lab.target.truncate(slot as i32, 0);
        }
        let text = text(20, 9);
        lab.compute(SLOT, 0, &text[..19], 19);
        lab.assert_guesses_as_if_new(SLOT, &text, "after all");
    });
}
