//! Tokens: how often each lets somebody in, and until when.

use super::*;
use crate::mesh::roster::Refused;

/// The founder lets somebody in by a token.
fn join(roster: &Roster, player: usize, tokens: Vec<TokenUse>) -> Result<SignedAct, Refused> {
    roster.admit(&KEYS[FOUNDER], NODES[player], Role::Node, tokens, None, at(10))
}

fn exhausted(number: u8, uses: u32) -> Refused {
    Refused::Exhausted {
        token: token(number),
        uses: NonZeroU32::new(uses).unwrap(),
    }
}

#[test]
fn a_token_lets_in_as_many_as_it_was_made_for() {
    let mut roster = Roster::new(mesh());
    for player in [ANNE, BEN] {
        roster.take(join(&roster, player, vec![limited(1, 2)]).unwrap());
    }
    assert_eq!(roster.uses(token(1)), 2);
    assert_eq!(join(&roster, CLEO, vec![limited(1, 2)]), Err(exhausted(1, 2)));
    // Nor does one that was made from it.
    assert_eq!(
        join(&roster, CLEO, vec![limited(1, 2), unlimited(2)]),
        Err(exhausted(1, 2))
    );
    roster.take(join(&roster, CLEO, vec![unlimited(3)]).unwrap());
    assert_eq!((roster.uses(token(2)), roster.uses(token(3))), (0, 1));
}

#[test]
fn who_joins_twice_by_one_token_is_counted_once_and_gets_the_same_act() {
    let mut roster = Roster::new(mesh());
    let first = join(&roster, ANNE, vec![limited(1, 1)]).unwrap();
    roster.take(first.clone());
    assert_eq!(join(&roster, ANNE, vec![limited(1, 1)]), Ok(first));
    // Also when another node lets it in with another role.
    let again = roster.admit(
        &KEYS[ANNE],
        NODES[ANNE],
        Role::Worker,
        vec![limited(1, 1)],
        None,
        at(11),
    );
    roster.take(again.unwrap());
    assert_eq!(
        (roster.uses(token(1)), roster.role_of(ANNE)),
        (1, Some(Role::Worker))
    );
}

#[test]
fn of_too_many_admitted_at_once_in_two_places_the_earlier_stay() {
    let here = sign(FOUNDER, admit_by(vec![limited(1, 1)], BEN, Role::Client, 10, 0));
    let there = sign(ANNE, admit_by(vec![limited(1, 1)], CLEO, Role::Client, 9, 0));
    let mut roster = roster([sign(FOUNDER, admit(ANNE, Role::Node, 1)), here]);
    assert!(roster.is_member(BEN));
    roster.take(there);
    assert!(!roster.is_member(BEN) && roster.is_member(CLEO));
    assert_eq!(roster.uses(token(1)), 1);
}

#[test]
fn an_admission_that_one_block_does_not_allow_uses_up_none() {
    let acts = [
        sign(FOUNDER, admit_by(vec![limited(1, 1)], ANNE, Role::Client, 1, 0)),
        sign(
            FOUNDER,
            admit_by(vec![limited(2, 1), limited(1, 1)], BEN, Role::Client, 2, 0),
        ),
        sign(FOUNDER, admit_by(vec![limited(2, 1)], CLEO, Role::Client, 3, 0)),
    ];
    let roster = roster(acts);
    assert!(!roster.is_member(BEN) && roster.is_member(CLEO));
}

#[test]
fn a_revoked_token_lets_nobody_in_and_puts_nobody_out() {
    let mut roster = Roster::new(mesh());
    roster.take(join(&roster, ANNE, vec![unlimited(1)]).unwrap());
    let revocation = roster.revoke(&KEYS[ANNE], token(1), at(11)).unwrap();
    roster.take(revocation.clone());
    assert!(roster.is_revoked(token(1)) && roster.is_member(ANNE));
    let refused = Err(Refused::Revoked { token: token(1) });
    assert_eq!(join(&roster, BEN, vec![unlimited(1)]), refused);
    assert_eq!(join(&roster, BEN, vec![unlimited(2), unlimited(1)]), refused);
    assert!(join(&roster, BEN, vec![unlimited(2)]).is_ok());
    assert!(
        join(&roster, ANNE, vec![unlimited(1)]).is_ok(),
        "she is in already"
    );
    assert_eq!(
        roster.revoke(&KEYS[FOUNDER], token(1), at(12)),
        Ok(revocation),
        "once is enough"
    );
}

#[test]
fn who_was_removed_does_not_come_back_by_the_token_that_it_still_has() {
    let mut roster = Roster::new(mesh());
    roster.take(join(&roster, ANNE, vec![unlimited(1)]).unwrap());
    roster.take(roster.remove(&KEYS[FOUNDER], NODES[ANNE], at(11)).unwrap());
    let refused = Err(Refused::Removed { subject: NODES[ANNE] });
    assert_eq!(join(&roster, ANNE, vec![unlimited(1)]), refused);
    assert_eq!(
        join(&roster, ANNE, vec![unlimited(1), unlimited(2)]),
        refused,
        "nor by one made from it"
    );
    let invited = join(&roster, ANNE, vec![unlimited(3)]).unwrap();
    roster.take(invited.clone());
    assert_eq!(join(&roster, ANNE, vec![unlimited(3)]), Ok(invited));
}
