//! Invite tokens: who may join a mesh, proved by signatures alone.
//!
//! A token is a chain of blocks. The first, the grant, is signed by a member's key; it says what the token allows and
//! names a fresh key, whose secret half is part of the token. Whoever has the token has that secret, and can add a
//! block that takes something away, signed with it, and names another fresh key. To join, a node has the last secret
//! sign its own name, and shows the chain with that signature, but without the secret: [`Sealed`]. Every member can
//! verify this alone, and it is of no use to anybody else.
//!
//! Pure: keys and times are arguments. It knows nothing of who is a member, nor of how often a token was used: that
//! is the [roster](super::roster)'s. Nothing in here restores what a block took away, and no message shows a secret.

mod chain;
mod contacts;
mod content;
mod limits;
mod rights;
mod sealed;
#[cfg(test)]
mod tests;
mod text;

pub use limits::{ISSUED_CHARACTERS, MOST_BYTES, MOST_CHARACTERS, TooLong};
pub use rights::{Grant, Restriction, Rights, Widened};
pub use sealed::{Refusal, Sealed, Verified};
pub use text::TokenError;

use super::id::{NodeId, TokenId};
use chain::{Broken, Chain};
use iroh_base::SecretKey;

/// An invite token: a chain of blocks that is whole, and the secret half of its last key. Its `Debug` does not show
/// the secret; its `Display` does, as it must.
#[derive(Debug, Clone)]
pub struct Token {
    chain: Chain,
    secret: SecretKey,
    grant: Grant,
    rights: Rights,
}

/// Why a token cannot be restricted so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestrictError {
    /// The restriction asks for more than there is.
    #[error(transparent)]
    Widened(#[from] Widened),
    /// It allows none of the models that the token allows.
    #[error(
        "nothing would be left of the invite token's models: it allows {}; name some of these",
        allowed.join(", ")
    )]
    NoModel {
        /// What the token allows.
        allowed: Vec<String>,
    },
    /// There is no room for it.
    #[error(transparent)]
    TooLong(#[from] TooLong),
}

impl Token {
    /// Makes a token. Its issuer is whoever `key` belongs to, whatever the grant says. `fresh` is a new random key that
    /// nothing else uses. Of the contacts those are left away, the last addresses first, that would make the text
    /// longer than [`ISSUED_CHARACTERS`]; one address stays.
    ///
    /// # Errors
    /// If it is too long to be pasted all the same, or one of its parts is.
    pub fn issue(key: &SecretKey, grant: Grant, fresh: SecretKey) -> Result<Self, TooLong> {
        let mut grant = Grant {
            issuer: key.public(),
            ..grant
        };
        contacts::trim(&mut grant.contacts);
        // At most as often as there are addresses and contacts.
        loop {
            let chain = Chain::start(key, &grant, fresh.public())?;
            let token = Self {
                rights: Rights::granted(&grant),
                grant: grant.clone(),
                secret: fresh.clone(),
                chain,
            };
            if token.characters() <= ISSUED_CHARACTERS || !contacts::shorten(&mut grant.contacts) {
                return token.if_it_fits();
            }
        }
    }

    /// Makes a token of this one that allows less, without asking anybody. `fresh` is a new random key that nothing
    /// else uses. This token stays good.
    ///
    /// # Errors
    /// If the restriction asks for a wider role or for none of the models that are allowed, or if the text
    /// becomes too long to be pasted.
    pub fn restrict(&self, restriction: Restriction, fresh: SecretKey) -> Result<Self, RestrictError> {
        let rights = self.rights.narrowed(&restriction)?;
        let allowed = self.rights.models.clone().unwrap_or_default();
        if rights.models.as_ref().is_some_and(Vec::is_empty) && !allowed.is_empty() {
            return Err(RestrictError::NoModel { allowed });
        }
        let token = Self {
            chain: self.chain.then(&self.secret, &restriction, fresh.public())?,
            secret: fresh,
            grant: self.grant.clone(),
            rights,
        };
        Ok(token.if_it_fits()?)
    }

    /// What its issuer has put into it; restrictions are not in it.
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    /// What it allows: the grant, with all that was taken away since.
    pub fn rights(&self) -> Rights {
        self.rights.clone()
    }

    /// The names of its blocks, first to last. Who revokes one revokes all tokens that have it.
    pub fn ids(&self) -> Vec<TokenId> {
        self.chain.ids().collect()
    }

    /// What a node shows to be let in, which is good for this node alone.
    pub fn seal(&self, subject: NodeId) -> Sealed {
        Sealed::new(&self.chain, self.grant.mesh, &self.secret, subject)
    }

    /// A token that was read.
    fn from_parts(chain: Chain, secret: SecretKey) -> Result<Self, Broken> {
        let said = chain.check(secret.public())?;
        Ok(Self {
            chain,
            secret,
            grant: said.grant,
            rights: said.rights,
        })
    }

    fn if_it_fits(self) -> Result<Self, TooLong> {
        match self.characters() {
            characters if characters > MOST_CHARACTERS => Err(TooLong::Text { characters }),
            _ => Ok(self),
        }
    }
}
