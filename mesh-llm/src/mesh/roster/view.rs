//! What a set of acts amounts to: who is a member, which tokens were used.

use super::act::{Act, Admission, TokenUse};
use super::counting::Verdict;
use super::{Digest, Filed, Standing};
use crate::mesh::id::{MeshId, NodeId, Role, TokenId, UnixSeconds};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::num::NonZeroU32;

/// Comes before the acts' names in a digest.
const DOMAIN: &[u8] = b"mesh-llm roster 1 digest";

/// The outcome of a set of acts. It depends on the set alone, not on the order in which it came together.
#[derive(Debug, Clone)]
pub(super) struct View {
    members: BTreeMap<NodeId, Member>,
    /// The last generation of each that was ended.
    removed: BTreeMap<NodeId, u32>,
    /// Where among the acts each is revoked: beyond dispute, if it is anywhere.
    revoked: BTreeMap<TokenId, usize>,
    /// Whom each token has let in, and into which generation last.
    uses: BTreeMap<TokenId, BTreeMap<NodeId, u32>>,
    /// Whom only acts admit that do not count; with the signer of one.
    lost: BTreeMap<NodeId, NodeId>,
    verdict: Verdict,
    digest: Digest,
}

/// A member, and why it is one.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) standing: Standing,
    /// Where among the acts it was admitted; `None`: it is the founder, by definition.
    pub(super) admission: Option<usize>,
}

/// Why an admission has no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Void {
    /// A removal ended it.
    Removed,
    /// This token has let in as many as it may.
    Exhausted { token: TokenId, uses: NonZeroU32 },
}

impl View {
    pub(super) fn of(mesh: MeshId, acts: &[Filed]) -> Self {
        let mut view = Self {
            members: BTreeMap::new(),
            removed: BTreeMap::new(),
            revoked: BTreeMap::new(),
            uses: BTreeMap::new(),
            lost: BTreeMap::new(),
            verdict: Verdict::of(mesh.founder(), acts),
            digest: digest(mesh, acts),
        };
        let mut admissions = Vec::new();
        for (place, filed) in acts.iter().enumerate() {
            // In a dispute whoever may be out is out: what puts nobody in needs less certainty.
            let is_possible = view.verdict.possible[place];
            match filed.act.act() {
                Act::Admit { .. } => admissions.extend(filed.act.admission().map(|it| (it, place))),
                Act::Remove {
                    subject, generation, ..
                } if is_possible => {
                    let ended = view.removed.entry(*subject).or_default();
                    *ended = (*ended).max(*generation);
                }
                Act::Revoke { token, .. } if is_possible => {
                    let known = view.revoked.entry(*token).or_insert(place);
                    if view.verdict.sure[place] {
                        *known = place;
                    }
                }
                Act::Remove { .. } | Act::Revoke { .. } => {}
            }
        }
        admissions.sort_unstable_by_key(|(admission, place)| (admission.at, acts[*place].id));
        for (admission, place) in admissions {
            if !view.verdict.sure[place] {
                view.lost.insert(admission.subject, admission.by);
            }
            if view.verdict.possible[place] {
                view.admit(admission, place);
            }
        }
        view.found(mesh);
        view
    }

    /// Takes the admissions one after the other, the earliest first: that decides who uses up a token, and whose word
    /// on one member is the last.
    fn admit(&mut self, admission: Admission<'_>, place: usize) {
        let Admission {
            subject, generation, ..
        } = admission;
        if self.exhausted(admission.tokens, subject).is_some() {
            return;
        }
        // Who was removed since has used the token all the same.
        for TokenUse { token, .. } in admission.tokens {
            let last = self.uses.entry(*token).or_default().entry(subject).or_default();
            *last = (*last).max(generation);
        }
        let known = self.members.get(&subject);
        let newest = known.is_none_or(|known| known.standing.generation <= generation);
        if self.verdict.sure[place] && newest && !self.has_ended(subject, generation) {
            let member = Member {
                standing: Standing::by(admission),
                admission: Some(place),
            };
            self.members.insert(subject, member);
        }
    }

    /// Until it is removed the founder is a node, whatever an admission says.
    fn found(&mut self, mesh: MeshId) {
        let founder = mesh.founder();
        if !self.removed.contains_key(&founder) {
            let standing = Standing {
                role: Role::Node,
                models: None,
                since: UnixSeconds(0),
                admitted_by: founder,
                generation: 0,
            };
            let member = Member {
                standing,
                admission: None,
            };
            self.members.insert(founder, member);
        }
    }

    pub(super) fn members(&self) -> &BTreeMap<NodeId, Member> {
        &self.members
    }

    pub(super) fn role(&self, node: NodeId) -> Option<Role> {
        self.members.get(&node).map(|member| member.standing.role)
    }

    /// Which acts count.
    pub(super) fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// Of somebody who is out since the act that admitted it does not count: whose act that is.
    pub(super) fn lost_with(&self, node: NodeId) -> Option<NodeId> {
        let by = self.lost.get(&node).copied()?;
        let is_out = !self.members.contains_key(&node) && !self.was_removed(node);
        is_out.then_some(by)
    }

    pub(super) fn digest(&self) -> Digest {
        self.digest
    }

    pub(super) fn uses(&self, token: TokenId) -> usize {
        self.uses.get(&token).map_or(0, BTreeMap::len)
    }

    /// Where among the acts the token is revoked.
    pub(super) fn revocation(&self, token: TokenId) -> Option<usize> {
        self.revoked.get(&token).copied()
    }

    /// Why an admission that is not among the acts would have no effect if it were.
    pub(super) fn void(&self, admission: Admission<'_>) -> Option<Void> {
        if self.has_ended(admission.subject, admission.generation) {
            return Some(Void::Removed);
        }
        self.exhausted(admission.tokens, admission.subject)
    }

    /// The generation of the next admission; `None`: the last that there is was ended.
    pub(super) fn next_generation(&self, subject: NodeId) -> Option<u32> {
        self.removed
            .get(&subject)
            .map_or(Some(0), |ended| ended.checked_add(1))
    }

    /// Whether the token let this one in before it was removed.
    pub(super) fn is_from_before_removal(&self, token: TokenId, subject: NodeId) -> bool {
        let last = self.uses.get(&token).and_then(|uses| uses.get(&subject));
        last.is_some_and(|&generation| self.has_ended(subject, generation))
    }

    pub(super) fn was_removed(&self, node: NodeId) -> bool {
        self.removed.contains_key(&node)
    }

    fn has_ended(&self, subject: NodeId, generation: u32) -> bool {
        self.removed
            .get(&subject)
            .is_some_and(|&ended| generation <= ended)
    }

    /// Which of the tokens does not let this one in, since others have used it up.
    fn exhausted(&self, tokens: &[TokenUse], subject: NodeId) -> Option<Void> {
        tokens.iter().find_map(|&TokenUse { token, uses }| {
            let (uses, by) = (uses?, self.uses.get(&token)?);
            let is_exhausted = !by.contains_key(&subject) && by.len() >= uses.get() as usize;
            is_exhausted.then_some(Void::Exhausted { token, uses })
        })
    }
}

/// Of the names in order. A sum of hashes could be kept up with less work, but whoever may sign could make two sets
/// with the same sum; 4,096 names are hashed in a fraction of a millisecond.
fn digest(mesh: MeshId, acts: &[Filed]) -> Digest {
    let mut names: Vec<_> = acts.iter().map(|filed| filed.id).collect();
    names.sort_unstable();
    let head = Sha256::new().chain_update(DOMAIN).chain_update(mesh.0.as_bytes());
    let all = names.iter().fold(head, |hash, name| hash.chain_update(name.0));
    Digest(all.finalize().into())
}
