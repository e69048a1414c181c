//! What becomes of the acts of somebody who was removed.

use super::*;
use crate::mesh::roster::Refused;
use proptest::prelude::*;
use std::collections::BTreeSet;

const EVE: usize = 5;
const FAY: usize = 6;

impl Roster {
    fn roles(&self) -> Vec<Option<Role>> {
        (0..8).map(|player| self.role_of(player)).collect()
    }
}

/// All that a removed player might sign afterwards, in any of its generations and with the help of a new key.
fn afterwards(by: usize) -> Vec<SignedAct> {
    let mut acts = Vec::new();
    for generation in 0..3 {
        for whom in 0..8 {
            acts.push(sign_in(
                generation,
                by,
                admit_by(vec![], whom, Role::Node, 0, generation),
            ));
            acts.push(sign_in(generation, by, remove(whom, generation)));
            acts.push(sign_in(generation, FAY, remove(whom, u32::MAX)));
        }
    }
    acts
}

#[test]
fn what_somebody_removed_signs_afterwards_counts_for_nothing_whoever_passes_it_on() {
    for removed in [ANNE, BEN] {
        let mut roster = at_work();
        roster.kick(FOUNDER, removed);
        let before = roster.listed();
        for act in afterwards(removed) {
            let _ = roster.add(act).unwrap();
            assert_eq!(roster.listed(), before);
        }
        assert_eq!(roster.lost_with(NODES[FAY]), Some(NODES[removed]));
    }
}

#[test]
fn what_the_removal_names_stands() {
    let mut roster = at_work();
    roster.kick(BEN, DAN);
    roster.take(roster.revoke(&KEYS[BEN], token(1), at(40)).unwrap());
    roster.kick(FOUNDER, BEN);
    let roles = [Some(Role::Node), Some(Role::Node), None, Some(Role::Worker), None];
    assert_eq!(roster.roles()[..5], roles);
    assert!(roster.is_revoked(token(1)) && roster.is_removed(NODES[DAN]));
}

#[test]
fn what_the_remover_had_not_heard_of_is_void() {
    let mut there = at_work();
    there.kick(BEN, DAN);
    there.take(there.revoke(&KEYS[BEN], token(1), at(40)).unwrap());
    there.let_in(BEN, EVE, Role::Worker);
    let mut here = at_work();
    here.kick(FOUNDER, BEN);
    for act in there.missing_from(&here.ids().collect::<Vec<_>>()) {
        here.take(act);
    }
    assert_eq!(here.role_of(DAN), Some(Role::Client));
    assert!(!here.is_revoked(token(1)) && !here.is_member(EVE));
    assert_eq!(here.lost_with(NODES[EVE]), Some(NODES[BEN]));
    assert!(!here.is_removed(NODES[EVE]), "she may come back by any token");
    here.let_in(FOUNDER, EVE, Role::Worker);
    assert_eq!(here.lost_with(NODES[EVE]), None);
}

#[test]
fn whom_a_void_act_admitted_is_out_with_all_it_admitted_until_another_admits_it() {
    let mut there = at_work();
    there.let_in(BEN, EVE, Role::Node);
    there.let_in(EVE, FAY, Role::Client);
    let mut here = at_work();
    here.kick(ANNE, BEN);
    for act in there.missing_from(&[]) {
        let _ = here.add(act).unwrap();
    }
    assert!(!here.is_member(EVE) && !here.is_member(FAY) && here.is_member(CLEO));
    assert_eq!(here.lost_with(NODES[FAY]), Some(NODES[EVE]));
    let role = Some(Role::Node);
    let _ = here.let_in(ANNE, EVE, Role::Node);
    assert_eq!((here.role_of(EVE), here.role_of(FAY)), (role, Some(Role::Client)));
}

#[test]
fn where_several_remove_one_that_stands_which_each_of_them_names() {
    let mut one = at_work();
    let mut other = at_work();
    let first = one.let_in(BEN, EVE, Role::Worker);
    let second = other.let_in(BEN, FAY, Role::Worker);
    one.kick(ANNE, BEN);
    other.kick(FOUNDER, BEN);
    one.take(second);
    for act in other.missing_from(&one.ids().collect::<Vec<_>>()) {
        one.take(act);
    }
    assert!(!one.is_member(EVE) && !one.is_member(FAY) && one.is_member(CLEO));
    assert_eq!(one.add(first), Ok(Added::Known));
}

#[test]
fn who_is_back_decides_again_and_what_was_void_stays_so() {
    let mut roster = at_work();
    roster.kick(ANNE, BEN);
    let early = sign_in(1, BEN, admit(EVE, Role::Node, 9));
    roster.take(sign(BEN, admit(FAY, Role::Node, 9)));
    roster.take(early);
    assert!(!roster.is_member(EVE) && !roster.is_member(FAY));
    roster.let_in(ANNE, BEN, Role::Node);
    assert!(!roster.is_member(FAY), "of his first generation");
    assert!(roster.is_member(EVE), "of the one that he has");
    let new = roster.let_in(BEN, FAY, Role::Worker);
    assert_eq!(new.in_generation(), 1);
    assert!(roster.is_member(FAY));
    // The second removal names of both generations what stood.
    roster.kick(FOUNDER, BEN);
    assert!(roster.is_member(FAY) && roster.is_member(CLEO));
    roster.take(sign_in(1, BEN, admit(7, Role::Worker, 9)));
    assert!(!roster.is_member(7));
}

#[test]
fn a_worker_who_was_a_node_before_its_removal_decides_nothing() {
    let mut roster = at_work();
    roster.kick(ANNE, BEN);
    roster.let_in(ANNE, BEN, Role::Worker);
    for generation in 0..2 {
        roster.take(sign_in(generation, BEN, admit(EVE, Role::Worker, 9)));
    }
    assert!(!roster.is_member(EVE) && roster.is_member(BEN));
}

#[test]
fn a_removal_by_somebody_removed_counts_if_it_was_known() {
    let mut known = at_work();
    let removal = known.kick(ANNE, BEN);
    known.kick(FOUNDER, ANNE);
    assert!(!known.is_member(BEN));
    let mut unknown = at_work();
    unknown.kick(FOUNDER, ANNE);
    unknown.take(removal);
    assert!(unknown.is_member(BEN), "the founder has to remove him, too");
    unknown.kick(FOUNDER, BEN);
    assert!(!unknown.is_member(BEN));
}

/// Anne and Ben have removed each other, neither knowing of it.
fn at_odds() -> Roster {
    let mut roster = at_work();
    roster.let_in(FOUNDER, EVE, Role::Node);
    let one = roster.remove(&KEYS[ANNE], NODES[BEN], at(50)).unwrap();
    let other = roster.remove(&KEYS[BEN], NODES[ANNE], at(50)).unwrap();
    roster.take(one);
    roster.take(other);
    roster
}

#[test]
fn of_what_is_disputed_removals_and_revocations_count_and_admissions_do_not() {
    let mut roster = at_odds();
    for by in [ANNE, BEN] {
        roster.take(sign(by, admit(FAY, Role::Node, 9)));
        assert!(!roster.is_member(FAY));
    }
    let revocation = Act::Revoke {
        token: token(1),
        at: at(9),
    };
    roster.take(sign(BEN, revocation));
    assert!(roster.is_revoked(token(1)));
    roster.take(sign(BEN, remove(CLEO, 0)));
    assert!(!roster.is_member(CLEO));
}

#[test]
fn whoever_removes_one_of_two_at_odds_once_more_has_decided() {
    for (out, stays) in [(BEN, ANNE), (ANNE, BEN)] {
        let mut roster = at_odds();
        assert!(!roster.is_member(ANNE) && !roster.is_member(BEN));
        roster.kick(EVE, out);
        // Ben is in by an act of Anne, which the removal lets stand.
        assert!(!roster.is_member(out) && roster.is_member(stays));
        assert_eq!(roster.role_of(CLEO), Some(Role::Worker));
    }
}

#[test]
fn whom_the_founder_removes_drags_nobody_along() {
    let mut roster = at_odds();
    roster.kick(FOUNDER, BEN);
    let before = roster.roles();
    for act in afterwards(BEN) {
        let _ = roster.add(act).unwrap();
    }
    assert_eq!(roster.roles(), before);
}

#[test]
fn a_founder_that_was_removed_lets_nobody_in_and_what_it_did_stands() {
    let mut roster = at_work();
    roster.kick(ANNE, FOUNDER);
    roster.take(sign(FOUNDER, admit(FAY, Role::Node, 0)));
    let roles = [None, Some(Role::Node), Some(Role::Node), Some(Role::Worker)];
    assert_eq!(roster.roles()[..4], roles);
    assert!(!roster.is_member(FAY));
    roster.let_in(ANNE, FOUNDER, Role::Node);
    roster.let_in(FOUNDER, EVE, Role::Node);
    assert!(!roster.is_member(FAY) && roster.is_member(EVE));
}

#[test]
fn a_disputed_removal_of_the_founder_does_not_count() {
    let mut roster = at_odds();
    roster.take(sign(BEN, remove(FOUNDER, 0)));
    assert!(roster.is_member(FOUNDER) && roster.is_member(EVE));
    assert_eq!(
        roster.remove(&KEYS[FOUNDER], NODES[BEN], at(50)).map(|_| ()),
        Ok(())
    );
}

#[test]
fn a_removal_of_the_founder_that_comes_into_dispute_is_off() {
    let mut roster = at_work();
    roster.kick(ANNE, FOUNDER);
    roster.kick(BEN, ANNE);
    assert!(!roster.is_member(FOUNDER) && roster.is_member(BEN));
    // She takes back what she did, that is, also what Ben is in by: nobody but the founder is left who could decide.
    roster.take(sign(ANNE, remove(ANNE, 0)));
    assert!(roster.is_member(FOUNDER) && !roster.is_member(BEN) && !roster.is_member(ANNE));
    roster.kick(FOUNDER, ANNE);
    // That lets nothing of the disputed stand, so Ben has to be let in once more.
    assert!(roster.is_member(FOUNDER) && !roster.is_member(BEN));
    roster.let_in(FOUNDER, BEN, Role::Node);
    assert!(roster.is_member(BEN) && roster.is_member(CLEO));
}

#[test]
fn a_founder_that_removes_whom_it_is_admitted_by_is_disputed_like_others() {
    let mut roster = roster([
        sign(FOUNDER, admit(ANNE, Role::Node, 1)),
        sign(ANNE, admit_by(vec![], FOUNDER, Role::Node, 2, 2)),
    ]);
    // By what Anne did it signs in this generation, and by what it signs Anne did not do it.
    roster.take(sign_in(2, FOUNDER, remove(ANNE, 0)));
    roster.take(sign_in(2, FOUNDER, admit(BEN, Role::Node, 3)));
    assert!(roster.is_member(FOUNDER), "by definition");
    assert!(!roster.is_member(ANNE) && !roster.is_member(BEN));
}

#[test]
fn three_that_remove_each_other_in_a_circle_are_all_out() {
    let mut roster = at_work();
    roster.let_in(FOUNDER, EVE, Role::Node);
    let circle = [(ANNE, BEN), (BEN, EVE), (EVE, ANNE)];
    let acts = circle.map(|(by, whom)| roster.remove(&KEYS[by], NODES[whom], at(50)).unwrap());
    acts.into_iter().for_each(|act| roster.take(act));
    for player in [ANNE, BEN, EVE] {
        assert!(!roster.is_member(player));
    }
    assert!(roster.is_member(FOUNDER) && roster.is_member(CLEO));
}

#[test]
fn who_leaves_of_its_own_accord_leaves_what_it_did() {
    let mut roster = at_work();
    roster.kick(BEN, BEN);
    assert!(!roster.is_member(BEN) && roster.is_member(CLEO) && roster.is_removed(NODES[BEN]));
    let refused = roster.admit(&KEYS[BEN], NODES[FAY], Role::Node, vec![], None, at(60));
    assert!(matches!(refused, Err(Refused::NotGoverning { .. })));
}

#[test]
fn a_revocation_that_is_void_is_made_again() {
    let mut roster = at_work();
    roster.kick(FOUNDER, BEN);
    let revocation = Act::Revoke {
        token: token(1),
        at: at(9),
    };
    roster.take(sign(BEN, revocation));
    assert!(!roster.is_revoked(token(1)));
    roster.take(roster.revoke(&KEYS[ANNE], token(1), at(10)).unwrap());
    assert!(roster.is_revoked(token(1)));
}

/// Three rosters that are apart: governors decide by what each knows, and sometimes two are united.
fn history(steps: &[(u8, usize, usize, usize)]) -> [Roster; 3] {
    let mut apart: [Roster; 3] = std::array::from_fn(|_| at_work());
    for &(kind, at_roster, by, whom) in steps {
        let roster = &mut apart[at_roster];
        let made = match kind {
            0..3 => roster.admit(&KEYS[by], NODES[whom], Role::Node, vec![], None, at(5)),
            3..5 => roster.remove(&KEYS[by], NODES[whom], at(6)),
            _ => {
                let news = apart[by % 3].missing_from(&[]);
                unite(&mut apart[at_roster], news);
                continue;
            }
        };
        // Only those who are nodes by that roster decide.
        if let Ok(act) = made {
            let _ = roster.add(act).unwrap();
        }
    }
    apart
}

fn unite(roster: &mut Roster, acts: Vec<SignedAct>) {
    for act in acts {
        assert_ne!(roster.add(act), Ok(Added::Waiting));
    }
}

fn any_history() -> impl Strategy<Value = Vec<(u8, usize, usize, usize)>> {
    prop::collection::vec((0u8..8, 0usize..3, 0usize..6, 0usize..6), 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn all_histories_agree_in_the_end_in_whatever_order_they_meet(steps in any_history()) {
        let apart = history(&steps);
        let mut listed = Vec::new();
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
            let mut all = Roster::new(mesh());
            order.into_iter().for_each(|which: usize| unite(&mut all, apart[which].missing_from(&[])));
            listed.push((all.listed(), all.digest()));
        }
        prop_assert!(listed.windows(2).all(|two| two[0] == two[1]));
    }

    #[test]
    fn nothing_that_somebody_removed_signs_afterwards_lets_anybody_in(
        steps in any_history(), removed in 1usize..6, by_founder in any::<bool>(),
        later in prop::collection::vec(any::<prop::sample::Index>(), 0..30),
    ) {
        let mut roster = history(&steps).into_iter().next().unwrap();
        let nodes = (0..6).filter(|player| *player != removed && roster.role_of(*player) == Some(Role::Node));
        let by = if by_founder { Some(FOUNDER).filter(|_| roster.is_member(FOUNDER)) } else { nodes.max() };
        let Some(by) = by else { return Ok(()) };
        let is_first = roster.standing(NODES[by]).is_some_and(|it| it.generation == 0);
        let removal = roster.kick(by, removed);
        let of_founder = of_founder(&roster);
        let before = roster.listed();
        let is_over = |act: &SignedAct| act.by() != NODES[removed] || act.in_generation() <= ended(&removal);
        let all: Vec<_> = afterwards(removed).into_iter().filter(is_over).collect();
        for chosen in later {
            let _ = roster.add(all[chosen.index(all.len())].clone()).unwrap();
            let after = roster.listed();
            if by == FOUNDER && is_first {
                prop_assert_eq!(&after, &before);
            }
            // By any other the removal can be disputed, and a removal of the founder with it: that is off then, so that
            // the founder is in again, and whom it let in. Nobody else is.
            if self::of_founder(&roster).is_superset(&of_founder) {
                prop_assert!(after.iter().all(|(node, _)| before.iter().any(|(it, _)| it == node)));
            }
        }
    }
}

/// The removals of the founder that count.
fn of_founder(roster: &Roster) -> BTreeSet<ActId> {
    let counting = roster.acts.iter().zip(&roster.view().verdict().sure);
    let removals = counting.filter(|(filed, counts)| {
        **counts && matches!(filed.act.act(), Act::Remove { subject, .. } if *subject == mesh().founder())
    });
    removals.map(|(filed, _)| filed.id).collect()
}

/// The last generation that a removal ends.
fn ended(removal: &SignedAct) -> u32 {
    let Act::Remove { generation, .. } = removal.act() else {
        panic!("it removes");
    };
    *generation
}
