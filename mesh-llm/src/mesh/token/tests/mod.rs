//! What tokens promise.

mod forgery;
mod lengths;
mod pinned;
mod rights;
mod sealing;
mod text;

use super::*;
use crate::mesh::id::{Address, Contact, MeshId, Role, UnixSeconds};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use std::num::NonZeroU32;

const NOW: UnixSeconds = UnixSeconds(1_800_000_000);
const DAY: u64 = 86_400;

/// A key for each number.
fn key(seed: u8) -> SecretKey {
    SecretKey::from_bytes(&[seed; 32])
}

fn mesh() -> MeshId {
    MeshId(key(1).public())
}

fn founder() -> SecretKey {
    key(1)
}

/// Who wants to join.
fn newcomer() -> NodeId {
    key(200).public()
}

fn some(count: u32) -> Option<NonZeroU32> {
    NonZeroU32::new(count)
}

fn models(names: &[&str]) -> Option<Vec<String>> {
    Some(names.iter().map(|&name| name.to_owned()).collect())
}

fn in_days(days: u64) -> Option<UnixSeconds> {
    Some(UnixSeconds(NOW.0 + days * DAY))
}

/// What most tokens are: for a node, by the founder, for a week.
fn grant() -> Grant {
    let relay = Address::Relay("https://euc1-1.relay.n0.iroh-canary.iroh.link./".to_owned());
    let ip = |address: [u8; 4]| Address::Ip((address, 49_737).into());
    Grant {
        mesh: mesh(),
        issuer: founder().public(),
        role: Role::Node,
        expires: in_days(7),
        uses: None,
        models: None,
        contacts: vec![Contact {
            node: founder().public(),
            addresses: vec![ip([192, 168, 178, 33]), ip([203, 0, 113, 7]), relay],
        }],
    }
}

fn issue(grant: Grant) -> Token {
    Token::issue(&founder(), grant, key(2)).unwrap()
}

/// The token with restrictions one after another, each with a fresh key.
fn restricted(token: Token, restrictions: impl IntoIterator<Item = Restriction>) -> Token {
    (3..).zip(restrictions).fold(token, |token, (seed, restriction)| {
        token.restrict(restriction, key(seed)).unwrap()
    })
}

fn verify(token: &Token) -> Result<Verified, Refusal> {
    token.seal(newcomer()).verify(mesh(), newcomer(), NOW)
}

fn any_role() -> impl Strategy<Value = Role> {
    prop::sample::select(Role::ALL.to_vec())
}

fn any_uses() -> impl Strategy<Value = Option<NonZeroU32>> {
    any::<u32>().prop_map(NonZeroU32::new)
}

fn any_expiry() -> impl Strategy<Value = Option<UnixSeconds>> {
    option::of(any::<u64>().prop_map(UnixSeconds))
}

fn any_models() -> impl Strategy<Value = Option<Vec<String>>> {
    option::of(vec(prop::sample::select(vec!["a", "b", "llama", "qwen"]), 0..4))
        .prop_map(|names| names.map(|names| names.into_iter().map(str::to_owned).collect()))
}

fn any_address() -> impl Strategy<Value = Address> {
    let v4 = any::<([u8; 4], u16)>().prop_map(|at| Address::Ip(at.into()));
    let v6 = any::<([u8; 16], u16)>().prop_map(|at| Address::Ip(at.into()));
    let relay = "https://[a-z.]{1,30}/".prop_map(Address::Relay);
    prop_oneof![v4, v6, relay]
}

fn any_contact() -> impl Strategy<Value = Contact> {
    (1u8..6, vec(any_address(), 0..5)).prop_map(|(seed, addresses)| Contact {
        node: key(seed).public(),
        addresses,
    })
}

prop_compose! {
    fn any_grant()(
        role in any_role(),
        expires in any_expiry(),
        uses in any_uses(),
        models in any_models(),
        contacts in vec(any_contact(), 0..4),
    ) -> Grant {
        Grant { role, expires, uses, models, contacts, ..grant() }
    }
}

prop_compose! {
    fn any_restriction()(
        role in option::of(any_role()),
        expires in any_expiry(),
        uses in any_uses(),
        models in any_models(),
    ) -> Restriction {
        Restriction { role, expires, uses, models }
    }
}
