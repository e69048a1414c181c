//! Machines that go, and what is there of the program's own commands.

use crate::harness::{DEADLINE, Kind, eventually};
use crate::lab::{MeshLab, serving};

#[test]
fn a_machine_that_is_told_to_stop_is_gone_from_the_others_at_once() {
    let Some(lab) = MeshLab::start(
        "a_machine_that_is_told_to_stop_is_gone_from_the_others_at_once",
        2,
    ) else {
        return;
    };
    let (first, token) = lab.founder(0, serving(Kind::Endless));
    let mut second = lab.machine(1, serving(Kind::Least).flag("--join", &token));
    first.until_models(2);
    second.until_models(2);
    lab.said(&second, &["stop"]);
    assert_eq!(second.process.end(DEADLINE).code(), Some(0));
    eventually("it is gone", DEADLINE, || {
        (first.models()? == ["endless"]).then_some(())
    });
}

#[test]
fn a_machine_that_is_told_to_stop_says_goodbye_each_time() {
    const TIMES: usize = 8;
    let Some(lab) = MeshLab::start("a_machine_that_is_told_to_stop_says_goodbye_each_time", 2) else {
        return;
    };
    let first = lab.machine(0, serving(Kind::Endless).word("-vv"));
    let mut second = lab.machine(1, serving(Kind::Least).flag("--join", first.invite()));
    // It keeps the folder.
    let start = second.start.clone();
    for time in 1..=TIMES {
        first.until_models(2);
        let before = first.process.err.so_far().len();
        lab.said(&second, &["stop"]);
        assert_eq!(second.process.end(DEADLINE).code(), Some(0));
        first
            .process
            .err
            .wait_for(&format!("goodbye {time}"), DEADLINE, |lines| {
                let mut since = lines[before..].iter();
                since
                    .any(|line| line.contains("a member says goodbye"))
                    .then_some(())
            });
        first.until_models(1);
        second = lab.machine(1, serving(Kind::Least).home(start.home_path()));
    }
}
