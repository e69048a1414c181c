//! A roster as bytes, to be kept on disk.
//!
//! | bytes | what |
//! |---|---|
//! | 15 | `mesh-llm roster` |
//! | 1 | the version: 1 |
//! | … | the mesh, the set of acts, those that wait: postcard |
//! | 32 | SHA-256 of all that |
//!
//! The sum finds damage, not malice, and signatures are not verified again: whoever can write this file can read the
//! node's key beside it.

use super::act::{AtMost, SignedAct};
use super::{Filed, MOST_ACTS, MOST_WAITING, Roster};
use crate::mesh::id::MeshId;
use sha2::{Digest as _, Sha256};

const MAGIC: &[u8; 15] = b"mesh-llm roster";

/// The version that is written, and the only one so far.
const VERSION: u8 = 1;

const SUM_BYTES: usize = 32;

type Acts = AtMost<SignedAct, MOST_ACTS>;
type Waiting = AtMost<SignedAct, { MOST_ACTS + MOST_WAITING }>;

/// Why bytes are no roster.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// They are something else.
    #[error("this is no roster of a mesh: move the file away; {REMEDY}")]
    NoRoster,
    /// A newer program wrote them.
    #[error(
        "this roster was written by a newer mesh-llm (version {version} of the format, where {VERSION} is known): \
         run that one, or a newer one"
    )]
    Newer {
        /// The format's version.
        version: u8,
    },
    /// They are not what was written.
    #[error("the roster is damaged: put a copy of it back, or move it away; {REMEDY}")]
    Damaged,
}

/// What to do without a roster.
const REMEDY: &str = "the founder gets it back from the other nodes when it meets them, everyone else by joining again \
                      with a new token";

impl Roster {
    /// For the disk.
    pub fn to_bytes(&self) -> Vec<u8> {
        let contents = (self.mesh, plain(&self.acts), plain(&self.waiting));
        let head = [MAGIC.as_slice(), &[VERSION]].concat();
        let mut bytes = postcard::to_extend(&contents, head)
            .expect("the length of each of its lists is known, so postcard can write it");
        let sum = Sha256::digest(&bytes);
        bytes.extend_from_slice(&sum);
        bytes
    }

    /// From the disk. Which mesh's it is, it says itself.
    ///
    /// # Errors
    /// If these are not the bytes that were written: there is no roster then, and an empty one would forget who was
    /// removed.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Unreadable> {
        let rest = bytes.strip_prefix(MAGIC.as_slice()).ok_or(Unreadable::NoRoster)?;
        let version = *rest.first().ok_or(Unreadable::Damaged)?;
        if version > VERSION {
            return Err(Unreadable::Newer { version });
        }
        let (body, sum) = bytes.split_last_chunk::<SUM_BYTES>().ok_or(Unreadable::Damaged)?;
        if Sha256::digest(body).as_slice() != sum {
            return Err(Unreadable::Damaged);
        }
        let contents = body.get(MAGIC.len() + 1..).ok_or(Unreadable::Damaged)?;
        let contents = postcard::from_bytes::<(MeshId, Acts, Waiting)>(contents);
        let (mesh, acts, waiting) = contents.map_err(|_| Unreadable::Damaged)?;
        let mut roster = Self::new(mesh);
        acts.0
            .into_iter()
            .chain(waiting.0)
            .for_each(|act| roster.keep(Filed::new(act)));
        Ok(roster)
    }
}

fn plain(acts: &[Filed]) -> Vec<&SignedAct> {
    acts.iter().map(|filed| &filed.act).collect()
}
