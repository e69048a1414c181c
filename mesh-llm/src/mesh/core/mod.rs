//! What a member of a mesh does, decided without a socket, a file or a clock: what happened goes in, with the time,
//! and [`Output`]s come out.
//!
//! It puts the parts together that know nothing of each other: who belongs ([`roster`](super::roster)), who is alive
//! ([`membership`](super::membership)), what each says of itself ([`gossip`](super::gossip)), whom to call
//! ([`contacts`]), what clients are told ([`table`]).

mod admission;
mod commands;
mod contacts;
mod control;
mod links;
mod table;
#[cfg(test)]
mod tests;
mod told;
mod view;

pub use admission::{Admitted, Barred};
pub use commands::{MemberSeen, Wrong};
pub use links::{LinkId, Side};
pub use view::{ClientSeen, Path, Seen, View};

use super::gossip::{self, Gossip};
use super::id::{Boot, Contact, MeshId, NodeId, Role};
use super::membership::{self, Member, Membership};
use super::roster::{Roster, SignedAct};
use super::state::{NodeState, SignedState};
use super::token::Token;
use super::wire::Control;
use contacts::Contacts;
use iroh_base::SecretKey;
use links::Links;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::time::Duration;
use table::Tables;
use told::Told;

/// How often what is due is looked at.
pub const TICK: Duration = Duration::from_secs(1);

/// What a member is when its program starts.
#[derive(Debug, Clone)]
pub struct Start {
    /// Its key.
    pub key: SecretKey,
    /// This run of its program.
    pub boot: Boot,
    /// Whom it belongs to, as far as it knows.
    pub roster: Roster,
    /// Whether it serves others or only uses them.
    pub part: Part,
    /// The act that admitted it; a founder has none.
    pub certificate: Option<SignedAct>,
    /// The token that it is to join by, if it has not been admitted yet.
    pub token: Option<Token>,
    /// Whom it may call.
    pub contacts: Vec<Contact>,
    /// For choices that are to differ from node to node.
    pub seed: u64,
}

/// What a member does in the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    /// It gossips, and serves what it can.
    Server,
    /// It holds a connection to a server, and uses what all of them serve.
    Client,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Call somebody.
    Dial(Contact),
    /// Send a message on a link's stream.
    Send(LinkId, Control),
    /// Send a packet on a link, which may be lost.
    Packet(LinkId, Vec<u8>),
    /// End a link, for this reason.
    Close(LinkId, Goodbye),
    /// What is kept on disk has changed.
    Save,
    /// What others see has changed.
    View,
    /// This node has to sign its state anew, as it is another run now.
    Boot,
}

/// Why a link ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goodbye {
    /// There is another one between the same two.
    Duplicate,
    /// The other one is no member any more.
    Removed,
    /// It says what makes no sense.
    Senseless,
    /// It was declared dead.
    Lost,
    /// This program ends.
    Leaving,
}

/// See the module.
pub struct Core {
    key: SecretKey,
    me: NodeId,
    boot: Boot,
    part: Part,
    roster: Roster,
    certificate: Option<SignedAct>,
    token: Option<Token>,
    links: Links,
    contacts: Contacts,
    gossip: Gossip,
    membership: Membership,
    /// Of a client: who is alive, and what they say of themselves.
    told: Told,
    /// Whether token and certificate have changed places, as what was shown first was refused.
    is_turned: bool,
    tables: Tables,
    own: Option<SignedState>,
    next_tick: Duration,
    outputs: VecDeque<Output>,
}

impl Core {
    /// A member that begins now.
    pub fn new(start: Start) -> Self {
        let Start {
            key,
            boot,
            roster,
            part,
            certificate,
            token,
            contacts,
            seed,
        } = start;
        let me = key.public();
        let mesh = roster.mesh();
        Self {
            me,
            boot,
            part,
            certificate,
            token,
            links: Links::new(me),
            contacts: Contacts::new(me, contacts),
            gossip: Gossip::new(mesh, me, seed),
            membership: Membership::new(Member { node: me, boot }, seed),
            told: Told::default(),
            is_turned: false,
            tables: Tables::default(),
            own: None,
            next_tick: Duration::ZERO,
            outputs: VecDeque::new(),
            roster,
            key,
        }
    }

    /// The mesh.
    pub fn mesh(&self) -> MeshId {
        self.roster.mesh()
    }

    /// This run.
    pub fn boot(&self) -> Boot {
        self.boot
    }

    /// Whether this node belongs to the mesh already.
    pub fn is_in(&self) -> bool {
        match self.part {
            Part::Server => self.roster.standing(self.me).is_some(),
            Part::Client => self.certificate.is_some() || self.roster.standing(self.me).is_some(),
        }
    }

    /// What this node is to the mesh, as far as it knows.
    pub fn role(&self) -> Option<Role> {
        match self.part {
            Part::Server => self.roster.standing(self.me).map(|standing| standing.role),
            Part::Client => self.is_in().then_some(Role::Client),
        }
    }

    /// What has to be kept on disk, as the roster, the certificate and whom to call the next time.
    pub fn kept(&self) -> (&Roster, Option<&SignedAct>, Vec<Contact>) {
        (&self.roster, self.certificate.as_ref(), self.contacts.kept())
    }

    /// What this node says of itself has changed.
    pub fn own_state(&mut self, state: &NodeState) {
        let signed = state.sign(self.mesh(), &self.key);
        self.own = Some(signed.clone());
        if self.part == Part::Server {
            if let Err(error) = self.gossip.set_own(signed) {
                tracing::warn!(%error, "what this node says of itself is not told");
            }
            self.spread();
        }
        self.outputs.push_back(Output::View);
    }

    /// Time goes by.
    pub fn tick(&mut self, now: Duration) {
        self.membership.tick(now);
        if now >= self.next_tick {
            self.next_tick = now + TICK;
            self.every_second(now);
        }
        self.spread();
    }

    /// When [`Core::tick`] is due.
    pub fn next_tick(&self) -> Duration {
        let timer = self.membership.next_timer().unwrap_or(Duration::MAX);
        self.next_tick.min(timer)
    }

    fn every_second(&mut self, now: Duration) {
        if self.part == Part::Server {
            self.gossip.tick(now);
            if let Some(slowest) = self.links.slowest_rtt() {
                self.membership.slowest_rtt(now, slowest);
            }
            // One of them a second: a difference that a broken link has left does not stay.
            if let Some(link) = self.links.nth_server(now.as_secs()) {
                self.outputs
                    .push_back(Output::Send(link, Control::Roster(self.roster.digest())));
            }
            self.tell_clients();
        }
        self.call(now);
    }

    /// Calls whom it is time to call.
    fn call(&mut self, now: Duration) {
        let (links, roster) = (&self.links, &self.roster);
        let wanted = |node: NodeId| links.of(node).is_none() && serves(roster, node);
        let due = match self.part {
            // Who is not known to be a member may be one that admits us.
            Part::Server if !self.is_in() => self
                .contacts
                .due(now, usize::MAX, |node| self.links.of(node).is_none()),
            Part::Server => self.contacts.due(now, usize::MAX, wanted),
            // One is enough; the next one is called when the last has not answered for a second.
            Part::Client if self.links.is_empty() => self.contacts.due(now, 1, |_| true),
            Part::Client => Vec::new(),
        };
        self.outputs.extend(due.into_iter().map(Output::Dial));
    }

    /// A call came to nothing.
    pub fn not_reached(&mut self, now: Duration, node: NodeId) {
        self.contacts.failed(now, node);
    }

    /// The connection to a node, if there is one.
    pub fn link_to(&self, node: NodeId) -> Option<LinkId> {
        self.links.of(node)
    }

    /// Whether a node that is being called may be asked for something before it says that it lets this one in. A client
    /// that is connected calls only servers of which it was told, and no server calls it: so there is hardly another connection
    /// between the two that could take the place of this one.
    pub fn may_ask_early(&self, node: NodeId) -> bool {
        self.part == Part::Client && !self.links.is_empty() && self.told.state(node).is_some()
    }

    /// Somebody is to be called although it is not due: a request is for it. None: nobody knows where it is.
    pub fn contact(&self, node: NodeId) -> Option<Contact> {
        let state = self.gossip.state(node).or_else(|| self.told.state(node));
        let of_state = state.filter(|state| !state.addresses.is_empty());
        let of_state = of_state.map(|state| Contact {
            node,
            addresses: state.addresses.clone(),
        });
        of_state.or_else(|| self.contacts.get(node))
    }

    /// What is to be done next.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// This program ends: everybody is told, once. A rumour that came before this would have them cut the connection.
    pub fn leave(&mut self) {
        for link in self.links.all() {
            self.outputs.push_back(Output::Send(link, Control::Leaving));
        }
    }

    /// A packet came.
    pub fn packet(&mut self, now: Duration, link: LinkId, packet: &[u8]) {
        let Some(from) = self.links.server(link) else {
            return;
        };
        let roster = &self.roster;
        self.membership
            .receive(now, from, packet, &|node| serves(roster, node));
        self.spread();
    }

    /// Takes what the parts have to say, until none has any more.
    fn spread(&mut self) {
        while let Some(output) = self.membership.poll() {
            match output {
                membership::Output::Send { to, packet } => match self.links.of(to) {
                    Some(link) => self.outputs.push_back(Output::Packet(link, packet)),
                    // It is called in the next second; the packet is one that may be lost.
                    None => self.contacts.wanted(to),
                },
                membership::Output::Up(member) => {
                    self.contacts.wanted(member.node);
                    self.outputs.push_back(Output::View);
                    self.tables.urgent();
                }
                membership::Output::Down(member) => {
                    self.gossip.forget(member.node, member.boot);
                    self.cut_off(member);
                    self.outputs.push_back(Output::View);
                    self.tables.urgent();
                }
                membership::Output::Boot(boot) => {
                    self.boot = boot;
                    self.outputs.push_back(Output::Boot);
                }
            }
        }
        while let Some(gossip::Output { to, message }) = self.gossip.poll() {
            if let Some(link) = self.links.of(to) {
                self.outputs
                    .push_back(Output::Send(link, Control::Gossip(message)));
            }
        }
        if self.gossip.changed() {
            self.learn_addresses();
            self.outputs.push_back(Output::View);
        }
        if self.tables.is_urgent() {
            self.tell_clients();
        }
    }

    /// What is under way to a node that is dead fails at once, and goes to another one.
    fn cut_off(&mut self, dead: Member) {
        let link = self.links.get(dead.node).filter(|link| link.boot == dead.boot);
        if let Some(link) = link.map(|link| link.id) {
            self.end(link, Goodbye::Lost);
            self.tell_peers();
        }
    }

    /// Closes a connection, and forgets it at once.
    fn end(&mut self, link: LinkId, why: Goodbye) {
        if let Some(node) = self.links.remove(link) {
            self.tables.forget(node);
        }
        self.outputs.push_back(Output::Close(link, why));
    }

    /// Where others say that they are is where they will be called.
    fn learn_addresses(&mut self) {
        let mut changed = false;
        for member in self.membership.alive() {
            if let Some(state) = self.gossip.state(member.node) {
                changed |= self.contacts.learn(member.node, &state.addresses);
            }
        }
        if changed {
            self.outputs.push_back(Output::Save);
        }
    }
}

/// Whether this is a member that takes part in gossip.
fn serves(roster: &Roster, node: NodeId) -> bool {
    roster
        .standing(node)
        .is_some_and(|standing| standing.role.serves())
}
