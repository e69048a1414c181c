//! What a ledger promises, whatever it is asked.

use super::*;
use proptest::prelude::*;

fn machine(number: u8) -> MachineId {
    MachineId([number; 32])
}

fn asked(host: u8, model: &str, epoch: u64, bytes: u64) -> Asked {
    Asked {
        host: machine(host),
        model: model.to_owned(),
        epoch: Epoch(epoch),
        bytes,
    }
}

/// The lease of a request that is granted, with its bytes and what it ends.
fn granted(ledger: &mut Ledger, asked: &Asked) -> (LeaseId, u64, Vec<LeaseId>) {
    match ledger.ask(asked) {
        Verdict::Granted { lease, bytes, ends } => (lease, bytes, ends),
        refused => panic!("{refused:?}"),
    }
}

#[test]
fn what_is_lent_is_set_aside_until_it_ends() {
    let mut ledger = Ledger::new(100);
    let (lease, bytes, ends) = granted(&mut ledger, &asked(1, "a", 1, 60));
    assert_eq!((bytes, ends, ledger.left()), (60, vec![], 40));
    assert_eq!(ledger.ask(&asked(1, "b", 1, 41)), Verdict::NoRoom { left: 40 });
    assert_eq!(granted(&mut ledger, &asked(1, "b", 1, 0)).1, 40);
    assert_eq!(ledger.ask(&asked(1, "c", 1, 0)), Verdict::NoRoom { left: 0 });
    ledger.ended(lease);
    ledger.ended(lease);
    assert_eq!(ledger.left(), 60);
}

#[test]
fn a_greater_epoch_ends_the_older_lease_and_has_its_room() {
    let mut ledger = Ledger::new(100);
    let (first, ..) = granted(&mut ledger, &asked(1, "a", 1, 80));
    let (second, bytes, ends) = granted(&mut ledger, &asked(2, "a", 2, 90));
    assert_eq!((bytes, ends, ledger.left()), (90, vec![first], 10));
    let (_, _, ends) = granted(&mut ledger, &asked(2, "a", 3, 0));
    assert_eq!((ends, ledger.left()), (vec![second], 0));
}

#[test]
fn of_two_hosts_with_one_epoch_the_greater_id_counts() {
    let mut ledger = Ledger::new(100);
    let (first, ..) = granted(&mut ledger, &asked(2, "a", 5, 10));
    assert_eq!(
        ledger.ask(&asked(1, "a", 5, 10)),
        Verdict::Stale { newest: Epoch(5) }
    );
    assert_eq!(granted(&mut ledger, &asked(3, "a", 5, 10)).2, [first]);
}

#[test]
fn a_host_that_asks_again_needs_a_greater_epoch() {
    let mut ledger = Ledger::new(100);
    granted(&mut ledger, &asked(1, "a", 5, 10));
    assert_eq!(
        ledger.ask(&asked(1, "a", 5, 10)),
        Verdict::Stale { newest: Epoch(5) }
    );
    granted(&mut ledger, &asked(1, "a", Epoch(5).after().0, 10));
    assert_eq!(ledger.newest("a"), Some(Epoch(6)));
}

#[test]
fn an_epoch_outlives_its_lease() {
    let mut ledger = Ledger::new(100);
    let (lease, ..) = granted(&mut ledger, &asked(2, "a", 5, 10));
    ledger.ended(lease);
    assert_eq!(
        ledger.ask(&asked(1, "a", 4, 10)),
        Verdict::Stale { newest: Epoch(5) }
    );
    assert_eq!((ledger.newest("a"), ledger.newest("b")), (Some(Epoch(5)), None));
}

#[test]
fn a_refusal_changes_nothing() {
    let mut ledger = Ledger::new(100);
    granted(&mut ledger, &asked(1, "a", 1, 50));
    granted(&mut ledger, &asked(1, "b", 1, 30));
    assert_eq!(ledger.ask(&asked(2, "a", 9, 71)), Verdict::NoRoom { left: 70 });
    assert_eq!((ledger.newest("a"), ledger.left()), (Some(Epoch(1)), 20));
}

#[test]
fn the_oldest_epoch_without_a_lease_is_forgotten_first() {
    let mut ledger = Ledger::new(10_000);
    let leases: Vec<LeaseId> = (0..MOST_MODELS)
        .map(|number| granted(&mut ledger, &asked(1, &number.to_string(), 1, 1)).0)
        .collect();
    assert!(matches!(
        ledger.ask(&asked(1, "more", 1, 1)),
        Verdict::NoRoom { .. }
    ));
    ledger.ended(leases[7]);
    ledger.ended(leases[3]);
    granted(&mut ledger, &asked(1, "more", 1, 1));
    assert_eq!((ledger.newest("3"), ledger.newest("7")), (None, Some(Epoch(1))));
}

#[test]
fn there_is_an_end_to_epochs_and_none_to_answers() {
    let mut ledger = Ledger::new(100);
    granted(&mut ledger, &asked(1, "a", u64::MAX, 55));
    assert_eq!(Epoch(u64::MAX).after(), Epoch(u64::MAX));
    let newest = Epoch(u64::MAX);
    assert_eq!(ledger.ask(&asked(1, "a", u64::MAX, 1)), Verdict::Stale { newest });
    assert_eq!(
        Ledger::new(0).ask(&asked(1, "a", 1, 0)),
        Verdict::NoRoom { left: 0 }
    );
}

proptest! {
    #[test]
    fn a_model_has_one_lease_and_no_byte_is_lent_twice(
        memory in 0_u64..200,
        asks in prop::collection::vec((0_u8..4, 0_u8..3, 0_u64..6, 0_u64..120, any::<bool>()), 0..60),
    ) {
        let mut ledger = Ledger::new(memory);
        let mut held: BTreeMap<LeaseId, (u8, (u64, u8), u64)> = BTreeMap::new();
        let mut greatest: BTreeMap<u8, (u64, u8)> = BTreeMap::new();
        for (host, model, epoch, bytes, ends) in asks {
            if ends && let Some((lease, _)) = held.pop_first() {
                ledger.ended(lease);
            }
            let newest = greatest.get(&model).copied();
            match ledger.ask(&asked(host, &model.to_string(), epoch, bytes)) {
                Verdict::Granted { lease, bytes, ends } => {
                    prop_assert!(newest.is_none_or(|newest| newest < (epoch, host)));
                    for over in ends {
                        let (of, ..) = held.remove(&over).expect("what ends was held");
                        prop_assert_eq!(of, model);
                    }
                    greatest.insert(model, (epoch, host));
                    prop_assert!(held.insert(lease, (model, (epoch, host), bytes)).is_none());
                }
                Verdict::Stale { newest: told } => {
                    prop_assert!(newest.is_some_and(|newest| newest >= (epoch, host) && newest.0 == told.0));
                }
                Verdict::NoRoom { left } => prop_assert!(left == 0 || left < bytes),
            }
            let models: Vec<u8> = held.values().map(|(model, ..)| *model).collect();
            let distinct: std::collections::BTreeSet<u8> = models.iter().copied().collect();
            prop_assert_eq!(models.len(), distinct.len());
            let lent: u64 = held.values().map(|(.., bytes)| bytes).sum();
            prop_assert_eq!(ledger.left() + lent, memory);
        }
    }
}
