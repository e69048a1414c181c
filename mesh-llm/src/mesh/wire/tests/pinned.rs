//! The bytes of each kind of message. Those that hold what others encode are pinned by their sum.

use super::*;
use crate::mesh::wire::frame::encode;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use std::fmt::Debug;

/// A message has these bytes, behind their length, and they are read as the message.
#[track_caller]
fn assert_bytes<M>(message: &M, parts: &[&[u8]])
where
    M: Serialize + DeserializeOwned + Bounded + PartialEq + Debug,
{
    let body = parts.concat();
    let frame = encode(message).unwrap();
    assert_eq!(frame[..4], (body.len() as u32).to_le_bytes());
    assert_eq!(frame[4..], body);
    let mut reader = Reader::<M>::default();
    reader.push(&frame);
    assert_eq!(reader.pop().unwrap().as_ref(), Some(message));
}

#[track_caller]
fn assert_sum<M>(message: &M, bytes: usize, sum: &str)
where
    M: Serialize + DeserializeOwned + Bounded + PartialEq + Debug,
{
    let frame = encode(message).unwrap();
    let hash = Sha256::digest(&frame);
    let hash: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!((frame.len(), hash.as_str()), (bytes, sum));
    let mut reader = Reader::<M>::default();
    reader.push(&frame);
    assert_eq!(reader.pop().unwrap().as_ref(), Some(message));
}

/// What every hello of these tests begins with: versions 1 to 1, the mesh, boot 300, a client.
fn head() -> Vec<u8> {
    [&[1, 1], mesh().0.as_bytes().as_slice(), &[0xac, 2, 1]].concat()
}

/// The act of these tests in bytes.
fn act_bytes() -> Vec<u8> {
    postcard::to_allocvec(&act()).unwrap()
}

fn state_bytes() -> Vec<u8> {
    postcard::to_allocvec(&state()).unwrap()
}

#[test]
fn a_hello_is_written_as_ever() {
    assert_bytes(&hello(Credential::Member), &[&head(), &[0]]);
    let by_act = Credential::Certificate(Box::new(act()));
    assert_bytes(&hello(by_act), &[&head(), &[1], &act_bytes()]);
    let by_token = Credential::Token(Box::new(sealed()));
    let sealed = postcard::to_allocvec(&sealed()).unwrap();
    assert_bytes(&hello(by_token), &[&head(), &[2], &sealed]);
    let mut server = hello(Credential::Member);
    server.part = Part::Server;
    let mut bytes = head();
    *bytes.last_mut().unwrap() = 0;
    assert_bytes(&server, &[&bytes, &[0]]);
}

#[test]
fn an_act_is_written_as_ever() {
    let bytes = act_bytes();
    let head = [
        key(1).public().as_bytes().as_slice(),
        &[0, 2],
        &[7; 16],
        &[0xac, 2],
    ]
    .concat();
    assert_eq!(bytes[..head.len()], head);
    assert_eq!(bytes.len(), head.len() + 64, "and a signature");
}

#[test]
fn an_answer_is_written_as_ever() {
    let act = act_bytes();
    let node = key(2).public();
    let contact = [&[1], node.as_bytes().as_slice(), &[1, 0, 0, 192, 0, 2, 1, 7]].concat();
    assert_bytes(
        &welcome(),
        &[&[0, 1, 0xac, 2, 1], &act, &[2], &act, &act, &contact],
    );
    for (kind, byte) in [
        (RefusedKind::Credential, 0),
        (RefusedKind::Removed, 1),
        (RefusedKind::Version, 2),
        (RefusedKind::Busy, 3),
    ] {
        assert_bytes(&refused(kind), &[&[1, byte, 2], b"no"]);
    }
}

#[test]
fn a_control_message_is_written_as_ever() {
    let node = key(2).public();
    let node = node.as_bytes().as_slice();
    let expected: [&[&[u8]]; 9] = [
        &[&[0, 0, 1], &state_bytes()],
        &[&[0, 1], &[9; 32]],
        &[&[0, 2, 1], node, &[5, 6]],
        &[&[0, 3, 1], node],
        &[&[1], &[8; 32]],
        &[&[2, 1], &[7; 16]],
        &[&[3, 1], &act_bytes()],
        &[&[4, 1], node, &[1], &state_bytes()],
        &[&[5]],
    ];
    for (message, parts) in controls().iter().zip(expected) {
        assert_bytes(message, parts);
    }
}

#[test]
fn an_open_is_written_as_ever() {
    let model = "qwen".to_owned();
    assert_bytes(&Open::Http { model }, &[&[0, 4], b"qwen"]);
    let lend = Lend {
        group: GroupId([7; 16]),
        model: "qwen".to_owned(),
        epoch: 300,
        bytes: 128,
        secret: [9; 32],
        workers: vec![key(2).public()],
    };
    let node = key(2).public();
    let expected: &[&[u8]] = &[
        &[1],
        &[7; 16],
        &[4],
        b"qwen",
        &[0xac, 2, 0x80, 1],
        &[9; 32],
        &[1],
        node.as_bytes(),
    ];
    assert_bytes(&Open::Lend(Box::new(lend)), expected);
    let group = GroupId([7; 16]);
    assert_bytes(&Open::Channel { group }, &[&[2], &[7; 16]]);
    let fetch = Fetch {
        model: "qwen".to_owned(),
        source: "a/b".to_owned(),
        bytes: 300,
    };
    assert_bytes(
        &Open::Fetch(Box::new(fetch)),
        &[&[3, 4], b"qwen", &[3], b"a/b", &[0xac, 2]],
    );
}

#[test]
fn what_becomes_of_a_loan_is_written_as_ever() {
    assert_bytes(&Lending::Granted { bytes: 128 }, &[&[0, 0x80, 1]]);
    assert_bytes(&Lending::Stale { newest: 300 }, &[&[1, 0xac, 2]]);
    let message = "gone".to_owned();
    assert_bytes(&Lending::Ended { message }, &[&[2, 4], b"gone"]);
}

#[test]
fn what_becomes_of_a_copy_is_written_as_ever() {
    assert_bytes(&Fetching::Here, &[&[0]]);
    assert_bytes(&Fetching::UnderWay { percent: None }, &[&[1, 0]]);
    assert_bytes(&Fetching::UnderWay { percent: Some(7) }, &[&[1, 1, 7]]);
    let message = "gone".to_owned();
    assert_bytes(&Fetching::Failed { message }, &[&[2, 4], b"gone"]);
}

#[test]
fn what_others_encode_is_sent_as_ever() {
    assert_sum(
        &hello(Credential::Certificate(Box::new(act()))),
        158,
        "89ddc3751f310d35",
    );
    assert_sum(
        &hello(Credential::Token(Box::new(sealed()))),
        242,
        "b48d6185c80ed01f",
    );
    assert_sum(
        &Control::Gossip(Message::States(vec![state()])),
        130,
        "f5c1eaa584bf2549",
    );
}

#[test]
fn the_protocol_has_its_name() {
    assert_eq!(ALPN, b"mesh-llm/mesh/1");
    assert_eq!(VERSIONS, Versions { oldest: 1, newest: 1 });
}
