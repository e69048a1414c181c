//! What the user of this node may do to the mesh.

use super::super::id::{NodeId, Role, TokenId, UnixSeconds};
use super::super::roster::{Act, SignedAct, Standing};
use super::super::token::{Grant, Token, TooLong};
use super::Core;
use iroh_base::SecretKey;
use std::collections::BTreeSet;
use std::str::FromStr;
use std::time::Duration;

/// A member, as `mesh-llm members` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberSeen {
    /// Who.
    pub node: NodeId,
    /// What its machine is called, if it was heard of.
    pub name: Option<String>,
    /// What it is to the mesh.
    pub role: Role,
    /// Who let it in; itself: the founder.
    pub admitted_by: NodeId,
    /// When, by the clock of that one.
    pub since: UnixSeconds,
    /// Whether it is there.
    pub is_alive: bool,
}

/// Why that cannot be done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// It is for nodes.
    #[error("this machine is a {0} of the mesh, which may not invite or remove: do it on one that is a node")]
    MayNot(Role),
    /// It is not in yet.
    #[error("this machine has not joined its mesh yet: try again when it has")]
    NotIn,
    /// Nobody of that name.
    #[error("no member of the mesh is called {0}: `mesh-llm members` lists them")]
    Nobody(String),
    /// More than one.
    #[error("{0} could be several members of the mesh: give more of the id that `mesh-llm members` shows")]
    Several(String),
    /// Nothing more fits into the roster, or the like.
    #[error("{0}")]
    Roster(String),
    /// What was asked for makes a token too long to be pasted.
    #[error(transparent)]
    TooLong(#[from] TooLong),
}

impl Core {
    /// Who belongs to the mesh, and the clients of this node.
    pub fn members(&self) -> Vec<MemberSeen> {
        let alive: BTreeSet<NodeId> = self.others_alive().collect();
        // The connection to a server may outlive it; a client is where its connection is.
        let is_client = |node| self.links.get(node).is_some_and(|link| link.role == Role::Client);
        let member = |(node, standing): (NodeId, Standing)| MemberSeen {
            node,
            name: self.name_of(node),
            role: standing.role,
            admitted_by: standing.admitted_by,
            since: standing.since,
            is_alive: node == self.me || alive.contains(&node) || is_client(node),
        };
        let mut members: Vec<MemberSeen> = self.roster.members().map(member).collect();
        let shown = self.links.iter().filter_map(|(node, link)| {
            let act = link
                .shown
                .as_ref()
                .filter(|_| self.roster.standing(node).is_none())?;
            let Act::Admit { role, at, .. } = act.act() else {
                return None;
            };
            Some(MemberSeen {
                node,
                name: None,
                role: *role,
                admitted_by: act.by(),
                since: *at,
                is_alive: true,
            })
        });
        members.extend(shown);
        members
    }

    fn name_of(&self, node: NodeId) -> Option<String> {
        let own = self
            .own
            .as_ref()
            .filter(|_| node == self.me)
            .and_then(|own| own.open(self.mesh()).ok());
        own.or_else(|| self.gossip.state(node).cloned())
            .map(|state| state.name)
    }

    fn governing(&self) -> Result<(), Wrong> {
        match self.role() {
            Some(role) if role.governs() => Ok(()),
            Some(role) => Err(Wrong::MayNot(role)),
            None => Err(Wrong::NotIn),
        }
    }

    /// Makes a token. Its contacts are this node.
    ///
    /// # Errors
    /// If this node may not, or the token becomes too long.
    pub fn invite(&self, grant: Grant, fresh: SecretKey) -> Result<Token, Wrong> {
        self.governing()?;
        Ok(Token::issue(&self.key, grant, fresh)?)
    }

    /// Lets nobody in by a token any more, nor by one that was made from it.
    ///
    /// # Errors
    /// If this node may not.
    pub fn revoke(&mut self, now: Duration, token: TokenId, unix: UnixSeconds) -> Result<(), Wrong> {
        self.governing()?;
        let act = self.roster.revoke(&self.key, token, unix);
        self.do_it(now, act)
    }

    /// Removes a member: by its id, the unique beginning of one, or its machine's name. The token that it came by lets
    /// nobody in any more, or it would be back with another key. Somebody who is out already is removed once more if it
    /// is called by its whole id, which decides between two that removed each other.
    ///
    /// # Errors
    /// If this node may not, or nobody, or more than one, is meant.
    pub fn kick(&mut self, now: Duration, who: &str, unix: UnixSeconds) -> Result<NodeId, Wrong> {
        self.governing()?;
        let node = self.meant(who)?;
        // What a client has shown need not be in the roster, which has to know by which token it came.
        let shown = self.links.get(node).and_then(|link| link.shown.clone());
        if let Some(shown) = shown {
            self.take(now, [shown], None);
        }
        let tokens = self.roster.tokens_of(node);
        let act = self.roster.remove(&self.key, node, unix);
        self.do_it(now, act)?;
        for token in tokens {
            let act = self.roster.revoke(&self.key, token, unix);
            self.do_it(now, act)?;
        }
        Ok(node)
    }

    fn do_it(&mut self, now: Duration, act: Result<SignedAct, impl std::fmt::Display>) -> Result<(), Wrong> {
        let act = act.map_err(|refused| Wrong::Roster(refused.to_string()))?;
        self.take(now, [act], None);
        self.spread();
        Ok(())
    }

    fn meant(&self, who: &str) -> Result<NodeId, Wrong> {
        /// Shorter beginnings are typed by mistake.
        const SHORTEST: usize = 6;
        let clients = self.links.iter().map(|(node, _)| node);
        let mut all: Vec<NodeId> = self
            .roster
            .members()
            .map(|(node, _)| node)
            .chain(clients)
            .collect();
        all.sort_unstable();
        all.dedup();
        let id = who.to_ascii_lowercase();
        // Nobody escapes because another one calls itself by this id.
        if let Some(node) = all.iter().find(|node| node.to_string() == id) {
            return Ok(*node);
        }
        if let Some(removed) = NodeId::from_str(&id)
            .ok()
            .filter(|it| self.roster.is_removed(*it))
        {
            return Ok(removed);
        }
        let is_meant = |node: &NodeId| {
            let named = self.name_of(*node).is_some_and(|name| name == who);
            named || (id.len() >= SHORTEST && node.to_string().starts_with(&id))
        };
        let mut found = all.into_iter().filter(is_meant);
        match (found.next(), found.next()) {
            (Some(node), None) => Ok(node),
            (None, _) => Err(Wrong::Nobody(who.to_owned())),
            (Some(_), Some(_)) => Err(Wrong::Several(who.to_owned())),
        }
    }
}
