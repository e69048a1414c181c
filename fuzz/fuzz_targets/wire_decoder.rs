//! Any bytes: frames, their messages, and uploads decode to what fits its limits, or not at all; what a
//! message says when it is coded again is what it said.

#![no_main]

use std::fmt::Debug;

use libfuzzer_sys::fuzz_target;
use llama_engine::rpc::wire::frame::{self, HEAD, Limits};
use llama_engine::rpc::wire::handshake::{Greeting, Reply, Request};
use llama_engine::rpc::wire::uploads::Uploads;
use llama_engine::rpc::wire::{
    Coding, Command, LONGEST_KEPT, Peer, PeerReply, ToHost, ToWorker, difference,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else {
        return;
    };
    match kind % 4 {
        0 => frames(bytes),
        1 => changes(bytes),
        _ => {
            again::<ToWorker>(bytes);
            again::<ToHost>(bytes);
            again::<Greeting>(bytes);
            again::<Request>(bytes);
            again::<Reply>(bytes);
            again::<Peer>(bytes);
            again::<PeerReply>(bytes);
        }
    }
});

/// A message that can be read is one that can be written and read again.
fn again<M: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) -> Option<M> {
    let message: M = frame::message(bytes).ok()?;
    let mut written = Vec::new();
    frame::append(&mut written, &message, &[]);
    let read: M = frame::message(&written[HEAD..]).expect("what was written can be read");
    assert_eq!(message, read);
    Some(message)
}

/// As a worker takes them: frames one behind the other, whose uploads it decodes.
fn frames(mut bytes: &[u8]) {
    let mut uploads = Uploads::default();
    while let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() {
        let Ok(lengths) = frame::lengths(*head, Limits::ADMITTED) else {
            return;
        };
        let Some((message, rest)) = rest.split_at_checked(lengths.message) else {
            return;
        };
        let Some((payload, rest)) = rest.split_at_checked(lengths.payload) else {
            return;
        };
        bytes = rest;
        let Some(ToWorker::Queue { command, .. }) = again::<ToWorker>(message) else {
            continue;
        };
        match command {
            Command::Write {
                bytes,
                coding,
                keep,
                ..
            } => {
                let Some(value) = uploads.decode(bytes, coding, payload) else {
                    return;
                };
                assert!(value.len() as u64 == bytes && value.len() <= LONGEST_KEPT);
                if keep.is_some_and(|number| !uploads.keep(number, value)) {
                    return;
                }
            }
            Command::Define { content, .. } => drop(content.check_form()),
            _ => {}
        }
    }
}

/// Differences and blocks lead to what they were made of, and anything else to no more than there is.
fn changes(bytes: &[u8]) {
    let half = bytes.len() / 2;
    let (old, new) = (&bytes[..half], &bytes[half..2 * half]);
    let mut change = Vec::new();
    assert!(difference::append(&mut change, old, new, usize::MAX));
    let mut uploads = Uploads::default();
    let length = half as u64;
    assert!(uploads.keep(3, old.to_vec()));
    let value = uploads.decode(length, Coding::Changed(3), &change);
    assert_eq!(value.as_deref(), Some(new));
    assert!(uploads.keep(4, old.to_vec()));
    let _ = uploads.decode(length, Coding::Changed(4), new);
    let _ = uploads.decode(length * 5, Coding::Lz4, new);
    let mut any = old.to_vec();
    let _ = difference::apply(&mut any, bytes);
}
