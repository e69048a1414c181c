//! What comes on the stream of a connection.

use super::super::id::{Boot, NodeId};
use super::super::roster::{Act, Added, SignedAct};
use super::super::wire::{Control, Table};
use super::{Core, Goodbye, LinkId, Output, Part, serves};
use std::time::Duration;

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
            (Part::Client, Control::Table(table)) => self.told(table),
            (Part::Server, message) if is_server => self.from_server(now, link, from, message),
            // Others than clients are not told tables, others than servers have nothing to say.
            _ => self.outputs.push_back(Output::Close(link, Goodbye::Senseless)),
        }
        self.spread();
    }

    fn from_server(&mut self, now: Duration, link: LinkId, from: NodeId, message: Control) {
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
                for act in acts {
                    self.take(now, act, Some(from));
                }
            }
            Control::Table(_) | Control::Leaving => {
                self.outputs.push_back(Output::Close(link, Goodbye::Senseless));
            }
        }
    }

    fn left(&mut self, now: Duration, link: LinkId, from: NodeId) {
        // Its own word: nobody has to find out. Should it be back, it is another run.
        self.told.remove(&from);
        self.unlinked(now, link);
        self.outputs.push_back(Output::Close(link, Goodbye::Leaving));
    }

    /// Takes an act, and tells it to the others if it was not known; `from`: who told it.
    pub(super) fn take(&mut self, now: Duration, act: SignedAct, from: Option<NodeId>) {
        match self.roster.add(act.clone()) {
            Ok(Added::New) => {}
            Ok(Added::Known | Added::Waiting) => return,
            Err(rejected) => {
                tracing::debug!(%rejected, by = %act.by().fmt_short(), "an act of the roster is not taken");
                return;
            }
        }
        let others = self.links.servers().filter(|(node, _)| Some(*node) != from);
        let told = others.map(|(_, link)| Output::Send(link, Control::Acts(vec![act.clone()])));
        self.outputs.extend(told);
        self.outputs.push_back(Output::Save);
        self.outputs.push_back(Output::View);
        match act.act() {
            Act::Remove { subject, .. } if self.roster.is_removed(*subject) => {
                self.membership.removed(now, *subject);
                self.contacts.forget(*subject);
            }
            Act::Admit { subject, .. } if serves(&self.roster, *subject) => {
                self.membership.readmitted(*subject)
            }
            Act::Remove { .. } | Act::Admit { .. } | Act::Revoke { .. } => {}
        }
        self.out_with_the_removed();
    }

    /// Whoever is removed is out at once.
    fn out_with_the_removed(&mut self) {
        let removed: Vec<(NodeId, LinkId)> = self
            .links
            .iter()
            .filter(|(node, _)| self.roster.is_removed(*node))
            .map(|(node, link)| (node, link.id))
            .collect();
        for (node, link) in removed {
            self.outputs.push_back(Output::Close(link, Goodbye::Removed));
            self.links.remove(link);
            self.tables.forget(node);
        }
    }

    fn told(&mut self, table: Table) {
        for state in table.states {
            match state.open(self.mesh()) {
                Ok(state) => {
                    self.contacts.learn(state.node, &state.addresses);
                    self.told.insert(state.node, state);
                }
                Err(rejected) => tracing::debug!(%rejected, "a state in a table is not taken"),
            }
        }
        self.told.retain(|node, _| table.alive.contains(node));
        self.outputs.push_back(Output::Save);
        self.outputs.push_back(Output::View);
    }
}
