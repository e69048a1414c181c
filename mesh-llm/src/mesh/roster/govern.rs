//! Acts of our own, and what a certificate is worth: what a node decides before it signs or lets in.

use super::act::{Act, ActId, Admission, SignedAct, TokenUse};
use super::view::Void;
use super::{Refused, Roster, Standing};
use crate::mesh::id::{NodeId, Role, TokenId, UnixSeconds};
use iroh_base::SecretKey;

impl Roster {
    /// Admits somebody who came by a token, or by our own wish (no token): the act, which is not added yet. If it is
    /// a member by this token already, with the same role and models, this is the act that made it one.
    ///
    /// # Errors
    /// If we are no node of the mesh; if the token was revoked, has let in as many as it may, or is the one that let
    /// the subject in before it was removed; if there is no room.
    pub fn admit(
        &self,
        key: &SecretKey,
        subject: NodeId,
        role: Role,
        tokens: Vec<TokenUse>,
        models: Option<Vec<String>>,
        now: UnixSeconds,
    ) -> Result<SignedAct, Refused> {
        let (by, in_generation) = self.governing(key)?;
        let view = self.view();
        let next = view.next_generation(subject);
        let mut wanted = Admission {
            by,
            subject,
            role,
            tokens: &tokens,
            models: models.as_deref(),
            at: now,
            generation: next.ok_or(Refused::RemovedForEver { subject })?,
        };
        if let Some((held, admission)) = self.held(subject) {
            if says_the_same(admission, wanted) {
                return Ok(held.clone());
            }
            // The newest counts, and our clock may be behind that of whoever signed the last.
            wanted.at = now.max(UnixSeconds(admission.at.0.saturating_add(1)));
            wanted.generation = admission.generation;
        }
        for &TokenUse { token, .. } in &tokens {
            if view.revocation(token).is_some() {
                return Err(Refused::Revoked { token });
            }
            if view.is_from_before_removal(token, subject) {
                return Err(Refused::Removed { subject });
            }
        }
        self.check_effect(wanted)?;
        let (at, generation) = (wanted.at, wanted.generation);
        self.sign(
            key,
            in_generation,
            Act::Admit {
                subject,
                role,
                tokens,
                models,
                at,
                generation,
            },
        )
    }

    /// Removes somebody, also a client that is in no act, or one that was removed before: the act, which is not added
    /// yet. It ends whatever admission an honest node can have signed so far, and lets stand of the acts of the
    /// removed which count here. Disputed ones it does not: that decides the dispute.
    ///
    /// A token that others have as well, or that has uses left, still lets in whoever comes with another key: revoke
    /// it, too.
    ///
    /// # Errors
    /// If we are no node of the mesh; if it was removed for ever; if there is no room.
    pub fn remove(&self, key: &SecretKey, subject: NodeId, now: UnixSeconds) -> Result<SignedAct, Refused> {
        let (_, in_generation) = self.governing(key)?;
        let next = self.view().next_generation(subject);
        let next = next.ok_or(Refused::RemovedForEver { subject })?;
        let current = self.standing(subject).map_or(0, |standing| standing.generation);
        let acts = self.acts.iter().enumerate();
        let standing =
            acts.filter(|(place, filed)| filed.act.by() == subject && self.view().verdict().sure[*place]);
        let mut stand: Vec<ActId> = standing.map(|(_, filed)| filed.id).collect();
        // Two that know the same say the same.
        stand.sort_unstable();
        self.sign(
            key,
            in_generation,
            Act::Remove {
                subject,
                generation: next.max(current),
                stand,
                at: now,
            },
        )
    }

    /// Lets nobody in any more by a token, or one that was made from it: the act, which is not added yet, or the one
    /// that did so before.
    ///
    /// # Errors
    /// If we are no node of the mesh; if there is no room.
    pub fn revoke(&self, key: &SecretKey, token: TokenId, now: UnixSeconds) -> Result<SignedAct, Refused> {
        let (_, in_generation) = self.governing(key)?;
        match self.view().revocation(token) {
            Some(place) if self.view().verdict().sure[place] => Ok(self.acts[place].act.clone()),
            // One that is disputed may come to nothing.
            Some(_) | None => self.sign(key, in_generation, Act::Revoke { token, at: now }),
        }
    }

    /// What somebody is who shows the act that admitted it. The act need not be in the roster, but then its signer has
    /// to be a node now, by the admission by which it signed, or else somebody removed could let in whom it likes.
    ///
    /// # Errors
    /// If the act does not make it a member, and the roster does not either.
    pub fn certificate_standing(
        &self,
        certificate: &SignedAct,
        subject: NodeId,
    ) -> Result<Standing, Refused> {
        let held = self.view().members().get(&subject);
        match (self.examine(certificate, subject), held) {
            (Ok(shown), None) => Ok(Standing::by(shown)),
            (Ok(shown), Some(held)) => {
                let shown_rank = (shown.generation, shown.at, certificate.id());
                let is_newer = held.admission.is_some_and(|place| {
                    shown_rank > (held.standing.generation, held.standing.since, self.acts[place].id)
                });
                Ok(if is_newer {
                    Standing::by(shown)
                } else {
                    held.standing.clone()
                })
            }
            (Err(_), Some(held)) => Ok(held.standing.clone()),
            (Err(refused), None) => Err(refused),
        }
    }

    /// What a certificate says, if that may be believed.
    fn examine<'a>(&self, certificate: &'a SignedAct, subject: NodeId) -> Result<Admission<'a>, Refused> {
        let admission = certificate.admission().filter(|it| it.subject == subject);
        let admission = admission.ok_or(Refused::NotYours { subject })?;
        certificate.act().check()?;
        let by = certificate.by();
        let is_node = self.view().role(by).is_some_and(Role::governs);
        if !is_node || !self.view().verdict().would_count(certificate) {
            return Err(Refused::SignerGone { by });
        }
        self.check_effect(admission)?;
        if !certificate.is_genuine(self.mesh) {
            return Err(Refused::Forged { by });
        }
        Ok(admission)
    }

    /// The blocks of the token by which a member came.
    pub fn tokens_of(&self, member: NodeId) -> Vec<TokenId> {
        let held = self.held(member);
        held.map_or(Vec::new(), |(_, admission)| {
            admission.tokens.iter().map(|used| used.token).collect()
        })
    }

    /// Whose key it is and by which of its admissions, if it may decide.
    fn governing(&self, key: &SecretKey) -> Result<(NodeId, u32), Refused> {
        let node = key.public();
        match self.standing(node) {
            Some(standing) if standing.role.governs() => Ok((node, standing.generation)),
            other => Err(Refused::NotGoverning {
                node,
                role: other.map(|standing| standing.role),
            }),
        }
    }

    /// The act that makes somebody what it is, and what it says.
    fn held(&self, subject: NodeId) -> Option<(&SignedAct, Admission<'_>)> {
        let place = self.view().members().get(&subject)?.admission?;
        let act = &self.acts[place].act;
        Some((act, act.admission()?))
    }

    fn check_effect(&self, admission: Admission<'_>) -> Result<(), Refused> {
        let subject = admission.subject;
        match self.view().void(admission) {
            None => Ok(()),
            Some(Void::Removed) => Err(Refused::Removed { subject }),
            Some(Void::Exhausted { token, uses }) => Err(Refused::Exhausted { token, uses }),
        }
    }

    /// Signs what [`Roster::add`] will take.
    fn sign(&self, key: &SecretKey, in_generation: u32, act: Act) -> Result<SignedAct, Refused> {
        act.check()?;
        let signed = SignedAct::sign(key, self.mesh, in_generation, act);
        self.check_room(&signed)?;
        Ok(signed)
    }
}

/// Whether one admission lets in by the same token to the same ends as another.
fn says_the_same(one: Admission<'_>, other: Admission<'_>) -> bool {
    (one.role, one.tokens, one.models) == (other.role, other.tokens, other.models)
}
