//! What a state is worth: its bytes for ever, its limits, and whose word it is.

use super::*;
use proptest::prelude::*;

fn key(number: u8) -> SecretKey {
    SecretKey::from_bytes(&[number; 32])
}

fn mesh() -> MeshId {
    MeshId(key(1).public())
}

fn ada() -> NodeState {
    NodeState {
        node: key(1).public(),
        boot: Boot(300),
        version: 5,
        name: "ada".to_owned(),
        program: "0.1.0".to_owned(),
        role: Role::Node,
        addresses: vec![
            Address::Ip("10.0.0.1:4242".parse().unwrap()),
            Address::Relay("https://r.example".to_owned()),
        ],
        memory: Memory {
            total_bytes: 16 << 30,
            offered_bytes: 8 << 30,
        },
        devices: vec![Device {
            name: "GPU".to_owned(),
            memory_bytes: 16 << 30,
        }],
        models: vec![
            ModelState {
                stage: Stage::Downloading { percent: Some(50) },
                ..model("tiny", 4096, 2, 1, 0)
            },
            model("big", 8192, 1, 0, 3),
        ],
        split: Some(SplitPart {
            speaks: "3/0.1.161".to_owned(),
            bandwidth: 300,
            most_round_trip_micros: 80_000,
        }),
        wants: vec![WantState {
            model: "big".to_owned(),
            layers: 24,
            layer_bytes: 300,
            head_bytes: 5,
            logits_bytes: 6,
            beside_bytes: 7,
            is_split: true,
            is_too_large: false,
            is_adopted: true,
        }],
        groups: vec![GroupState {
            model: "big".to_owned(),
            epoch: 300,
            own_layers: 10,
            workers: vec![GroupWorker {
                node: key(1).public(),
                layers: 14,
            }],
            planned: vec![11, 13],
            planned_head: 1,
        }],
        round_trips: vec![RoundTrip {
            node: key(1).public(),
            micros: 300,
        }],
        on_disk: vec![OnDisk {
            name: "big".to_owned(),
            bytes: 300,
        }],
        gpus: Gpus {
            offered_bytes: 7 << 30,
            bandwidth: 300,
        },
    }
}

fn model(name: &str, context: u32, slots: u32, busy: u32, waiting: u32) -> ModelState {
    ModelState {
        name: name.to_owned(),
        stage: Stage::Ready,
        context,
        slots,
        busy,
        waiting,
    }
}

fn hex(text: &str) -> Vec<u8> {
    let digits = text
        .as_bytes()
        .chunks(2)
        .map(|pair| std::str::from_utf8(pair).unwrap());
    digits.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

/// What release 0.1 makes of [`ada`], by an implementation in another language. Never change it.
const NODE: &str = "8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c";
const UP_TO_ADDRESSES: &str =
    "ac02050361646105302e312e3002020800000a000001922113011168747470733a2f2f722e6578616d706c65";
const FROM_MEMORY: &str =
    "808080804080808080200109034750558080808040020d0474696e7900013280200201000a03626967028040010003";
const FROM_SPLIT: &str = "010f09332f302e312e313631ac0280f104010d0362696718ac02050607010001012d03626967ac020a018a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c0e020b0d0101228a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5cac02";
const FROM_ON_DISK: &str = "010603626967ac02";
const FROM_GPUS: &str = "808080801cac02";
const SIGNATURE: &str = "18b5c27aa5ac5c95fd6513c098f7897b77204baece603bdf26d427cb0d085fb6cd9781ac785ae5d20aefdfeb29531c9b5ec8931ae8dc246708a2dbf564feb00a";

fn body_of_0_1() -> Vec<u8> {
    hex(&[
        NODE,
        UP_TO_ADDRESSES,
        FROM_MEMORY,
        FROM_SPLIT,
        FROM_ON_DISK,
        FROM_GPUS,
    ]
    .concat())
}

/// Such bytes, signed by ada.
fn signed(body: Vec<u8>) -> SignedState {
    let signature = key(1).sign(&signed_bytes(mesh(), &body));
    SignedState { body, signature }
}

#[test]
fn the_bytes_of_a_state_are_those_of_release_0_1() {
    let state = ada().sign(mesh(), &key(1));
    assert_eq!(state.body, body_of_0_1());
    assert_eq!(state.signature.to_bytes().to_vec(), hex(SIGNATURE));
    assert_eq!(state.open(mesh()), Ok(ada()));
    assert_eq!(state.claim(), Ok((ada().node, ada().stamp())));
}

#[test]
fn what_a_newer_release_appends_is_left_unread() {
    let newer = [body_of_0_1(), b"a field of release 0.2".to_vec()].concat();
    assert_eq!(signed(newer).open(mesh()), Ok(ada()));
}

#[test]
fn what_a_newer_release_appends_to_a_model_is_left_unread_and_a_stage_unknown_here_costs_only_its_model() {
    let state = NodeState {
        models: Vec::new(),
        split: None,
        wants: Vec::new(),
        groups: Vec::new(),
        round_trips: Vec::new(),
        on_disk: Vec::new(),
        gpus: Gpus::default(),
        ..ada()
    };
    let mut body = wire::encode(&state);
    assert_eq!(
        body.split_off(body.len() - 8),
        [0; 8],
        "no models, and nothing after them"
    );
    let mut longer = postcard::to_allocvec(&model("big", 8192, 1, 0, 3)).unwrap();
    longer.extend([1, 2, 3]);
    let with_unknown_stage = [&b"\x04tiny"[..], &[9, 9, 9]].concat();
    body.extend(postcard::to_allocvec(&vec![with_unknown_stage, longer]).unwrap());
    let known = NodeState {
        models: vec![model("big", 8192, 1, 0, 3)],
        ..state
    };
    assert_eq!(signed(body).open(mesh()), Ok(known));
}

#[test]
fn what_an_older_release_lacks_is_the_default() {
    let older = hex(&[NODE, UP_TO_ADDRESSES].concat());
    let known = NodeState {
        memory: Memory::default(),
        devices: Vec::new(),
        models: Vec::new(),
        split: None,
        wants: Vec::new(),
        groups: Vec::new(),
        round_trips: Vec::new(),
        on_disk: Vec::new(),
        gpus: Gpus::default(),
        ..ada()
    };
    assert_eq!(signed(older).open(mesh()), Ok(known));
}

#[test]
fn nobody_speaks_for_another_node() {
    let forged = ada().sign(mesh(), &key(2));
    assert_eq!(forged.open(mesh()), Err(Rejected::Signature { node: ada().node }));
}

#[test]
fn a_state_is_for_one_mesh() {
    let state = ada().sign(mesh(), &key(1));
    let elsewhere = MeshId(key(2).public());
    assert_eq!(
        state.open(elsewhere),
        Err(Rejected::Signature { node: ada().node })
    );
}

#[test]
fn every_changed_bit_is_noticed() {
    let state = ada().sign(mesh(), &key(1));
    for bit in (0..state.body.len() * 8).step_by(29) {
        let mut changed = state.clone();
        changed.body[bit / 8] ^= 1 << (bit % 8);
        assert!(changed.open(mesh()).is_err(), "bit {bit}");
    }
}

#[test]
fn what_exceeds_the_limits_is_left_out_when_it_is_signed() {
    let long = "ä".repeat(100);
    let state = NodeState {
        name: format!("\u{7}{long}"),
        addresses: vec![
            Address::Relay(long.clone()),
            Address::Relay("https://r.example".to_owned()),
        ],
        devices: vec![
            Device {
                name: "GPU\n0".to_owned(),
                memory_bytes: 1
            };
            20
        ],
        models: (0..100)
            .map(|number| model(&format!("{number:0128}"), 1, 1, 1, 1))
            .collect(),
        ..ada()
    };
    let signed = state.sign(mesh(), &key(1));
    assert!(signed.body.len() <= MAX_STATE_BYTES);
    let opened = signed.open(mesh()).unwrap();
    assert_eq!(opened.name, "ä".repeat(64));
    assert_eq!(opened.addresses, [Address::Relay("https://r.example".to_owned())]);
    assert_eq!(opened.devices.len(), MAX_DEVICES);
    assert_eq!(opened.devices[0].name, "GPU0");
    assert!(opened.models.len() > 50 && opened.models[..] == state.models[..opened.models.len()]);
}

#[test]
fn a_signed_state_that_keeps_to_no_limits_is_refused() {
    let with = |change: fn(&mut NodeState)| {
        let mut state = ada();
        change(&mut state);
        signed(wire::encode(&state)).open(mesh())
    };
    let text = Err(Rejected::Text);
    assert_eq!(with(|state| state.name = "a".repeat(129)), text);
    assert_eq!(with(|state| state.program = "0.1\n0".to_owned()), text);
    assert_eq!(with(|state| state.models[0].name = "\u{1b}[2J".to_owned()), text);
    assert_eq!(
        with(|state| state.addresses = vec![Address::Relay("\0".to_owned())]),
        text
    );
    let percent = with(|state| state.models[0].stage = Stage::Loading { percent: 101 });
    assert_eq!(percent, Err(Rejected::Malformed));
    let models = with(|state| state.models = vec![model("a", 1, 1, 1, 1); 65]);
    assert_eq!(
        models,
        Err(Rejected::TooMany {
            things: "models",
            count: 65,
            limit: MAX_MODELS
        })
    );
    let bytes = signed(vec![0; MAX_STATE_BYTES + 1]).open(mesh());
    assert_eq!(
        bytes,
        Err(Rejected::TooLong {
            bytes: MAX_STATE_BYTES + 1
        })
    );
}

#[test]
fn a_list_is_refused_by_its_claim() {
    let mut body = hex(&[NODE, UP_TO_ADDRESSES, "0000"].concat());
    body.extend(postcard::to_allocvec(&u32::MAX).unwrap());
    let devices = Rejected::TooMany {
        things: "devices",
        count: u32::MAX,
        limit: MAX_DEVICES,
    };
    assert_eq!(signed(body).open(mesh()), Err(devices));
}

proptest! {
    #[test]
    fn no_bytes_panic(body in proptest::collection::vec(any::<u8>(), 0..300), tail in any::<bool>()) {
        let body = if tail { [hex(NODE), body].concat() } else { body };
        let _ = signed(body.clone()).claim();
        let _ = wire::decode(&body);
    }
}
