//! How much a roster holds.
//!
//! A set that only grows needs an end. At it, whoever is in stays in and can be removed: the last eighth is kept for
//! removals and revocations, so that the many who join cannot keep anybody from being put out. What is refused for
//! want of room is refused here alone: members whose rosters filled up in different orders may then differ in the
//! last acts, until the mesh is founded anew. A mesh of hundreds of nodes gets there in years, if at all; clients
//! do not count, since their certificates are not in the roster. Acts that are void take room like all others.

use super::act::SignedAct;
use crate::mesh::id::NodeId;

/// The most acts, a removal that lets many acts stand taken for several.
pub const MOST_ACTS: usize = 4096;

/// The most of them by one signer, so that one that runs wild leaves room for the others.
pub const MOST_ACTS_BY_ONE: usize = 1024;

/// The most acts that wait for their signer's admission.
pub const MOST_WAITING: usize = 256;

/// Of so many acts one is kept for a removal or revocation.
const KEPT_ONE_IN: usize = 8;

/// Why there is no room for an act.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// The roster has as many acts as it can hold.
    #[error(
        "the roster is full: of {MOST_ACTS} acts the last eighth is for removals and revocations; found a new mesh, \
         and invite with few tokens of many uses"
    )]
    Roster,
    /// The signer has made as many as one may.
    #[error(
        "{} has decided as often as one node may: of {MOST_ACTS_BY_ONE} acts the last eighth is for removals and \
         revocations; let another node do it",
        by.fmt_short()
    )]
    Signer {
        /// Who.
        by: NodeId,
    },
}

/// How much room acts take.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tally {
    acts: usize,
    admissions: usize,
}

impl Tally {
    /// Whether one more of this kind fits in, where `most` are the most.
    pub(super) fn has_room(self, act: &SignedAct, most: usize) -> bool {
        let most_admissions = most - most / KEPT_ONE_IN;
        self.acts + act.weight() <= most && (act.admission().is_none() || self.admissions < most_admissions)
    }

    /// Counts one more.
    pub(super) fn count(&mut self, act: &SignedAct) {
        self.acts += act.weight();
        self.admissions += usize::from(act.admission().is_some());
    }
}
