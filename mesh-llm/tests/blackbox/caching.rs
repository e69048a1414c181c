//! What was computed once is not computed again.

use std::thread;

use serde_json::{Value, json};

use crate::harness::{Client, Daemon, Kind, Start, model};

fn endless_model(slots: u32) -> Daemon {
    Start::model(model(Kind::Endless))
        .flag("--parallel", slots.to_string())
        .ready()
}

/// What an answer says about its prompt.
struct Prompt {
    tokens: u64,
    cached: u64,
    /// Tokens of the answer to it.
    answer: u64,
}

fn prompt(answer: &Value) -> Prompt {
    let usage = &answer["usage"];
    let cached = &usage["prompt_tokens_details"]["cached_tokens"];
    Prompt {
        tokens: usage["prompt_tokens"].as_u64().unwrap(),
        cached: cached.as_u64().unwrap(),
        answer: usage["completion_tokens"].as_u64().unwrap(),
    }
}

/// A conversation that grows by a turn with each call.
struct Chat<'a> {
    client: &'a Client,
    messages: Vec<Value>,
}

impl<'a> Chat<'a> {
    fn new(client: &'a Client, system: &str) -> Self {
        Self {
            client,
            messages: vec![json!({"role": "system", "content": system})],
        }
    }

    fn say(&mut self, text: &str) -> Prompt {
        self.messages.push(json!({"role": "user", "content": text}));
        let request = json!({"messages": self.messages, "max_tokens": 20, "temperature": 0});
        let answer = self.client.post("/v1/chat/completions", &request).ok();
        let mut message = answer["choices"][0]["message"].clone();
        message
            .as_object_mut()
            .unwrap()
            .retain(|key, _| key == "role" || key == "content");
        self.messages.push(message);
        prompt(&answer)
    }
}

fn words(seed: usize, count: usize) -> String {
    (0..count)
        .map(|at| format!("{} ", (seed * 31 + at * at * 7 + at) % 1000))
        .collect()
}

#[test]
fn a_second_turn_computes_only_what_is_new() {
    let daemon = Start::model("tiny").ready();
    let mut chat = Chat::new(&daemon, &words(1, 100));
    let first = chat.say("Hello!");
    assert!(first.cached <= 1, "nothing but the first token was seen before");
    let second = chat.say("How are you?");
    // The prompt and the answer, of which the last token was chosen and never computed.
    let known = first.tokens + first.answer - 1;
    assert!(second.cached >= known, "{} of {known}", second.cached);
    assert!(
        second.cached < second.tokens,
        "the last token of a prompt is always computed"
    );
    daemon.until_idle();
    assert_eq!(
        daemon.metric("prompt_tokens_cached_total"),
        (first.cached + second.cached) as f64
    );
}

#[test]
fn a_system_prompt_is_shared_with_another_slot_whether_its_first_user_is_done_or_not() {
    let daemon = endless_model(4);
    let system = words(2, 100);
    let length = daemon.tokenize(&system).len() as u64;
    let mut first = Chat::new(&daemon, &system);
    let before = first.say(&words(3, 60));
    let other = Chat::new(&daemon, &system).say(&words(4, 60));
    assert!(other.cached >= length, "{} of {length}", other.cached);
    // The first conversation has kept its own slot.
    let again = first.say("Go on.");
    assert!(
        again.cached >= before.tokens,
        "{} of {}",
        again.cached,
        before.tokens
    );

    let system = words(5, 100);
    let running = json!({
        "messages": [{"role": "system", "content": system}, {"role": "user", "content": "Tell me everything."}],
        "max_tokens": 30_000,
    });
    let mut stream = daemon.stream("/v1/chat/completions", &running);
    stream.next_text();
    let beside = Chat::new(&daemon, &system).say("Tell me nothing.");
    assert!(beside.cached >= length - 10, "{} of {length}", beside.cached);
    stream.next_text();
}

#[test]
fn conversations_side_by_side_keep_what_they_have() {
    let daemon = endless_model(4);
    thread::scope(|scope| {
        for seed in 0..4 {
            let daemon = &daemon;
            scope.spawn(move || {
                let mut chat = Chat::new(daemon, &words(10 + seed, 80));
                let mut before = chat.say("First.");
                for turn in ["Second.", "Third.", "Fourth."] {
                    let now = chat.say(turn);
                    assert!(
                        now.cached >= before.tokens,
                        "chat {seed}: {} of {}",
                        now.cached,
                        before.tokens
                    );
                    before = now;
                }
            });
        }
    });
}

#[test]
fn a_prompt_between_two_turns_of_a_chat_takes_nothing_from_it() {
    let daemon = endless_model(2);
    let mut chat = Chat::new(&daemon, &words(20, 200));
    let mut before = chat.say("First.");
    for turn in 0..4 {
        // With a second slot, others come and go without taking the chat's.
        daemon
            .post(
                "/v1/completions",
                &json!({"prompt": words(30 + turn, 50), "max_tokens": 8}),
            )
            .ok();
        let now = chat.say("Go on.");
        assert!(
            now.cached >= before.tokens,
            "turn {turn}: {} of {}",
            now.cached,
            before.tokens
        );
        before = now;
    }
}

#[test]
fn the_slot_that_was_used_longest_ago_gives_way() {
    let daemon = endless_model(2);
    let (mut old, mut young) = (
        Chat::new(&daemon, &words(40, 100)),
        Chat::new(&daemon, &words(41, 100)),
    );
    let lost = old.say("First.");
    let kept = young.say("First.");
    daemon
        .post(
            "/v1/completions",
            &json!({"prompt": words(42, 50), "max_tokens": 8}),
        )
        .ok();
    let again = young.say("Second.");
    assert!(again.cached >= kept.tokens, "the younger one is still there");
    let again = old.say("Second.");
    assert!(
        again.cached < lost.tokens / 2,
        "the older one gave way: {} of {}",
        again.cached,
        lost.tokens
    );
}

#[test]
fn an_answer_is_the_same_with_and_without_the_cache() {
    let daemon = Start::model("tiny").flag("--parallel", "1").ready();
    let request =
        json!({"prompt": "Once upon a time there was a little", "max_tokens": 40, "temperature": 0});
    let first = daemon.post("/v1/completions", &request).ok();
    let second = daemon.post("/v1/completions", &request).ok();
    assert!(
        prompt(&second).cached + 1 >= prompt(&second).tokens,
        "all but the last token is known"
    );
    assert_eq!(first["choices"][0]["text"], second["choices"][0]["text"]);
}
