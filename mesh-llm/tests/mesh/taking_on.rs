//! Machines that were told to serve nothing, and take on what the mesh lacks.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{DEADLINE, Kind, Signal, Start, eventually, model};
use crate::lab::{self, Machine, MeshLab, serving};
use crate::splitting::until_group;

/// A folder with these models.
fn store(kinds: &[Kind]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for kind in kinds {
        let from = model(*kind);
        let to: PathBuf = folder.path().join(from.file_name().unwrap());
        fs::copy(from, to).unwrap();
    }
    folder
}

/// A start of a machine that was told nothing, and has these models. Of them it serves the largest.
fn told_nothing(store: &TempDir) -> Start {
    lab::lending()
        .flag("--threads", "1")
        .variable("MESH_LLM_MODELS", store.path().to_str().unwrap())
}

/// Whether a machine itself is ready to answer with this model.
fn serves(lab: &MeshLab, machine: &Machine, name: &str) -> Option<bool> {
    let status = lab.try_status(machine)?;
    let mut models = status["this"]["models"].as_array()?.iter();
    Some(models.any(|model| model["name"] == name && model["stage"] == "ready"))
}

/// Waits until it is.
fn until_serves(lab: &MeshLab, machine: &Machine, name: &str) {
    eventually(&format!("it serves {name} itself"), DEADLINE, || {
        serves(lab, machine, name)?.then_some(())
    });
}

#[test]
fn what_another_has_no_room_for_is_taken_on_and_is_the_user_s_once_the_user_says_so() {
    let test = "what_another_has_no_room_for_is_taken_on_and_is_the_user_s_once_the_user_says_so";
    let Some(lab) = MeshLab::start(test, 2) else {
        return;
    };
    let store = store(&[Kind::Endless, Kind::Forgetless]);
    let (second, token) = lab.founder(0, told_nothing(&store));
    second.until_only(&["forgetless"]);
    let wants = serving(Kind::Endless)
        .flag("--threads", "1")
        .flag("--max-memory", "0.004")
        .flag("--join", &token);
    let first = lab.machine(1, wants);
    for machine in [&first, &second] {
        machine.until_only(&["endless", "forgetless"]);
    }
    assert_eq!(first.ask("endless"), second.ask("endless"));
    assert_eq!(
        lab.status(&first)["groups"],
        json!([]),
        "it is served by one machine"
    );
    eventually("the first machine leaves it to the second", DEADLINE, || {
        let notice = lab.status(&first)["notice"].to_string();
        notice.contains("endless is served by").then_some(())
    });
    // All know who has what.
    let on_disk = lab.status(&first)["nodes"][0]["on_disk"].clone();
    let names: Vec<&Value> = on_disk
        .as_array()
        .unwrap()
        .iter()
        .map(|model| &model["name"])
        .collect();
    assert_eq!(names, ["endless", "forgetless"]);
    // The user of the second machine wants it, too: whatever others want, it stays, and goes when that user says so.
    lab.said(&second, &["load", "endless"]);
    lab.said(&first, &["drop", "endless"]);
    eventually("nobody else wants it", DEADLINE, || {
        let status = lab.try_status(&first)?;
        (status["this"]["models"] == json!([])).then_some(())
    });
    until_serves(&lab, &second, "endless");
    assert_eq!(first.ask("endless"), second.ask("endless"));
    lab.said(&second, &["drop", "endless"]);
    first.until_only(&["forgetless"]);
}

#[test]
fn a_machine_whose_own_model_has_no_room_ends_alone_and_stays_where_it_came_for_others() {
    let test = "a_machine_whose_own_model_has_no_room_ends_alone_and_stays_where_it_came_for_others";
    let Some(lab) = MeshLab::start(test, 2) else {
        return;
    };
    let store = store(&[Kind::Endless]);
    let small = told_nothing(&store).flag("--max-memory", "0.001");
    let ended = lab.ended(1, &small);
    let why = |line: &String| line.contains(" MB free on");
    assert!(ended.err.iter().any(why), "{:?}", ended.err);
    assert_ne!(ended.code, Some(0));
    let (first, token) = lab.founder(0, serving(Kind::Least));
    let second = lab.machine(1, small.flag("--join", &token));
    eventually("it says why it serves nothing", DEADLINE, || {
        let notice = lab.try_status(&second)?["notice"].to_string();
        notice.contains("has no memory for it now").then_some(())
    });
    second.until_models(1);
    assert_eq!(second.ask("least"), first.ask("least"));
}

#[test]
fn what_nobody_asked_for_makes_room_for_what_is_wanted_and_comes_back() {
    let test = "what_nobody_asked_for_makes_room_for_what_is_wanted_and_comes_back";
    let Some(lab) = MeshLab::start(test, 2) else {
        return;
    };
    // It serves what it served last, with 4 MB of its 548. What the other wants is reckoned with 545.
    let store = store(&[Kind::Endless, Kind::Forgetless]);
    let path = store.path().join("endless.gguf");
    let used = told_nothing(&store).flag("--model", path);
    let (mut once, _) = lab.founder(0, used.clone());
    once.process.signal(Signal::TERM);
    once.process.end(DEADLINE);
    let home = once.home().to_owned();
    drop(once);
    let start = told_nothing(&store).flag("--max-memory", "0.548").home(home);
    let (second, token) = lab.founder(0, start);
    second.until_only(&["endless"]);
    let wants = serving(Kind::Forgetless)
        .flag("--threads", "1")
        .flag("--ctx-size", "4096")
        .flag("--max-memory", "0.004")
        .flag("--join", &token);
    let first = lab.machine(1, wants);
    for machine in [&first, &second] {
        machine.until_only(&["forgetless"]);
    }
    assert_eq!(first.ask("forgetless"), second.ask("forgetless"));
    let notice = lab.status(&second)["notice"].to_string();
    assert!(notice.contains("this machine serves forgetless"), "{notice}");
    lab.said(&first, &["drop", "forgetless"]);
    second.until_only(&["endless"]);
    assert_eq!(lab.status(&second)["notice"], Value::Null);
}

#[test]
fn where_what_is_taken_on_needs_more_than_was_reckoned_the_other_makes_room_after_all() {
    let test = "where_what_is_taken_on_needs_more_than_was_reckoned_the_other_makes_room_after_all";
    let Some(lab) = MeshLab::start(test, 2) else {
        return;
    };
    let store = store(&[Kind::Endless, Kind::Least]);
    let start = told_nothing(&store).flag("--parallel", "2");
    // What the larger one really takes, and a little more: enough for the weights of the other, not for its buffers.
    let mut alone = lab.machine(0, start.clone().flag("--log-format", "json"));
    let ready = alone.process.err.line("\"message\":\"ready\"", DEADLINE);
    let ready: Value = serde_json::from_str(&ready).unwrap();
    let number = |name: &str| ready[name].as_u64().unwrap();
    let most = number("model_bytes") + number("context_bytes") + 1_000_000;
    // By then it is known as the model that ran last.
    lab.said(&alone, &["stop"]);
    alone.process.end(DEADLINE);
    let home = alone.home().to_owned();
    let most = format!("{:.6}", most as f64 / 1e9);
    let (second, token) = lab.founder(0, start.flag("--max-memory", most).word("-vv").home(home));
    second.until_only(&["endless"]);
    let wants = serving(Kind::Least)
        .flag("--threads", "1")
        .flag("--max-memory", "0.0001")
        .flag("--join", &token);
    let first = lab.machine(1, wants);
    second
        .process
        .err
        .line("it needs more than was reckoned", DEADLINE);
    until_serves(&lab, &second, "least");
    assert_eq!(first.ask("least"), second.ask("least"));
    lab.said(&first, &["drop", "least"]);
    second.until_only(&["endless"]);
}

#[test]
fn what_is_asked_for_more_than_it_can_answer_gets_a_copy() {
    let test = "what_is_asked_for_more_than_it_can_answer_gets_a_copy";
    let Some(lab) = MeshLab::start(test, 2) else {
        return;
    };
    let (first, token) = lab.founder(0, serving(Kind::Endless).flag("--threads", "1"));
    let store = store(&[Kind::Endless, Kind::Forgetless]);
    let second = lab.machine(1, told_nothing(&store).flag("--join", &token));
    for machine in [&first, &second] {
        machine.until_only(&["endless", "forgetless"]);
    }
    let expected = first.ask("endless");
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for number in 0..6 {
            let (first, is_over) = (&first, &is_over);
            scope.spawn(move || {
                // Conversations of their own, which take a while.
                let prompt = format!("Conversation {number}: ");
                let body = json!({"model": "endless", "prompt": prompt, "max_tokens": 400, "temperature": 0});
                while !is_over.load(Ordering::Relaxed) {
                    first.post("/v1/completions", &body).ok();
                }
            });
        }
        until_serves(&lab, &second, "endless");
        is_over.store(true, Ordering::Relaxed);
    });
    assert_eq!(second.ask("endless"), expected);
    // It stays as long as the model is wanted.
    lab.said(&first, &["drop", "endless"]);
    for machine in [&first, &second] {
        machine.until_only(&["forgetless"]);
    }
}

#[test]
fn what_a_machine_served_that_died_is_served_by_one_of_those_that_have_it() {
    let test = "what_a_machine_served_that_died_is_served_by_one_of_those_that_have_it";
    let Some(lab) = MeshLab::start(test, 3) else {
        return;
    };
    let start = serving(Kind::Endless).flag("--threads", "1");
    let (first, token) = lab.founder(0, start.clone());
    let store = store(&[Kind::Endless, Kind::Forgetless]);
    let others = [1, 2].map(|number| lab.machine(number, told_nothing(&store).flag("--join", &token)));
    for machine in &others {
        machine.until_only(&["endless", "forgetless"]);
    }
    let expected = others[0].ask("endless");
    first.process.signal(Signal::KILL);
    let has_it = |machine: &Machine| serves(&lab, machine, "endless");
    eventually("one of them serves it", DEADLINE, || {
        (has_it(&others[0])? || has_it(&others[1])?).then_some(())
    });
    for machine in &others {
        machine.until_only(&["endless", "forgetless"]);
        assert_eq!(machine.ask("endless"), expected);
    }
    let count = others.iter().filter(|machine| has_it(machine).unwrap()).count();
    assert_eq!(count, 1, "one is enough");
    // The dead one is back, and drops it: then nobody wants it.
    let home = first.home().to_owned();
    // The start keeps the folder.
    let _started = first.start.clone();
    drop(first);
    let first = lab.machine(0, start.home(home));
    until_serves(&lab, &first, "endless");
    lab.said(&first, &["drop", "endless"]);
    others[0].until_only(&["forgetless"]);
}

#[test]
fn a_model_that_was_split_outlives_its_host_where_others_have_the_file_and_the_room() {
    let test = "a_model_that_was_split_outlives_its_host_where_others_have_the_file_and_the_room";
    let Some(lab) = MeshLab::start(test, 3) else {
        return;
    };
    // It needs 545 MB, which nobody has. The others serve the embedded model until their memory is wanted.
    let start = |start: Start, gigabytes: &str| {
        start
            .flag("--threads", "1")
            .flag("--ctx-size", "4096")
            .flag("--max-memory", gigabytes)
    };
    let first = lab.machine(0, start(serving(Kind::Forgetless), "0.5"));
    let token = first.invite();
    let store = store(&[Kind::Forgetless]);
    let others = [1, 2].map(|number| {
        let other = start(told_nothing(&store), "0.54");
        lab.machine(number, other.flag("--join", &token))
    });
    until_serves(&lab, &first, "forgetless");
    let expected = others[0].ask("forgetless");
    let died = lab.id(&first);
    first.process.signal(Signal::KILL);
    eventually("the others serve it together", DEADLINE, || {
        let machines = until_group(&lab, &others[0], 2);
        (!machines.contains(&died)).then_some(())
    });
    for machine in &others {
        eventually("it can be asked for", DEADLINE, || {
            machine.models()?.contains(&"forgetless".to_owned()).then_some(())
        });
        assert_eq!(machine.ask("forgetless"), expected);
    }
}
