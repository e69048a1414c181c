//! Models that several machines of a mesh serve together.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::harness::{DEADLINE, Kind, Signal, Start, eventually, model};
use crate::lab::{self, Machine, MeshLab, assert_same, exact, serving, using};

/// A start that uses one thread, as machines of the lab share cores.
fn calm(start: Start) -> Start {
    start.flag("--threads", "1")
}

/// A start of a machine that joins, and was told to serve nothing.
fn lending(token: &str) -> Start {
    calm(lab::lending()).flag("--join", token)
}

/// What a machine alone says.
fn expected(kind: Kind) -> Value {
    let daemon = calm(Start::model(model(kind)))
        .flag("--ctx-size", "1024")
        .flag("--parallel", "2")
        .ready();
    let body = json!({"prompt": "Once upon a time", "max_tokens": 16, "temperature": 0});
    daemon.post("/v1/completions", &body).ok()["choices"][0]["text"].clone()
}

/// Waits for a group of so many machines; the ids of its machines.
pub fn until_group(lab: &MeshLab, machine: &Machine, machines: usize) -> Vec<String> {
    eventually(&format!("a group of {machines} machines"), DEADLINE, || {
        let status = lab.try_status(machine)?;
        let group = status["groups"].as_array()?.first()?["machines"]
            .as_array()?
            .clone();
        // A host may have the output alone.
        let all_have_layers = group[1..]
            .iter()
            .all(|machine| machine["layers"].as_u64() > Some(0));
        let ids = group
            .iter()
            .map(|machine| machine["node"].as_str().unwrap().to_owned());
        (group.len() == machines && all_have_layers).then(|| ids.collect())
    })
}

#[test]
fn a_model_that_is_to_be_split_is_served_by_both_machines_and_answers_as_on_one() {
    let test = "a_model_that_is_to_be_split_is_served_by_both_machines_and_answers_as_on_one";
    let Some(lab) = MeshLab::start(test, 3) else {
        return;
    };
    let expected = expected(Kind::Endless);
    let first = lab.machine(0, calm(serving(Kind::Endless)).word("--split"));
    let token = first.invite();
    // Alone it has nobody to share with.
    let health = first.until_health("more_peers_needed");
    assert!(health.contains("Waiting for more peers: need "), "{health}");
    let second = lab.machine(1, lending(&token));
    let laptop = lab.machine(2, using().flag("--join", &token));
    let group = until_group(&lab, &laptop, 2);
    assert_eq!(group, [lab.id(&first), lab.id(&second)]);
    for machine in [&first, &second, &laptop] {
        machine.until_models(1);
        assert_eq!(machine.ask("endless"), expected);
    }
    let notice = lab.status(&second)["notice"].to_string();
    assert!(
        notice.contains("this machine's memory serves endless"),
        "{notice}"
    );
    // When the host goes, what it was lent is back.
    assert!(lab.command(&first, &["stop"]).status.success());
    eventually(
        "the second machine serves a model of its own again",
        DEADLINE,
        || (lab.try_status(&second)?["notice"].is_null()).then_some(()),
    );
}

#[test]
fn a_model_that_does_not_fit_waits_starts_when_a_machine_joins_and_moves_when_that_one_dies() {
    let test = "a_model_that_does_not_fit_waits_starts_when_a_machine_joins_and_moves_when_that_one_dies";
    let Some(lab) = MeshLab::start(test, 3) else {
        return;
    };
    let expected = expected(Kind::Forgetless);
    let first = lab.machine(0, calm(serving(Kind::Forgetless)).flag("--max-memory", "0.12"));
    let token = first.invite();
    let health = first.until_health("more_peers_needed");
    assert!(health.contains("have 120 MB"), "{health}");
    let second = lab.machine(1, lending(&token));
    let third = lab.machine(2, lending(&token));
    let group = until_group(&lab, &first, 2);
    assert_eq!(first.ask("forgetless"), expected);
    let workers = [(lab.id(&second), &second), (lab.id(&third), &third)];
    let (used, spare): (Vec<_>, Vec<_>) = workers.iter().partition(|(id, _)| *id == group[1]);
    used[0].1.process.signal(Signal::KILL);
    eventually("the group has the other machine", DEADLINE, || {
        let group = until_group(&lab, &first, 2);
        (group[1] == spare[0].0).then_some(())
    });
    first.until_models(1);
    assert_eq!(first.ask("forgetless"), expected);
    // And where nobody is left, it waits again.
    spare[0].1.process.signal(Signal::KILL);
    first.until_health("more_peers_needed");
}

#[test]
fn a_worker_that_is_told_to_stop_lets_the_host_end_its_answer() {
    let test = "a_worker_that_is_told_to_stop_lets_the_host_end_its_answer";
    let Some(lab) = MeshLab::start(test, 2) else {
        return;
    };
    let start = exact(calm(serving(Kind::Endless))).flag("--ctx-size", "8192");
    let first = lab.machine(0, start.word("--split"));
    let mut second = lab.machine(1, lending(&first.invite()));
    until_group(&lab, &first, 2);
    first.until_models(1);
    let body =
        json!({"model": "endless", "prompt": "Once upon a time", "max_tokens": 1_000, "temperature": 0});
    // The first time its prompt is computed, later it is found, which makes another answer.
    let [_, whole] = [(); 2].map(|()| first.stream("/v1/completions", &body).outcome().text);
    let mut stream = first.stream("/v1/completions", &body);
    let begun = stream.next_text();
    lab.said(&second, &["stop"]);
    let outcome = stream.outcome();
    assert_eq!((outcome.broken, outcome.error), (None, None));
    assert!(outcome.done);
    assert_same(&(begun + &outcome.text), &whole);
    assert_eq!(second.process.end(DEADLINE).code(), Some(0));
    first.until_health("more_peers_needed");
}

#[test]
fn of_two_machines_that_want_a_model_neither_holds_one_is_the_host_and_both_answer() {
    let test = "of_two_machines_that_want_a_model_neither_holds_one_is_the_host_and_both_answer";
    let Some(lab) = MeshLab::start(test, 2) else {
        return;
    };
    let expected = expected(Kind::Endless);
    let wants = || calm(serving(Kind::Endless)).word("--split");
    let first = lab.machine(0, wants());
    let token = first.invite();
    let second = lab.machine(1, wants().flag("--join", &token));
    let groups = [&first, &second].map(|machine| until_group(&lab, machine, 2));
    assert_eq!(groups[0], groups[1], "both know the same one");
    for machine in [&first, &second] {
        machine.until_models(1);
        assert_eq!(machine.ask("endless"), expected);
    }
}

#[test]
fn machines_that_are_too_far_away_share_no_model() {
    let Some(lab) = MeshLab::start("machines_that_are_too_far_away_share_no_model", 2) else {
        return;
    };
    lab.network.set_rtt(std::time::Duration::from_millis(40));
    let first = lab.machine(
        0,
        calm(serving(Kind::Endless))
            .word("--split")
            .flag("--max-rtt", "20"),
    );
    let token = first.invite();
    let second = lab.machine(1, lending(&token));
    eventually("both are connected and measured", DEADLINE, || {
        let status = lab.try_status(&first)?;
        (status["nodes"][0]["rtt_ms"].as_f64()? > 20.0).then_some(())
    });
    second.until_models(1);
    let health = first.until_health("more_peers_needed");
    assert!(health.contains("Waiting for more peers"), "{health}");
    // The plan follows the network.
    lab.network.set_rtt(std::time::Duration::from_millis(2));
    until_group(&lab, &first, 2);
}

/// The models that machines of different memory are told to serve. The first fits on none of them.
const MODELS: [(&str, Kind); 3] = [
    ("forgetless", Kind::Forgetless),
    ("endless", Kind::Endless),
    ("least", Kind::Least),
];

/// One of these machines; the last is told nothing, and has the memory that the first one lacks.
fn uneven(number: usize) -> Start {
    let start = match MODELS.get(number) {
        Some((_, kind)) => serving(*kind),
        None => lab::lending(),
    };
    calm(start).flag("--max-memory", ["0.12", "0.05", "0.04", "0.6"][number])
}

/// Waits until these of the models can be asked for at all of the machines, and asks for them.
fn until_served<'a>(
    machines: impl Iterator<Item = &'a Machine>,
    models: &[usize],
    expected: &[Value; MODELS.len()],
) {
    for machine in machines {
        eventually(&format!("models {models:?} are served"), DEADLINE, || {
            let served = machine.models()?;
            let numbers =
                (0..MODELS.len()).filter(|number| served.iter().any(|name| name == MODELS[*number].0));
            (numbers.collect::<Vec<_>>() == models).then_some(())
        });
        for number in models {
            let name = MODELS[*number].0;
            assert_eq!(machine.ask(name), expected[*number], "{name}");
        }
    }
}

#[test]
fn four_uneven_machines_serve_three_models_one_of_them_split_in_whatever_order_they_come_and_go() {
    let test = "four_uneven_machines_serve_three_models_one_of_them_split_in_whatever_order_they_come_and_go";
    let expected = MODELS.map(|(_, kind)| expected(kind));
    for order in [[0, 1, 2, 3], [3, 2, 1, 0]] {
        let Some(lab) = MeshLab::start(test, 4) else {
            return;
        };
        let founder = lab.machine(order[0], uneven(order[0]));
        let token = founder.invite();
        let mut machines = BTreeMap::from([(order[0], founder)]);
        for number in order.into_iter().skip(1) {
            let machine = lab.machine(number, uneven(number).flag("--join", &token));
            machines.insert(number, machine);
        }
        until_served(machines.values(), &[0, 1, 2], &expected);
        let group = until_group(&lab, &machines[&1], 2);
        assert_eq!(
            group,
            [&machines[&0], &machines[&3]].map(|machine| lab.id(machine))
        );
        // Whoever goes takes along what only it has, and nothing else; and is back without a token. The starts keep the
        // folders.
        let mut starts = Vec::new();
        for number in order {
            let gone = machines.remove(&number).unwrap();
            starts.push(gone.start.clone());
            let home = gone.home().to_owned();
            drop(gone);
            let left: Vec<usize> = (0..MODELS.len())
                .filter(|model| *model != number && (*model, number) != (0, 3))
                .collect();
            until_served(machines.values(), &left, &expected);
            machines.insert(number, lab.machine(number, uneven(number).home(home)));
            until_served(machines.values(), &[0, 1, 2], &expected);
        }
    }
}
