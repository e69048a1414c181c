//! The roster: who belongs to the mesh, as a set of signed acts which members exchange until all have the same.
//!
//! Pure: no clock, no files, no network. Acts only come in; nothing is ever taken out, so that sets of two members
//! can be united in any order, and equal sets mean the same everywhere. What an act means follows from the set:
//!
//! - *Governors* are the founder, and everyone whom a governor ever admitted as a node. Their acts are the set: they
//!   are kept, told, and passed on, whether they count or not, so that the set never shrinks.
//! - *Acts of others* wait: their signer's admission may be on its way. They are not passed on.
//! - *Removals* end every admission of their generation and of earlier ones, whenever those arrive. Who is invited
//!   again gets the next generation. Of what the removed signed in the generations that end, the removal names what
//!   its signer knew and let stand; all else is void, whoever passes it on. Where several remove one, that stands
//!   which each names whose removal counts.
//! - *An act counts* if it is not void and one that counts made its signer a node, in the generation in which it signs
//!   ([`SignedAct::in_generation`]). Thus whoever a void act admitted is out, with what it signed in turn, until somebody
//!   else admits it.
//! - *Disputed* is what would count if and only if it did not: above all the removals by two that remove each other,
//!   neither of which knew of the other's. Nobody can tell which was first, so both are out: of what is disputed,
//!   removals and revocations count, and admissions do not. Whoever removes one of the two once more, decides it.
//! - *The founder's removals* are not disputed by whom they remove. So it is by the founder that a node is removed
//!   which might fight back. That is so in its first generation; once it was removed and admitted again, it decides by
//!   that admission, like others.
//! - *Removals of the founder* have to be beyond dispute. One that comes into dispute later is off: the founder is in
//!   again, and whom it let in, so that somebody can decide.
//! - *Admissions* that are not void are looked at in the order of (time, name). One by a token with a limited number of
//!   uses lets in while fewer others than that have been let in by it. Among those of one subject that no removal
//!   ended, the newest by (generation, time, name) says what it is for.
//! - *Revocations* bind whoever admits next; who is in, stays.
//! - *Shown* acts, by which somebody says of itself that it was admitted, need not be in the set. No member vouches for
//!   them then, and their signer must be a node *now*.
//!
//! The set has its limits: see [`MOST_ACTS`] and its neighbours.

mod act;
mod counting;
mod error;
mod file;
mod govern;
mod room;
#[cfg(test)]
mod tests;
mod view;

pub use act::{
    Act, ActId, MOST_ACT_BYTES, MOST_MODEL_BYTES, MOST_MODELS, MOST_NAMES, MOST_TOKENS, SignedAct, TokenUse,
    TooLarge,
};
pub use error::{Refused, Rejected};
pub use file::Unreadable;
pub use room::{Full, MOST_ACTS, MOST_ACTS_BY_ONE, MOST_WAITING};

use super::id::{MeshId, NodeId, Role, TokenId, UnixSeconds};
use act::Admission;
use room::Tally;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::OnceLock;
use view::View;

/// What a member is to the mesh, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// What for.
    pub role: Role,
    /// The only models that it may use; `None`: all.
    pub models: Option<Vec<String>>,
    /// When it was admitted, by the clock of who did; 0 for the founder, whom nobody admitted.
    pub since: UnixSeconds,
    /// Who admitted it; the founder itself.
    pub admitted_by: NodeId,
    /// How often it had been removed before.
    pub generation: u32,
}

impl Standing {
    fn by(admission: Admission<'_>) -> Self {
        Self {
            role: admission.role,
            models: admission.models.map(<[String]>::to_vec),
            since: admission.at,
            admitted_by: admission.by,
            generation: admission.generation,
        }
    }
}

/// What became of an act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// It is in the set from now on: others want it, too.
    New,
    /// It was there already.
    Known,
    /// Its signer is not known to have been a node yet. It is in the set as soon as that is known, and concerns nobody
    /// until then.
    Waiting,
}

/// All acts of a set in 32 bytes: equal for equal sets, and only for them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Digest(pub [u8; 32]);

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}

/// Who belongs to a mesh, as far as is known here.
#[derive(Debug, Clone)]
pub struct Roster {
    mesh: MeshId,
    /// The set, each after one that made its signer a governor.
    acts: Vec<Filed>,
    /// By signers who are no governors as far as is known.
    waiting: Vec<Filed>,
    /// The names of both.
    names: BTreeSet<ActId>,
    /// With the number of their acts in the set.
    governors: BTreeMap<NodeId, Tally>,
    /// Of the acts in the set.
    tally: Tally,
    /// What they amount to; computed when it is asked for, and once for each change.
    view: OnceLock<View>,
}

/// An act with its name, which takes a hash to find out.
#[derive(Debug, Clone)]
struct Filed {
    id: ActId,
    act: SignedAct,
}

impl Filed {
    fn new(act: SignedAct) -> Self {
        Self { id: act.id(), act }
    }
}

impl Roster {
    /// The roster of a mesh that has a founder and nobody else.
    pub fn new(mesh: MeshId) -> Self {
        Self {
            mesh,
            acts: Vec::new(),
            waiting: Vec::new(),
            names: BTreeSet::new(),
            governors: BTreeMap::from([(mesh.founder(), Tally::default())]),
            tally: Tally::default(),
            view: OnceLock::new(),
        }
    }

    /// Whose roster it is.
    pub fn mesh(&self) -> MeshId {
        self.mesh
    }

    /// Takes an act that a member passed on, or that was made here.
    ///
    /// # Errors
    /// If nobody could have signed it, or there is no room for it: then nothing has changed.
    pub fn add(&mut self, act: SignedAct) -> Result<Added, Rejected> {
        act.act().check()?;
        let filed = Filed::new(act);
        if self.names.contains(&filed.id) {
            return Ok(Added::Known);
        }
        let by = filed.act.by();
        let is_governor = self.governors.contains_key(&by);
        if is_governor {
            self.check_room(&filed.act)?;
        } else if self.waiting.len() >= MOST_WAITING {
            return Err(Rejected::Stranger { by });
        }
        // Last, since it takes the most time.
        if !filed.act.is_genuine(self.mesh) {
            return Err(Rejected::Forged { by });
        }
        self.keep(filed);
        Ok(if is_governor { Added::New } else { Added::Waiting })
    }

    /// What a node is, if it is a member.
    pub fn standing(&self, node: NodeId) -> Option<Standing> {
        let member = self.view().members().get(&node)?;
        Some(member.standing.clone())
    }

    /// Whether somebody was removed, and is no member since.
    pub fn is_removed(&self, node: NodeId) -> bool {
        self.view().was_removed(node) && self.standing(node).is_none()
    }

    /// All members, in the order of their keys.
    pub fn members(&self) -> impl Iterator<Item = (NodeId, Standing)> {
        let members = self.view().members().iter();
        members.map(|(node, member)| (*node, member.standing.clone()))
    }

    /// Of somebody who is out, and was not removed itself: who let it in by an act that does not count, since that one
    /// was removed by others who had not heard of it.
    pub fn lost_with(&self, node: NodeId) -> Option<NodeId> {
        self.view().lost_with(node)
    }

    /// How many were let in by a token, those who were removed since among them.
    pub fn uses(&self, token: TokenId) -> u32 {
        u32::try_from(self.view().uses(token)).expect("there are at most 4,096 acts")
    }

    /// Whether nobody is let in by a token any more.
    pub fn is_revoked(&self, token: TokenId) -> bool {
        self.view().revocation(token).is_some()
    }

    /// What tells this set of acts from others.
    pub fn digest(&self) -> Digest {
        self.view().digest()
    }

    /// The names of all acts in the set.
    pub fn ids(&self) -> impl Iterator<Item = ActId> {
        self.acts.iter().map(|filed| filed.id)
    }

    /// All acts in the set but those that somebody else has, in an order in which none has to wait over there.
    pub fn missing_from(&self, theirs: &[ActId]) -> Vec<SignedAct> {
        let theirs: BTreeSet<_> = theirs.iter().collect();
        let missing = self.acts.iter().filter(|filed| !theirs.contains(&filed.id));
        missing.map(|filed| filed.act.clone()).collect()
    }

    fn view(&self) -> &View {
        self.view.get_or_init(|| View::of(self.mesh, &self.acts))
    }

    /// Whether one more act by a governor fits in.
    fn check_room(&self, act: &SignedAct) -> Result<(), Full> {
        let by = act.by();
        let own = self.governors.get(&by).copied().unwrap_or_default();
        if !own.has_room(act, MOST_ACTS_BY_ONE) {
            return Err(Full::Signer { by });
        }
        if !self.tally.has_room(act, MOST_ACTS) {
            return Err(Full::Roster);
        }
        Ok(())
    }

    /// Keeps an act that is genuine, and those that waited for it.
    fn keep(&mut self, filed: Filed) {
        self.names.insert(filed.id);
        if !self.governors.contains_key(&filed.act.by()) {
            self.waiting.push(filed);
            return;
        }
        self.view.take();
        let mut next = vec![filed];
        while let Some(filed) = next.pop() {
            // There was room when the first of them came, but there need not be for those who waited.
            if self.check_room(&filed.act).is_err() {
                self.names.remove(&filed.id);
                continue;
            }
            if let Some(new) = self.new_governor(&filed.act) {
                self.governors.insert(new, Tally::default());
                next.extend(self.waiting.extract_if(.., |waiting| waiting.act.by() == new));
            }
            self.tally.count(&filed.act);
            self.governors
                .entry(filed.act.by())
                .or_default()
                .count(&filed.act);
            self.acts.push(filed);
        }
    }

    /// Whom an act in the set makes a governor.
    fn new_governor(&self, act: &SignedAct) -> Option<NodeId> {
        let admission = act.admission().filter(|admission| admission.role.governs())?;
        (!self.governors.contains_key(&admission.subject)).then_some(admission.subject)
    }
}
