//! What a session does by the clock, and its links to other workers: it shows its host and its peers that
//! it lives, and finds out that a peer or a device does not.

use std::io;
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Fault;
use super::session::Session;
use crate::priority;
use crate::rpc::dial::{self, PING_EVERY};
use crate::rpc::link::lock;
use crate::rpc::wire::{NodeId, Peer, SessionId, ToHost, ToWorker};

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

/// Begins to watch over a session, until it is over.
pub(super) fn start(session: &Arc<Session>) -> io::Result<()> {
    let weak = Arc::downgrade(session);
    let watch = move || {
        priority::carry_answers();
        while let Some(session) = weak.upgrade() {
            if !look(&session) {
                return;
            }
        }
    };
    thread::Builder::new()
        .name("split pings".into())
        .spawn(watch)
        .map(drop)
}

/// One look, after a pause. Whether there is to be another.
fn look(session: &Session) -> bool {
    let state = lock(&session.state);
    let waited = session
        .ended
        .wait_timeout_while(state, PING_EVERY, |state| !state.over);
    let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
    if state.over {
        return false;
    }
    let peers = state.peers.clone();
    let now = Instant::now();
    let mut computing = state.computing.iter().flatten();
    let hangs = computing.any(|since| now.duration_since(*since) > LONGEST_GRAPH);
    drop(state);
    if hangs {
        let seconds = LONGEST_GRAPH.as_secs();
        session.fail(&Fault::Hang(seconds));
        return false;
    }
    for (node, peer) in peers {
        if peer.is_closed() {
            session.fail(&unreachable(node));
            return false;
        }
        peer.send_if_idle(ToWorker::Ping(0));
    }
    // The host's pings may be behind much that is on its way here, or wait for a queue to take it.
    session.host.send_if_idle(ToHost::Loading(0));
    true
}

/// Dials another worker on a thread of its own, and tells the host what came of it.
pub(super) fn connect(session: &Session, node: NodeId, address: String, peer: SessionId) {
    let (Some(own), Some(secret)) = (session.own.upgrade(), session.secret.clone()) else {
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
        let dialled = dial::peer(&address, &secret, peer);
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
            Err(error) => (Some(format!("{address}: {error}")), Duration::ZERO),
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
