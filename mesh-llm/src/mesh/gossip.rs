//! How states spread.
//!
//! News are pushed: a node sends its own to the peers it is connected to, and whoever learns something new tells a
//! few of its peers. What that misses, by loss or a partition, is pulled: every second a node sends a digest of all
//! it knows to one of its peers, and where it differs, the two compare versions and send each other what is missing.
//!
//! This file decides what to send to whom; `store` knows what is news, `message` how it travels. None of them
//! knows sockets, clocks, or who is a member: the caller says so.

mod message;
mod store;

#[cfg(test)]
mod tests;

pub use message::{Digest32, Heard, MAX_NODES, MAX_STATES, Malformed, Message};

use crate::mesh::id::{Boot, MeshId, NodeId};
use crate::mesh::state::{NodeState, Rejected, SignedState, Stamp};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom, IteratorRandom};
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;
use store::{Known, Store};

/// Peers that hear of a change from the node itself. In meshes of up to 17 nodes these are all of them, and a change
/// is everywhere after one trip.
const OWN_FANOUT: usize = 16;

/// Peers that whoever learns of a change tells. With 3, a rumour reaches 19 of 20 nodes; digests find the others.
const RUMOUR_FANOUT: usize = 3;

/// Between two digests.
const DIGEST_EVERY: Duration = Duration::from_secs(1);

/// A message to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// To whom.
    pub to: NodeId,
    /// What.
    pub message: Message,
}

/// Why a node's own state is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotOwn {
    /// It can't be read, or wasn't signed for this mesh.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// It is about another node.
    #[error("a state of {} was given to {} as its own: each node signs only for itself", node.fmt_short(), me.fmt_short())]
    Other {
        /// About whom.
        node: NodeId,
        /// Who we are.
        me: NodeId,
    },
    /// The node has already said something as new.
    #[error("a node's state is version {} of run {}, and {} of {} was sent already: sign with a greater version", given.version, given.boot.0, sent.version, sent.boot.0)]
    NotNewer {
        /// Which it is.
        given: Stamp,
        /// Which was sent.
        sent: Stamp,
    },
}

/// What a node knows of all nodes, and whom it tells. Events go in by the methods; messages come out of
/// [`poll`](Self::poll), which the caller drains after each.
#[derive(Debug)]
pub struct Gossip {
    mesh: MeshId,
    me: NodeId,
    rng: SmallRng,
    store: Store,
    connected: BTreeSet<NodeId>,
    next_digest: Duration,
    /// What we said in a run that seems to be after this one.
    outdated_by: Option<Stamp>,
    changed: bool,
    outbox: VecDeque<Output>,
}

impl Gossip {
    /// Of node `me` in `mesh`; `seed` decides which peers it tells.
    pub fn new(mesh: MeshId, me: NodeId, seed: u64) -> Self {
        Self {
            mesh,
            me,
            rng: SmallRng::seed_from_u64(seed),
            store: Store::default(),
            connected: BTreeSet::new(),
            next_digest: DIGEST_EVERY,
            outdated_by: None,
            changed: false,
            outbox: VecDeque::new(),
        }
    }

    /// This node's own state is now another one, and its peers are told. Changes of load alone should not come here
    /// more often than they are worth a message to each peer: that is up to the caller.
    ///
    /// # Errors
    /// It isn't this node's, or isn't newer than the one before; then nothing changes.
    pub fn set_own(&mut self, own: SignedState) -> Result<(), NotOwn> {
        let state = own.open(self.mesh)?;
        if state.node != self.me {
            return Err(NotOwn::Other {
                node: state.node,
                me: self.me,
            });
        }
        let given = state.stamp();
        if let Some(sent) = self.store.stamp(self.me).filter(|&sent| sent >= given) {
            return Err(NotOwn::NotNewer { given, sent });
        }
        self.outdated_by = self.outdated_by.filter(|&ahead| ahead >= given);
        self.store.put(Known {
            signed: own.clone(),
            state,
        });
        self.changed = true;
        let peers: Vec<NodeId> = self.connected.iter().copied().sample(&mut self.rng, OWN_FANOUT);
        self.tell(peers, vec![own]);
        Ok(())
    }

    /// The peers that there is a connection to. With each new one, all that is known is compared; one of the two
    /// has to begin, and it is the one with the smaller id.
    pub fn peers(&mut self, connected: &BTreeSet<NodeId>) {
        for &new in connected
            .difference(&self.connected)
            .filter(|&&new| self.me < new)
        {
            let digest = Message::Digest(self.store.digest());
            self.outbox.push_back(Output {
                to: new,
                message: digest,
            });
        }
        self.connected = connected
            .iter()
            .copied()
            .filter(|&peer| peer != self.me)
            .collect();
    }

    /// Takes a message of `from`, whom the connection proves. What is about nodes that are no members, is no news,
    /// or isn't signed, goes by unheard.
    pub fn receive(&mut self, from: NodeId, message: Message, is_member: &dyn Fn(NodeId) -> bool) {
        if from == self.me || !is_member(from) {
            return;
        }
        match message {
            Message::States(states) => self.learn(from, states, is_member),
            Message::Digest(digest) if digest == self.store.digest() => {}
            Message::Digest(_) => {
                let versions = Message::Versions(self.store.versions());
                self.outbox.push_back(Output {
                    to: from,
                    message: versions,
                });
            }
            Message::Versions(theirs) => self.compare(from, &theirs, is_member),
            Message::Wanted(nodes) => {
                // Each once, however often it was named.
                let wanted: BTreeSet<NodeId> = nodes.into_iter().collect();
                let states = wanted
                    .into_iter()
                    .filter_map(|node| self.store.signed(node))
                    .cloned()
                    .collect();
                self.tell(vec![from], states);
            }
        }
    }

    /// Sends a digest, if it is time.
    pub fn tick(&mut self, now: Duration) {
        if now < self.next_digest {
            return;
        }
        self.next_digest = now + DIGEST_EVERY;
        if let Some(&to) = self.connected.iter().choose(&mut self.rng) {
            let message = Message::Digest(self.store.digest());
            self.outbox.push_back(Output { to, message });
        }
    }

    /// When [`tick`](Self::tick) has something to do.
    pub fn next_timer(&self) -> Duration {
        self.next_digest
    }

    /// The next message to be sent.
    pub fn poll(&mut self) -> Option<Output> {
        self.outbox.pop_front()
    }

    /// What a node said last.
    pub fn state(&self, node: NodeId) -> Option<&NodeState> {
        self.store.state(node)
    }

    /// The same, as it travels.
    pub fn signed(&self, node: NodeId) -> Option<&SignedState> {
        self.store.signed(node)
    }

    /// What each node said last, in the order of their ids.
    pub fn states(&self) -> impl Iterator<Item = &NodeState> {
        self.store.states()
    }

    /// A run of a node has ended: it left, was removed, or was declared dead. Whatever it said in this run or an
    /// earlier one is refused from now on, even what it said last and we hadn't heard: a departure outlives its
    /// rumours. If the node is known in a later run already, nothing changes.
    pub fn forget(&mut self, node: NodeId, boot: Boot) {
        if node != self.me {
            self.changed |= self.store.forget(node, boot);
        }
    }

    /// Whether [`states`](Self::states) may be different since this was last asked.
    pub fn changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// What others know of this node from a run that seems to be after this one, because its clock was set back. The
    /// others will not hear it until it signs with a greater boot.
    pub fn own_is_outdated(&self) -> Option<Stamp> {
        self.outdated_by
    }

    /// Takes what is new and signed of `states`, and passes it on.
    fn learn(&mut self, from: NodeId, states: Vec<SignedState>, is_member: &dyn Fn(NodeId) -> bool) {
        let mut news = Vec::new();
        for signed in states {
            match self.take(&signed, is_member) {
                Ok(Taken::New) => news.push(signed),
                Ok(Taken::Known) => {}
                Err(rejected) => tracing::debug!(from = %from.fmt_short(), %rejected, "a state was refused"),
            }
        }
        if news.is_empty() {
            return;
        }
        self.changed = true;
        let others: Vec<NodeId> = self
            .connected
            .iter()
            .copied()
            .filter(|&peer| peer != from)
            .collect();
        let told = others.sample(&mut self.rng, RUMOUR_FANOUT).copied().collect();
        self.tell(told, news);
    }

    /// Takes one state, if it is news. Its signature costs the most, and is looked at last.
    fn take(&mut self, signed: &SignedState, is_member: &dyn Fn(NodeId) -> bool) -> Result<Taken, Rejected> {
        let (node, stamp) = signed.claim()?;
        if node == self.me {
            if self.is_ahead_of_us(stamp) {
                signed.open(self.mesh)?;
                self.outdated_by = self.outdated_by.max(Some(stamp));
            }
            return Ok(Taken::Known);
        }
        if !is_member(node) || !self.store.is_news(node, stamp) {
            return Ok(Taken::Known);
        }
        let state = signed.open(self.mesh)?;
        self.store.put(Known {
            signed: signed.clone(),
            state,
        });
        Ok(Taken::New)
    }

    /// Whether we didn't say this yet, though others have it.
    fn is_ahead_of_us(&self, stamp: Stamp) -> bool {
        self.store.stamp(self.me).is_some_and(|own| stamp > own)
    }

    /// Sends `to` what it lacks of ours, and asks for what we lack of it.
    fn compare(&mut self, to: NodeId, theirs: &[Heard], is_member: &dyn Fn(NodeId) -> bool) {
        let missing = self.store.newer_than(theirs);
        self.tell(vec![to], missing);
        let news = theirs.iter().filter(|heard| match heard.node == self.me {
            true => self.is_ahead_of_us(heard.stamp),
            false => self.store.is_news(heard.node, heard.stamp) && is_member(heard.node),
        });
        let wanted: Vec<NodeId> = news.map(|heard| heard.node).collect();
        if !wanted.is_empty() {
            self.outbox.push_back(Output {
                to,
                message: Message::Wanted(wanted),
            });
        }
    }

    /// Sends `states` to each of `peers`, in as many messages as they need.
    fn tell(&mut self, peers: Vec<NodeId>, states: Vec<SignedState>) {
        for to in peers {
            for some in states.chunks(MAX_STATES) {
                self.outbox.push_back(Output {
                    to,
                    message: Message::States(some.to_vec()),
                });
            }
        }
    }
}

/// What became of a state.
enum Taken {
    /// It was news.
    New,
    /// It was none, or none of ours to hear.
    Known,
}
