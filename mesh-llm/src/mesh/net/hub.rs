//! The task that owns a member's state: it feeds what happens to [`Core`] and does what that says.

use super::super::core::{Barred, Core, Goodbye, LinkId, MemberSeen, Output, Side, TICK, View, Wrong};
use super::super::id::{Contact, NodeId, Role, TokenId, UnixSeconds};
use super::super::membership::Member;
use super::super::state::NodeState;
use super::super::store::Kept;
use super::super::token::{Grant, Token};
use super::super::wire::{Answer, Control, Hello, Refused, RefusedKind};
use super::super::words::readable;
use super::door::{self, Answered, Entered, Verdict};
use super::endpoint::{Relays, addresses};
use super::keeper::Keeper;
use super::link::{self, Link, Peer};
use super::stream::StreamError;
use super::{Invitation, Offer, Serve};
use bytes::Bytes;
use futures_util::future::join_all;
use iroh::endpoint::Connection;
use iroh::{Endpoint, SecretKey, Watcher};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

/// How long the others may take to hear that this one goes.
const HEARD_WITHIN: Duration = Duration::from_millis(500);

/// Longer than this nothing is slept for.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);

/// What happens.
#[derive(Debug)]
pub(super) enum Event {
    /// A stranger wants to be let in.
    Knock {
        remote: NodeId,
        hello: Box<Hello>,
        verdict: oneshot::Sender<Verdict>,
    },
    /// One was let in.
    Entered(Box<Entered>),
    /// A node that was called is there, and was shown why to let us in.
    Reached(NodeId, Connection),
    /// A call came to an end.
    Called {
        node: NodeId,
        called: Result<Box<Answered>, StreamError>,
    },
    /// A member says something.
    Message(LinkId, Control),
    /// A member's packet.
    Packet(LinkId, Bytes),
    /// A connection has ended.
    Closed(LinkId),
    /// This node is asked for something.
    Command(Command),
}

/// What the rest of this program asks for.
#[derive(Debug)]
pub(super) enum Command {
    /// A connection to a node, to open streams on.
    Connection(NodeId, oneshot::Sender<Connection>),
    Invite(Invitation, oneshot::Sender<Result<Token, Wrong>>),
    Revoke(TokenId, oneshot::Sender<Result<(), Wrong>>),
    Kick(String, oneshot::Sender<Result<NodeId, Wrong>>),
    Members(oneshot::Sender<Vec<MemberSeen>>),
    /// Answered when everybody was told.
    Leave(oneshot::Sender<()>),
}

/// How this node stands with its mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Joining {
    /// It was not let in yet: nobody who could do that was reached, or will be asked again.
    Calling {
        /// Why the last call came to nothing.
        last: Option<String>,
    },
    /// It belongs to the mesh.
    In,
    /// It is not let in, and another try would be in vain.
    Refused(Refused),
}

/// Everything that the task has.
pub(super) struct Hub {
    core: Core,
    endpoint: Endpoint,
    relays: Relays,
    keeper: Keeper,
    events: mpsc::Sender<Event>,
    serve: Arc<Serve>,
    /// What this node offers.
    offer: Offer,
    view: watch::Sender<View>,
    joining: watch::Sender<Joining>,
    began: Instant,
    links: BTreeMap<LinkId, Link>,
    next_link: u64,
    /// Who waits for a connection to a node that is being called for that.
    waiting: BTreeMap<NodeId, Vec<oneshot::Sender<Connection>>>,
    /// The version of this node's state.
    version: u64,
}

impl Hub {
    pub(super) fn new(
        core: Core,
        (endpoint, relays): (Endpoint, Relays),
        keeper: Keeper,
        events: mpsc::Sender<Event>,
        serve: Arc<Serve>,
        view: watch::Sender<View>,
        joining: watch::Sender<Joining>,
    ) -> Self {
        Self {
            core,
            endpoint,
            relays,
            keeper,
            events,
            serve,
            offer: Offer::default(),
            view,
            joining,
            began: Instant::now(),
            links: BTreeMap::new(),
            next_link: 0,
            waiting: BTreeMap::new(),
            version: 0,
        }
    }

    /// Runs until it is told to leave, or nobody is left who could tell.
    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Event>, mut offer: watch::Receiver<Offer>) {
        self.follow(&mut inbox, &mut offer).await;
        // Before the inbox closes, by which the end is told.
        self.keeper.finish().await;
    }

    async fn follow(&mut self, inbox: &mut mpsc::Receiver<Event>, offer: &mut watch::Receiver<Offer>) {
        let mut places = self.endpoint.watch_addr();
        let mut looks = interval(TICK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.offer = offer.borrow_and_update().clone();
        self.publish();
        loop {
            self.obey();
            let due = self.began + self.core.next_tick().min(LONGEST_SLEEP);
            tokio::select! {
                event = inbox.recv() => match event {
                    None => return,
                    Some(Event::Command(Command::Leave(done))) => {
                        self.leave().await;
                        // Nobody waits any more: all the same.
                        let _ = done.send(());
                        return;
                    }
                    Some(event) => self.event(event),
                },
                () = sleep_until(due) => self.core.tick(self.now()),
                _ = looks.tick() => self.measure(),
                changed = offer.changed() => match changed {
                    Ok(()) => {
                        self.offer = offer.borrow_and_update().clone();
                        self.publish();
                    }
                    Err(_) => return,
                },
                Ok(_) = places.updated() => self.publish(),
            }
        }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Looks how the connections go.
    fn measure(&mut self) {
        for (id, link) in &self.links {
            if let Some(path) = link.path() {
                self.core.measured(*id, path);
            }
        }
    }

    /// Says what this node offers, and where it is.
    fn publish(&mut self) {
        self.version += 1;
        let Offer {
            name,
            memory,
            devices,
            models,
            split,
            wants,
            groups,
            round_trips,
            on_disk,
            gpus,
        } = self.offer.clone();
        let state = NodeState {
            node: self.endpoint.id(),
            boot: self.core.boot(),
            version: self.version,
            name,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            role: self.core.role().unwrap_or(Role::Node),
            addresses: addresses(&self.endpoint.addr(), &self.relays),
            memory,
            devices,
            models,
            split,
            wants,
            groups,
            round_trips,
            on_disk,
            gpus,
        };
        self.core.own_state(&state);
    }

    fn event(&mut self, event: Event) {
        let now = self.now();
        match event {
            Event::Knock {
                remote,
                hello,
                verdict,
            } => {
                let decided = self.core.admit(now, UnixSeconds::now(), remote, &hello);
                // It went away meanwhile.
                let _ = verdict.send(decided);
            }
            Event::Entered(entered) => self.link(*entered, Side::Theirs),
            Event::Reached(node, connection) => self.reached(node, &connection),
            Event::Called { node, called } => match called {
                Ok(answered) => self.answered(node, *answered),
                Err(error) => self.not_reached(node, &error.to_string()),
            },
            Event::Message(link, message) => self.core.control(now, link, message),
            Event::Packet(link, packet) => self.core.packet(now, link, &packet),
            Event::Closed(link) => {
                self.links.remove(&link);
                self.core.unlinked(now, link);
            }
            Event::Command(command) => self.command(command),
        }
    }

    /// What waits for a connection need not wait for the other to say that it lets us in, which it nearly always does.
    fn reached(&mut self, node: NodeId, connection: &Connection) {
        if self.core.may_ask_early(node)
            && let Some(waiting) = self.waiting.get_mut(&node)
        {
            tell(waiting.drain(..), connection);
        }
    }

    fn answered(&mut self, node: NodeId, answered: Answered) {
        let Answered { connection, answer } = answered;
        let welcome = match answer {
            Answer::Welcome(welcome) => welcome,
            Answer::Refused(refused) => return self.refused(node, refused),
        };
        match self.core.welcomed(self.now(), node, &welcome) {
            Ok(admitted) => {
                self.stands(Joining::In);
                // It may be something else to the mesh than it was, or was about to be.
                self.publish();
                let peer = Member {
                    node,
                    boot: welcome.boot,
                };
                self.link(
                    Entered {
                        connection,
                        peer,
                        admitted,
                    },
                    Side::Ours,
                );
            }
            Err(error) => {
                let kind = match error {
                    Barred::NoMember => RefusedKind::Credential,
                    Barred::NoProof => RefusedKind::Version,
                };
                connection.close(0u32.into(), b"no member");
                self.refused(
                    node,
                    Refused {
                        kind,
                        message: error.to_string(),
                    },
                );
            }
        }
    }

    fn refused(&mut self, node: NodeId, refused: Refused) {
        let refused = Refused {
            message: readable(&refused.message),
            ..refused
        };
        tracing::debug!(peer = %node.fmt_short(), kind = ?refused.kind, why = refused.message, "not let in");
        self.core.refused(self.now(), node, &refused);
        let is_final = refused.kind != RefusedKind::Busy;
        // Of a member, others may know better than the one that was asked.
        if is_final && (!self.core.is_in() || refused.kind == RefusedKind::Removed) {
            self.stands(Joining::Refused(refused.clone()));
        }
        self.came_to_nothing(node, &refused.message);
    }

    /// How this node stands with the mesh from now on; what is the same as before is told to nobody.
    fn stands(&self, now: Joining) {
        self.joining
            .send_if_modified(|joining| std::mem::replace(joining, now.clone()) != now);
    }

    fn not_reached(&mut self, node: NodeId, why: &str) {
        tracing::debug!(peer = %node.fmt_short(), why, "not reached");
        self.core.not_reached(self.now(), node);
        self.came_to_nothing(node, why);
    }

    /// A call did.
    fn came_to_nothing(&mut self, node: NodeId, why: &str) {
        self.waiting.remove(&node);
        self.joining.send_if_modified(|joining| match joining {
            Joining::Calling { last } => last.replace(why.to_owned()).as_deref() != Some(why),
            Joining::In | Joining::Refused(_) => false,
        });
    }

    fn link(&mut self, entered: Entered, side: Side) {
        let Entered {
            connection,
            peer,
            admitted,
        } = entered;
        if !self.core.is_still_in(peer.node, admitted.shown.as_ref()) {
            // It was put out between the answer and this: what it asked for early is not looked at.
            link::refuse(&connection);
            return self.not_reached(peer.node, "it was removed from the mesh");
        }
        let id = LinkId(self.next_link);
        self.next_link += 1;
        let (node, role) = (peer.node, admitted.role);
        let who = Peer {
            node,
            admitted: admitted.clone(),
        };
        let link = Link::start(id, connection, who, self.events.clone(), self.serve.clone());
        self.links.insert(id, link);
        if self.core.linked(self.now(), id, peer, &admitted, side) {
            tracing::debug!(peer = %node.fmt_short(), %role, ?side, "connected");
            if let Some(path) = self.links[&id].path() {
                self.core.measured(id, path);
            }
        }
        // Of two connections, the one that stays.
        let stays = self.core.link_to(node).and_then(|id| self.links.get(&id));
        let waiting = self.waiting.remove(&node).unwrap_or_default();
        if let Some(link) = stays {
            tell(waiting, &link.connection);
        }
    }

    fn command(&mut self, command: Command) {
        // Nobody waits for an answer any more: all the same, everywhere here.
        match command {
            Command::Connection(node, reply) => self.connection(node, reply),
            Command::Invite(invitation, reply) => {
                let grant = Grant {
                    mesh: self.core.mesh(),
                    issuer: self.endpoint.id(),
                    role: invitation.role,
                    expires: invitation.expires_in.map(|time| UnixSeconds::now().after(time)),
                    uses: invitation.uses,
                    models: invitation.models,
                    contacts: vec![Contact {
                        node: self.endpoint.id(),
                        addresses: addresses(&self.endpoint.addr(), &self.relays),
                    }],
                };
                let _ = reply.send(self.core.invite(grant, SecretKey::generate()));
            }
            Command::Revoke(token, reply) => {
                let _ = reply.send(self.core.revoke(self.now(), token, UnixSeconds::now()));
            }
            Command::Kick(who, reply) => {
                let _ = reply.send(self.core.kick(self.now(), &who, UnixSeconds::now()));
            }
            Command::Members(reply) => {
                let _ = reply.send(self.core.members());
            }
            Command::Leave(_) => {}
        }
    }

    fn connection(&mut self, node: NodeId, reply: oneshot::Sender<Connection>) {
        let linked = self.core.link_to(node).and_then(|id| self.links.get(&id));
        if let Some(link) = linked {
            let _ = reply.send(link.connection.clone());
            return;
        }
        let Some(contact) = self.core.contact(node) else {
            // Dropped: there is none.
            return;
        };
        match self.waiting.entry(node) {
            Entry::Occupied(called) => called.into_mut().push(reply),
            Entry::Vacant(uncalled) => {
                uncalled.insert(vec![reply]);
                self.call(contact);
            }
        }
    }

    fn call(&self, contact: Contact) {
        let (endpoint, events, hello) = (self.endpoint.clone(), self.events.clone(), self.core.hello());
        tokio::spawn(async move {
            let node = contact.node;
            let called = door::call(endpoint, contact, hello, events.clone())
                .await
                .map(Box::new);
            let _ = events.send(Event::Called { node, called }).await;
        });
    }

    /// Does what the core wants done.
    fn obey(&mut self) {
        let (mut saves, mut seen) = (false, false);
        while let Some(output) = self.core.poll() {
            match output {
                Output::Dial(contact) => self.call(contact),
                Output::Send(link, message) => {
                    if let Some(link) = self.links.get(&link) {
                        link.send(message);
                    }
                }
                Output::Packet(link, packet) => {
                    if let Some(link) = self.links.get(&link) {
                        link.packet(packet);
                    }
                }
                Output::Close(link, why) => self.close(link, why),
                Output::Save => saves = true,
                Output::View => seen = true,
                // Others took this run for dead: it goes on as a later one.
                Output::Boot => {
                    self.publish();
                    saves = true;
                }
            }
        }
        if saves {
            let (roster, certificate, contacts) = self.core.kept();
            self.keeper.keep(Kept {
                boot: self.core.boot(),
                roster: roster.to_bytes(),
                certificate: certificate.cloned(),
                contacts,
            });
        }
        if seen {
            let view = self.core.view();
            self.view
                .send_if_modified(|old| std::mem::replace(old, view.clone()) != view);
        }
    }

    fn close(&mut self, id: LinkId, why: Goodbye) {
        if let Some(link) = self.links.remove(&id) {
            link.close(why);
        }
    }

    /// Says goodbye to all, and waits until they have heard it, if that does not take too long.
    async fn leave(&mut self) {
        self.core.leave();
        self.obey();
        let links = std::mem::take(&mut self.links);
        let heard = join_all(links.into_values().map(Link::finish));
        let _ = timeout(HEARD_WITHIN, heard).await;
    }
}

/// Gives those who wait for it a connection.
fn tell(waiting: impl IntoIterator<Item = oneshot::Sender<Connection>>, connection: &Connection) {
    for waiting in waiting {
        // It waits no more: all the same.
        let _ = waiting.send(connection.clone());
    }
}
