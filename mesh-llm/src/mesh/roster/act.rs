//! Acts: what nodes decide about who belongs to the mesh, and their signatures.

use super::room::MOST_ACTS_BY_ONE;
use crate::mesh::id::{MeshId, NodeId, Role, TokenId, UnixSeconds};

pub use crate::mesh::id::TokenUse;
use iroh_base::{SecretKey, Signature};
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::marker::PhantomData;

/// Comes before what is signed, so that no signature over anything else passes for one of an act.
const DOMAIN: &[u8] = b"mesh-llm roster 1 act";

/// The most tokens that an admission names: as many as a token has blocks.
pub const MOST_TOKENS: usize = 8;

/// The most models that an admission is limited to.
pub const MOST_MODELS: usize = 8;

/// The most bytes of a model's name.
pub const MOST_MODEL_BYTES: usize = 64;

/// The most acts that a removal names: as many as one signer may have in a roster.
pub const MOST_NAMES: usize = MOST_ACTS_BY_ONE;

/// The most bytes on the wire of a signed act that takes the room of one; follows from the other limits.
pub const MOST_ACT_BYTES: usize = 1024;

/// So many names take the room of one more act.
const NAMES_IN_ONE: usize = 48;

/// What a node decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Act {
    /// Somebody belongs to the mesh.
    Admit {
        /// Who.
        subject: NodeId,
        /// What for.
        role: Role,
        /// The blocks of the token by which it came.
        #[serde(deserialize_with = "tokens")]
        tokens: Vec<TokenUse>,
        /// The only models that it may use; `None`: all.
        #[serde(deserialize_with = "models")]
        models: Option<Vec<String>>,
        /// When, by the signer's clock.
        at: UnixSeconds,
        /// Greater than that of every removal that it outlives.
        generation: u32,
    },
    /// Somebody belongs to the mesh no more: ends all its admissions of this generation and earlier ones, and voids
    /// what it signed in them, unless it is named.
    Remove {
        /// Who.
        subject: NodeId,
        /// The last generation that ends.
        generation: u32,
        /// Of what the subject signed, that which stands: all that the signer knew and took for valid.
        #[serde(deserialize_with = "names")]
        stand: Vec<ActId>,
        /// When, by the signer's clock.
        at: UnixSeconds,
    },
    /// Nobody is let in any more by a token that has this block. Who has been, stays.
    Revoke {
        /// The block.
        token: TokenId,
        /// When, by the signer's clock.
        at: UnixSeconds,
    },
}

impl Act {
    /// Whether every part of it is within its limit.
    pub(super) fn check(&self) -> Result<(), TooLarge> {
        let (tokens, models) = match self {
            Act::Admit { tokens, models, .. } => (tokens, models),
            Act::Remove { stand, .. } if stand.len() > MOST_NAMES => {
                return Err(TooLarge::Names(stand.len()));
            }
            Act::Remove { .. } | Act::Revoke { .. } => return Ok(()),
        };
        if tokens.len() > MOST_TOKENS {
            return Err(TooLarge::Tokens(tokens.len()));
        }
        let models = models.as_deref().unwrap_or_default();
        if models.len() > MOST_MODELS {
            return Err(TooLarge::Models(models.len()));
        }
        match models.iter().find(|name| name.len() > MOST_MODEL_BYTES) {
            Some(name) => Err(TooLarge::ModelName(name.len())),
            None => Ok(()),
        }
    }
}

/// Why an act is too large to be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TooLarge {
    /// It names too many tokens.
    #[error(
        "an admission by {0} blocks of a token, where {MOST_TOKENS} are the most: use a token that was restricted \
         less often"
    )]
    Tokens(usize),
    /// It names too many models.
    #[error(
        "an admission for {0} models, where {MOST_MODELS} are the most: name fewer, or none, which allows all"
    )]
    Models(usize),
    /// It lets too many acts stand.
    #[error("a removal that lets {0} acts stand, where {MOST_NAMES} are as many as one node can have signed")]
    Names(usize),
    /// It names a model by a name that is too long.
    #[error("a model's name of {0} bytes, where {MOST_MODEL_BYTES} are the most: name it by an alias")]
    ModelName(usize),
}

/// An act's name: the first bytes of the SHA-256 of the signed act in postcard's encoding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ActId(pub [u8; 16]);

impl fmt::Display for ActId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ActId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ActId({self})")
    }
}

/// An act and who vouches for it. The signature need not be right: whoever receives one hands it to
/// [`Roster::add`](super::Roster::add) or [`Roster::certificate_standing`](super::Roster::certificate_standing).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedAct {
    by: NodeId,
    in_generation: u32,
    act: Act,
    signature: Signature,
}

impl SignedAct {
    /// Signs an act for one mesh; in another it is worth nothing. `in_generation` is that of the admission by which
    /// the signer decides: what it signed before a removal is told from what it signs when it is back. Whether it may
    /// do so is judged by whoever receives it: [`Roster::admit`](super::Roster::admit) and its like ask first.
    pub fn sign(key: &SecretKey, mesh: MeshId, in_generation: u32, act: Act) -> Self {
        let signature = key.sign(&signed_bytes(mesh, in_generation, &act));
        Self {
            by: key.public(),
            in_generation,
            act,
            signature,
        }
    }

    /// Who says that it signed it.
    pub fn by(&self) -> NodeId {
        self.by
    }

    /// By which of its admissions the signer decided.
    pub fn in_generation(&self) -> u32 {
        self.in_generation
    }

    /// What was decided.
    pub fn act(&self) -> &Act {
        &self.act
    }

    /// Its name.
    pub fn id(&self) -> ActId {
        let hash = Sha256::digest(encode(self));
        ActId(std::array::from_fn(|at| hash[at]))
    }

    /// Whether `by` signed it, for this mesh.
    pub(in crate::mesh) fn is_genuine(&self, mesh: MeshId) -> bool {
        self.by
            .verify(
                &signed_bytes(mesh, self.in_generation, &self.act),
                &self.signature,
            )
            .is_ok()
    }

    /// The room of how many acts it takes: what has so many times [`MOST_ACT_BYTES`] at most.
    pub(super) fn weight(&self) -> usize {
        match &self.act {
            Act::Remove { stand, .. } => 1 + stand.len() / NAMES_IN_ONE,
            Act::Admit { .. } | Act::Revoke { .. } => 1,
        }
    }

    /// What it says, if it is an admission.
    pub(super) fn admission(&self) -> Option<Admission<'_>> {
        match &self.act {
            Act::Admit {
                subject,
                role,
                tokens,
                models,
                at,
                generation,
            } => Some(Admission {
                by: self.by,
                subject: *subject,
                role: *role,
                tokens,
                models: models.as_deref(),
                at: *at,
                generation: *generation,
            }),
            Act::Remove { .. } | Act::Revoke { .. } => None,
        }
    }
}

/// [`Act::Admit`], and who signed it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Admission<'a> {
    pub(super) by: NodeId,
    pub(super) subject: NodeId,
    pub(super) role: Role,
    pub(super) tokens: &'a [TokenUse],
    pub(super) models: Option<&'a [String]>,
    pub(super) at: UnixSeconds,
    pub(super) generation: u32,
}

fn signed_bytes(mesh: MeshId, in_generation: u32, act: &Act) -> Vec<u8> {
    [DOMAIN, mesh.0.as_bytes(), &encode(&(in_generation, act))].concat()
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    postcard::to_allocvec(value).expect("the length of each of its lists is known, so postcard can write it")
}

/// A list that may have so many elements at most. Memory is taken for what has been read, never for what a length
/// promises.
pub(super) struct AtMost<T, const MOST: usize>(pub(super) Vec<T>);

impl<'de, T: Deserialize<'de>, const MOST: usize> Deserialize<'de> for AtMost<T, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements<T, const MOST: usize>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for Elements<T, MOST> {
            type Value = AtMost<T, MOST>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {MOST} elements")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
                let mut list = Vec::new();
                while let Some(element) = sequence.next_element()? {
                    if list.len() == MOST {
                        return Err(A::Error::invalid_length(MOST + 1, &self));
                    }
                    list.push(element);
                }
                Ok(AtMost(list))
            }
        }

        deserializer.deserialize_seq(Elements(PhantomData))
    }
}

fn tokens<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<TokenUse>, D::Error> {
    AtMost::<_, MOST_TOKENS>::deserialize(deserializer).map(|list| list.0)
}

fn models<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    let list = Option::<AtMost<_, MOST_MODELS>>::deserialize(deserializer)?;
    Ok(list.map(|list| list.0))
}

fn names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<ActId>, D::Error> {
    AtMost::<_, MOST_NAMES>::deserialize(deserializer).map(|list| list.0)
}
