//! Whoever is removed is out, and stays out.

use super::lab::{Lab, QUIET};
use super::parts::{key, node_id};
use crate::mesh::core::{Goodbye, Part};
use crate::mesh::id::{Role, UnixSeconds};
use crate::mesh::roster::{Act, SignedAct};
use crate::mesh::wire::{Credential, RefusedKind};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(5);

/// Three nodes; the third, which came by this token, is removed.
fn kicked() -> (Lab, crate::mesh::token::Token) {
    let mut lab = Lab::of(2);
    let token = lab.invite(1, Role::Node);
    lab.start(2, Part::Server, Some(&token));
    lab.run_for(SOON);
    lab.assert_see_each_other(&[0, 1, 2]);
    lab.kick(0, 2);
    (lab, token)
}

#[test]
fn a_kicked_node_is_out_everywhere_at_once() {
    let (mut lab, _) = kicked();
    lab.run_for(Duration::from_millis(50));
    assert_eq!(lab.sees(0), [1]);
    assert_eq!(lab.sees(1), [0]);
    assert_eq!(lab.links(0, 2), (None, None));
    assert_eq!(lab.links(1, 2), (None, None));
    for node in [0, 1] {
        assert!(lab.goodbyes.contains(&(node, 2, Goodbye::Removed)));
        assert!(
            lab.core(node)
                .members()
                .iter()
                .all(|member| member.node != node_id(2))
        );
    }
}

#[test]
fn a_kicked_node_is_not_back_by_its_certificate() {
    let (mut lab, _) = kicked();
    lab.run_for(QUIET);
    lab.restart(2, Part::Server);
    lab.run_for(QUIET);
    lab.assert_see_each_other(&[0, 1]);
    assert_eq!(lab.nodes[&2].refused.as_ref().unwrap().kind, RefusedKind::Removed);
}

#[test]
fn a_kicked_node_is_not_back_by_its_token() {
    let (mut lab, token) = kicked();
    lab.stop(2);
    // With a certificate and without.
    for forgets in [false, true] {
        if forgets {
            lab.disks.remove(&2);
        }
        lab.start(2, Part::Server, Some(&token));
        lab.run_for(QUIET);
        lab.assert_see_each_other(&[0, 1]);
        lab.stop(2);
    }
}

#[test]
fn a_kicked_node_is_not_back_by_its_token_with_another_key() {
    let (mut lab, token) = kicked();
    lab.run_for(SOON);
    lab.start(3, Part::Server, Some(&token));
    lab.run_for(QUIET);
    lab.assert_see_each_other(&[0, 1]);
    assert_eq!(
        lab.nodes[&3].refused.as_ref().unwrap().kind,
        RefusedKind::Credential
    );
}

#[test]
fn a_kicked_node_is_back_by_a_new_token() {
    let (mut lab, _) = kicked();
    lab.run_for(SOON);
    lab.stop(2);
    let token = lab.invite(0, Role::Node);
    lab.start(2, Part::Server, Some(&token));
    lab.run_for(QUIET);
    lab.assert_see_each_other(&[0, 1, 2]);
    // And from then on without it.
    lab.restart(2, Part::Server);
    lab.run_for(QUIET);
    lab.assert_see_each_other(&[0, 1, 2]);
}

#[test]
fn a_node_that_was_away_hears_of_the_kick_from_the_others() {
    let mut lab = Lab::of(3);
    lab.stop(1);
    lab.run_for(SOON);
    lab.kick(0, 2);
    lab.start(1, Part::Server, None);
    lab.run_for(QUIET);
    lab.assert_see_each_other(&[0, 1]);
}

#[test]
fn a_certificate_by_a_removed_member_lets_nobody_in() {
    let (mut lab, _) = kicked();
    let act = Act::Admit {
        subject: node_id(3),
        role: Role::Node,
        tokens: Vec::new(),
        models: None,
        at: UnixSeconds(1),
        generation: 0,
    };
    let signed = SignedAct::sign(&key(2), lab.core(0).mesh(), 0, act);
    let mut hello = lab.core(2).hello();
    hello.credential = Credential::Certificate(Box::new(signed));
    for at in [0, 1] {
        lab.run_for(SOON);
        assert_eq!(
            lab.knock(at, 3, &hello).unwrap_err().kind,
            RefusedKind::Credential
        );
    }
    lab.assert_see_each_other(&[0, 1]);
}

#[test]
fn whoever_is_removed_between_the_answer_and_the_connection_is_out() {
    let mut lab = Lab::of(3);
    let (now, unix) = (lab.now, lab.unix());
    let hello = lab.core(2).hello();
    let (admitted, _) = lab.core(1).admit(now, unix, node_id(2), &hello).unwrap();
    lab.kick(1, 2);
    let peer = crate::mesh::membership::Member {
        node: node_id(2),
        boot: hello.boot,
    };
    let link = crate::mesh::core::LinkId(u64::MAX);
    let side = crate::mesh::core::Side::Theirs;
    assert!(!lab.core(1).linked(now, link, peer, &admitted, side));
    assert_eq!(lab.core(1).link_to(node_id(2)), None);
}

#[test]
fn a_kicked_client_is_not_back_with_another_key() {
    let mut lab = Lab::of(2);
    let token = lab.invite(0, Role::Client);
    lab.start(2, Part::Client, Some(&token));
    lab.run_for(SOON);
    assert_eq!(lab.clients(0), [2]);
    lab.kick(0, 2);
    lab.run_for(SOON);
    lab.start(3, Part::Client, Some(&token));
    lab.run_for(QUIET);
    for node in [0, 1] {
        assert!(lab.clients(node).is_empty());
    }
    for client in [2, 3] {
        assert_eq!(lab.links(client, 0).0.or(lab.links(client, 1).0), None);
    }
}

#[test]
fn whoever_knew_only_the_kicked_node_finds_the_others() {
    let mut lab = Lab::of(2);
    lab.cut(0, 1);
    lab.cut(0, 2);
    lab.run_for(SOON * 2);
    let token = lab.invite(1, Role::Node);
    lab.start(2, Part::Server, Some(&token));
    lab.run_for(SOON);
    lab.assert_see_each_other(&[1, 2]);
    lab.kick(2, 1);
    lab.mend_all();
    lab.run_for(QUIET);
    lab.assert_see_each_other(&[0, 2]);
}

#[test]
fn two_that_remove_each_other_apart_are_both_out() {
    let mut lab = Lab::of(4);
    for (one, other) in [(1, 2), (1, 3), (0, 2), (0, 3)] {
        lab.cut(one, other);
    }
    lab.run_for(SOON);
    lab.kick(1, 2);
    lab.kick(2, 1);
    lab.run_for(SOON);
    lab.mend_all();
    lab.run_for(QUIET);
    lab.assert_see_each_other(&[0, 3]);
}
