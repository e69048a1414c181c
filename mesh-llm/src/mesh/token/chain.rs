//! Blocks, each signed by the key that the one before it names.
//!
//! What a block's signature covers, byte for byte, is in [`Chain::message`]: its kind, the signature before it (and
//! so everything before it), the key of the next block, and its content.

use super::content::{self, Malformed};
use super::limits::{Content, Few, MOST_BLOCKS, TooLong};
use super::rights::{Grant, Restriction, Rights, Widened};
use crate::mesh::id::{MeshId, NodeId, TokenId};
use iroh_base::{SecretKey, Signature};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

// What comes first in a message, so that a signature over anything else never passes for one of these.
const GRANT: &[u8] = b"mesh-llm token 1 grant";
const RESTRICTION: &[u8] = b"mesh-llm token 1 restriction";
const SEAL: &[u8] = b"mesh-llm token 1 seal";

/// The blocks of a token. Who may add to it, or show it, has the secret half of a key that they do not hold
/// themselves: the last key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Chain {
    grant: Block,
    restrictions: Few<Step, { MOST_BLOCKS - 1 }>,
}

/// A block; the keys around it know what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Block {
    content: Content,
    signature: Signature,
}

/// A restriction, and the key that signed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Step {
    by: NodeId,
    block: Block,
}

/// What is wrong with a chain, whoever shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// A signature does not fit, or there is nothing that one could fit to.
    Forged,
    /// A restriction wants more than there was.
    Widened(Widened),
    /// It says what only a newer version understands.
    Unknown,
}

impl From<Malformed> for Broken {
    fn from(Malformed: Malformed) -> Self {
        Self::Forged
    }
}

/// What a chain says.
pub(super) struct Said {
    pub(super) grant: Grant,
    pub(super) restrictions: Vec<Restriction>,
    pub(super) rights: Rights,
}

impl Chain {
    /// A grant, signed by the key of a node. `next` may add to it.
    pub(super) fn start(issuer: &SecretKey, grant: &Grant, next: NodeId) -> Result<Self, TooLong> {
        let content = content::encode_grant(grant)?;
        let signature = issuer.sign(&Self::message(None, next, &content));
        Ok(Self {
            grant: Block {
                content: Content(content),
                signature,
            },
            restrictions: Few(Vec::new()),
        })
    }

    /// The same with a restriction, signed by the last key. `next` may add to it.
    pub(super) fn then(
        &self,
        last: &SecretKey,
        restriction: &Restriction,
        next: NodeId,
    ) -> Result<Self, TooLong> {
        let content = content::encode_restriction(restriction)?;
        let signature = last.sign(&Self::message(Some(self.last_signature()), next, &content));
        let mut longer = self.clone();
        longer.restrictions.0.push(Step {
            by: last.public(),
            block: Block {
                content: Content(content),
                signature,
            },
        });
        Ok(longer)
    }

    /// Reads it and checks all that it proves by itself: that each block was signed by who the one before it names,
    /// and only takes away. Whether the issuer may issue is for the caller to know.
    pub(super) fn check(&self, last: NodeId) -> Result<Said, Broken> {
        let (grant, appended) = content::decode_grant(&self.grant.content.0)?;
        let steps = &self.restrictions.0;
        let signers = std::iter::once(grant.issuer).chain(steps.iter().map(|step| step.by));
        let next = steps.iter().map(|step| step.by).chain([last]);
        let mut before = None;
        for ((signer, next), block) in signers.zip(next).zip(self.blocks()) {
            let message = Self::message(before, next, &block.content.0);
            signer
                .verify(&message, &block.signature)
                .map_err(|_| Broken::Forged)?;
            before = Some(block.signature);
        }
        understood(appended)?;
        let mut rights = Rights::granted(&grant);
        let mut restrictions = Vec::with_capacity(steps.len());
        for step in steps {
            let (restriction, appended) = content::decode_restriction(&step.block.content.0)?;
            understood(appended)?;
            rights = rights.narrowed(&restriction).map_err(Broken::Widened)?;
            restrictions.push(restriction);
        }
        Ok(Said {
            grant,
            restrictions,
            rights,
        })
    }

    /// What the last key signs for `subject` to be let into the mesh, and nobody else.
    pub(super) fn seal_message(&self, mesh: MeshId, subject: NodeId) -> Vec<u8> {
        let signature = self.last_signature().to_bytes();
        [SEAL, mesh.founder().as_bytes(), &signature, subject.as_bytes()].concat()
    }

    /// The blocks' names, first to last.
    pub(super) fn ids(&self) -> impl Iterator<Item = TokenId> {
        self.blocks().map(|block| id(&block.signature))
    }

    /// How many bytes the blocks have, by all that they carry.
    pub(super) fn bytes(&self) -> usize {
        content::encode(self).len()
    }

    fn blocks(&self) -> impl Iterator<Item = &Block> {
        let restrictions = self.restrictions.0.iter().map(|step| &step.block);
        std::iter::once(&self.grant).chain(restrictions)
    }

    fn last_signature(&self) -> Signature {
        self.blocks().last().unwrap_or(&self.grant).signature
    }

    /// What a block's signature is over. All but the content, which comes last, have a length that their place
    /// tells: no two blocks have the same message.
    fn message(before: Option<Signature>, next: NodeId, content: &[u8]) -> Vec<u8> {
        match before {
            None => [GRANT, next.as_bytes(), content].concat(),
            Some(before) => [RESTRICTION, &before.to_bytes(), next.as_bytes(), content].concat(),
        }
    }
}

/// Whether a block says no more than this version knows of.
fn understood(appended: &[u8]) -> Result<(), Broken> {
    if appended.is_empty() {
        Ok(())
    } else {
        Err(Broken::Unknown)
    }
}

/// The name of the block with this signature.
fn id(signature: &Signature) -> TokenId {
    let digest = Sha256::digest(signature.to_bytes());
    let mut id = [0; 16];
    id.copy_from_slice(&digest[..16]);
    TokenId(id)
}
