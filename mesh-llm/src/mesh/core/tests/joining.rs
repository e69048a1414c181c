//! Who comes in, and finds the others.

use super::lab::{Lab, QUIET};
use super::parts::node_id;
use crate::mesh::core::Part;
use crate::mesh::id::Role;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(5);

#[test]
fn a_token_lets_in() {
    let mut lab = Lab::new();
    let token = lab.invite(0, Role::Node);
    lab.start(1, Part::Server, Some(&token));
    assert!(!lab.is_in(1));
    lab.run_for(SOON);
    lab.assert_see_each_other(&[0, 1]);
    assert_eq!(lab.nodes[&1].core.role(), Some(Role::Node));
}

#[test]
fn a_third_joins_through_the_second_and_all_see_each_other() {
    let mut lab = Lab::of(2);
    let token = lab.invite(1, Role::Node);
    lab.start(2, Part::Server, Some(&token));
    lab.run_for(SOON);
    lab.assert_see_each_other(&[0, 1, 2]);
    let (here, there) = lab.links(0, 2);
    assert!(here.is_some() && here == there, "{here:?} {there:?}");
}

#[test]
fn whoever_joins_while_the_issuer_is_away_joins_by_another() {
    let mut lab = Lab::of(3);
    let token = lab.invite_with(1, Role::Node, |grant| {
        let other = crate::mesh::id::Contact {
            node: node_id(2),
            addresses: vec![super::parts::address(2)],
        };
        grant.contacts.push(other);
    });
    lab.stop(1);
    lab.run_for(SOON);
    lab.start(3, Part::Server, Some(&token));
    lab.run_for(SOON);
    lab.assert_see_each_other(&[0, 2, 3]);
}

#[test]
fn a_worker_is_let_in_as_one() {
    let mut lab = Lab::of(2);
    let token = lab.invite(0, Role::Worker);
    lab.start(2, Part::Server, Some(&token));
    lab.run_for(SOON);
    lab.assert_see_each_other(&[0, 1, 2]);
    assert_eq!(lab.nodes[&2].core.role(), Some(Role::Worker));
}

#[test]
fn a_mesh_at_rest_says_the_same_for_hours() {
    let mut lab = Lab::of(4);
    lab.goodbyes.clear();
    for _ in 0..10 {
        lab.run_for(QUIET);
        lab.assert_see_each_other(&[0, 1, 2, 3]);
    }
    assert_eq!(lab.goodbyes, []);
}

#[test]
fn what_a_node_says_anew_is_seen_by_all() {
    let mut lab = Lab::of(3);
    lab.rename(2, "renamed");
    lab.run_for(Duration::from_secs(1));
    for node in [0, 1] {
        let view = lab.nodes[&node].core.view();
        assert!(view.nodes.iter().any(|seen| seen.state.name == "renamed"));
    }
}

#[test]
fn a_node_that_goes_is_gone_at_once() {
    let mut lab = Lab::of(3);
    // Even where each packet that says so is lost.
    lab.deaf.insert(2);
    lab.leave(2);
    lab.run_for(Duration::from_millis(100));
    lab.assert_see_each_other(&[0, 1]);
}

#[test]
fn a_node_that_has_gone_comes_back() {
    let mut lab = Lab::of(3);
    lab.leave(2);
    lab.run_for(SOON);
    lab.start(2, Part::Server, None);
    lab.run_for(SOON);
    lab.assert_see_each_other(&[0, 1, 2]);
}
