//! Rosters on disk.

use super::*;
use crate::mesh::roster::Unreadable;
use proptest::prelude::*;

fn kept() -> Roster {
    let mut roster = at_work();
    roster.take(sign(ANNE, remove(DAN, 0)));
    roster.add(sign(5, admit(6, Role::Node, 9))).unwrap();
    roster
}

#[test]
fn a_roster_comes_back_as_it_was() {
    for roster in [Roster::new(mesh()), at_work(), kept()] {
        let bytes = roster.to_bytes();
        let mut back = Roster::from_bytes(&bytes).unwrap();
        assert_eq!(back.mesh(), mesh());
        assert_eq!((back.listed(), back.digest()), (roster.listed(), roster.digest()));
        assert_eq!(back.to_bytes(), bytes);
        assert!(
            roster
                .missing_from(&[])
                .into_iter()
                .all(|act| back.add(act) == Ok(Added::Known))
        );
    }
}

#[test]
fn what_waited_waits_on() {
    let mut back = Roster::from_bytes(&kept().to_bytes()).unwrap();
    back.take(sign(FOUNDER, admit(5, Role::Node, 8)));
    assert_eq!(back.role_of(6), Some(Role::Node));
}

#[test]
fn bytes_of_an_empty_roster_are_pinned() {
    let body = [b"mesh-llm roster\x01".as_slice(), mesh().0.as_bytes(), &[0, 0]].concat();
    let bytes = Roster::new(mesh()).to_bytes();
    assert_eq!(bytes[..bytes.len() - 32], body);
}

#[test]
fn bytes_of_another_kind_or_a_newer_program_are_called_so() {
    assert_eq!(Roster::from_bytes(b"").unwrap_err(), Unreadable::NoRoster);
    assert_eq!(
        Roster::from_bytes(b"[mesh]\nname = \"home\"\n").unwrap_err(),
        Unreadable::NoRoster
    );
    let newer = b"mesh-llm roster\x02 whatever that has";
    assert_eq!(
        Roster::from_bytes(newer).unwrap_err(),
        Unreadable::Newer { version: 2 }
    );
}

#[test]
fn a_roster_that_was_cut_off_anywhere_is_damaged() {
    let bytes = kept().to_bytes();
    for length in 15..bytes.len() {
        assert_eq!(
            Roster::from_bytes(&bytes[..length]).unwrap_err(),
            Unreadable::Damaged
        );
    }
}

proptest! {
    #[test]
    fn whatever_was_changed_in_a_roster_is_noticed(
        changes in prop::collection::vec((any::<prop::sample::Index>(), 1u8..), 1..4)
    ) {
        static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| kept().to_bytes());
        let mut bytes = BYTES.clone();
        for (at, change) in changes {
            bytes[at.index(BYTES.len())] ^= change;
        }
        prop_assume!(bytes != *BYTES);
        prop_assert!(Roster::from_bytes(&bytes).is_err());
    }

    #[test]
    fn no_bytes_make_it_panic(noise in prop::collection::vec(any::<u8>(), 0..200)) {
        use sha2::{Digest, Sha256};
        let mut bytes = [b"mesh-llm roster\x01".as_slice(), mesh().0.as_bytes(), &noise].concat();
        bytes.extend_from_slice(&Sha256::digest(&bytes));
        if let Ok(roster) = Roster::from_bytes(&bytes) {
            let _ = (roster.listed(), roster.digest());
        }
    }
}
