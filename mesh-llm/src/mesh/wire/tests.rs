//! What is said today is understood by every later version, and what makes no sense is found out.

mod framing;
mod pinned;

use super::*;
use crate::mesh::gossip::{Digest32, Heard, Message};
use crate::mesh::id::{Address, Role, TokenId, UnixSeconds};
use crate::mesh::roster::Act;
use crate::mesh::state::{NodeState, Stamp};
use crate::mesh::token::{Grant, Token};
use iroh_base::SecretKey;

fn key(number: u8) -> SecretKey {
    SecretKey::from_bytes(&[number; 32])
}

/// The founder's key is 32 times the byte 1.
fn mesh() -> MeshId {
    MeshId(key(1).public())
}

fn act() -> SignedAct {
    let act = Act::Revoke {
        token: TokenId([7; 16]),
        at: UnixSeconds(300),
    };
    SignedAct::sign(&key(1), mesh(), 0, act)
}

fn state() -> SignedState {
    let state = NodeState {
        name: "host".to_owned(),
        ..NodeState::bare(key(2).public(), Boot(5), 6)
    };
    state.sign(mesh(), &key(2))
}

fn sealed() -> Sealed {
    let grant = Grant {
        mesh: mesh(),
        issuer: mesh().founder(),
        role: Role::Node,
        expires: None,
        uses: None,
        models: None,
        contacts: Vec::new(),
    };
    let token = Token::issue(&key(1), grant, key(3)).unwrap();
    token.seal(key(2).public())
}

fn hello(credential: Credential) -> Hello {
    Hello {
        versions: VERSIONS,
        mesh: mesh(),
        boot: Boot(300),
        part: Part::Client,
        credential,
    }
}

fn refused(kind: RefusedKind) -> Answer {
    Answer::Refused(Refused {
        kind,
        message: "no".to_owned(),
    })
}

fn welcome() -> Answer {
    Answer::Welcome(Box::new(Welcome {
        version: 1,
        boot: Boot(300),
        certificate: Some(Box::new(act())),
        acts: vec![act(), act()],
        contacts: vec![Contact {
            node: key(2).public(),
            addresses: vec![Address::Ip(([192, 0, 2, 1], 7).into())],
        }],
    }))
}

fn controls() -> Vec<Control> {
    let node = key(2).public();
    let stamp = Stamp {
        boot: Boot(5),
        version: 6,
    };
    vec![
        Control::Gossip(Message::States(vec![state()])),
        Control::Gossip(Message::Digest(Digest32([9; 32]))),
        Control::Gossip(Message::Versions(vec![Heard { node, stamp }])),
        Control::Gossip(Message::Wanted(vec![node])),
        Control::Roster(Digest([8; 32])),
        Control::ActIds(vec![ActId([7; 16])]),
        Control::Acts(vec![act()]),
        Control::Table(Table {
            alive: vec![node],
            states: vec![state()],
        }),
        Control::Leaving,
    ]
}

#[test]
fn the_newest_version_that_both_speak_is_spoken() {
    let versions = |oldest, newest| Versions { oldest, newest };
    for (one, other, common) in [
        ((1, 1), (1, 1), Some(1)),
        ((1, 3), (2, 5), Some(3)),
        ((2, 2), (0, u16::MAX), Some(2)),
        ((1, 2), (3, 4), None),
        ((0, 0), (1, 1), None),
        // One that says what cannot be.
        ((1, 1), (2, 1), None),
        ((1, 1), (1, 0), None),
        ((1, 5), (4, 3), None),
    ] {
        let (one, other) = (versions(one.0, one.1), versions(other.0, other.1));
        assert_eq!(one.common(other), common, "{one:?} {other:?}");
        assert_eq!(other.common(one), common, "{other:?} {one:?}");
    }
}
