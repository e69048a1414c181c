//! What happens where a roster is full, and how long a large one takes.

use super::*;
use crate::mesh::roster::{Filed, Full, MOST_ACTS, MOST_ACTS_BY_ONE, MOST_WAITING, Refused, Rejected};
use std::time::{Duration, Instant};

/// An act whose signature is wrong, to fill a roster with: thousands of right ones would take seconds.
fn unsigned(by: usize, act: &Act) -> SignedAct {
    let act = postcard::to_allocvec(act).unwrap();
    let bytes = [NODES[by].as_bytes().as_slice(), &[0], &act, &[0; 64]].concat();
    postcard::from_bytes(&bytes).unwrap()
}

fn fill(roster: &mut Roster, by: usize, count: usize, act: impl Fn(u64) -> Act) {
    for number in 0..count as u64 {
        roster.keep(Filed::new(unsigned(by, &act(number))));
    }
}

fn admission(seconds: u64) -> Act {
    admit(DAN, Role::Client, seconds)
}

fn revocation(seconds: u64) -> Act {
    Act::Revoke {
        token: token(1),
        at: at(seconds),
    }
}

/// An act that is unlike all others.
fn another() -> u64 {
    u64::MAX
}

#[test]
fn a_signer_who_has_admitted_many_can_still_remove_but_not_for_ever() {
    let mut roster = at_work();
    let full = Full::Signer { by: NODES[CLEO] };
    roster.take(sign(FOUNDER, admit(CLEO, Role::Node, 9)));
    fill(&mut roster, CLEO, MOST_ACTS_BY_ONE / 8 * 7, admission);
    let one_more = sign(CLEO, admission(another()));
    assert_eq!(roster.add(one_more), Err(Rejected::Full(full.clone())));
    let made = roster.admit(&KEYS[CLEO], NODES[6], Role::Client, vec![], None, at(9));
    assert_eq!(
        made,
        Err(Refused::Full(full.clone())),
        "what would be rejected is not made"
    );
    roster.take(roster.remove(&KEYS[CLEO], NODES[DAN], at(9)).unwrap());
    fill(&mut roster, CLEO, MOST_ACTS_BY_ONE / 8 - 1, revocation);
    let one_more = sign(CLEO, revocation(another()));
    assert_eq!(roster.add(one_more), Err(Rejected::Full(full)));
    roster.take(sign(BEN, admission(another())));
}

#[test]
fn a_full_roster_keeps_whom_it_has_and_takes_removals_to_the_end() {
    let mut roster = Roster::new(mesh());
    let signers = 1..=4;
    for player in signers.clone() {
        roster.take(sign(FOUNDER, admit(player, Role::Node, 1)));
    }
    for player in signers.clone() {
        fill(&mut roster, player, MOST_ACTS_BY_ONE / 8 * 7 - 1, admission);
    }
    assert_eq!(roster.ids().count(), MOST_ACTS / 8 * 7);
    let one_more = sign(FOUNDER, admission(another()));
    assert_eq!(roster.add(one_more), Err(Rejected::Full(Full::Roster)));
    roster.take(sign(FOUNDER, remove(CLEO, 0)));
    assert!(!roster.is_member(CLEO) && roster.is_member(BEN));

    for player in signers {
        fill(&mut roster, player, MOST_ACTS_BY_ONE / 8, revocation);
    }
    assert_eq!(roster.ids().count(), MOST_ACTS);
    let one_more = sign(FOUNDER, revocation(another()));
    assert_eq!(roster.add(one_more), Err(Rejected::Full(Full::Roster)));
    let back = Roster::from_bytes(&roster.to_bytes()).unwrap();
    assert_eq!(back.digest(), roster.digest());
}

#[test]
fn few_acts_of_strangers_wait_and_nobody_else_has_to() {
    let mut roster = at_work();
    fill(&mut roster, CLEO, MOST_WAITING, admission);
    let one_more = sign(5, admit(6, Role::Client, 9));
    let rejected = Err(Rejected::Stranger { by: NODES[5] });
    assert_eq!(roster.add(one_more.clone()), rejected);
    // Its signer's admission comes first where acts are exchanged in the order in which they count.
    roster.take(sign(FOUNDER, admit(5, Role::Node, 8)));
    roster.take(one_more);
}

#[test]
fn what_waited_is_dropped_where_there_is_no_room_for_it() {
    let mut roster = Roster::new(mesh());
    fill(&mut roster, ANNE, 2, admission);
    fill(&mut roster, FOUNDER, MOST_ACTS_BY_ONE / 8 * 7 - 1, admission);
    for player in 2..=4 {
        roster.keep(Filed::new(unsigned(FOUNDER, &revocation(player))));
    }
    let room_for_one = MOST_ACTS / 8 * 7 - 2;
    roster.tally = (0..room_for_one).fold(
        crate::mesh::roster::room::Tally::default(),
        |mut tally, second| {
            tally.count(&unsigned(FOUNDER, &admission(second as u64)));
            tally
        },
    );
    let before = roster.ids().count();
    roster.take(sign(FOUNDER, admit(ANNE, Role::Node, another())));
    assert_eq!(roster.ids().count(), before + 2, "she, and one of her two");
    assert_eq!((roster.waiting.len(), roster.names.len()), (0, before + 2));
}

#[test]
fn a_thousand_acts_are_added_and_asked_for_in_a_second() {
    let subjects: Vec<_> = (0..1000_u32)
        .map(|number| {
            let mut secret = [0xaa; 32];
            secret[..4].copy_from_slice(&number.to_le_bytes());
            SecretKey::from_bytes(&secret).public()
        })
        .collect();
    let mut roster = roster([sign(FOUNDER, admit(ANNE, Role::Node, 0))]);
    let acts: Vec<_> = (0..1000)
        .map(|number| {
            let act = Act::Admit {
                subject: subjects[number],
                role: Role::Worker,
                tokens: vec![limited(1, 2000)],
                models: None,
                at: at(1),
                generation: 0,
            };
            sign(number % 2, act)
        })
        .collect();
    let start = Instant::now();
    for act in acts {
        roster.take(act);
    }
    let added = start.elapsed();
    let members = subjects
        .iter()
        .filter(|subject| roster.standing(**subject).is_some());
    assert_eq!(members.count(), 1000);
    let asked = start.elapsed() - added;
    println!("1,000 acts: added in {added:?}, 1,000 standings in {asked:?}");
    assert!(added < Duration::from_secs(1), "{added:?}");
    assert!(asked < Duration::from_millis(100), "{asked:?}");
}
