//! Black-box tests of one model over several nodes: the real binary as host and workers.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

#[path = "../support/answers.rs"]
mod answers;
mod breaking;
#[path = "../blackbox/harness/mod.rs"]
#[allow(dead_code, unused_imports)]
mod harness;
mod memory;
#[path = "../support/netlab/mod.rs"]
mod netlab;
mod serving;
#[path = "../support/split/mod.rs"]
mod split;

use std::time::Duration;

use serde_json::{Value, json};

use harness::{Daemon, Kind, Start, model};
use split::SplitLab;

/// What a greedy completion says.
fn completion(daemon: &Daemon) -> Value {
    let body = json!({"prompt": "Once upon a time", "max_tokens": 32, "temperature": 0});
    let answer = daemon.post("/v1/completions", &body).ok();
    answer["choices"][0]["text"].clone()
}

#[test]
fn a_daemon_within_a_network_is_reached_from_outside() {
    let model = model(Kind::Endless);
    let test = "a_daemon_within_a_network_is_reached_from_outside";
    let Some(lab) = SplitLab::on_netlab(test, 0, model.parent().unwrap()) else {
        return;
    };
    let start = Start::model(&model);
    assert_eq!(completion(&lab.ready(&start)), completion(&start.ready()));
}

#[test]
fn a_split_over_loopback_answers_as_one_node_does() {
    let model = model(Kind::Endless);
    let alone = completion(&Start::model(&model).ready());
    let lab = SplitLab::on_loopback(2, model.parent().unwrap());
    assert_eq!(completion(&lab.ready(&lab.host(&model))), alone);
}

#[test]
fn a_split_over_a_network_answers_as_one_node_does() {
    let model = model(Kind::Endless);
    let test = "a_split_over_a_network_answers_as_one_node_does";
    let Some(lab) = SplitLab::on_netlab(test, 2, model.parent().unwrap()) else {
        return;
    };
    lab.network().set_rtt(Duration::from_millis(20));
    let alone = completion(&Start::model(&model).ready());
    assert_eq!(completion(&lab.ready(&lab.host(&model))), alone);
}
