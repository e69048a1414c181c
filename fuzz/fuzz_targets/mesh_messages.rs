//! Any bytes that a stranger, a member or the disk may hand to the mesh: they are what they claim to be, or nothing;
//! what a message says when it is written again is what it said, and a member that hears it goes on.

#![no_main]

use std::fmt::Debug;
use std::str::FromStr;
use std::sync::LazyLock;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use iroh_base::SecretKey;
use libfuzzer_sys::fuzz_target;
use mesh_llm::mesh::core::{Admitted, Core, LinkId, Part, Side, Start};
use mesh_llm::mesh::id::{Boot, MeshId, NodeId, Role, UnixSeconds};
use mesh_llm::mesh::membership::{Member, Membership};
use mesh_llm::mesh::roster::{Act, Roster, SignedAct};
use mesh_llm::mesh::state::SignedState;
use mesh_llm::mesh::token::Token;
use mesh_llm::mesh::wire::{Answer, Bounded, Control, Hello, Lending, Open, Reader, encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

/// The founder's, whose node is the one that listens, and that of the member that speaks.
static KEYS: LazyLock<[SecretKey; 2]> =
    LazyLock::new(|| [1, 2].map(|byte| SecretKey::from_bytes(&[byte; 32])));

static NODES: LazyLock<[NodeId; 2]> = LazyLock::new(|| [KEYS[0].public(), KEYS[1].public()]);

/// The mesh of both.
static ROSTER: LazyLock<Roster> = LazyLock::new(|| {
    let mut roster = Roster::new(MeshId(NODES[0]));
    let act = Act::Admit {
        subject: NODES[1],
        role: Role::Node,
        tokens: Vec::new(),
        models: None,
        at: UnixSeconds(1),
        generation: 0,
    };
    let act = SignedAct::sign(&KEYS[0], roster.mesh(), 0, act);
    roster.add(act).expect("a founder admits");
    roster
});

const NOW: Duration = Duration::from_secs(10);

const UNIX: UnixSeconds = UnixSeconds(1_790_000_000);

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, bytes)) = bytes.split_first() else {
        return;
    };
    match kind % 8 {
        0 => hellos(bytes),
        1 => drop(messages::<Answer>(bytes)),
        2 => controls(bytes),
        3 => {
            drop(messages::<Open>(bytes));
            drop(messages::<Lending>(bytes));
        }
        4 => tokens(bytes),
        5 => rosters(bytes),
        6 => states(bytes),
        _ => packets(bytes),
    }
});

/// The messages in these bytes, which come in two pieces. A message that can be read is one that can be written.
fn messages<M>(bytes: &[u8]) -> Vec<M>
where
    M: Serialize + DeserializeOwned + Bounded + PartialEq + Debug,
{
    let mut all: Vec<M> = Vec::new();
    // As they came, and with the right length before them.
    let framed = [&(bytes.len() as u32).to_le_bytes(), bytes].concat();
    for bytes in [bytes, &framed] {
        let mut reader = Reader::<M>::default();
        let (one, other) = bytes.split_at(bytes.len() / 2);
        for piece in [one, other] {
            reader.push(piece);
            while let Ok(Some(message)) = reader.pop() {
                all.push(message);
            }
        }
    }
    for message in &all {
        let mut reader = Reader::<M>::default();
        // Numbers need not have come in their shortest form, but are written in it.
        reader.push(&encode(message).expect("what fitted fits"));
        assert_eq!(
            reader.pop().expect("what was written can be read").as_ref(),
            Some(message)
        );
    }
    all
}

/// A member that listens, to which another one is connected.
fn core(role: Role) -> Core {
    let mut core = Core::new(Start {
        key: KEYS[0].clone(),
        boot: Boot(5),
        roster: ROSTER.clone(),
        part: Part::Server,
        certificate: None,
        token: None,
        contacts: Vec::new(),
        seed: 1,
    });
    let peer = Member {
        node: NODES[1],
        boot: Boot(5),
    };
    let admitted = Admitted {
        role,
        models: None,
        shown: None,
    };
    core.linked(NOW, LinkId(1), peer, &admitted, Side::Theirs);
    core
}

fn hellos(bytes: &[u8]) {
    for mut hello in messages::<Hello>(bytes) {
        hello.mesh = ROSTER.mesh();
        for role in [Role::Node, Role::Client] {
            let mut core = core(role);
            // A stranger shows what it likes, and nobody has signed it.
            let stranger = SecretKey::from_bytes(&[9; 32]).public();
            assert!(core.admit(NOW, UNIX, stranger, &hello).is_err());
            while core.poll().is_some() {}
        }
    }
}

fn controls(bytes: &[u8]) {
    let messages = messages::<Control>(bytes);
    for role in [Role::Node, Role::Client] {
        let mut core = core(role);
        let before = ROSTER.digest();
        for message in &messages {
            core.control(NOW, LinkId(1), message.clone());
            while core.poll().is_some() {}
        }
        assert_eq!(core.kept().0.digest(), before, "nobody has signed an act");
        core.tick(NOW + Duration::from_secs(1));
    }
}

fn tokens(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Token::from_str(text);
    }
    let text = format!("mesh1{}", URL_SAFE_NO_PAD.encode(bytes));
    if let Ok(token) = Token::from_str(&text) {
        let again = Token::from_str(&token.to_string()).expect("what was written can be read");
        assert_eq!(token.rights(), again.rights());
        let _ = token.seal(NODES[1]).verify(token.grant().mesh, NODES[1], UNIX);
    }
}

fn rosters(bytes: &[u8]) {
    let _ = Roster::from_bytes(bytes);
    let mut whole = [b"mesh-llm roster\x01", bytes].concat();
    let sum = Sha256::digest(&whole);
    whole.extend_from_slice(&sum);
    if let Ok(roster) = Roster::from_bytes(&whole) {
        let again = Roster::from_bytes(&roster.to_bytes()).expect("what was written can be read");
        assert_eq!(roster.digest(), again.digest());
        let _ = roster.members().count();
    }
}

fn states(bytes: &[u8]) {
    // Its body, as its length and signature would have it: nobody has signed it, but it is read before.
    if let Ok(state) = postcard::from_bytes::<SignedState>(bytes) {
        assert!(state.open(ROSTER.mesh()).is_err());
    }
    let claimed = [&[0xff, 0xff, 0x7f], bytes].concat();
    assert!(postcard::from_bytes::<SignedState>(&claimed).is_err());
}

/// What a member says of itself and others: it names itself and this node as it must, the rest is any bytes.
fn packets(bytes: &[u8]) {
    let me = Member {
        node: NODES[0],
        boot: Boot(5),
    };
    let mut membership = Membership::new(me, 1);
    let peer = Member {
        node: NODES[1],
        boot: Boot(5),
    };
    membership.met(NOW, peer);
    let is_member = |node: NodeId| NODES.contains(&node);
    membership.receive(NOW, NODES[1], bytes, &is_member);
    for piece in bytes.chunks(64) {
        let [boot, incarnation, addressed, rest @ ..] = piece else {
            continue;
        };
        let [from, to] = [NODES[1], NODES[0]].map(|node| *node.as_bytes());
        let head = [
            &from[..],
            &[boot % 128, incarnation % 128],
            &to[..],
            &[addressed % 128],
        ]
        .concat();
        membership.receive(NOW, NODES[1], &[&head, rest].concat(), &is_member);
        // The same with an update about one of both.
        let update = [&[3, 0, 1], &to[..], rest].concat();
        membership.receive(NOW, NODES[1], &[head, update].concat(), &is_member);
        while membership.poll().is_some() {}
    }
    membership.tick(NOW + Duration::from_secs(5));
    while membership.poll().is_some() {}
}
