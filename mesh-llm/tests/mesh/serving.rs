//! Every machine of a mesh answers for all of its models.

use serde_json::json;

use crate::harness::{DEADLINE, Kind, Signal, Start, eventually, model};
use crate::lab::{MeshLab, serving, using};

#[test]
fn a_workstation_a_second_machine_and_a_laptop_serve_the_same_models() {
    let test = "a_workstation_a_second_machine_and_a_laptop_serve_the_same_models";
    let Some(lab) = MeshLab::start(test, 3) else {
        return;
    };
    let alone = |kind| {
        let daemon = Start::model(model(kind))
            .flag("--ctx-size", "1024")
            .flag("--parallel", "2")
            .ready();
        let body = json!({"prompt": "Once upon a time", "max_tokens": 16, "temperature": 0});
        daemon.post("/v1/completions", &body).ok()["choices"][0]["text"].clone()
    };
    let ([first, second, laptop], _) = lab.household();
    let [endless, least] = [alone(Kind::Endless), alone(Kind::Least)];
    for machine in [&first, &second, &laptop] {
        let mut models = machine.until_models(2);
        models.sort();
        assert_eq!(models, ["endless", "least"]);
        assert_eq!(machine.ask("endless"), endless);
        assert_eq!(machine.ask("least"), least);
        let body = json!({"model": "none", "prompt": "x"});
        let error = machine.post("/v1/completions", &body).error(404);
        assert_eq!(error["code"], "model_not_found");
    }
    assert_eq!(laptop.get("/health").status, 200);
    // Streams, too, and in another dialect.
    let body = json!({"model": "least", "prompt": "Once upon a time", "max_tokens": 16, "temperature": 0, "stream": true});
    let stream = laptop.stream("/v1/completions", &body);
    assert_eq!(stream.outcome().text, least);
    let body = json!({"model": "endless", "max_tokens": 4, "messages": [{"role": "user", "content": "x"}]});
    assert_eq!(laptop.post("/v1/messages", &body).ok()["type"], "message");
    // What it is to the others.
    let status = lab.status(&first);
    assert_eq!(status["nodes"].as_array().unwrap().len(), 1, "{status}");
    assert_eq!(status["clients"].as_array().unwrap().len(), 1, "{status}");
    assert_eq!(status["models"].as_array().unwrap().len(), 2, "{status}");
}

#[test]
fn what_a_killed_machine_served_is_answered_by_another() {
    let Some(lab) = MeshLab::start("what_a_killed_machine_served_is_answered_by_another", 3) else {
        return;
    };
    let (first, token) = lab.founder(0, serving(Kind::Endless));
    let second = lab.machine(1, serving(Kind::Endless).flag("--join", &token));
    let laptop = lab.machine(2, using().flag("--join", &token));
    let served_by = |count: usize| {
        eventually(&format!("{count} machines serve"), DEADLINE, || {
            let status = lab.try_status(&laptop)?;
            let nodes = status["models"][0]["nodes"].as_array()?.len();
            (nodes == count).then_some(())
        });
    };
    served_by(2);
    let expected = laptop.ask("endless");
    second.process.signal(Signal::KILL);
    // Whoever is asked first, there is an answer at once.
    for _ in 0..4 {
        assert_eq!(laptop.ask("endless"), expected);
    }
    served_by(1);
    assert_eq!(first.ask("endless"), expected);
    assert_eq!(lab.status(&first)["nodes"].as_array().unwrap().len(), 0);
}

#[test]
fn machines_that_are_all_started_again_find_each_other_without_a_token() {
    let test = "machines_that_are_all_started_again_find_each_other_without_a_token";
    let Some(lab) = MeshLab::start(test, 3) else {
        return;
    };
    let ([first, second, laptop], _) = lab.household();
    let homes = [&first, &second, &laptop].map(|machine| machine.home().to_owned());
    let ids = [&first, &second, &laptop].map(|machine| lab.id(machine));
    // What is dropped is killed; the starts keep the folders.
    let kept = [first.start.clone(), second.start.clone(), laptop.start.clone()];
    drop((first, second, laptop));
    let [home, home_of_second, home_of_laptop] = homes;
    let again = [
        lab.machine(0, serving(Kind::Endless).home(home)),
        lab.machine(1, serving(Kind::Least).home(home_of_second)),
        lab.machine(2, using().home(home_of_laptop)),
    ];
    for (machine, id) in again.iter().zip(ids) {
        machine.until_models(2);
        assert_eq!(lab.id(machine), id);
    }
    drop(kept);
}

#[test]
fn the_halves_of_a_network_that_was_cut_are_one_mesh_again() {
    let Some(lab) = MeshLab::start("the_halves_of_a_network_that_was_cut_are_one_mesh_again", 2) else {
        return;
    };
    let (first, token) = lab.founder(0, serving(Kind::Endless));
    let second = lab.machine(1, serving(Kind::Least).flag("--join", &token));
    for machine in [&first, &second] {
        machine.until_models(2);
    }
    lab.network.cut(1);
    for machine in [&first, &second] {
        machine.until_models(1);
    }
    lab.network.heal(1);
    for machine in [&first, &second] {
        machine.until_models(2);
        machine.ask("least");
        machine.ask("endless");
    }
}
