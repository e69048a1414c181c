//! Acts that nobody signed, or not for this mesh.

use super::*;
use crate::mesh::roster::{MOST_MODEL_BYTES, MOST_MODELS, MOST_NAMES, MOST_TOKENS, Rejected, TooLarge};

fn encode(act: &SignedAct) -> Vec<u8> {
    postcard::to_allocvec(act).unwrap()
}

#[test]
fn an_act_under_anothers_name_is_rejected() {
    let mut roster = at_work();
    let mut bytes = encode(&sign(DAN, admit(5, Role::Node, 10)));
    bytes[..32].copy_from_slice(NODES[ANNE].as_bytes());
    let forged = postcard::from_bytes(&bytes).unwrap();
    assert_eq!(roster.add(forged), Err(Rejected::Forged { by: NODES[ANNE] }));
}

#[test]
fn an_act_for_another_mesh_is_rejected() {
    let other = MeshId(NODES[ANNE]);
    let act = SignedAct::sign(&KEYS[FOUNDER], other, 0, admit(ANNE, Role::Node, 1));
    assert_eq!(
        roster([]).add(act.clone()),
        Err(Rejected::Forged { by: NODES[FOUNDER] })
    );
    let mut roster = Roster::new(other);
    assert_eq!(roster.add(act), Ok(Added::Waiting), "over there it is genuine");
}

#[test]
fn a_signature_over_something_else_is_none_of_an_act() {
    let act = admit(ANNE, Role::Node, 1);
    let plain = postcard::to_allocvec(&act).unwrap();
    let numbered = [&[0], plain.as_slice()].concat();
    for message in [plain.clone(), [mesh().0.as_bytes(), numbered.as_slice()].concat()] {
        let signature = KEYS[FOUNDER].sign(&message).to_bytes();
        let bytes = [
            NODES[FOUNDER].as_bytes(),
            numbered.as_slice(),
            signature.as_slice(),
        ]
        .concat();
        let forged = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(
            roster([]).add(forged),
            Err(Rejected::Forged { by: NODES[FOUNDER] })
        );
    }
}

#[test]
fn no_act_survives_the_change_of_a_bit() {
    let act = Act::Admit {
        subject: NODES[ANNE],
        role: Role::Client,
        tokens: vec![limited(1, 3)],
        models: Some(vec!["qwen".into()]),
        at: at(1_800_000_000),
        generation: 1,
    };
    let bytes = encode(&sign(FOUNDER, act));
    for bit in 0..bytes.len() * 8 {
        let mut mutated = bytes.clone();
        mutated[bit / 8] ^= 1 << (bit % 8);
        if let Ok(act) = postcard::from_bytes::<SignedAct>(&mutated) {
            let added = roster([]).add(act);
            assert!(
                matches!(added, Err(Rejected::Forged { .. })),
                "bit {bit}: {added:?}"
            );
        }
    }
}

#[test]
fn an_act_beyond_a_limit_is_neither_read_nor_taken() {
    let sized = |tokens, models, name: usize| Act::Admit {
        subject: NODES[ANNE],
        role: Role::Client,
        tokens: vec![limited(1, u32::MAX); tokens],
        models: Some(vec!["m".repeat(name); models]),
        at: at(u64::MAX),
        generation: u32::MAX,
    };
    let largest = sign(FOUNDER, sized(MOST_TOKENS, MOST_MODELS, MOST_MODEL_BYTES));
    assert!(encode(&largest).len() <= super::super::MOST_ACT_BYTES);
    assert_eq!(postcard::from_bytes(&encode(&largest)), Ok(largest.clone()));
    roster([]).take(largest);

    let cases = [
        (
            sized(MOST_TOKENS + 1, 0, 0),
            TooLarge::Tokens(MOST_TOKENS + 1),
            false,
        ),
        (
            sized(0, MOST_MODELS + 1, 1),
            TooLarge::Models(MOST_MODELS + 1),
            false,
        ),
        (
            sized(0, 1, MOST_MODEL_BYTES + 1),
            TooLarge::ModelName(MOST_MODEL_BYTES + 1),
            true,
        ),
        (
            remove_but(ANNE, 0, vec![ActId([1; 16]); MOST_NAMES + 1]),
            TooLarge::Names(MOST_NAMES + 1),
            false,
        ),
    ];
    for (act, why, is_read) in cases {
        let act = sign(FOUNDER, act);
        assert_eq!(postcard::from_bytes::<SignedAct>(&encode(&act)).is_ok(), is_read);
        assert_eq!(roster([]).add(act), Err(Rejected::TooLarge(why)));
    }
}

#[test]
fn a_list_that_claims_to_be_endless_is_refused() {
    let mut bytes = encode(&sign(FOUNDER, admit(ANNE, Role::Node, 1)));
    // Behind the signer, its generation, the kind, the subject and the role: the number of tokens.
    let tokens = 32 + 1 + 1 + 32 + 1;
    assert_eq!(bytes[tokens], 0);
    bytes.splice(tokens..=tokens, [0xff, 0xff, 0xff, 0xff, 0x0f]);
    assert!(postcard::from_bytes::<SignedAct>(&bytes).is_err());
}

#[test]
fn bytes_of_each_act_are_pinned() {
    let acts = [
        Act::Admit {
            subject: NODES[ANNE],
            role: Role::Worker,
            tokens: vec![limited(2, 300), unlimited(3)],
            models: Some(vec!["qwen".into()]),
            at: at(1_800_000_000),
            generation: 1,
        },
        remove_but(ANNE, 300, [ActId([4; 16]), ActId([5; 16])]),
        Act::Revoke {
            token: token(2),
            at: at(50),
        },
    ];
    let anne = NODES[ANNE].as_bytes().as_slice();
    let expected = [
        [
            &[0],
            anne,
            &[1, 2],
            &[2; 16],
            &[1, 0xac, 0x02],
            &[3; 16],
            &[0, 1, 1, 4],
            b"qwen",
            &[0x80, 0xa4, 0xa7, 0xda, 0x06, 1],
        ]
        .concat(),
        [&[1], anne, &[0xac, 0x02, 2], &[4; 16], &[5; 16], &[50]].concat(),
        [[2].as_slice(), &[2; 16], &[50]].concat(),
    ];
    for (act, expected) in acts.into_iter().zip(expected) {
        assert_eq!(postcard::to_allocvec(&act).unwrap(), expected);
        let signed = encode(&sign_in(300, FOUNDER, act));
        assert_eq!(signed[..32], *NODES[FOUNDER].as_bytes());
        assert_eq!(signed[32..34], [0xac, 0x02], "the signer's generation");
        assert_eq!(signed[34..signed.len() - 64], expected);
    }
}

#[test]
fn the_name_of_an_act_is_pinned() {
    let id = sign(FOUNDER, remove(ANNE, 0)).id();
    assert_eq!(id.to_string(), "36c0602f902b4af032a3d5d2a45ac9cd");
}
