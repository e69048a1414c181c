//! Who gets in, and who does not.

use crate::harness::{DEADLINE, Kind, Signal};
use crate::lab::{MeshLab, serving, using};

#[test]
fn who_has_no_good_token_is_told_why_at_once() {
    let Some(lab) = MeshLab::start("who_has_no_good_token_is_told_why_at_once", 3) else {
        return;
    };
    let (first, token) = lab.founder(0, serving(Kind::Least));
    let refused = |token: &str, words: &str| {
        let ended = lab.ended(1, &using().flag("--join", token));
        assert_eq!(ended.code, Some(77), "{:?}", ended.err);
        let told = ended.err.join("\n");
        assert!(told.contains(words), "{told}");
    };
    // Changed, or cut off, it is none at all.
    for (text, words) in [
        (token[..token.len() - 9].to_owned(), "token"),
        ("mesh1abc".to_owned(), "token"),
    ] {
        let ended = lab.ended(1, &using().flag("--join", &text));
        assert_eq!(ended.code, Some(64), "{:?}", ended.err);
        assert!(ended.err.join("\n").contains(words), "{:?}", ended.err);
    }
    let revoked = lab.said(&first, &["token", "create", "--role", "client"]);
    lab.said(&first, &["token", "revoke", &revoked]);
    refused(&revoked, "revoked");
    // One use is one machine.
    let once = lab.said(&first, &["token", "create", "--role", "client", "--uses", "1"]);
    let laptop = lab.machine(1, using().flag("--join", &once));
    laptop.until_models(1);
    let late = lab.ended(2, &using().flag("--join", &once));
    assert_eq!(late.code, Some(77), "{:?}", late.err);
    // A client's token makes no server.
    let client = lab.said(&first, &["token", "create", "--role", "client"]);
    let ended = lab.ended(2, &serving(Kind::Least).flag("--join", &client));
    assert_eq!(ended.code, Some(77), "{:?}", ended.err);
    assert!(ended.err.join("\n").contains("--client"), "{:?}", ended.err);
    assert_eq!(lab.status(&first)["nodes"].as_array().unwrap().len(), 0);
}

#[test]
fn what_a_token_says_can_be_read_without_a_mesh() {
    let Some(lab) = MeshLab::start("what_a_token_says_can_be_read_without_a_mesh", 1) else {
        return;
    };
    let (first, token) = lab.founder(0, serving(Kind::Least));
    assert!(token.len() <= 500, "{} characters", token.len());
    let said = lab.said(&first, &["token", "inspect", &token]);
    let address = lab.network.address(0).to_string();
    assert!(said.contains("node") && said.contains(&address), "{said}");
    // Nobody but the user of this daemon sees the token.
    let status = lab.status(&first);
    assert_eq!(status["mesh"]["invite"], token.as_str());
}

#[test]
fn a_machine_whose_host_never_answers_serves_itself_meanwhile_and_joins_once_that_one_does() {
    let test = "a_machine_whose_host_never_answers_serves_itself_meanwhile_and_joins_once_that_one_does";
    let Some(lab) = MeshLab::start(test, 2) else {
        return;
    };
    let (first, token) = lab.founder(0, serving(Kind::Endless));
    first.process.signal(Signal::STOP);
    let second = lab.machine(1, serving(Kind::Least).flag("--join", &token));
    assert_eq!(second.until_models(1), ["least"]);
    second.ask("least");
    second
        .process
        .err
        .line("nobody of the mesh was reached yet", DEADLINE);
    first.process.signal(Signal::CONT);
    for machine in [&first, &second] {
        machine.until_models(2);
    }
}

#[test]
fn a_machine_that_is_put_out_is_out_and_does_not_come_back() {
    let Some(lab) = MeshLab::start("a_machine_that_is_put_out_is_out_and_does_not_come_back", 4) else {
        return;
    };
    let ([first, second, laptop], token) = lab.household();
    let members = lab.said(&first, &["members"]);
    assert_eq!(
        members.lines().filter(|line| line.contains("here")).count(),
        3,
        "{members}"
    );
    // Any node may do it.
    let id = lab.id(&second);
    lab.said(&first, &["kick", &id[..12], "--yes"]);
    for machine in [&first, &laptop] {
        assert_eq!(machine.until_models(1), ["endless"]);
    }
    assert_eq!(second.until_models(1), ["least"]);
    second.process.err.line("removed from the mesh", DEADLINE);
    // Its place in the mesh is gone, and the token that it came by lets nobody in any more.
    let home = second.home().to_owned();
    let kept = second.start.clone();
    drop(second);
    let again = lab.machine(1, serving(Kind::Least).home(home));
    again.until_models(1);
    again.process.err.line("removed from the mesh", DEADLINE);
    let stranger = lab.ended(3, &using().flag("--join", &token));
    assert_eq!(stranger.code, Some(77), "{:?}", stranger.err);
    assert_eq!(first.models().unwrap(), ["endless"]);
    drop(kept);
}
