//! What a node has kept is enough to be back, and what it is to be.

use super::lab::{Lab, QUIET};
use super::parts::node_id;
use crate::mesh::core::Part;
use crate::mesh::id::Role;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(5);

#[test]
fn any_of_them_is_back_without_a_token() {
    for node in 0..3 {
        let mut lab = Lab::of(3);
        lab.restart(node, Part::Server);
        lab.run_for(SOON);
        lab.assert_see_each_other(&[0, 1, 2]);
    }
}

#[test]
fn all_of_them_are_back_without_a_token() {
    let mut lab = Lab::of(4);
    for node in 0..4 {
        lab.stop(node);
    }
    lab.run_for(Duration::from_secs(60));
    for node in [2, 0, 3, 1] {
        lab.start(node, Part::Server, None);
        lab.run_for(Duration::from_secs(1));
    }
    lab.run_for(QUIET);
    lab.assert_see_each_other(&[0, 1, 2, 3]);
}

#[test]
fn the_founder_is_not_needed() {
    let mut lab = Lab::of(3);
    lab.stop(0);
    lab.stop(2);
    lab.run_for(SOON);
    lab.start(2, Part::Server, None);
    lab.run_for(SOON);
    lab.assert_see_each_other(&[1, 2]);
    let token = lab.invite(2, Role::Node);
    lab.start(3, Part::Server, Some(&token));
    lab.run_for(SOON);
    lab.assert_see_each_other(&[1, 2, 3]);
}

#[test]
fn a_client_is_back_without_a_token() {
    let mut lab = Lab::of(2);
    let token = lab.invite(0, Role::Client);
    lab.start(2, Part::Client, Some(&token));
    lab.run_for(SOON);
    lab.restart(2, Part::Client);
    lab.run_for(SOON);
    assert_eq!(lab.sees(2), [0, 1]);
}

#[test]
fn a_new_run_takes_the_place_of_the_old_connection() {
    let mut lab = Lab::of(2);
    let (before, _) = lab.links(0, 1);
    lab.restart(1, Part::Server);
    // The old connection has not timed out yet.
    lab.run_for(Duration::from_secs(1));
    let (here, there) = lab.links(0, 1);
    assert_eq!(here, there);
    assert!(here.is_some() && here != before);
    lab.run_for(QUIET);
    assert_eq!(lab.links(0, 1), (here, there));
    lab.assert_see_each_other(&[0, 1]);
}

#[test]
fn a_node_that_was_declared_dead_and_is_not_comes_back() {
    let mut lab = Lab::of(3);
    let boot = lab.core(2).boot();
    lab.cut(0, 2);
    lab.cut(1, 2);
    lab.run_for(Duration::from_secs(30));
    assert_eq!(lab.sees(0), [1]);
    assert!(lab.sees(2).is_empty());
    lab.mend_all();
    lab.run_for(QUIET);
    lab.assert_see_each_other(&[0, 1, 2]);
    assert!(lab.core(2).boot() > boot, "it goes on in a later run");
}

#[test]
fn a_client_with_a_new_token_becomes_a_node() {
    let mut lab = Lab::of(2);
    let token = lab.invite(0, Role::Client);
    lab.start(2, Part::Client, Some(&token));
    lab.run_for(SOON);
    lab.stop(2);
    lab.run_for(SOON);
    let token = lab.invite(0, Role::Node);
    lab.start(2, Part::Server, Some(&token));
    lab.run_for(Duration::from_secs(30));
    lab.assert_see_each_other(&[0, 1, 2]);
}

#[test]
fn a_token_of_old_does_not_keep_a_member_out() {
    let mut lab = Lab::of(2);
    let unix = lab.unix();
    let old = lab.invite_with(0, Role::Node, |grant| grant.expires = Some(unix.after(SOON)));
    lab.run_for(SOON * 2);
    lab.stop(1);
    // As where it is in the command line of a service.
    lab.start(1, Part::Server, Some(&old));
    lab.run_for(Duration::from_secs(30));
    lab.assert_see_each_other(&[0, 1]);
}

#[test]
fn a_node_restarts_as_a_client_and_as_a_node_again() {
    let mut lab = Lab::of(3);
    lab.restart(2, Part::Client);
    lab.run_for(SOON * 3);
    assert_eq!(lab.sees(2), [0, 1]);
    assert_eq!(lab.sees(0), [1]);
    assert_eq!(lab.core(2).role(), Some(Role::Client));
    lab.restart(2, Part::Server);
    lab.run_for(QUIET);
    lab.assert_see_each_other(&[0, 1, 2]);
    assert!(
        lab.core(0)
            .members()
            .iter()
            .any(|member| member.node == node_id(2))
    );
}
