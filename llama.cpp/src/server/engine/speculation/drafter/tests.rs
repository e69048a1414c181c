//! What the drafter tells.

use std::sync::mpsc::channel;

use super::*;
use crate::gguf::random::Architecture;
use crate::llama::ModelParams;
use crate::rpc::tests::lab::{Sample, context_params};
use crate::server::options::CacheType;

#[test]
fn how_long_a_prompt_takes_does_not_pass_for_what_a_guess_takes() {
    let sample = Sample::new(Architecture::Llama);
    let model = Arc::new(Model::load(&sample.path, &ModelParams::default(), |_| {}).unwrap());
    let params = DrafterParams {
        model,
        context: context_params(CacheType::F32),
        least_probability: 0.0,
    };
    let (tell, told) = channel();
    let mut drafter = Drafter::start(params, move |drafts| {
        drafts.into_iter().for_each(|draft| tell.send(draft).unwrap())
    })
    .unwrap();
    let next = || match told.recv_timeout(Duration::from_secs(20)).unwrap() {
        Draft::Token(drafted) => drafted,
        other => panic!("{other:?}"),
    };
    let prompt: Vec<Token> = (0..50).map(|number| 300 + number).collect();
    drafter.follow(SlotId(0), Revision(1), 0, prompt, 53);
    drafter.tell();
    let guesses = [next(), next(), next()];
    let timed = guesses.map(|guess| guess.time.is_some());
    assert_eq!(timed, [false, true, true], "the first one read a prompt");
    // Another token than the last guess.
    let right = guesses[2].token % 200 + 301;
    drafter.follow(SlotId(0), Revision(2), 52, vec![right], 54);
    drafter.tell();
    assert!(next().time.is_some(), "it read a token");
}
