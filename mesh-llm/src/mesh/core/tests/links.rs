//! One connection a pair.

use super::lab::{Lab, QUIET};
use super::parts::node_id;
use crate::mesh::core::{Goodbye, Part};
use crate::mesh::id::Role;
use std::time::Duration;

#[test]
fn both_dial_at_once_and_keep_the_same_one() {
    // Whichever of them has the lesser id, and whoever is a little earlier.
    for (one, other) in [(0, 1), (1, 0)] {
        for late in [0, 1, 4, 5, 6, 9, 10, 11] {
            let mut lab = Lab::of(2);
            lab.cut(0, 1);
            lab.run_for(Duration::from_secs(3));
            lab.mend_all();
            for (from, to) in [(one, other), (other, one)] {
                let contact = lab.core(from).contact(node_id(to)).unwrap();
                lab.dial(from, contact);
                lab.run_for(Duration::from_millis(late));
            }
            lab.run_for(Duration::from_millis(100));
            let (here, there) = lab.links(0, 1);
            assert!(here.is_some() && here == there, "{here:?} {there:?}");
            lab.run_for(QUIET);
            assert_eq!(lab.links(0, 1), (here, there), "it stays");
            lab.assert_see_each_other(&[0, 1]);
        }
    }
}

#[test]
fn whoever_dials_again_has_lost_the_older() {
    let mut lab = Lab::of(2);
    for (from, to) in [(0, 1), (1, 0), (0, 1)] {
        let contact = lab.core(from).contact(node_id(to)).unwrap();
        lab.dial(from, contact);
        lab.run_for(Duration::from_secs(1));
        let (here, there) = lab.links(0, 1);
        assert!(here.is_some() && here == there, "{here:?} {there:?}");
    }
    lab.assert_see_each_other(&[0, 1]);
    assert!(lab.goodbyes.iter().all(|(_, _, why)| *why == Goodbye::Duplicate));
}

#[test]
fn a_connection_that_ends_at_once_is_not_called_for_again_and_again() {
    let mut lab = Lab::of(2);
    for _ in 0..20 {
        let (here, _) = lab.links(0, 1);
        if here.is_some() {
            lab.cut(0, 1);
            lab.mend_all();
        }
        lab.run_for(Duration::from_millis(100));
    }
    // A call takes 10 ms: it could have been far more.
    assert!(lab.calls <= 8, "{}", lab.calls);
}

#[test]
fn halves_that_were_apart_know_the_same_afterwards() {
    let mut lab = Lab::of(4);
    let apart = [(0, 2), (0, 3), (1, 2), (1, 3)];
    for (one, other) in apart {
        lab.cut(one, other);
    }
    lab.run_for(Duration::from_secs(20));
    lab.assert_see_each_other(&[0, 1]);
    lab.assert_see_each_other(&[2, 3]);
    // More acts than a slow link may have messages waiting, in both.
    for (by, newcomer) in [(0, 4), (2, 5)] {
        let token = lab.invite(by, Role::Node);
        lab.start(newcomer, Part::Server, Some(&token));
        lab.run_for(Duration::from_secs(2));
        for _ in 0..300 {
            let token = lab.invite(by, Role::Worker);
            let (now, unix) = (lab.now, lab.unix());
            lab.core(by).revoke(now, token.ids()[0], unix).unwrap();
            lab.drain(by);
        }
    }
    for (one, other) in [(4, 5), (0, 5), (1, 5), (2, 4), (3, 4)] {
        lab.cut(one, other);
    }
    lab.run_for(Duration::from_secs(5));
    assert_ne!(lab.digest(0), lab.digest(2));
    lab.mend_all();
    lab.most_at_once = 0;
    lab.run_for(QUIET);
    lab.assert_see_each_other(&[0, 1, 2, 3, 4, 5]);
    assert!(lab.most_at_once < 100, "{} messages at once", lab.most_at_once);
}

#[test]
fn whose_use_of_a_token_comes_to_nothing_is_out() {
    // The same last use in two halves: the earlier counts.
    let mut lab = Lab::of(2);
    let uses = std::num::NonZeroU32::new(1);
    let token = lab.invite_with(0, Role::Node, |grant| {
        grant.uses = uses;
        let other = super::parts::address(1);
        grant.contacts.push(crate::mesh::id::Contact {
            node: node_id(1),
            addresses: vec![other],
        });
    });
    for (one, other) in [(0, 1), (0, 3), (1, 2), (2, 3)] {
        lab.cut(one, other);
    }
    lab.run_for(Duration::from_secs(5));
    lab.start(2, Part::Server, Some(&token));
    lab.run_for(Duration::from_secs(5));
    lab.start(3, Part::Server, Some(&token));
    lab.run_for(Duration::from_secs(5));
    lab.assert_see_each_other(&[0, 2]);
    lab.assert_see_each_other(&[1, 3]);
    lab.mend_all();
    lab.run_for(QUIET);
    for node in 0..3 {
        let mut others = vec![0, 1, 2];
        others.retain(|other| *other != node);
        assert_eq!(lab.sees(node), others);
        assert_eq!(lab.links(node, 3), (None, None));
    }
}
