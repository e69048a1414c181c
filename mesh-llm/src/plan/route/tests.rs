//! What the order of places promises, whatever the places are like.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

const NOW: Duration = Duration::from_secs(100);

fn candidate(place: u8, slots: u32, busy: u32, rtt_ms: Option<u64>) -> Candidate<u8> {
    Candidate {
        place,
        slots,
        busy,
        waiting: 0,
        rtt: rtt_ms.map(Duration::from_millis),
    }
}

fn session(name: &str) -> Option<SessionKey> {
    Some(SessionKey::named("m", name.as_bytes()))
}

/// Different places, in any state.
fn candidates() -> impl Strategy<Value = Vec<Candidate<u8>>> {
    let state = (0u32..4, 0u32..6, 0u32..3, proptest::option::of(0u64..50));
    proptest::collection::btree_map(0u8..8, state, 0..8).prop_map(|places| {
        let candidate = |(place, (slots, busy, waiting, rtt))| Candidate {
            waiting,
            ..candidate(place, slots, busy, rtt)
        };
        places.into_iter().map(candidate).collect()
    })
}

/// What happened before: a place answered a session, or failed.
fn history() -> impl Strategy<Value = Vec<(u8, Option<u64>)>> {
    proptest::collection::vec((0u8..8, proptest::option::of(95u64..100)), 0..12)
}

fn after(history: &[(u8, Option<u64>)]) -> Routing<u8> {
    let mut routing = Routing::default();
    for (place, failed_at) in history {
        match failed_at {
            Some(at) => routing.failed(Duration::from_secs(*at), *place),
            None => routing.answered(session("s"), *place),
        }
    }
    routing
}

proptest! {
    #[test]
    fn every_candidate_comes_once(candidates in candidates(), history in history()) {
        let order = after(&history).order(NOW, session("s"), &candidates);
        let places: BTreeSet<_> = candidates.iter().map(|candidate| candidate.place).collect();
        prop_assert_eq!(order.len(), candidates.len());
        prop_assert_eq!(order.into_iter().collect::<BTreeSet<_>>(), places);
    }

    #[test]
    fn the_order_in_which_places_are_named_does_not_count(
        mut candidates in candidates(), history in history(), by in 0usize..8
    ) {
        let before = after(&history).order(NOW, session("s"), &candidates);
        let by = by % candidates.len().max(1);
        candidates.rotate_left(by);
        prop_assert_eq!(after(&history).order(NOW, session("s"), &candidates), before);
    }

    #[test]
    fn a_session_goes_back_to_its_place_unless_that_is_full_and_another_free(
        candidates in candidates(), own in 0u8..8
    ) {
        let mut routing = Routing::default();
        routing.answered(session("s"), own);
        let order = routing.order(NOW, session("s"), &candidates);
        if let Some(found) = candidates.iter().find(|candidate| candidate.place == own) {
            let others_free = candidates.iter().any(|other| other.place != own && other.is_free());
            if found.is_free() || !others_free {
                prop_assert_eq!(order[0], own);
            } else {
                prop_assert_eq!(order, Routing::default().order(NOW, None, &candidates));
            }
        }
    }

    #[test]
    fn a_place_that_failed_lately_comes_after_all_that_did_not(candidates in candidates(), history in history()) {
        let mut routing = after(&history);
        let order = routing.order(NOW, session("s"), &candidates);
        let failed = |place: &u8| routing.failures.get(place).is_some_and(|failure| NOW < failure.until);
        prop_assert!(order.iter().is_sorted_by_key(failed));
    }

    #[test]
    fn new_sessions_are_spread_by_slots(slots in proptest::collection::vec(1u32..9, 1..6)) {
        let mut routing = Routing::default();
        let mut places: Vec<_> = (0u8..).zip(&slots).map(|(place, slots)| candidate(place, *slots, 0, Some(1))).collect();
        // As many as all can serve at once: nobody waits while a slot is free.
        for number in 0..slots.iter().sum() {
            let key = session(&number.to_string());
            let best = routing.order(NOW, key, &places)[0];
            routing.answered(key, best);
            places[usize::from(best)].busy += 1;
        }
        prop_assert!(places.iter().all(|place| place.busy == place.slots), "{:?}", places);
    }

    #[test]
    fn loads_compare_as_fractions(a in any::<(u32, u32, u32)>(), b in any::<(u32, u32, u32)>()) {
        let load = |(slots, busy, waiting)| Candidate { waiting, ..candidate(0, slots, busy, None) }.load();
        let cross = |(_, busy, waiting): (u32, u32, u32), (slots, _, _): (u32, u32, u32)| {
            (u128::from(busy) + u128::from(waiting)) * u128::from(slots.max(1))
        };
        prop_assert_eq!(load(a).cmp(&load(b)), cross(a, b).cmp(&cross(b, a)));
    }
}

#[test]
fn the_least_load_comes_first_then_this_machine_then_the_nearest_then_the_least_place() {
    let candidates = [
        candidate(1, 4, 1, Some(5)),
        candidate(2, 4, 1, None),
        candidate(3, 8, 1, Some(40)),
        candidate(5, 4, 1, Some(2)),
        candidate(4, 4, 1, Some(2)),
    ];
    assert_eq!(Routing::default().order(NOW, None, &candidates), [3, 2, 4, 5, 1]);
}

#[test]
fn a_failure_is_held_against_a_place_for_a_second_and_longer_if_it_fails_again() {
    let mut routing = Routing::default();
    let candidates = [candidate(1, 1, 0, None), candidate(2, 1, 0, Some(9))];
    let mut now = Duration::ZERO;
    for seconds in [1, 2, 4, 8, 16, 30, 30] {
        routing.failed(now, 1);
        // What was under way with it fails, too.
        routing.failed(now, 1);
        let over = now + Duration::from_secs(seconds);
        assert_eq!(
            routing.order(over - Duration::from_millis(1), None, &candidates)[0],
            2
        );
        assert_eq!(routing.order(over, None, &candidates)[0], 1);
        now = over;
    }
    routing.answered(None, 1);
    routing.failed(now, 1);
    assert_eq!(routing.order(now + FIRST_PAUSE, None, &candidates)[0], 1);
}

#[test]
fn failures_of_places_that_are_gone_are_forgotten() {
    let mut routing = Routing::default();
    routing.failed(Duration::ZERO, 1);
    routing.failed(FIRST_PAUSE + FORGET_AFTER, 2);
    assert_eq!(routing.failures.len(), 1);
}

#[test]
fn sessions_are_bounded_and_the_least_recently_used_goes() {
    let mut routing = Routing::default();
    let key = |number: usize| session(&number.to_string());
    for number in 0..MOST_SESSIONS.get() {
        routing.answered(key(number), 1u8);
    }
    let candidates = [candidate(0, 1, 0, None), candidate(1, 1, 0, Some(1))];
    assert_eq!(routing.order(NOW, key(0), &candidates)[0], 1);
    routing.answered(session("one more"), 1);
    assert_eq!(routing.sessions.len(), MOST_SESSIONS.get());
    assert_eq!(routing.order(NOW, key(0), &candidates)[0], 1);
    assert_eq!(routing.order(NOW, key(1), &candidates)[0], 0);
}

#[test]
fn a_session_is_its_model_and_its_name_or_beginning() {
    let begun = |model: &str, messages: &[&str]| {
        SessionKey::begun(model, messages.iter().map(|message| message.as_bytes()))
    };
    assert_eq!(begun("m", &["a", "b"]), begun("m", &["a", "b"]));
    let keys = [
        begun("m", &["a", "b"]),
        begun("m", &["ab"]),
        begun("n", &["a", "b"]),
        begun("m", &[]),
        begun("m", &["x"]),
        SessionKey::named("m", b"x"),
        SessionKey::named("n", b"x"),
    ];
    for (number, key) in keys.iter().enumerate() {
        assert!(!keys[..number].contains(key), "{number}");
    }
}
