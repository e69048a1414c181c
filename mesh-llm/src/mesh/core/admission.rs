//! Who is let in, and what being let in means.

use super::super::id::{NodeId, Role, UnixSeconds};
use super::super::membership::Member;
use super::super::roster::{Act, SignedAct, Standing};
use super::super::token::{Sealed, Token};
use super::super::wire::{
    Answer, Control, Credential, Hello, MOST_CONTACTS, Refused, RefusedKind, VERSIONS, Welcome,
};
use super::links::{Joined, Link};
use super::{Core, Goodbye, LinkId, Output, Part, Side, serves};
use std::time::Duration;

/// Somebody who was let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// What it is to the mesh.
    pub role: Role,
    /// Models that it may use; none: all.
    pub models: Option<Vec<String>>,
    /// The act that it showed, which need not be in the roster.
    pub shown: Option<SignedAct>,
}

/// Why the answer of somebody who was called is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Barred {
    /// It does not belong to the mesh itself.
    #[error("the node that was called is no member of the mesh: ask for a new invite token")]
    NoMember,
    /// It lets us in and cannot prove it to others.
    #[error(
        "the node that was called lets this one in without proof: it runs another version of mesh-llm, update both"
    )]
    NoProof,
}

fn refused(kind: RefusedKind, message: impl Into<String>) -> Refused {
    Refused {
        kind,
        message: message.into(),
    }
}

/// What a member is on a connection, where it takes this part.
fn as_part(role: Role, part: Part) -> Result<Role, Refused> {
    let wrong = |message| Err(refused(RefusedKind::Credential, message));
    match part {
        Part::Server if role.serves() => Ok(role),
        Part::Client if role.uses() => Ok(Role::Client),
        Part::Server => wrong(
            "this machine may only use the mesh: start it with --client, or ask for an invite token for a node",
        ),
        Part::Client => wrong(
            "this machine may only serve the mesh: start it without --client, or ask for an invite token for a client",
        ),
    }
}

impl Core {
    /// Decides about somebody who dialled, whose id TLS has proved.
    ///
    /// # Errors
    /// The refusal that it is sent.
    pub fn admit(
        &mut self,
        now: Duration,
        unix: UnixSeconds,
        remote: NodeId,
        hello: &Hello,
    ) -> Result<(Admitted, Answer), Refused> {
        if hello.mesh != self.mesh() {
            return Err(refused(
                RefusedKind::Credential,
                "this node belongs to another mesh: the invite token is for a mesh that it has left, so ask for a new one",
            ));
        }
        let Some(version) = VERSIONS.common(hello.versions) else {
            return Err(refused(
                RefusedKind::Version,
                "the two programs are too far apart to understand each other: update the older mesh-llm",
            ));
        };
        if !self.is_in() || self.part == Part::Client {
            return Err(refused(
                RefusedKind::Busy,
                "this node is no member itself yet: try again in a moment",
            ));
        }
        let (standing, certificate) = match &hello.credential {
            Credential::Member => (self.member(remote)?, None),
            Credential::Certificate(act) => (self.certified(now, remote, act)?, Some(act.clone())),
            Credential::Token(sealed) => {
                let act = self.by_token(now, unix, remote, sealed, hello.part)?;
                let standing = self.certified(now, remote, &act)?;
                (standing, Some(Box::new(act)))
            }
        };
        let role = as_part(standing.role, hello.part)?;
        let shown = certificate.clone().map(|act| *act);
        let (acts, contacts) = if role.serves() {
            let others = |node| node != remote && serves(&self.roster, node);
            let contacts = self.contacts.kept().into_iter();
            let contacts = contacts.filter(|contact| others(contact.node));
            (
                self.roster.missing_from(&[]),
                contacts.take(MOST_CONTACTS).collect(),
            )
        } else {
            (Vec::new(), Vec::new())
        };
        let welcome = Welcome {
            version,
            boot: self.boot,
            certificate,
            acts,
            contacts,
        };
        let admitted = Admitted {
            role,
            models: standing.models,
            shown,
        };
        Ok((admitted, Answer::Welcome(Box::new(welcome))))
    }

    fn member(&self, remote: NodeId) -> Result<Standing, Refused> {
        self.roster.standing(remote).ok_or_else(|| self.unknown(remote))
    }

    fn unknown(&self, remote: NodeId) -> Refused {
        if self.roster.is_removed(remote) {
            return refused(
                RefusedKind::Removed,
                "this machine was removed from the mesh: only a new invite token lets it in again",
            );
        }
        if let Some(by) = self.roster.lost_with(remote) {
            return refused(
                RefusedKind::Removed,
                format!(
                    "this machine is out of the mesh with {}, which let it in and was removed before the others had \
                     heard of that: ask for a new invite token",
                    by.fmt_short()
                ),
            );
        }
        refused(
            RefusedKind::Credential,
            "this machine is no member of the mesh: join it with an invite token (--join)",
        )
    }

    /// What somebody is by the act that admitted it, which this node may not know yet.
    fn certified(&mut self, now: Duration, remote: NodeId, act: &SignedAct) -> Result<Standing, Refused> {
        // Before it is believed it must not become part of the roster: its signer may have been removed since.
        let standing = self.roster.certificate_standing(act, remote);
        let standing = standing.map_err(|_| self.unknown(remote))?;
        if standing.role.serves() {
            self.take(now, [act.clone()], None);
        }
        Ok(standing)
    }

    /// Admits somebody by a token: the act of this node that does.
    fn by_token(
        &mut self,
        now: Duration,
        unix: UnixSeconds,
        remote: NodeId,
        sealed: &Sealed,
        part: Part,
    ) -> Result<SignedAct, Refused> {
        let credential = |message: String| refused(RefusedKind::Credential, message);
        if !self.role().is_some_and(Role::governs) {
            return Err(refused(
                RefusedKind::Busy,
                "this node may let nobody in: join by a node that serves and uses the mesh",
            ));
        }
        let verified = sealed
            .verify(self.mesh(), remote, unix)
            .map_err(|refusal| credential(refusal.to_string()))?;
        let governs = self
            .roster
            .standing(verified.issuer)
            .is_some_and(|standing| standing.role.governs());
        if !governs {
            return Err(credential(
                "whoever made this invite token is no member of the mesh (any more): ask for a new one"
                    .to_owned(),
            ));
        }
        // Whoever only wants to use is no more than that, whatever the token would allow.
        let role = as_part(verified.role, part)?;
        let act = self
            .roster
            .admit(&self.key, remote, role, verified.tokens, verified.models, unix)
            .map_err(|refusal| credential(refusal.to_string()))?;
        let Act::Admit { role, tokens, .. } = act.act() else {
            return Ok(act);
        };
        // Clients leave nothing behind, unless uses are counted.
        if role.serves() || tokens.iter().any(|token| token.uses.is_some()) {
            self.take(now, [act.clone()], None);
        }
        Ok(act)
    }

    /// What this node shows when it calls somebody.
    pub fn hello(&self) -> Hello {
        let token = self.token.as_ref().filter(|token| self.shows(token));
        let credential = match (token, &self.certificate) {
            (Some(token), _) => Credential::Token(Box::new(token.seal(self.me))),
            (None, Some(certificate)) => Credential::Certificate(Box::new(certificate.clone())),
            (None, None) => Credential::Member,
        };
        Hello {
            versions: VERSIONS,
            mesh: self.mesh(),
            boot: self.boot,
            part: self.part,
            credential,
        }
    }

    /// Whether the token is shown rather than the act that admitted this node, or none. A token that this node did not
    /// come by is a new one: it was removed, or is to become something else. What was refused is not shown again until
    /// the other was refused as well.
    fn shows(&self, token: &Token) -> bool {
        let is_new = match self.certificate.as_ref().map(SignedAct::act) {
            Some(Act::Admit { tokens, .. }) => {
                let last = token.ids().last().copied();
                !tokens.iter().any(|used| Some(used.token) == last)
            }
            Some(_) | None => !self.is_in(),
        };
        let has_other = self.certificate.is_some() || self.is_in();
        is_new != (self.is_turned && has_other)
    }

    /// Somebody who was called has not let this node in.
    pub fn refused(&mut self, now: Duration, remote: NodeId, refused: &Refused) {
        if matches!(refused.kind, RefusedKind::Credential | RefusedKind::Removed) {
            self.is_turned = !self.is_turned;
        }
        self.not_reached(now, remote);
    }

    /// Somebody who was called has let this node in: what that one is to it.
    ///
    /// # Errors
    /// If it cannot be a member.
    pub fn welcomed(&mut self, now: Duration, remote: NodeId, welcome: &Welcome) -> Result<Admitted, Barred> {
        let certificate = welcome.certificate.as_deref();
        if self.part == Part::Server {
            self.take(now, welcome.acts.iter().chain(certificate).cloned(), None);
            for contact in &welcome.contacts {
                if serves(&self.roster, contact.node) && self.contacts.get(contact.node).is_none() {
                    self.contacts.learn(contact.node, &contact.addresses);
                }
            }
        }
        if let Some(certificate) = certificate
            && self.certificate.as_ref() != Some(certificate)
        {
            self.certificate = Some(certificate.clone());
            self.is_turned = false;
            self.outputs.push_back(Output::Save);
        }
        if !self.is_in() {
            return Err(Barred::NoProof);
        }
        self.outputs.push_back(Output::View);
        let admitted = |role, models| Admitted {
            role,
            models,
            shown: None,
        };
        match self.part {
            // A client has no roster; whom to call it knows from its token, or from a member. It serves nobody.
            Part::Client => Ok(admitted(Role::Node, Some(Vec::new()))),
            // What it may use does not depend on who dialled.
            Part::Server => match self.roster.standing(remote) {
                Some(standing) => Ok(admitted(standing.role, standing.models)),
                None => Err(Barred::NoMember),
            },
        }
    }

    /// Whether somebody belongs to the mesh, or shows what makes it belong.
    pub fn is_still_in(&self, node: NodeId, shown: Option<&SignedAct>) -> bool {
        self.part == Part::Client
            || self.roster.standing(node).is_some()
            || shown.is_some_and(|act| self.roster.certificate_standing(act, node).is_ok())
    }

    /// A connection is there, and both sides have let each other in. False: it is superfluous.
    pub fn linked(
        &mut self,
        now: Duration,
        id: LinkId,
        peer: Member,
        admitted: &Admitted,
        side: Side,
    ) -> bool {
        // Much can happen between the answer and this.
        if !self.is_still_in(peer.node, admitted.shown.as_ref()) {
            self.outputs.push_back(Output::Close(id, Goodbye::Removed));
            return false;
        }
        let role = admitted.role;
        let link = Link {
            id,
            boot: peer.boot,
            role,
            side,
            shown: admitted.shown.clone(),
            path: None,
        };
        match self.links.add(peer.node, link) {
            Joined::Superfluous => {
                self.outputs.push_back(Output::Close(id, Goodbye::Duplicate));
                return false;
            }
            Joined::Instead(old) => self.outputs.push_back(Output::Close(old, Goodbye::Duplicate)),
            Joined::Only => {}
        }
        self.contacts.reached(now, peer.node);
        self.tables.forget(peer.node);
        if self.part == Part::Server {
            if role.serves() {
                self.outputs
                    .push_back(Output::Send(id, Control::Roster(self.roster.digest())));
                self.tell_peers();
                self.membership.readmitted(peer.node);
                self.membership.met(now, peer);
            } else {
                self.tell_clients();
            }
        }
        self.outputs.push_back(Output::View);
        self.spread();
        true
    }

    /// A connection has ended.
    pub fn unlinked(&mut self, now: Duration, id: LinkId) {
        let Some(node) = self.links.remove(id) else {
            return;
        };
        self.tables.forget(node);
        match self.part {
            Part::Server => self.tell_peers(),
            Part::Client => self.told.unlinked(node),
        }
        self.outputs.push_back(Output::View);
        // Whoever is still there will be found at once.
        self.call(now);
        self.spread();
    }

    /// How a connection goes, as was measured.
    pub fn measured(&mut self, id: LinkId, path: super::Path) {
        if self.links.measured(id, path) {
            self.outputs.push_back(Output::View);
        }
    }

    /// Gossip goes to those that are connected.
    pub(super) fn tell_peers(&mut self) {
        let connected = self.links.servers().map(|(node, _)| node).collect();
        self.gossip.peers(&connected);
    }
}
