//! What nodes send to the host. None of them is trusted: only what was asked for is taken.

use std::time::Duration;

use bytes::Bytes;

use super::shared::{Passing, Reach, Shared};
use crate::rpc::link::{Receive, lock};
use crate::rpc::wire::{HOST, NodeId, ToHost, ToWorker, Transfer};

/// Characters of what a worker says about itself.
const LONGEST_TEXT: usize = 500;

impl Shared {
    /// What came from a node. One that sends what nobody asked for is lost.
    pub(super) fn receive(&self, from: NodeId, message: ToHost, payload: Bytes) {
        let taken = match message {
            ToHost::Deliver(transfer) => self.deliver(from, transfer, payload),
            ToHost::Failed(cause) => Err(plain(&cause)),
            ToHost::Unheard { node, cause } => return self.lose_unheard(from, node, &cause),
            ToHost::Offer(_) => Err("it made a second offer".into()),
            other => {
                let answers = matches!(other, ToHost::Data(_));
                let noted = self.note(from, other, payload);
                self.changed.notify_all();
                if answers {
                    self.answered();
                }
                noted.map_err(str::to_owned)
            }
        };
        if let Err(cause) = taken {
            self.lose(from, cause);
        }
    }

    /// A worker says that another one is gone.
    fn lose_unheard(&self, from: NodeId, node: NodeId, cause: &str) {
        let teller = self.node(from).map_or("a node", |node| &node.name);
        if node == from || node == HOST || self.outlet(node).is_none() {
            return self.lose(from, "it misses a node that is not there");
        }
        self.lose(node, format!("{teller} does not reach it: {}", plain(cause)));
    }

    fn deliver(&self, from: NodeId, transfer: Transfer, payload: Bytes) -> Result<(), String> {
        let passing = lock(&self.state).passing.remove(&transfer.number);
        let bytes = payload.len() as u64;
        let to = transfer.to;
        if passing != Some(Passing { from, to, bytes }) {
            return Err("it sent a hidden state that is none, or to a node that awaits none".into());
        }
        if let Some(outlet) = self.outlet(to) {
            // What comes from one worker must not wait for another; steps in flight limit how much it is.
            outlet.send_at_once(ToWorker::Deliver(transfer), payload);
        }
        Ok(())
    }

    fn note(&self, from: NodeId, message: ToHost, payload: Bytes) -> Result<(), &'static str> {
        let mut state = lock(&self.state);
        match message {
            ToHost::Data(read) => {
                // Nobody may want the answer any more.
                let Some(awaited) = state.awaited.remove(&read) else {
                    return Ok(());
                };
                let nothing = payload.is_empty() && state.cancelled.has(awaited.step);
                if awaited.node != from || (payload.len() != awaited.bytes && !nothing) {
                    return Err(
                        "it answered what it was not asked, or with other bytes than it was asked for",
                    );
                }
                state.answers.insert(read, payload);
            }
            ToHost::Opened { has_model } => {
                if !state.opening.remove(&from) {
                    return Err("it began a session that nobody asked for");
                }
                state.opened.insert(from, has_model);
            }
            ToHost::Reached(number) => {
                if !state.barriers.remove(&(from, number)) {
                    return Err("it is done with what it was not given");
                }
            }
            ToHost::Loading(bytes) => state.loaded_bytes = state.loaded_bytes.saturating_add(bytes),
            ToHost::Connected {
                node,
                fault,
                round_trip,
            } => {
                if !state.dialling.remove(&(from, node)) {
                    return Err("it dialled a node that it was not told to");
                }
                let reach = fault.map_or_else(
                    || Reach::Direct(Duration::from_micros(round_trip)),
                    |fault| Reach::ThroughHost(plain(&fault)),
                );
                state.reach.insert((from, node), reach);
            }
            ToHost::Pong { number, now, ran } => {
                let sent = state.pings.get(&number).copied();
                let sent = sent.filter(|(node, _)| *node == from).map(|(_, sent)| sent);
                if sent.is_some() {
                    state.pings.remove(&number);
                }
                state.timeline.record(from, sent, now, &ran);
            }
            ToHost::Doing(doing) => {
                state.doing.insert(from, doing);
            }
            ToHost::Deliver(_) | ToHost::Failed(_) | ToHost::Unheard { .. } | ToHost::Offer(_) => {}
        }
        Ok(())
    }
}

/// What another machine says, for a log and for users: not too long, and without control characters.
pub(super) fn plain(text: &str) -> String {
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(LONGEST_TEXT).map(printable).collect()
}

/// The host's end of a link to a node in its own process.
#[derive(Debug)]
pub(super) struct LocalEnd {
    pub(super) shared: std::sync::Weak<Shared>,
    pub(super) node: NodeId,
}

impl Receive<ToHost> for LocalEnd {
    fn receive(&self, message: ToHost, payload: Bytes) {
        if let Some(shared) = self.shared.upgrade() {
            shared.receive(self.node, message, payload);
        }
    }

    fn closed(&self) {
        if let Some(shared) = self.shared.upgrade() {
            shared.lose(self.node, "it ended");
        }
    }
}
