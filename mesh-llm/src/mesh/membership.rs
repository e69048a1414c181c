//! Who is alive: SWIM, by `foca`.
//!
//! Each member probes another one every `tempo::PROBE_PERIOD`, at first directly, then through others. Who doesn't answer is
//! suspected, and everybody hears of it; who doesn't object in time is down. A member is a node *in a run*
//! ([`Member`]): down is for ever, but the next run of the node, with a greater boot, is another member. A node that
//! hears that it was declared down takes the next boot at once, and says so by [`Output::Boot`].
//!
//! What `foca` leaves to us is here and in four files: `identity` says which of two runs wins, `packet` what is in
//! a packet, `tempo` how fast all goes, `timers` how its timeouts follow the paths. Nothing in here knows a
//! socket or a clock.

mod identity;
mod output;
mod packet;
mod tempo;
mod timers;

#[cfg(test)]
mod tests;

pub use identity::Member;
pub use output::Output;
pub use packet::MAX_PACKET_BYTES;

use crate::mesh::id::{Boot, NodeId};
use foca::{AccumulatingRuntime, Foca, NoCustomBroadcast, OwnedNotification, PostcardCodec, State, Timer};
use identity::Claim;
use packet::Packet;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::IteratorRandom;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use tempo::{HAIL_EVERY, HAILED};
use timers::{Due, Stretch, Timers};

/// What a node knows of who is alive. Events go in by the methods, each with the time since the start; what is to be
/// done comes out of [`poll`](Self::poll), which the caller drains after each.
pub struct Membership {
    me: NodeId,
    foca: Foca<Claim, PostcardCodec, SmallRng, NoCustomBroadcast>,
    runtime: AccumulatingRuntime<Claim>,
    rng: SmallRng,
    timers: Timers,
    stretch: Stretch,
    /// Members that were ever named here, and this node. All that `foca` knows is in it.
    keys: BTreeSet<NodeId>,
    removed: BTreeSet<NodeId>,
    alive: BTreeMap<NodeId, Boot>,
    outbox: VecDeque<Output>,
}

impl Membership {
    /// Of this node, in this run; `seed` decides whom it probes and tells.
    pub fn new(me: Member, seed: u64) -> Self {
        let codec = PostcardCodec;
        let mut timers = Timers::default();
        timers.add(HAIL_EVERY, Due::Hail);
        Self {
            me: me.node,
            foca: Foca::new(
                Claim::from(me),
                tempo::config(),
                SmallRng::seed_from_u64(seed),
                codec,
            ),
            runtime: AccumulatingRuntime::new(),
            rng: SmallRng::seed_from_u64(!seed),
            timers,
            stretch: Stretch::default(),
            keys: BTreeSet::from([me.node]),
            removed: BTreeSet::new(),
            alive: BTreeMap::new(),
            outbox: VecDeque::new(),
        }
    }

    /// Takes a packet of `from`, whom the connection proves. It is dropped unless `from` is a member and speaks for
    /// itself; of what it says of others, only what is about members is heard.
    pub fn receive(
        &mut self,
        now: Duration,
        from: NodeId,
        packet: &[u8],
        is_member: &dyn Fn(NodeId) -> bool,
    ) {
        let Some(mut packet) = Packet::read(packet) else {
            return;
        };
        let named = &packet.header;
        if named.src.node != *from.as_bytes() || named.dst.node != *self.me.as_bytes() {
            return;
        }
        if from == self.me || !self.admits(&packet.header.src, is_member) {
            return;
        }
        if packet
            .third()
            .is_some_and(|third| !self.admits_rumour(&third, is_member))
        {
            return;
        }
        packet
            .updates
            .retain(|update| self.admits_rumour(update.id(), is_member));

        self.catch_up(now, &packet);
        // Of itself, a node believes only what is about this run.
        let me = *self.foca.identity();
        packet
            .updates
            .retain(|update| update.id().node != me.node || *update.id() == me);

        if packet.header.dst.boot < me.boot {
            // The sender writes to a run of this node that has ended. Where both have renewed themselves at once, each
            // would do so until it took the other for dead; an announcement is heard whatever run it is addressed to.
            self.announce(packet.header.src);
        }
        match self.known(packet.header.src.node) {
            // The sender's clock was set back. It can't know that until it hears what its last run was.
            Some(later) if later.boot > packet.header.src.boot => self.announce(later),
            _ => {
                let handled = self.foca.handle_data(&packet.write(), &mut self.runtime);
                self.note(handled);
            }
        }
        self.settle(now);
    }

    /// There is a connection to this member, and it proves that the member is alive. What it knows of others is asked
    /// for.
    pub fn met(&mut self, now: Duration, peer: Member) {
        let unheard = peer.node == self.me || self.removed.contains(&peer.node);
        if unheard || self.alive.get(&peer.node) == Some(&peer.boot) {
            return;
        }
        self.keys.insert(peer.node);
        let peer = Claim::from(peer);
        let told = self
            .foca
            .apply_many([foca::Member::alive(peer)].into_iter(), true, &mut self.runtime);
        self.note(told);
        // If its clock was set back, this tells it which run we know.
        self.announce(self.known(peer.node).unwrap_or(peer));
        self.settle(now);
    }

    /// A node was removed from the mesh: it is down at once, and stays so whatever it or others say.
    pub fn removed(&mut self, now: Duration, node: NodeId) {
        self.removed.insert(node);
        self.left(now, node);
    }

    /// A node has said itself that it goes: it is down at once. Its next run is another member.
    pub fn left(&mut self, now: Duration, node: NodeId) {
        if let Some(run) = self.known(*node.as_bytes()) {
            let told = self
                .foca
                .apply_many([foca::Member::down(run)].into_iter(), true, &mut self.runtime);
            self.note(told);
        }
        self.settle(now);
    }

    /// A node that was removed may come back: it was admitted again.
    pub fn readmitted(&mut self, node: NodeId) {
        self.removed.remove(&node);
    }

    /// This node is in a later run than it thought; does nothing if `boot` isn't later.
    pub fn reboot(&mut self, now: Duration, boot: Boot) {
        if boot.0 <= self.foca.identity().boot {
            return;
        }
        let renamed = Claim {
            boot: boot.0,
            ..*self.foca.identity()
        };
        let told = self.foca.change_identity(renamed, &mut self.runtime);
        self.note(told);
        self.renamed(boot);
        self.settle(now);
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Duration) {
        while let Some(due) = self.timers.pop(now) {
            match due {
                Due::Hail => self.hail(now),
                Due::Foca(timer) if self.is_answered(&timer) => {}
                Due::Foca(timer) => {
                    let handled = self.foca.handle_timer(timer, &mut self.runtime);
                    self.note(handled);
                }
            }
            self.settle(now);
        }
    }

    /// When [`tick`](Self::tick) has something to do.
    pub fn next_timer(&self) -> Option<Duration> {
        self.timers.next()
    }

    /// The greatest RTT to any member, as it is measured now: timeouts follow it. Zero is no measurement.
    pub fn slowest_rtt(&mut self, now: Duration, rtt: Duration) {
        if let Some(factor) = self.stretch.follow(rtt) {
            self.timers.stretch(now, factor);
        }
    }

    /// What is to be done next.
    pub fn poll(&mut self) -> Option<Output> {
        self.outbox.pop_front()
    }

    /// Who is alive, this node aside, in the order of their ids.
    pub fn alive(&self) -> impl Iterator<Item = Member> {
        self.alive.iter().map(|(&node, &boot)| Member { node, boot })
    }

    /// Whether a sender is a member. A key that is no point of the curve is nobody's.
    fn admits(&mut self, claim: &Claim, is_member: &dyn Fn(NodeId) -> bool) -> bool {
        let known = self.keys.get(&claim.node).copied();
        let Some(node) = known.or_else(|| NodeId::from_bytes(&claim.node).ok()) else {
            return false;
        };
        if node == self.me {
            return true;
        }
        let admitted = !self.removed.contains(&node) && is_member(node);
        if admitted {
            self.keys.insert(node);
        }
        admitted
    }

    /// Whether what others say of a member may be heard.
    fn admits_rumour(&mut self, claim: &Claim, is_member: &dyn Fn(NodeId) -> bool) -> bool {
        claim.boot <= identity::LAST_RUMOURED_BOOT && self.admits(claim, is_member)
    }

    /// Whether this is the end of a suspect's time to object, and it has objected or is down already. Foca 2.0.0 would
    /// change nothing then, but tell it that it is down, so that it would renew itself for each lost probe.
    fn is_answered(&self, timer: &Timer<Claim>) -> bool {
        let Timer::ChangeSuspectToDown {
            member_id,
            incarnation,
            ..
        } = timer
        else {
            return false;
        };
        let mut suspects = self
            .foca
            .iter_membership_state()
            .filter(|member| member.state() == State::Suspect);
        !suspects.any(|suspect| suspect.id() == member_id && suspect.incarnation() == *incarnation)
    }

    /// Takes a later boot, if others know this node by a later one than its own.
    fn catch_up(&mut self, now: Duration, packet: &Packet) {
        let named = packet
            .updates
            .iter()
            .map(|update| *update.id())
            .chain([packet.header.dst]);
        let ours = named
            .filter(|claim| claim.node == *self.me.as_bytes())
            .map(|claim| claim.boot);
        let latest = ours.filter(|&boot| boot <= identity::LAST_RUMOURED_BOOT).max();
        if let Some(latest) = latest.filter(|&latest| latest > self.foca.identity().boot) {
            self.reboot(now, Boot(latest + 1));
        }
    }

    /// In which run a node is known, dead or alive.
    fn known(&self, node: [u8; 32]) -> Option<Claim> {
        self.foca
            .iter_membership_state()
            .map(|member| *member.id())
            .find(|claim| claim.node == node)
    }

    fn announce(&mut self, to: Claim) {
        let told = self.foca.announce(to, &mut self.runtime);
        self.note(told);
    }

    /// Calls some of those that are down. Who hears it and lives learns that it is thought dead.
    fn hail(&mut self, now: Duration) {
        self.timers.add(now + HAIL_EVERY, Due::Hail);
        let down = self
            .foca
            .iter_membership_state()
            .filter(|member| member.state() == State::Down);
        let down = down
            .map(|member| *member.id())
            .filter(|claim| !self.removed.contains(&claim.node));
        for claim in down.sample(&mut self.rng, HAILED) {
            self.announce(claim);
        }
    }

    /// Goes on in a new run.
    fn renamed(&mut self, boot: Boot) {
        self.outbox.push_back(Output::Boot(boot));
        // A renamed foca rests until it hears something; this starts its timers, if there is anyone to probe.
        let woken = self.foca.apply_many(std::iter::empty(), true, &mut self.runtime);
        self.note(woken);
    }

    /// Takes what `foca` wants to be done, until it wants nothing more.
    fn settle(&mut self, now: Duration) {
        let mut alive_changed = false;
        while self.runtime.backlog() > 0 {
            while let Some(notification) = self.runtime.to_notify() {
                match notification {
                    OwnedNotification::MemberDown(_) => {
                        alive_changed = true;
                        // A death should be known at once, not at the next round.
                        let told = self.foca.gossip(&mut self.runtime);
                        self.note(told);
                    }
                    OwnedNotification::MemberUp(_) | OwnedNotification::Rename(..) => alive_changed = true,
                    OwnedNotification::Rejoin(me) => self.renamed(Boot(me.boot)),
                    OwnedNotification::Active | OwnedNotification::Idle | OwnedNotification::Defunct => {}
                }
            }
            while let Some((after, timer)) = self.runtime.to_schedule() {
                let after = match timer {
                    Timer::ChangeSuspectToDown { .. } => tempo::time_to_object(after, self.alive.len()),
                    _ => after,
                };
                let after = self.stretch.of(&timer, after);
                self.timers.add(now + after, Due::Foca(timer));
            }
            while let Some((to, packet)) = self.runtime.to_send() {
                self.send(&to, packet.to_vec());
            }
        }
        if alive_changed {
            self.tell_changes();
        }
    }

    fn send(&mut self, to: &Claim, packet: Vec<u8>) {
        let to = self.keys.get(&to.node).copied();
        if let Some(to) = to.filter(|to| *to != self.me && !self.removed.contains(to)) {
            self.outbox.push_back(Output::Send { to, packet });
        }
    }

    /// Tells the difference between who was alive and who is.
    fn tell_changes(&mut self) {
        let active = self.foca.iter_members().map(|member| member.id());
        let alive: BTreeMap<NodeId, Boot> = active
            .filter_map(|claim| Some((*self.keys.get(&claim.node)?, Boot(claim.boot))))
            .collect();
        let gone = self.alive.iter().filter(|&(node, _)| !alive.contains_key(node));
        let come = alive
            .iter()
            .filter(|&(node, boot)| self.alive.get(node) != Some(boot));
        let member = |(&node, &boot): (&NodeId, &Boot)| Member { node, boot };
        self.outbox.extend(gone.map(|gone| Output::Down(member(gone))));
        self.outbox.extend(come.map(|come| Output::Up(member(come))));
        self.alive = alive;
    }

    /// What `foca` refuses, it refuses as a whole: there is nothing to undo.
    fn note(&self, done: Result<(), foca::Error>) {
        if let Err(error) = done {
            tracing::debug!(%error, "membership refused something");
        }
    }
}
