//! What a token allows, and that handing it on only ever takes away from that.

use crate::mesh::id::{Contact, MeshId, NodeId, Role, UnixSeconds};
use std::num::NonZeroU32;
use std::time::Duration;

/// What its issuer puts into a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The mesh that it lets somebody into.
    pub mesh: MeshId,
    /// The member that vouches for it.
    pub issuer: NodeId,
    /// What whoever joins by it will be.
    pub role: Role,
    /// From this second on nobody joins by it; none: it never ends.
    pub expires: Option<UnixSeconds>,
    /// How many different nodes may join by it; none: any number.
    pub uses: Option<NonZeroU32>,
    /// The models that whoever joins by it may use; none: all.
    pub models: Option<Vec<String>>,
    /// Whom to call, the most likely to answer first.
    pub contacts: Vec<Contact>,
}

/// What a holder takes away from a token before handing it on. The default takes nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Restriction {
    /// A role that the token's role covers; none: the same.
    pub role: Option<Role>,
    /// From this second on nobody joins by it; a later one than the token's has no effect.
    pub expires: Option<UnixSeconds>,
    /// How many different nodes may join by the restricted token, which count against the whole token's, too.
    pub uses: Option<NonZeroU32>,
    /// The models that may be used, as far as the token allows them; none: the same.
    pub models: Option<Vec<String>>,
}

/// What a token allows, all its blocks taken together: the narrowest of each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rights {
    /// What whoever joins by it will be.
    pub role: Role,
    /// From this second on nobody joins by it; none: it never ends.
    pub expires: Option<UnixSeconds>,
    /// How many different nodes may join by it at most; none: any number.
    pub uses: Option<NonZeroU32>,
    /// The models that may be used; none: all. An empty list: not a single one.
    pub models: Option<Vec<String>>,
}

/// A restriction that asks for more than the token has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "an invite token for a {had} cannot be made one for a {wanted}: a restriction only takes away; ask a member \
     of the mesh for a token with the role {wanted}"
)]
pub struct Widened {
    /// The token's role.
    pub had: Role,
    /// The one that its holder wanted it to have.
    pub wanted: Role,
}

impl Rights {
    /// What a grant allows before anything is taken away.
    pub(super) fn granted(grant: &Grant) -> Self {
        Self {
            role: grant.role,
            expires: grant.expires,
            uses: grant.uses,
            models: grant.models.clone(),
        }
    }

    /// What is left of them after a restriction.
    pub(super) fn narrowed(&self, restriction: &Restriction) -> Result<Self, Widened> {
        let wanted = restriction.role.unwrap_or(self.role);
        if !self.role.covers(wanted) {
            return Err(Widened {
                had: self.role,
                wanted,
            });
        }
        Ok(Self {
            role: wanted,
            expires: least(self.expires, restriction.expires),
            uses: least(self.uses, restriction.uses),
            models: both(self.models.as_deref(), restriction.models.as_deref()),
        })
    }

    /// For how long they have been over, if they are: they end when the second that is named begins.
    pub(super) fn expired(&self, now: UnixSeconds) -> Option<Duration> {
        let since = now.0.checked_sub(self.expires?.0)?;
        Some(Duration::from_secs(since))
    }
}

/// The lesser of two limits, where none is no limit.
fn least<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// What two lists have in common, where none is everything.
fn both(one: Option<&[String]>, other: Option<&[String]>) -> Option<Vec<String>> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.iter().filter(|name| other.contains(name)).cloned().collect()),
        (one, other) => one.or(other).map(<[String]>::to_vec),
    }
}
