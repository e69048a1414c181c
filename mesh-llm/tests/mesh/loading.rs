//! Several models on one machine, which come and go while it runs.

use llama_engine::gguf::random::Architecture;
use serde_json::json;

use crate::harness::{Kind, model};
use crate::lab::{self, MeshLab, serving, using};

#[test]
fn a_machine_serves_several_models_and_loads_and_drops_them_while_it_runs() {
    let test = "a_machine_serves_several_models_and_loads_and_drops_them_while_it_runs";
    let Some(lab) = MeshLab::start(test, 2) else {
        return;
    };
    let path = |kind| model(kind).to_str().unwrap().to_owned();
    let several = serving(Kind::Endless)
        .flag("--threads", "1")
        .word("--model")
        .word(path(Kind::Least));
    let first = lab.machine(0, several);
    let token = first.invite();
    let laptop = lab.machine(1, using().flag("--join", &token));
    for machine in [&first, &laptop] {
        let mut models = machine.until_models(2);
        models.sort();
        assert_eq!(models, ["endless", "least"]);
    }
    let said = ["endless", "least"].map(|model| first.ask(model));
    assert_ne!(said[0], said[1]);
    assert_eq!(["endless", "least"].map(|model| laptop.ask(model)), said);
    // One more, which both can ask from then on.
    let third = path(Kind::Of(Architecture::Qwen2));
    assert!(lab.command(&first, &["load", &third]).status.success());
    let models = laptop.until_models(3);
    let name = models
        .iter()
        .find(|name| !["endless", "least"].contains(&name.as_str()));
    let name = name.unwrap().clone();
    first.until_models(3);
    assert_eq!(laptop.ask(&name), first.ask(&name));
    let error = |words: &[&str]| {
        let output = lab.command(&first, words);
        assert!(!output.status.success(), "{words:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let twice = error(&["load", &third]);
    assert!(twice.contains("is served here already"), "{twice}");
    let unknown = error(&["drop", "none"]);
    assert!(unknown.contains("endless, least"), "{unknown}");
    // They go as they came, the first one, too, and others stay.
    for (dropped, left) in [("least", 2), ("endless", 1)] {
        assert!(lab.command(&first, &["drop", dropped]).status.success());
        for machine in [&first, &laptop] {
            machine.until_models(left);
        }
        let body = json!({"model": dropped, "prompt": "x"});
        let answer = laptop.post("/v1/completions", &body).error(404);
        assert_eq!(answer["code"], "model_not_found");
        assert_eq!(laptop.ask(&name), first.ask(&name));
    }
    // And back.
    assert!(
        lab.command(&first, &["load", &path(Kind::Endless)])
            .status
            .success()
    );
    laptop.until_models(2);
    assert_eq!(laptop.ask("endless"), said[0]);
}

#[test]
fn what_nobody_asked_for_comes_back_when_what_the_user_loaded_is_dropped_and_can_be_loaded_meanwhile() {
    let test =
        "what_nobody_asked_for_comes_back_when_what_the_user_loaded_is_dropped_and_can_be_loaded_meanwhile";
    let Some(lab) = MeshLab::start(test, 1) else {
        return;
    };
    let (machine, _) = lab.founder(0, lab::lending().flag("--threads", "1"));
    machine.until_only(&["tiny"]);
    let said = machine.ask("tiny");
    lab.said(&machine, &["load", model(Kind::Endless).to_str().unwrap()]);
    machine.until_only(&["endless"]);
    lab.said(&machine, &["drop", "endless"]);
    machine.until_only(&["tiny"]);
    assert_eq!(machine.ask("tiny"), said);
    // As long as one is there that it made room for, it stays away.
    lab.said(&machine, &["load", model(Kind::Endless).to_str().unwrap()]);
    lab.said(&machine, &["load", model(Kind::Least).to_str().unwrap()]);
    machine.until_only(&["endless", "least"]);
    lab.said(&machine, &["drop", "endless"]);
    machine.until_only(&["least"]);
    lab.said(&machine, &["drop", "least"]);
    machine.until_only(&["tiny"]);
    // Once more, and now its user wants the other, too.
    lab.said(&machine, &["load", model(Kind::Endless).to_str().unwrap()]);
    machine.until_only(&["endless"]);
    lab.said(&machine, &["load", "tiny"]);
    machine.until_only(&["endless", "tiny"]);
    assert_eq!(machine.ask("tiny"), said);
}
