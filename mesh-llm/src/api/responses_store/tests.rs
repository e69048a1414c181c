use super::*;
use crate::dialects::Answer;
use crate::dialects::responses::Origin;
use proptest::prelude::*;
use serde_json::{Value, json};

/// A response that says `said` and continues `previous`.
fn turn(id: usize, previous: Option<usize>, said: &str) -> Turn {
    let previous = previous.map(name);
    let body = json!({"input": "Hi", "previous_response_id": previous});
    let draft = Draft::read(body.to_string().as_bytes()).unwrap();
    // What it continues needs to be known to ask, not to be kept.
    let history = previous.iter().map(|id| Arc::new(with_id(id))).collect();
    let known = Known {
        history,
        ..Known::default()
    };
    made(draft, &known, &id.to_string(), said)
}

fn with_id(id: &str) -> Turn {
    let draft = Draft::read(br#"{"input":"Hi"}"#).unwrap();
    made(draft, &Known::default(), id.strip_prefix("resp_").unwrap(), "")
}

fn made(draft: Draft, known: &Known, seed: &str, said: &str) -> Turn {
    let seed = seed.to_owned();
    let mut reply = draft.ask(known, Origin { seed, now: 1 }).unwrap().reply;
    let choices = [json!({"message": {"role": "assistant", "content": said}, "finish_reason": "stop"})];
    let usage = json!({"prompt_tokens": 1, "completion_tokens": 1});
    let completion = json!({"id": "c", "created": 1, "model": "m", "choices": choices, "usage": usage});
    reply.whole(completion.to_string().as_bytes()).unwrap();
    reply.turn()
}

fn name(id: usize) -> String {
    format!("resp_{id}")
}

fn ids(history: Result<Vec<Arc<Turn>>, Gone>) -> Vec<String> {
    let history = history.unwrap();
    history.iter().map(|turn| turn.response.id().to_owned()).collect()
}

#[test]
fn a_conversation_is_found_from_its_end() {
    let mut store = Store::new(10, usize::MAX);
    store.keep(turn(1, None, "a"));
    store.keep(turn(2, Some(1), "b"));
    store.keep(turn(3, Some(2), "c"));
    store.keep(turn(4, Some(2), "other"));
    assert_eq!(ids(store.history("resp_3")), ["resp_1", "resp_2", "resp_3"]);
    assert!(store.remove("resp_2") && !store.remove("resp_2"));
    assert_eq!(store.history("resp_4"), Err(Gone("resp_2".to_owned())));
    assert!(store.get("resp_4").is_some());
}

#[test]
fn items_are_found_by_their_ids() {
    let mut store = Store::new(10, usize::MAX);
    let kept = turn(1, None, "a");
    let known: Vec<Item> = kept.items().cloned().collect();
    store.keep(kept);
    store.keep(turn(2, None, "b"));
    let wanted = known.iter().map(Item::id).chain(["msg_x"]).collect();
    let found = store.items(wanted);
    assert_eq!(found.len(), 2);
    assert!(known.iter().all(|item| found[item.id()] == *item));
}

#[test]
fn the_least_recently_used_goes_first() {
    let mut store = Store::new(2, usize::MAX);
    store.keep(turn(1, None, "a"));
    store.keep(turn(2, None, "b"));
    store.get("resp_1");
    store.keep(turn(3, None, "c"));
    assert!(store.get("resp_2").is_none());
    assert!(store.get("resp_1").is_some() && store.get("resp_3").is_some());
}

#[test]
fn what_is_larger_than_the_store_is_not_kept() {
    let small = turn(1, None, "a").bytes();
    let mut store = Store::new(10, 2 * small);
    store.keep(turn(1, None, &"a".repeat(3 * small)));
    assert!(store.entries.is_empty() && store.bytes == 0);
}

#[derive(Debug, Clone)]
enum Use {
    Keep { previous: Option<usize>, length: usize },
    Look(usize),
    Remove(usize),
}

fn uses() -> impl Strategy<Value = Vec<Use>> {
    let keep = (proptest::option::of(0..20usize), 0..2000usize);
    prop::collection::vec(
        prop_oneof![
            4 => keep.prop_map(|(previous, length)| Use::Keep { previous, length }),
            2 => (0..20usize).prop_map(Use::Look),
            1 => (0..20usize).prop_map(Use::Remove),
        ],
        0..40,
    )
}

proptest! {
    /// Neither bound is exceeded, and what is there has its whole conversation, unless a client
    /// deleted a part of it.
    #[test]
    fn the_store_is_bounded_and_conversations_stay_whole(uses in uses()) {
        let mut store = Store::new(8, 12_000);
        let (mut made, mut removed) = (0, HashSet::new());
        for used in uses {
            match used {
                Use::Keep { previous, length } => {
                    // As the handle does it: only what can be continued is.
                    let previous = previous.filter(|id| store.history(&name(*id)).is_ok());
                    store.keep(turn(made, previous, &"x".repeat(length)));
                    made += 1;
                }
                Use::Look(id) => {
                    let found = store.get(&name(id)).map(|turn| turn.response.id().to_owned());
                    prop_assert!(found.is_none_or(|found| found == name(id)));
                }
                Use::Remove(id) => {
                    store.remove(&name(id));
                    removed.insert(name(id));
                }
            }
            let bytes: usize = store.entries.values().map(|entry| entry.turn.bytes()).sum();
            prop_assert_eq!(store.bytes, bytes);
            prop_assert!(bytes <= 12_000 && store.entries.len() <= 8);
            prop_assert_eq!(store.by_use.len(), store.entries.len());
            for entry in store.entries.values() {
                if let Some(previous) = entry.turn.response.previous() {
                    prop_assert!(store.entries.contains_key(previous) || removed.contains(previous));
                }
            }
        }
    }
}

#[test]
fn a_response_that_is_kept_is_the_one_that_was_told() {
    let responses = Responses::default();
    let kept = turn(1, None, "a");
    let told: Value = serde_json::from_slice(&kept.response.json()).unwrap();
    responses.keep(kept);
    let found = responses.get("resp_1").unwrap();
    assert_eq!(
        serde_json::from_slice::<Value>(&found.response.json()).unwrap(),
        told
    );
    assert!(responses.remove("resp_1") && !responses.remove("resp_1"));
}
