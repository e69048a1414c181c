//! A token as it is shown: for one node alone, and by whoever holds its secret.

use super::chain::{Broken, Chain};
use super::limits::MOST_BYTES;
use super::rights::Widened;
use crate::mesh::id::{MeshId, NodeId, Role, TokenUse, UnixSeconds};
use iroh_base::{SecretKey, Signature};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A token that lets one node in. It holds no secret: whoever else gets hold of it can do nothing with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Sealed {
    chain: Chain,
    last: NodeId,
    seal: Signature,
}

/// What a sealed token proves. Whether its issuer is a member, and whether its blocks are revoked or used up, is for
/// the roster to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Who vouches for the newcomer.
    pub issuer: NodeId,
    /// What the newcomer will be.
    pub role: Role,
    /// Its blocks, first to last, each with a count of its own.
    pub tokens: Vec<TokenUse>,
    /// The models that the newcomer may use; none: all.
    pub models: Option<Vec<String>>,
}

/// Why a token does not let in, for the one who shows it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It was made for another mesh.
    #[error(
        "the invite token is for the mesh {wanted}, and this node belongs to the mesh {ours}: ask somebody of that \
         mesh for a new token"
    )]
    OtherMesh {
        /// The token's mesh.
        wanted: MeshId,
        /// The mesh of the node that was asked.
        ours: MeshId,
    },
    /// Its time is over.
    #[error(
        "the invite token expired {} ago by the clock of the node that was asked: ask for a new one, and if it is \
         new, set the clocks of both machines right",
        told(*since)
    )]
    Expired {
        /// For so long, in whole seconds.
        since: Duration,
    },
    /// It is not what its issuer, and each holder after that, has signed.
    #[error("the invite token was changed after it was signed: ask for a new one")]
    Forged,
    /// A holder wanted to hand on more than it had.
    #[error(transparent)]
    Widened(#[from] Widened),
    /// Somebody else has shown it, or the secret half of its last key was not at hand.
    #[error(
        "the invite token was shown for another machine than this one: join with the token itself, as it was given out"
    )]
    NotForYou,
    /// It says something that is not known here.
    #[error(
        "the invite token was made by a newer mesh-llm than that of the node that was asked: update mesh-llm \
         there, or ask for a token made by that version"
    )]
    NewerVersion,
}

impl From<Broken> for Refusal {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Forged => Self::Forged,
            Broken::Widened(widened) => Self::Widened(widened),
            Broken::Unknown => Self::NewerVersion,
        }
    }
}

impl Sealed {
    /// Signs for a node with the last key.
    pub(super) fn new(chain: &Chain, mesh: MeshId, secret: &SecretKey, subject: NodeId) -> Self {
        Self {
            chain: chain.clone(),
            last: secret.public(),
            seal: secret.sign(&chain.seal_message(mesh, subject)),
        }
    }

    /// Decides whether it lets `subject`, whose name the connection has proved, into the mesh. Nobody has to be
    /// asked. `now` is this node's clock, which is trusted to the second: one that is an hour fast ends tokens an
    /// hour early.
    ///
    /// # Errors
    /// The reason why not, in words for `subject`.
    pub fn verify(&self, mesh: MeshId, subject: NodeId, now: UnixSeconds) -> Result<Verified, Refusal> {
        let said = self.chain.check(self.last)?;
        if said.grant.mesh != mesh {
            return Err(Refusal::OtherMesh {
                wanted: said.grant.mesh,
                ours: mesh,
            });
        }
        self.last
            .verify(&self.chain.seal_message(mesh, subject), &self.seal)
            .map_err(|_| Refusal::NotForYou)?;
        if let Some(since) = said.rights.expired(now) {
            return Err(Refusal::Expired { since });
        }
        let uses = std::iter::once(said.grant.uses).chain(said.restrictions.iter().map(|block| block.uses));
        let tokens = self.chain.ids().zip(uses);
        Ok(Verified {
            issuer: said.grant.issuer,
            role: said.rights.role,
            tokens: tokens.map(|(token, uses)| TokenUse { token, uses }).collect(),
            models: said.rights.models,
        })
    }
}

/// As it comes from a stranger.
#[derive(Deserialize)]
struct Unchecked {
    chain: Chain,
    last: NodeId,
    seal: Signature,
}

impl TryFrom<Unchecked> for Sealed {
    type Error = TooBig;

    fn try_from(Unchecked { chain, last, seal }: Unchecked) -> Result<Self, TooBig> {
        if chain.bytes() > MOST_BYTES {
            return Err(TooBig);
        }
        Ok(Self { chain, last, seal })
    }
}

/// More than a token can be.
#[derive(Debug, thiserror::Error)]
#[error("a token has at most {MOST_BYTES} bytes")]
struct TooBig;

/// A time as people say it, in its greatest unit.
fn told(time: Duration) -> String {
    let seconds = time.as_secs();
    let units = [(86_400, "day"), (3_600, "hour"), (60, "minute")];
    let (count, unit) = units
        .into_iter()
        .map(|(length, unit)| (seconds / length, unit))
        .find(|&(count, _)| count > 0)
        .unwrap_or((seconds, "second"));
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{ending}")
}
