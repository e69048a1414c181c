//! Calling and being called: the first exchange on a connection, within bounds of time and memory.

use super::super::core::Admitted;
use super::super::id::{Contact, NodeId};
use super::super::membership::Member;
use super::super::wire::{ALPN, Answer, Hello, Refused};
use super::endpoint::{endpoint_address, widen};
use super::hub::Event;
use super::stream::{Messages, StreamError, ended, send};
use iroh::Endpoint;
use iroh::endpoint::{Connection, Incoming, IncomingAddr};
use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

/// Strangers that are listened to at once; others are turned away.
const STRANGERS: usize = 64;

/// Of these, so many from one address, so that it cannot keep all others out.
const STRANGERS_AT_ONE: usize = 16;

/// From so many on, an address has to prove that it is real before anything is kept for it.
const PROVE_FROM: usize = 8;

/// How long a stranger has, from its first packet to its hello.
const HELLO_WITHIN: Duration = Duration::from_secs(5);

/// How long a call may take.
const CALL_WITHIN: Duration = Duration::from_secs(10);

/// How long the refused have to read why.
const READ_WITHIN: Duration = Duration::from_secs(2);

/// What is decided about a stranger.
pub(super) type Verdict = Result<(Admitted, Answer), Refused>;

/// A connection on which both sides have let each other in.
#[derive(Debug)]
pub(super) struct Entered {
    pub(super) connection: Connection,
    pub(super) peer: Member,
    pub(super) admitted: Admitted,
}

/// A call that was answered.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) connection: Connection,
    pub(super) answer: Answer,
}

/// Lets strangers in, or not, until the endpoint is closed.
pub(super) async fn accept(endpoint: Endpoint, events: mpsc::Sender<Event>) {
    let mut strangers = JoinSet::new();
    // Those that are listened to, by where they are.
    let mut places: HashMap<IpAddr, usize> = HashMap::new();
    loop {
        let incoming = tokio::select! {
            Some(left) = strangers.join_next() => {
                if let Ok(Some(address)) = left {
                    leave(&mut places, address);
                }
                continue;
            }
            incoming = endpoint.accept() => match incoming {
                Some(incoming) => incoming,
                None => return,
            },
        };
        let address = match incoming.remote_addr() {
            IncomingAddr::Ip(address) => Some(address.ip()),
            // Through a relay, where all of them seem to be at one place.
            _ => None,
        };
        let beside = address
            .and_then(|address| places.get(&address))
            .copied()
            .unwrap_or(0);
        if strangers.len() >= STRANGERS || beside >= STRANGERS_AT_ONE {
            incoming.refuse();
            continue;
        }
        if strangers.len() >= PROVE_FROM && !incoming.remote_addr_validated() {
            // It comes back with a proof of its address, or it was none.
            let _ = incoming.retry();
            continue;
        }
        if let Some(address) = address {
            *places.entry(address).or_default() += 1;
        }
        let events = events.clone();
        strangers.spawn(async move {
            let heard = timeout(HELLO_WITHIN, hear(incoming)).await;
            match heard {
                Ok(Ok(stranger)) => decide(stranger, &events).await,
                Ok(Err(error)) => tracing::debug!(%error, "a stranger said nothing that makes sense"),
                Err(_) => tracing::debug!("a stranger said nothing in time"),
            }
            address
        });
    }
}

/// One less is listened to at an address.
fn leave(places: &mut HashMap<IpAddr, usize>, address: IpAddr) {
    if let Some(count) = places.get_mut(&address) {
        *count -= 1;
        if *count == 0 {
            places.remove(&address);
        }
    }
}

struct Stranger {
    connection: Connection,
    reply: iroh::endpoint::SendStream,
    hello: Hello,
}

async fn hear(incoming: Incoming) -> Result<Stranger, StreamError> {
    let connection = incoming.accept().map_err(ended)?.await.map_err(ended)?;
    let (reply, mut receive) = connection.accept_bi().await.map_err(ended)?;
    let hello = Messages::new().next(&mut receive).await?;
    Ok(Stranger {
        connection,
        reply,
        hello,
    })
}

async fn decide(stranger: Stranger, events: &mpsc::Sender<Event>) {
    let Stranger {
        connection,
        mut reply,
        hello,
    } = stranger;
    let remote = connection.remote_id();
    let boot = hello.boot;
    let (verdict, decided) = oneshot::channel();
    if events
        .send(Event::Knock {
            remote,
            hello: Box::new(hello),
            verdict,
        })
        .await
        .is_err()
    {
        return;
    }
    // Dropped: this program ends.
    let Ok(verdict) = decided.await else {
        return;
    };
    let (answer, admitted) = match verdict {
        Ok((admitted, answer)) => (answer, Some(admitted)),
        Err(refused) => {
            // Whoever likes can cause it, as often as it likes: the log is not filled by it.
            tracing::debug!(peer = %remote.fmt_short(), kind = ?refused.kind, "a stranger is refused");
            (Answer::Refused(refused), None)
        }
    };
    let told = timeout(READ_WITHIN, send(&mut reply, &answer)).await;
    let _ = reply.finish();
    match admitted {
        Some(admitted) if matches!(told, Ok(Ok(()))) => {
            let peer = Member { node: remote, boot };
            let _ = events
                .send(Event::Entered(Box::new(Entered {
                    connection,
                    peer,
                    admitted,
                })))
                .await;
        }
        _ => {
            // It closes when it has read why.
            let _ = timeout(READ_WITHIN, connection.closed()).await;
            connection.close(0u32.into(), b"refused");
        }
    }
}

/// Calls a node and shows it why to let us in. The connection is told as an event before the answer: the node is who it is
/// meant to be by then, and what is asked of it right behind the hello does not wait for the answer.
pub(super) async fn call(
    endpoint: Endpoint,
    contact: Contact,
    hello: Hello,
    events: mpsc::Sender<Event>,
) -> Result<Answered, StreamError> {
    let deadline = Instant::now() + CALL_WITHIN;
    let late = |_| ended(format!("no answer within {} s", CALL_WITHIN.as_secs()));
    let connecting = endpoint.connect(endpoint_address(&contact), ALPN);
    let connected = timeout_at(deadline, connecting).await.map_err(late)?;
    let connection = connected.map_err(ended)?;
    let asking = ask(&connection, contact.node, &hello, &events);
    let answer = timeout_at(deadline, asking)
        .await
        .unwrap_or_else(|over| Err(late(over)));
    // What was asked early ends, too, if nothing comes of the call.
    match &answer {
        Ok(Answer::Welcome(_)) => {}
        Ok(Answer::Refused(_)) => connection.close(0u32.into(), b"understood"),
        Err(_) => connection.close(0u32.into(), b"no answer"),
    }
    let answer = answer?;
    Ok(Answered { connection, answer })
}

/// Shows a node why to let us in, and hears what it says.
async fn ask(
    connection: &Connection,
    node: NodeId,
    hello: &Hello,
    events: &mpsc::Sender<Event>,
) -> Result<Answer, StreamError> {
    // Its answer has all acts of the roster.
    widen(connection);
    let (mut sender, mut receive) = connection.open_bi().await.map_err(ended)?;
    send(&mut sender, hello).await?;
    let _ = sender.finish();
    let reached = Event::Reached(node, connection.clone());
    events.send(reached).await.map_err(ended)?;
    Messages::new().next(&mut receive).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_at_an_address_is_free_again_when_it_is_left() {
        let [one, other] = [1, 2].map(|last| IpAddr::from([10, 0, 0, last]));
        let mut places = HashMap::from([(one, 2), (other, 1)]);
        for _ in 0..2 {
            leave(&mut places, one);
        }
        // What was never there is left by nobody.
        leave(&mut places, one);
        assert_eq!(places, HashMap::from([(other, 1)]));
    }
}
