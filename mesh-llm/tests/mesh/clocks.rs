//! Machines whose clocks are wrong.

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::clock;
use crate::harness::{Kind, Signal, Start};
use crate::lab::{MeshLab, serving, using};

const HOUR: i64 = 3600;

#[test]
fn machines_whose_clocks_are_hours_apart_are_one_mesh() {
    let Some(lab) = MeshLab::start("machines_whose_clocks_are_hours_apart_are_one_mesh", 3) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let library = clock::library(folder.path());
    let shifted = |start: Start, seconds: i64| {
        start
            .variable("LD_PRELOAD", &library)
            .variable(clock::AHEAD, seconds.to_string())
    };
    // The library does what it is for.
    let date = Command::new("date")
        .arg("+%s")
        .env("LD_PRELOAD", &library)
        .env(clock::AHEAD, HOUR.to_string())
        .output()
        .unwrap();
    let seconds: u64 = String::from_utf8(date.stdout).unwrap().trim().parse().unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert!(seconds >= now + 3600 - 60, "{seconds} where it is {now}");

    let (first, token) = lab.founder(0, serving(Kind::Endless));
    let second = lab.machine(1, shifted(serving(Kind::Least).flag("--join", &token), HOUR));
    let laptop = lab.machine(2, shifted(using().flag("--join", &token), -HOUR));
    let all_answer = |machines: [&crate::lab::Machine; 3]| {
        let mut said = machines.map(|machine| {
            machine.until_models(2);
            ["endless", "least"].map(|model| machine.ask(model))
        });
        said.sort();
        assert_eq!(said[0], said[2]);
    };
    all_answer([&first, &second, &laptop]);
    // What the one with the clock ahead says does not outlive it, nor is it taken for old when it is back, with its clock set
    // right: an hour earlier than before.
    let (start, home) = (second.start.clone(), second.home().to_owned());
    second.process.signal(Signal::KILL);
    drop(second);
    for machine in [&first, &laptop] {
        assert_eq!(machine.until_models(1), ["endless"]);
    }
    let second = lab.machine(1, serving(Kind::Least).home(home));
    all_answer([&first, &second, &laptop]);
    // And what it signs counts.
    let id = lab.id(&first);
    lab.said(&second, &["kick", &id[..12], "--yes"]);
    assert_eq!(first.until_models(1), ["endless"]);
    assert_eq!(second.until_models(1), ["least"]);
    drop(start);
}
