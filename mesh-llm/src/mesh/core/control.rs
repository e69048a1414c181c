//! What comes on the stream of a connection.

use super::super::id::{Boot, NodeId};
use super::super::roster::{Act, Added, Rejected, SignedAct};
use super::super::wire::{Control, Table};
use super::{Core, Goodbye, LinkId, Output, Part, serves};
use std::collections::BTreeSet;
use std::time::Duration;

/// What was thought of acts that somebody told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// Nothing against them.
    Genuine,
    /// One has a signature that is none.
    Forged,
}

impl Core {
    /// A message came.
    pub fn control(&mut self, now: Duration, link: LinkId, message: Control) {
        let Some(from) = self.links.node(link) else {
            // It came with the last breath of a connection that is closed already.
            return;
        };
        let is_server = self.links.server(link).is_some();
        match (self.part, message) {
            (_, Control::Leaving) => self.left(now, link, from),
            (Part::Client, Control::Table(table)) => self.told(from, table),
            (Part::Server, message) if is_server => self.server_said(now, link, from, message),
            // Others than clients are not told tables, others than servers have nothing to say.
            _ => self.outputs.push_back(Output::Close(link, Goodbye::Senseless)),
        }
        self.spread();
    }

    fn server_said(&mut self, now: Duration, link: LinkId, from: NodeId, message: Control) {
        match message {
            Control::Gossip(message) => {
                let roster = &self.roster;
                self.gossip.receive(from, message, &|node| serves(roster, node));
                if let Some(stamp) = self.gossip.own_is_outdated() {
                    // The clock was set back: this run is a later one than it seemed.
                    self.membership.reboot(now, Boot(stamp.boot.0 + 1));
                }
            }
            Control::Roster(digest) => {
                if digest != self.roster.digest() {
                    let ids = self.roster.ids().collect();
                    self.outputs.push_back(Output::Send(link, Control::ActIds(ids)));
                }
            }
            Control::ActIds(theirs) => {
                let missing = self.roster.missing_from(&theirs);
                if !missing.is_empty() {
                    self.outputs.push_back(Output::Send(link, Control::Acts(missing)));
                }
            }
            Control::Acts(acts) => {
                if let Taken::Forged = self.take(now, acts, Some(from)) {
                    self.outputs.push_back(Output::Close(link, Goodbye::Senseless));
                }
            }
            Control::Table(_) | Control::Leaving => {
                self.outputs.push_back(Output::Close(link, Goodbye::Senseless));
            }
        }
    }

    fn left(&mut self, now: Duration, link: LinkId, from: NodeId) {
        tracing::debug!(peer = %from.fmt_short(), "a member says goodbye");
        // Its own word: nobody has to find out. Should it be back, it is another run.
        self.told.gone(from);
        if self.links.server(link).is_some() && self.part == Part::Server {
            self.membership.left(now, from);
        }
        self.contacts.failed(now, from);
        self.unlinked(now, link);
        self.outputs.push_back(Output::Close(link, Goodbye::Leaving));
    }

    /// Takes acts, and tells the others those that were not known; `from`: who told them.
    pub(super) fn take(
        &mut self,
        now: Duration,
        acts: impl IntoIterator<Item = SignedAct>,
        from: Option<NodeId>,
    ) -> Taken {
        let (mut news, mut taken) = (Vec::new(), Taken::Genuine);
        let before: Vec<NodeId> = self.roster.members().map(|(node, _)| node).collect();
        for act in acts {
            match self.roster.add(act.clone()) {
                Ok(Added::New) => news.push(act),
                Ok(Added::Known | Added::Waiting) => {}
                Err(rejected) => {
                    tracing::debug!(%rejected, by = %act.by().fmt_short(), "an act of the roster is not taken");
                    if let Rejected::Forged { .. } = rejected {
                        // Members pass on what they have verified: the rest is not worth the time.
                        taken = Taken::Forged;
                        break;
                    }
                }
            }
        }
        if !news.is_empty() {
            self.heed(now, &news, from, before);
        }
        taken
    }

    /// Does what follows from acts that are in the roster since now; `before`: the members without them.
    fn heed(&mut self, now: Duration, news: &[SignedAct], from: Option<NodeId>, before: Vec<NodeId>) {
        let others = self.links.servers().filter(|(node, _)| Some(*node) != from);
        let told = others.map(|(_, link)| Output::Send(link, Control::Acts(news.to_vec())));
        self.outputs.extend(told);
        self.outputs.push_back(Output::Save);
        self.outputs.push_back(Output::View);
        let named = news.iter().filter_map(|act| match act.act() {
            Act::Admit { subject, .. } | Act::Remove { subject, .. } => Some(*subject),
            Act::Revoke { .. } => None,
        });
        // A removal also puts out whom the removed let in unheard, and in again whom it had removed so.
        let after = self.roster.members().map(|(node, _)| node);
        let concerned: BTreeSet<NodeId> = named.chain(before).chain(after).collect();
        for node in concerned {
            if self.roster.standing(node).is_none() {
                self.membership.removed(now, node);
                self.contacts.forget(node);
            } else if serves(&self.roster, node) {
                self.membership.readmitted(node);
            }
        }
        self.out_with_the_removed();
    }

    /// Whoever is removed is out at once.
    fn out_with_the_removed(&mut self) {
        let removed: Vec<LinkId> = self
            .links
            .iter()
            .filter(|(node, link)| !self.is_still_in(*node, link.shown.as_ref()))
            .map(|(_, link)| link.id)
            .collect();
        for link in removed {
            self.end(link, Goodbye::Removed);
        }
        if self.part == Part::Server {
            self.tell_peers();
        }
    }

    fn told(&mut self, by: NodeId, table: Table) {
        let mut states = Vec::new();
        for state in table.states {
            match state.open(self.mesh()) {
                Ok(state) => states.push(state),
                Err(rejected) => tracing::debug!(%rejected, "a state in a table is not taken"),
            }
        }
        let mut moved = false;
        for state in &states {
            moved |= self.contacts.learn(state.node, &state.addresses);
        }
        // Who is not in the mesh any more is not to be called when this server is gone.
        moved |= self.contacts.keep(|node| table.alive.contains(&node));
        let links = &self.links;
        self.told
            .table(by, &table.alive, states, |node| links.of(node).is_some());
        if moved {
            self.outputs.push_back(Output::Save);
        }
        self.outputs.push_back(Output::View);
    }
}
