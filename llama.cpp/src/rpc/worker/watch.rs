//! What a worker does by the clock, and a session's links to other workers: it shows a host and its peers
//! that it lives and what it does, and finds out that a peer or a device does not.

use std::io;
use std::sync::{Arc, OnceLock, Weak, mpsc};
use std::thread;
use std::time::Duration;

use bytes::Bytes;

use super::Fault;
use super::session::Session;
use crate::priority;
use crate::rpc::dial::{self, PING_EVERY};
use crate::rpc::door;
use crate::rpc::link::{Outlet, lock};
use crate::rpc::wire::{Doing, NodeId, Peer, SessionId, ToHost, ToWorker};

/// How often a session dials other workers.
const MOST_DIALLED: usize = 64;

/// A device that computes one graph for longer hangs. A graph is a few hundred tokens at most, and the
/// slowest machine that is of any use has some in a second.
const LONGEST_GRAPH: Duration = Duration::from_secs(600);

/// The link to a peer is gone.
pub(super) fn unreachable(node: NodeId) -> Fault {
    let cause = "it takes nothing any more".into();
    Fault::Peer { node, cause }
}

/// Shows a host that this worker lives, from its admission on, and watches over the session once there is
/// one. Ends when this is dropped.
#[derive(Debug)]
pub(super) struct Watch {
    session: Arc<OnceLock<Weak<Session>>>,
    _over: mpsc::Sender<()>,
}

impl Watch {
    /// Begins.
    pub(super) fn start(host: Outlet<ToHost>) -> io::Result<Self> {
        let session: Arc<OnceLock<Weak<Session>>> = Arc::default();
        let (over, is_over) = mpsc::channel();
        let own = session.clone();
        let watch = move || {
            priority::carry_answers();
            while is_over.recv_timeout(PING_EVERY) == Err(mpsc::RecvTimeoutError::Timeout) {
                let session = own.get().and_then(Weak::upgrade);
                look(&host, session.as_deref());
            }
        };
        thread::Builder::new().name("split pings".into()).spawn(watch)?;
        Ok(Self { session, _over: over })
    }

    /// The session has begun.
    pub(super) fn over(&self, session: &Arc<Session>) {
        // A connection has one session.
        let _ = self.session.set(Arc::downgrade(session));
    }
}

/// One look.
fn look(host: &Outlet<ToHost>, session: Option<&Session>) {
    let doing = session.map_or_else(Doing::default, |session| session.ledger.doing());
    // The host's pings may be behind much that is on its way here, or wait for a queue to take it.
    host.send_if_idle(ToHost::Doing(doing));
    let Some(session) = session.filter(|session| !session.is_over()) else {
        return;
    };
    if host.is_closed() {
        // Whoever takes what the host sends may be waiting for room, and does not hear that.
        return session.end();
    }
    if session.ledger.longest_graph() > LONGEST_GRAPH {
        return session.fail(&Fault::Hang(LONGEST_GRAPH.as_secs()));
    }
    let peers = lock(&session.state).peers.clone();
    for (node, peer) in peers {
        if peer.is_closed() {
            return session.fail(&unreachable(node));
        }
        peer.send_if_idle(ToWorker::Ping(0));
    }
}

/// Dials another worker on a thread of its own, and tells the host what came of it.
pub(super) fn connect(session: &Session, node: NodeId, address: String, peer: SessionId) {
    let (Some(own), Some(dialler)) = (session.own.upgrade(), session.dialler.clone()) else {
        return;
    };
    let mut state = lock(&session.state);
    state.dialled += 1;
    if state.dialled > MOST_DIALLED || state.peers.contains_key(&node) {
        drop(state);
        return session.fail(&Fault::protocol("too many nodes, or one twice"));
    }
    drop(state);
    let peer = Peer {
        session: peer,
        node: session.node,
    };
    let dial = move || {
        let dialled = dial::peer(&address, &dialler, peer);
        let (fault, round_trip) = match dialled {
            Ok((outlet, round_trip)) => {
                let mut state = lock(&own.state);
                if state.over {
                    return outlet.close();
                }
                if let Some(other) = state.peers.insert(node, outlet) {
                    other.close();
                }
                (None, round_trip)
            }
            Err(error) => (
                Some(format!("{}: {error}", door::shown(&address))),
                Duration::ZERO,
            ),
        };
        tell(&own, node, fault, round_trip);
    };
    if let Err(error) = thread::Builder::new().name("split dial".into()).spawn(dial) {
        tell(session, node, Some(error.to_string()), Duration::ZERO);
    }
}

fn tell(session: &Session, node: NodeId, fault: Option<String>, round_trip: Duration) {
    let connected = ToHost::Connected {
        node,
        fault,
        round_trip: round_trip.as_micros() as u64,
    };
    session.tell(connected, Bytes::new());
}
