//! Where no direct path leads, a relay does.

use serde_json::json;

use crate::harness::{Kind, Stream};
use crate::lab::{Machine, MeshLab, assert_same, exact, serving, using};

/// Tokens of a long answer: it is under way for longer than its path takes to change.
const LONG: usize = 2_000;

/// Begins a long answer.
fn long(machine: &Machine) -> Stream {
    let body =
        json!({"model": "endless", "prompt": "Once upon a time", "max_tokens": LONG, "temperature": 0});
    machine.stream("/v1/completions", &body)
}

#[test]
fn machines_that_reach_only_a_relay_are_one_mesh() {
    let Some(lab) = MeshLab::with_relay("machines_that_reach_only_a_relay_are_one_mesh", 3) else {
        return;
    };
    for (one, other) in [(0, 1), (0, 2), (1, 2)] {
        lab.network.set_apart(one, other, true);
    }
    let (first, token) = lab.founder(0, lab.relayed(serving(Kind::Endless)));
    let second = lab.machine(1, lab.relayed(serving(Kind::Least).flag("--join", &token)));
    let laptop = lab.machine(2, lab.relayed(using().flag("--join", &token)));
    for machine in [&first, &second, &laptop] {
        machine.until_models(2);
    }
    let [endless, least] = [first.ask("endless"), second.ask("least")];
    for machine in [&first, &second, &laptop] {
        assert_eq!(machine.ask("endless"), endless);
        assert_eq!(machine.ask("least"), least);
    }
    // The client is connected to both, by now.
    for (machine, other) in [
        (&first, &second),
        (&second, &first),
        (&first, &laptop),
        (&laptop, &first),
        (&laptop, &second),
    ] {
        lab.until_path(machine, other, "relay");
    }
}

#[test]
fn answers_go_on_through_a_relay_where_the_direct_path_breaks() {
    let test = "answers_go_on_through_a_relay_where_the_direct_path_breaks";
    let Some(lab) = MeshLab::with_full_relay(test, 3) else {
        return;
    };
    let start = exact(serving(Kind::Endless)).flag("--ctx-size", "8192");
    let (first, token) = lab.founder(0, lab.relayed(start));
    let second = lab.machine(1, lab.relayed(serving(Kind::Least).flag("--join", &token)));
    let laptop = lab.machine(2, lab.relayed(using().flag("--join", &token)));
    let others = [&second, &laptop];
    for other in others {
        other.until_models(2);
        lab.until_path(&first, other, "direct");
    }
    // The first time its prompt is computed, later it is found, which makes another answer.
    let [_, whole] = [(); 2].map(|()| long(&first).outcome().text);
    // A node, whose silence the first one would take for its death, and a client. One after the other: together their
    // answers would be computed otherwise than alone.
    for other in others {
        let mut stream = long(other);
        let begun = stream.next_text();
        lab.network.set_apart(first.host, other.host, true);
        lab.until_path(&first, other, "relay");
        let outcome = stream.outcome();
        assert_eq!((outcome.broken, outcome.error), (None, None));
        assert!(outcome.done);
        assert_same(&(begun + &outcome.text), &whole);
        lab.network.set_apart(first.host, other.host, false);
    }
    // iroh looks for a direct path again once a minute.
    for other in others {
        lab.until_path(&first, other, "direct");
        lab.until_path(other, &first, "direct");
    }
}

#[test]
fn machines_behind_routers_of_their_own_come_to_direct_paths() {
    let test = "machines_behind_routers_of_their_own_come_to_direct_paths";
    let Some(lab) = MeshLab::with_full_relay(test, 3) else {
        return;
    };
    for machine in 0..3 {
        lab.network.put_behind_router(machine);
    }
    let (first, token) = lab.founder(0, lab.relayed(serving(Kind::Endless)));
    let second = lab.machine(1, lab.relayed(serving(Kind::Least).flag("--join", &token)));
    let laptop = lab.machine(2, lab.relayed(using().flag("--join", &token)));
    let machines = [&first, &second, &laptop];
    for machine in machines {
        machine.until_models(2);
    }
    let [endless, least] = [first.ask("endless"), second.ask("least")];
    for machine in machines {
        assert_eq!(machine.ask("endless"), endless);
        assert_eq!(machine.ask("least"), least);
    }
    for (machine, other) in [(&first, &second), (&first, &laptop), (&second, &laptop)] {
        lab.until_path(machine, other, "direct");
        lab.until_path(other, machine, "direct");
    }
}
