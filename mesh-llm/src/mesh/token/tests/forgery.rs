//! Who is not let in: whoever makes blocks by hand, or has only a part of a token.

use super::super::chain::Chain;
use super::super::content;
use super::super::limits::{Content, Few, MOST_BLOCKS};
use super::*;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use iroh_base::Signature;
use serde::{Deserialize, Serialize};

/// A sealed token as a forger sees it.
#[derive(Clone, Serialize, Deserialize)]
struct Raw {
    grant: RawBlock,
    restrictions: Few<(NodeId, RawBlock), { MOST_BLOCKS + 1 }>,
    last: NodeId,
    seal: Signature,
}

#[derive(Clone, Serialize, Deserialize)]
struct RawBlock {
    content: Content,
    signature: Signature,
}

impl Raw {
    fn of(sealed: &Sealed) -> Self {
        postcard::from_bytes(&content::encode(sealed)).unwrap()
    }

    /// A grant with this content, properly signed by a node and sealed by the token's only key.
    fn signed(issuer: &SecretKey, content: Vec<u8>) -> Self {
        let next = key(2).public();
        let message = [b"mesh-llm token 1 grant", next.as_bytes().as_slice(), &content].concat();
        let raw = Self {
            grant: RawBlock {
                content: Content(content),
                signature: issuer.sign(&message),
            },
            restrictions: Few(Vec::new()),
            last: next,
            seal: key(2).sign(b""),
        };
        raw.sealed_by(&key(2))
    }

    /// The same, with a seal for the newcomer by this key.
    fn sealed_by(mut self, last: &SecretKey) -> Self {
        let signature = match self.restrictions.0.last() {
            Some((_, block)) => block.signature,
            None => self.grant.signature,
        };
        let (mesh, subject, signature) = (mesh().founder(), newcomer(), signature.to_bytes());
        let message: [&[u8]; 4] = [
            b"mesh-llm token 1 seal",
            mesh.as_bytes(),
            &signature,
            subject.as_bytes(),
        ];
        self.last = last.public();
        self.seal = last.sign(&message.concat());
        self
    }

    fn verify(&self) -> Result<Verified, Refusal> {
        let sealed: Sealed = postcard::from_bytes(&content::encode(self)).unwrap();
        sealed.verify(mesh(), newcomer(), NOW)
    }
}

/// A client's token for a day, made from a node's for a week.
fn handed_on() -> Token {
    let restriction = Restriction {
        role: Some(Role::Client),
        expires: in_days(1),
        ..Restriction::default()
    };
    restricted(issue(grant()), [restriction])
}

#[test]
fn a_forgers_view_is_the_real_one() {
    let raw = Raw::of(&handed_on().seal(newcomer()));
    assert_eq!(raw.verify(), verify(&handed_on()));
    assert_eq!(raw.sealed_by(&key(3)).verify(), verify(&handed_on()));
    let content = content::encode_grant(&grant()).unwrap();
    assert_eq!(Raw::signed(&founder(), content).verify(), verify(&issue(grant())));
}

#[test]
fn each_field_of_a_grant_is_signed() {
    let raw = Raw::of(&issue(grant()).seal(newcomer()));
    let mut moved = grant();
    moved.contacts[0].addresses.pop();
    let mut called = grant();
    called.contacts[0].node = key(66).public();
    for changed in [
        Grant {
            mesh: MeshId(key(66).public()),
            ..grant()
        },
        Grant {
            issuer: key(66).public(),
            ..grant()
        },
        Grant {
            role: Role::Worker,
            ..grant()
        },
        Grant {
            expires: in_days(8),
            ..grant()
        },
        Grant {
            expires: None,
            ..grant()
        },
        Grant {
            uses: some(1),
            ..grant()
        },
        Grant {
            models: models(&[]),
            ..grant()
        },
        moved,
        called,
    ] {
        let mut forged = raw.clone();
        forged.grant.content = Content(content::encode_grant(&changed).unwrap());
        assert_eq!(forged.verify(), Err(Refusal::Forged), "{changed:?}");
    }
}

#[test]
fn each_field_of_a_restriction_is_signed() {
    let raw = Raw::of(&handed_on().seal(newcomer()));
    let own = Restriction {
        role: Some(Role::Client),
        expires: in_days(1),
        ..Restriction::default()
    };
    for changed in [
        Restriction {
            role: None,
            ..own.clone()
        },
        Restriction {
            expires: None,
            ..own.clone()
        },
        Restriction {
            uses: some(1),
            ..own.clone()
        },
        Restriction {
            models: models(&["qwen"]),
            ..own
        },
    ] {
        let mut forged = raw.clone();
        forged.restrictions.0[0].1.content = Content(content::encode_restriction(&changed).unwrap());
        assert_eq!(forged.verify(), Err(Refusal::Forged), "{changed:?}");
    }
}

#[test]
fn a_wider_role_is_void_however_well_it_is_signed() {
    let wider = Restriction {
        role: Some(Role::Node),
        ..Restriction::default()
    };
    for had in [Role::Client, Role::Worker] {
        let token = issue(Grant { role: had, ..grant() });
        let chain = token.chain.then(&key(2), &wider, key(3).public()).unwrap();
        let widened = Widened {
            had,
            wanted: Role::Node,
        };
        let sealed = Sealed::new(&chain, mesh(), &key(3), newcomer());
        assert_eq!(
            sealed.verify(mesh(), newcomer(), NOW),
            Err(Refusal::Widened(widened))
        );
        let made = Token {
            chain,
            secret: key(3),
            ..token
        };
        let read = made.to_string().parse::<Token>();
        assert_eq!(read.unwrap_err(), TokenError::Widened(widened));
    }
}

#[test]
fn later_blocks_give_nothing_back() {
    let token = issue(Grant {
        role: Role::Client,
        uses: some(1),
        models: models(&["a"]),
        ..grant()
    });
    let more = Restriction {
        role: None,
        expires: in_days(365),
        uses: some(1000),
        models: models(&["a", "b"]),
    };
    let chain = token.chain.then(&key(2), &more, key(3).public()).unwrap();
    let sealed = Sealed::new(&chain, mesh(), &key(3), newcomer());
    let verified = sealed.verify(mesh(), newcomer(), NOW).unwrap();
    assert_eq!(verified.models, models(&["a"]));
    assert_eq!(
        verified.tokens[0],
        verify(&token).unwrap().tokens[0],
        "the first count goes on"
    );
    let in_a_month = UnixSeconds(NOW.0 + 30 * DAY);
    let late = sealed.verify(mesh(), newcomer(), in_a_month);
    assert!(matches!(late, Err(Refusal::Expired { .. })));
}

#[test]
fn a_restriction_cannot_be_left_away() {
    let mut raw = Raw::of(&handed_on().seal(newcomer()));
    raw.restrictions.0.clear();
    assert_eq!(
        raw.clone().sealed_by(&key(3)).verify(),
        Err(Refusal::Forged),
        "the grant names another key"
    );
    raw.last = key(2).public();
    assert_eq!(
        raw.verify(),
        Err(Refusal::NotForYou),
        "nobody has that key's secret"
    );
}

#[test]
fn restrictions_keep_their_order_and_their_token() {
    let uses = |count| Restriction {
        uses: some(count),
        ..Restriction::default()
    };
    let mut short = grant();
    short.contacts.clear();
    let token = restricted(issue(short.clone()), [uses(2), uses(1)]);
    let raw = Raw::of(&token.seal(newcomer()));
    let mut swapped = raw.clone();
    swapped.restrictions.0.swap(0, 1);
    assert_eq!(swapped.verify(), Err(Refusal::Forged));
    // The same keys, but another grant.
    let other = Raw::of(
        &issue(Grant {
            role: Role::Client,
            ..short
        })
        .seal(newcomer()),
    );
    let mixed = Raw {
        grant: other.grant,
        ..raw
    };
    assert_eq!(mixed.verify(), Err(Refusal::Forged));
}

#[test]
fn nobody_issues_in_anothers_name() {
    let forger = key(66);
    let content = content::encode_grant(&grant()).unwrap();
    assert_eq!(Raw::signed(&forger, content).verify(), Err(Refusal::Forged));
    let own = Token::issue(&forger, grant(), key(2)).unwrap();
    assert_eq!(
        verify(&own).unwrap().issuer,
        forger.public(),
        "whom no member knows"
    );
}

#[test]
fn who_has_only_seen_a_token_being_shown_cannot_use_it() {
    let seen = Raw::of(&issue(grant()).seal(key(201).public()));
    assert_eq!(seen.verify(), Err(Refusal::NotForYou));
    assert_eq!(seen.sealed_by(&key(66)).verify(), Err(Refusal::Forged));
}

#[test]
fn what_a_newer_version_has_added_is_not_ignored() {
    let mut content = content::encode_grant(&grant()).unwrap();
    content.push(1);
    let raw = Raw::signed(&founder(), content);
    assert_eq!(raw.verify(), Err(Refusal::NewerVersion));
    // Unless it was signed it is no newer version.
    let mut forged = Raw::of(&issue(grant()).seal(newcomer()));
    forged.grant.content.0.push(1);
    assert_eq!(forged.verify(), Err(Refusal::Forged));
}

#[test]
fn no_flipped_bit_of_a_text_is_overlooked() {
    let text = handed_on().to_string();
    let bytes = URL_SAFE_NO_PAD.decode(&text["mesh1".len()..]).unwrap();
    for flipped in flips(&bytes) {
        let text = format!("mesh1{}", URL_SAFE_NO_PAD.encode(flipped));
        let read = text.parse::<Token>();
        assert!(
            matches!(read, Err(TokenError::Damaged | TokenError::CutOff)),
            "{read:?}"
        );
    }
}

#[test]
fn no_flipped_bit_of_a_sealed_token_is_overlooked() {
    let bytes = content::encode(&handed_on().seal(newcomer()));
    for flipped in flips(&bytes) {
        let Ok(sealed) = postcard::from_bytes::<Sealed>(&flipped) else {
            continue;
        };
        let refusal = sealed.verify(mesh(), newcomer(), NOW).unwrap_err();
        assert!(
            matches!(refusal, Refusal::Forged | Refusal::NotForYou),
            "{refusal}"
        );
    }
}

/// The bytes, each time with another bit flipped.
fn flips(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    (0..bytes.len() * 8).map(|bit| {
        let mut flipped = bytes.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        flipped
    })
}

proptest! {
    #[test]
    fn any_bytes_are_refused_without_harm(bytes in vec(any::<u8>(), 0..600)) {
        let _ = content::decode_grant(&bytes);
        let _ = content::decode_restriction(&bytes);
        let _ = postcard::from_bytes::<Chain>(&bytes);
        if let Ok(sealed) = postcard::from_bytes::<Sealed>(&bytes) {
            prop_assert!(sealed.verify(mesh(), newcomer(), NOW).is_err());
        }
    }

    #[test]
    fn bytes_put_anywhere_are_never_overlooked(
        at in any::<prop::sample::Index>(),
        removed in 0usize..40,
        put in vec(any::<u8>(), 0..40),
    ) {
        let token = handed_on();
        let bytes = content::encode(&token.seal(newcomer()));
        let start = at.index(bytes.len());
        let end = (start + removed).min(bytes.len());
        let mut mutated = bytes.clone();
        mutated.splice(start..end, put);
        if let Ok((sealed, [])) = postcard::take_from_bytes::<Sealed>(&mutated) {
            let verified = sealed.verify(mesh(), newcomer(), NOW);
            prop_assert!(verified.is_err() || verified == verify(&token));
        }
    }
}
