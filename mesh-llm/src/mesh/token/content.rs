//! What the blocks of a token say, as few bytes.
//!
//! Postcard's encoding of the types below: keys are 32 raw bytes, an IPv4 address and its port are 6, and the
//! node that a token has named already is not named again. DESIGN.md has the table. A later version may only append
//! fields. What it has appended is handed back unread, and such a block must not be obeyed without it: it may
//! be a restriction. Any other change needs another prefix of the text.

use super::limits::{
    Few, MOST_ADDRESSES, MOST_CONTACTS, MOST_MODEL_BYTES, MOST_MODELS, MOST_RELAY_BYTES, Short, TooLong,
};
use super::rights::{Grant, Restriction};
use crate::mesh::id::{Address, Contact, MeshId, NodeId, Role, UnixSeconds};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::num::NonZeroU32;

/// Bytes that no version has written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// The bytes of a grant, whose contacts have been [trimmed](super::contacts) to their limits.
pub(super) fn encode_grant(grant: &Grant) -> Result<Vec<u8>, TooLong> {
    let who = |node: NodeId| match node {
        _ if node == grant.issuer => Who::Issuer,
        _ if node == grant.mesh.founder() => Who::Founder,
        _ => Who::Other(node),
    };
    let contacts = grant.contacts.iter().map(|contact| {
        let places: Result<_, _> = contact.addresses.iter().map(Place::of).collect();
        Ok(Call {
            who: who(contact.node),
            places: Few(places?),
        })
    });
    let contacts: Result<_, TooLong> = contacts.collect();
    Ok(encode(&Granted {
        mesh: grant.mesh,
        issuer: Some(grant.issuer).filter(|&issuer| issuer != grant.mesh.founder()),
        role: grant.role,
        expires: grant.expires,
        uses: grant.uses,
        models: names(grant.models.as_deref())?,
        contacts: Few(contacts?),
    }))
}

/// The bytes of a restriction.
pub(super) fn encode_restriction(restriction: &Restriction) -> Result<Vec<u8>, TooLong> {
    Ok(encode(&Restricted {
        role: restriction.role,
        expires: restriction.expires,
        uses: restriction.uses,
        models: names(restriction.models.as_deref())?,
    }))
}

/// What [`encode_grant`] has written, and what a later version has appended.
pub(super) fn decode_grant(bytes: &[u8]) -> Result<(Grant, &[u8]), Malformed> {
    let (granted, appended) = decode::<Granted>(bytes)?;
    let issuer = granted.issuer.unwrap_or(granted.mesh.founder());
    let contact = |call: Call| Contact {
        node: match call.who {
            Who::Issuer => issuer,
            Who::Founder => granted.mesh.founder(),
            Who::Other(node) => node,
        },
        addresses: call.places.0.into_iter().map(Place::address).collect(),
    };
    let contacts = granted.contacts.0.into_iter().map(contact).collect();
    let grant = Grant {
        mesh: granted.mesh,
        issuer,
        role: granted.role,
        expires: granted.expires,
        uses: granted.uses,
        models: granted.models.map(strings),
        contacts,
    };
    Ok((grant, appended))
}

/// What [`encode_restriction`] has written, and what a later version has appended.
pub(super) fn decode_restriction(bytes: &[u8]) -> Result<(Restriction, &[u8]), Malformed> {
    let (restricted, appended) = decode::<Restricted>(bytes)?;
    let restriction = Restriction {
        role: restricted.role,
        expires: restricted.expires,
        uses: restricted.uses,
        models: restricted.models.map(strings),
    };
    Ok((restriction, appended))
}

/// The first block.
#[derive(Serialize, Deserialize)]
struct Granted {
    mesh: MeshId,
    /// None: the founder.
    issuer: Option<NodeId>,
    role: Role,
    expires: Option<UnixSeconds>,
    uses: Option<NonZeroU32>,
    models: Option<Names>,
    contacts: Few<Call, MOST_CONTACTS>,
}

/// Each further block.
#[derive(Serialize, Deserialize)]
struct Restricted {
    role: Option<Role>,
    expires: Option<UnixSeconds>,
    uses: Option<NonZeroU32>,
    models: Option<Names>,
}

type Names = Few<Short<MOST_MODEL_BYTES>, MOST_MODELS>;

/// A contact.
#[derive(Serialize, Deserialize)]
struct Call {
    who: Who,
    places: Few<Place, MOST_ADDRESSES>,
}

/// A node; most are named by the token anyway.
#[derive(Serialize, Deserialize)]
enum Who {
    Issuer,
    Founder,
    Other(NodeId),
}

/// An address; the port stands behind the octets, its high byte first.
#[derive(Serialize, Deserialize)]
enum Place {
    V4([u8; 4], [u8; 2]),
    V6([u8; 16], [u8; 2]),
    Relay(Short<MOST_RELAY_BYTES>),
}

impl Place {
    fn of(address: &Address) -> Result<Self, TooLong> {
        match address {
            Address::Ip(SocketAddr::V4(v4)) => Ok(Self::V4(v4.ip().octets(), v4.port().to_be_bytes())),
            Address::Ip(SocketAddr::V6(v6)) => Ok(Self::V6(v6.ip().octets(), v6.port().to_be_bytes())),
            Address::Relay(url) if url.len() > MOST_RELAY_BYTES => Err(TooLong::Relay { url: url.clone() }),
            Address::Relay(url) => Ok(Self::Relay(Short(url.clone()))),
        }
    }

    fn address(self) -> Address {
        match self {
            Self::V4(ip, port) => {
                let v4 = SocketAddrV4::new(Ipv4Addr::from(ip), u16::from_be_bytes(port));
                Address::Ip(SocketAddr::V4(v4))
            }
            Self::V6(ip, port) => {
                let v6 = SocketAddrV6::new(Ipv6Addr::from(ip), u16::from_be_bytes(port), 0, 0);
                Address::Ip(SocketAddr::V6(v6))
            }
            Self::Relay(url) => Address::Relay(url.0),
        }
    }
}

fn names(models: Option<&[String]>) -> Result<Option<Names>, TooLong> {
    let Some(models) = models else {
        return Ok(None);
    };
    if models.len() > MOST_MODELS {
        return Err(TooLong::Models { count: models.len() });
    }
    match models.iter().find(|name| name.len() > MOST_MODEL_BYTES) {
        Some(name) => Err(TooLong::Model { name: name.clone() }),
        None => Ok(Some(Few(models.iter().cloned().map(Short).collect()))),
    }
}

fn strings(names: Names) -> Vec<String> {
    names.0.into_iter().map(|name| name.0).collect()
}

/// The bytes of something that is in memory already.
pub(super) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_allocvec(value).expect("types of known length always have an encoding")
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, &[u8]), Malformed> {
    postcard::take_from_bytes(bytes).map_err(|_| Malformed)
}
