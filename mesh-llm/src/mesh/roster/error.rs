//! Why an act is not taken, or not made.

use super::act::TooLarge;
use super::room::Full;
use crate::mesh::id::{NodeId, Role, TokenId};
use std::num::NonZeroU32;

/// Why an act of somebody else is not taken into the roster. The sender is at fault, or the roster is full; whoever
/// receives it has nothing to mend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// The signature is not the signer's, not over this act, or for another mesh.
    #[error("an act that says it is by {}, who did not sign it for this mesh", by.fmt_short())]
    Forged {
        /// Who did not sign it.
        by: NodeId,
    },
    /// A part of it is beyond its limit.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// There is no room for it.
    #[error(transparent)]
    Full(#[from] Full),
    /// The signer never was a node of this mesh as far as is known here, and too many acts of such signers wait
    /// already.
    #[error("an act by {}, who never was a node of this mesh as far as is known here", by.fmt_short())]
    Stranger {
        /// The signer.
        by: NodeId,
    },
}

/// Why somebody is not let in, or an act is not made. The message is for whoever asked for it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The key that was to sign is not that of a node.
    #[error(
        "{} is {} of this mesh, and only its nodes decide who belongs to it: ask one of them",
        node.fmt_short(), role.map_or("no member", Role::word)
    )]
    NotGoverning {
        /// Whose key it is.
        node: NodeId,
        /// What it is for.
        role: Option<Role>,
    },
    /// The token was revoked.
    #[error("the token {token} was revoked, and lets nobody in any more: ask for a new one")]
    Revoked {
        /// Which.
        token: TokenId,
    },
    /// The token has let in as many as it may.
    #[error("the token {token} has let in as many as it was made for ({uses}): ask for a new one")]
    Exhausted {
        /// Which.
        token: TokenId,
        /// As many as that.
        uses: NonZeroU32,
    },
    /// It was removed; the token or certificate that it shows is from before.
    #[error(
        "{} was removed from this mesh, and what it shows is from before that: ask for a new token",
        subject.fmt_short()
    )]
    Removed {
        /// Who.
        subject: NodeId,
    },
    /// It was removed with the last generation that there is.
    #[error(
        "{} was removed from this mesh for ever: give it a new key, by moving the file `key` out of its MESH_LLM_HOME, \
         and a new token",
        subject.fmt_short()
    )]
    RemovedForEver {
        /// Who.
        subject: NodeId,
    },
    /// The certificate is of somebody else, or no admission at all.
    #[error("the certificate does not say that {} was admitted: join with a token", subject.fmt_short())]
    NotYours {
        /// Who showed it.
        subject: NodeId,
    },
    /// The certificate's signature is wrong, or for another mesh.
    #[error("the certificate was not signed by {} for this mesh: join with a token", by.fmt_short())]
    Forged {
        /// Who did not sign it.
        by: NodeId,
    },
    /// The certificate's signer is no node of this mesh, or no more.
    #[error(
        "the certificate is by {}, who is no node of this mesh any more, so that its word alone does not count: \
         ask for a new token",
        by.fmt_short()
    )]
    SignerGone {
        /// The signer.
        by: NodeId,
    },
    /// A part of the act is beyond its limit.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// There is no room for the act.
    #[error(transparent)]
    Full(#[from] Full),
}
