//! Who is a member, and what for.

use super::*;
use crate::mesh::roster::Refused;

#[test]
fn the_founder_is_a_node_by_definition_until_a_node_removes_it() {
    let mut roster = roster([sign(FOUNDER, admit(ANNE, Role::Node, 1))]);
    let standing = roster.standing(mesh().founder()).unwrap();
    assert_eq!((standing.role, standing.generation), (Role::Node, 0));
    assert_eq!((standing.since, standing.admitted_by), (at(0), mesh().founder()));
    roster.take(sign(ANNE, admit(FOUNDER, Role::Client, 2)));
    assert_eq!(
        roster.role_of(FOUNDER),
        Some(Role::Node),
        "nobody can demote it by an admission"
    );
    roster.take(roster.remove(&KEYS[ANNE], NODES[FOUNDER], at(3)).unwrap());
    assert_eq!(roster.role_of(FOUNDER), None);
    roster.take(
        roster
            .admit(&KEYS[ANNE], NODES[FOUNDER], Role::Worker, vec![], None, at(3))
            .unwrap(),
    );
    assert_eq!(roster.role_of(FOUNDER), Some(Role::Worker));
}

#[test]
fn members_are_those_whom_nodes_admit_and_whom_those_admit() {
    let roster = at_work();
    let roles: Vec<_> = (0..5).map(|player| roster.role_of(player)).collect();
    let expected = [Role::Node, Role::Node, Role::Node, Role::Worker, Role::Client];
    assert_eq!(roles, expected.map(Some));
    assert_eq!(roster.listed().len(), 5);
    assert_eq!(roster.standing(NODES[DAN]).unwrap().admitted_by, NODES[BEN]);
}

#[test]
fn what_clients_workers_and_strangers_sign_counts_for_nothing() {
    let mut roster = at_work();
    let before = (roster.digest(), roster.listed());
    for player in [CLEO, DAN, 5] {
        let acts = [
            admit(6, Role::Node, 10),
            remove(FOUNDER, 0),
            remove(ANNE, 7),
            Act::Revoke {
                token: token(1),
                at: at(10),
            },
        ];
        for act in acts {
            assert_eq!(roster.add(sign(player, act)), Ok(Added::Waiting));
        }
    }
    assert_eq!((roster.digest(), roster.listed()), before);
    assert!(!roster.is_revoked(token(1)));
    assert_eq!(roster.ids().count(), 4);
    assert_eq!(roster.missing_from(&[]).len(), 4, "nor is it passed on");
}

#[test]
fn acts_count_as_soon_as_their_signers_admission_has_come() {
    let mut roster = Roster::new(mesh());
    assert_eq!(
        roster.add(sign(BEN, admit(CLEO, Role::Worker, 3))),
        Ok(Added::Waiting)
    );
    assert_eq!(
        roster.add(sign(ANNE, admit(BEN, Role::Node, 2))),
        Ok(Added::Waiting)
    );
    assert!(!roster.is_member(BEN) && !roster.is_member(CLEO));
    roster.take(sign(FOUNDER, admit(ANNE, Role::Node, 1)));
    assert_eq!(roster.role_of(CLEO), Some(Role::Worker));
    assert_eq!(roster.ids().count(), 3);
}

#[test]
fn an_old_admission_has_no_effect_after_the_removal() {
    let admission = sign(FOUNDER, admit(ANNE, Role::Node, 1));
    let mut roster = roster([admission.clone(), sign(FOUNDER, remove(ANNE, 0))]);
    assert_eq!(roster.role_of(ANNE), None);
    assert_eq!(roster.add(admission), Ok(Added::Known));
    // Nor has another one of the same generation, however new it says it is.
    roster.take(sign(FOUNDER, admit(ANNE, Role::Node, 1_000_000)));
    assert_eq!(roster.role_of(ANNE), None);
}

#[test]
fn a_removal_that_comes_before_the_admission_ends_it_all_the_same() {
    let mut roster = roster([sign(FOUNDER, remove(ANNE, 0))]);
    roster.take(sign(FOUNDER, admit(ANNE, Role::Node, 1)));
    assert_eq!(roster.role_of(ANNE), None);
}

#[test]
fn who_was_removed_gets_in_again_by_the_next_generation() {
    let mut roster = at_work();
    for generation in 0..3 {
        roster.take(roster.remove(&KEYS[ANNE], NODES[CLEO], at(10)).unwrap());
        assert_eq!(roster.role_of(CLEO), None);
        roster.take(
            roster
                .admit(&KEYS[BEN], NODES[CLEO], Role::Client, vec![], None, at(11))
                .unwrap(),
        );
        assert_eq!(roster.standing(NODES[CLEO]).unwrap().generation, generation + 1);
    }
}

#[test]
fn two_that_remove_each_other_are_both_out_and_those_whom_they_admitted_stay() {
    let mut roster = at_work();
    let one = roster.remove(&KEYS[ANNE], NODES[BEN], at(10)).unwrap();
    let other = roster.remove(&KEYS[BEN], NODES[ANNE], at(10)).unwrap();
    roster.take(one);
    roster.take(other);
    assert!(!roster.is_member(ANNE) && !roster.is_member(BEN));
    assert_eq!(roster.role_of(CLEO), Some(Role::Worker));
}

#[test]
fn the_newest_admission_says_what_for_even_by_a_clock_that_is_behind() {
    let mut roster = roster([sign(FOUNDER, admit(ANNE, Role::Client, 7200))]);
    let act = roster.admit(
        &KEYS[FOUNDER],
        NODES[ANNE],
        Role::Worker,
        vec![],
        Some(vec!["qwen".into()]),
        at(3600),
    );
    roster.take(act.unwrap());
    let standing = roster.standing(NODES[ANNE]).unwrap();
    assert_eq!(
        (standing.role, standing.models),
        (Role::Worker, Some(vec!["qwen".into()]))
    );
    roster.take(sign(FOUNDER, admit(ANNE, Role::Node, 5)));
    assert_eq!(
        roster.role_of(ANNE),
        Some(Role::Worker),
        "an older one says nothing"
    );
}

#[test]
fn only_nodes_decide_and_only_while_they_are_members() {
    let mut roster = at_work();
    roster.take(roster.remove(&KEYS[FOUNDER], NODES[ANNE], at(8)).unwrap());
    for (player, role) in [
        (ANNE, None),
        (CLEO, Some(Role::Worker)),
        (DAN, Some(Role::Client)),
        (5, None),
    ] {
        let refused = Refused::NotGoverning {
            node: NODES[player],
            role,
        };
        let key = &KEYS[player];
        let admitted = roster.admit(key, NODES[6], Role::Client, vec![], None, at(9));
        assert_eq!(admitted, Err(refused.clone()));
        assert_eq!(roster.remove(key, NODES[FOUNDER], at(9)), Err(refused.clone()));
        assert_eq!(roster.revoke(key, token(1), at(9)), Err(refused));
    }
}

#[test]
fn who_was_removed_with_the_last_generation_needs_another_key() {
    let mut roster = at_work();
    roster.take(sign(ANNE, remove(DAN, u32::MAX)));
    let refused = Refused::RemovedForEver { subject: NODES[DAN] };
    let admitted = roster.admit(&KEYS[ANNE], NODES[DAN], Role::Client, vec![], None, at(9));
    assert_eq!(admitted, Err(refused.clone()));
    assert_eq!(roster.remove(&KEYS[ANNE], NODES[DAN], at(9)), Err(refused));
}

#[test]
fn a_removal_ends_generations_that_were_skipped() {
    let mut roster = at_work();
    roster.take(sign(ANNE, admit_by(vec![], DAN, Role::Client, 5, 40)));
    roster.take(roster.remove(&KEYS[ANNE], NODES[DAN], at(9)).unwrap());
    assert_eq!(roster.role_of(DAN), None);
    roster.take(
        roster
            .admit(&KEYS[ANNE], NODES[DAN], Role::Client, vec![], None, at(9))
            .unwrap(),
    );
    assert_eq!(roster.standing(NODES[DAN]).unwrap().generation, 41);
}

#[test]
fn what_acts_amount_to_is_computed_once_for_each_change() {
    let mut roster = at_work();
    assert!(roster.view.get().is_none(), "nobody has asked yet");
    assert!(roster.is_member(ANNE));
    let computed: *const _ = roster.view();
    let _ = (roster.listed(), roster.digest(), roster.uses(token(1)));
    assert!(std::ptr::eq(computed, roster.view()));
    roster.add(sign(DAN, remove(ANNE, 0))).unwrap();
    assert!(
        std::ptr::eq(computed, roster.view()),
        "an act that waits changes nothing"
    );
    roster.take(sign(ANNE, remove(DAN, 0)));
    assert!(roster.view.get().is_none());
}
