//! One connection to a member: its stream of messages, its packets, and the streams that it opens.

use super::super::core::{Admitted, Goodbye, LinkId, Path};
use super::super::id::NodeId;
use super::super::wire::{Control, Frame, Open, encode};
use super::endpoint::{BEAT, widen};
use super::hub::Event;
use super::stream::{Messages, PeerStream, StreamError, ended, send};
use super::{PeerRequest, Serve};
use bytes::Bytes;
use iroh::endpoint::{Connection, Side, VarInt};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Messages that may wait to be sent to one member; whoever is that slow is cut off.
const WAITING: usize = 256;

/// Room for the messages that wait, in units of 1 KiB: two of the longest.
const WAITING_KIB: usize = 8 << 10;

/// How long a stream may take to say what it is for.
const SAY_WITHIN: Duration = Duration::from_secs(5);

/// Tasks that a node may give this one at once.
const STREAMS_OF_SERVERS: u32 = 256;

/// Tasks that a client may give this one at once.
const STREAMS_OF_CLIENTS: u32 = 64;

/// How long a superfluous connection lives on for what is under way on it.
const LINGER: Duration = Duration::from_secs(5);

/// A connection, as its owner holds it.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) connection: Connection,
    messages: mpsc::Sender<Waiting>,
    /// What is left of the room for messages that wait.
    room: Arc<Semaphore>,
    /// Ends when the last message has arrived.
    arrived: oneshot::Receiver<()>,
}

/// A message that waits, and the room that it takes.
type Waiting = (Frame, OwnedSemaphorePermit);

/// A member at the other end of a connection.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) node: NodeId,
    pub(super) admitted: Admitted,
}

impl Link {
    /// Takes a connection into use; what comes on it is told as events.
    pub(super) fn start(
        id: LinkId,
        connection: Connection,
        peer: Peer,
        events: mpsc::Sender<Event>,
        serve: Arc<Serve>,
    ) -> Self {
        let (messages, queue) = mpsc::channel(WAITING);
        let most = if peer.admitted.role.serves() {
            STREAMS_OF_SERVERS
        } else {
            STREAMS_OF_CLIENTS
        };
        connection.set_max_concurrent_bi_streams(most.into());
        widen(&connection);
        let (arriving, arrived) = oneshot::channel();
        let run = run(id, connection.clone(), peer, (queue, arriving), events, serve);
        tokio::spawn(run);
        Self {
            connection,
            messages,
            room: Arc::new(Semaphore::new(WAITING_KIB)),
            arrived,
        }
    }

    /// Sends a message, if it is not too slow for that.
    pub(super) fn send(&self, message: Control) {
        let frame = match encode(&message) {
            Ok(frame) => frame,
            Err(error) => {
                tracing::warn!(%error, "a message of this node is not sent");
                return;
            }
        };
        if !self.queue(frame) {
            tracing::debug!("a member is too slow to be told what happens");
            self.connection.close(close_code(Goodbye::Senseless), b"too slow");
        }
    }

    /// Has a frame wait for its turn; whether there is room. Where the connection has ended, nobody is to be told.
    fn queue(&self, frame: Frame) -> bool {
        // A frame is of 4 MiB at most.
        let kib = (frame.len() / 1024 + 1) as u32;
        let Ok(room) = self.room.clone().try_acquire_many_owned(kib) else {
            return false;
        };
        !matches!(self.messages.try_send((frame, room)), Err(TrySendError::Full(_)))
    }

    /// Sends a packet, which may be lost.
    pub(super) fn packet(&self, packet: Vec<u8>) {
        // Where it cannot be sent, it is lost.
        let _ = self.connection.send_datagram(Bytes::from(packet));
    }

    /// Says nothing more, and waits until all that was said has arrived.
    pub(super) async fn finish(self) {
        drop(self.messages);
        // Nothing comes through it: it ends when its sender is dropped.
        let _ = self.arrived.await;
    }

    /// Ends it.
    pub(super) fn close(self, why: Goodbye) {
        let (code, text) = (close_code(why), reason(why));
        match why {
            Goodbye::Duplicate | Goodbye::Leaving => {
                // What waits to be sent still goes, and so do exchanges that are under way.
                tokio::spawn(async move {
                    tokio::time::sleep(LINGER).await;
                    self.connection.close(code, text);
                });
            }
            Goodbye::Removed | Goodbye::Senseless | Goodbye::Lost => self.connection.close(code, text),
        }
    }

    /// How it goes at the moment.
    pub(super) fn path(&self) -> Option<Path> {
        let paths = self.connection.paths();
        let path = paths.iter().find(|path| path.is_selected())?;
        let rtt = path.rtt();
        // Zero is not a measurement.
        (!rtt.is_zero()).then(|| Path {
            rtt,
            relayed: path.is_relay(),
        })
    }
}

/// Ends the connection of somebody who is no member any more.
pub(super) fn refuse(connection: &Connection) {
    connection.close(close_code(Goodbye::Removed), reason(Goodbye::Removed));
}

/// The code of QUIC's close.
fn close_code(why: Goodbye) -> VarInt {
    VarInt::from_u32(match why {
        Goodbye::Duplicate => 1,
        Goodbye::Removed => 2,
        Goodbye::Senseless => 3,
        Goodbye::Leaving => 4,
        Goodbye::Lost => 5,
    })
}

fn reason(why: Goodbye) -> &'static [u8] {
    match why {
        Goodbye::Duplicate => b"another connection is used",
        Goodbye::Removed => b"removed from the mesh",
        Goodbye::Senseless => b"what was sent makes no sense",
        Goodbye::Leaving => b"goodbye",
        Goodbye::Lost => b"declared dead",
    }
}

async fn run(
    id: LinkId,
    connection: Connection,
    peer: Peer,
    (queue, arriving): (mpsc::Receiver<Waiting>, oneshot::Sender<()>),
    events: mpsc::Sender<Event>,
    serve: Arc<Serve>,
) {
    let others = async {
        tokio::select! {
            error = write(&connection, queue, arriving) => error,
            error = packets(id, &connection, &events) => error,
            error = tasks(&connection, &peer, &serve) => error,
            never = beat(&connection) => never,
            error = connection.closed() => Err(ended(error)),
        }
    };
    let reading = read(id, &connection, &events);
    let why = until_read(reading, others, || connection.close_reason().is_some()).await;
    if let Err(error) = why {
        tracing::debug!(peer = %peer.node.fmt_short(), %error, "a connection ended");
        if let StreamError::Frame(_) = error {
            connection.close(close_code(Goodbye::Senseless), reason(Goodbye::Senseless));
        }
    }
    // Nobody else may still be told: then nobody needs to know.
    let _ = events.send(Event::Closed(id)).await;
}

/// Runs until one of the two ends. Where the connection has ended, what came before that is still read, a goodbye above
/// all: it may have come, and the end with it, after the reader was asked and before the others were.
async fn until_read<T>(
    reading: impl Future<Output = T>,
    others: impl Future<Output = T>,
    has_ended: impl Fn() -> bool,
) -> T {
    tokio::pin!(reading);
    tokio::select! {
        biased;
        why = &mut reading => why,
        why = others => {
            if has_ended() {
                reading.await;
            }
            why
        }
    }
}

/// Sends what waits, until the owner lets go of the connection: that one closes it, too.
async fn write(
    connection: &Connection,
    mut queue: mpsc::Receiver<Waiting>,
    arriving: oneshot::Sender<()>,
) -> Result<(), StreamError> {
    let mut stream = connection.open_uni().await.map_err(ended)?;
    while let Some((frame, _room)) = queue.recv().await {
        stream.write_all(&frame).await.map_err(ended)?;
    }
    // Where the connection has ended meanwhile, nothing arrives.
    let _ = stream.finish();
    let _ = stream.stopped().await;
    drop(arriving);
    connection.closed().await;
    Ok(())
}

async fn read(id: LinkId, connection: &Connection, events: &mpsc::Sender<Event>) -> Result<(), StreamError> {
    let mut stream = connection.accept_uni().await.map_err(ended)?;
    let mut messages = Messages::<Control>::new();
    loop {
        let message = match messages.next(&mut stream).await {
            Ok(message) => message,
            Err(StreamError::Ended(_)) => {
                // The other one has said all that it had to; what it does with the connection, it will tell.
                connection.closed().await;
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        events.send(Event::Message(id, message)).await.map_err(ended)?;
    }
}

async fn packets(
    id: LinkId,
    connection: &Connection,
    events: &mpsc::Sender<Event>,
) -> Result<(), StreamError> {
    loop {
        let packet = connection.read_datagram().await.map_err(ended)?;
        if packet.is_empty() {
            // A beat: that it came is all that it says.
            continue;
        }
        events.send(Event::Packet(id, packet)).await.map_err(ended)?;
    }
}

/// Sends signs of life on a direct path that a relay could take the place of, so that both ends see at once when it
/// breaks. Acknowledgements are as good for the one end as beats are for the other, so one of them beats.
async fn beat(connection: &Connection) -> Result<(), StreamError> {
    if connection.side() == Side::Server {
        return std::future::pending().await;
    }
    let mut beats = interval(BEAT);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        beats.tick().await;
        if has_spare(connection) {
            // Where it cannot be sent, the next one may.
            let _ = connection.send_datagram(Bytes::new());
        }
    }
}

/// Whether packets go directly, and could go by a relay.
fn has_spare(connection: &Connection) -> bool {
    let paths = connection.paths();
    let is_direct = paths.iter().any(|path| path.is_selected() && path.is_ip());
    is_direct && paths.iter().any(|path| path.is_relay())
}

/// Does what the other end asks for, a task a stream.
async fn tasks(connection: &Connection, peer: &Peer, serve: &Arc<Serve>) -> Result<(), StreamError> {
    loop {
        let (send, receive) = connection.accept_bi().await.map_err(ended)?;
        let (peer, serve) = (peer.clone(), serve.clone());
        tokio::spawn(async move {
            let mut stream = PeerStream { send, receive };
            let mut messages = Messages::<Open>::new();
            let said = timeout(SAY_WITHIN, messages.next(&mut stream.receive)).await;
            let Ok(Ok(task)) = said else {
                // It is dropped, and so reset.
                return;
            };
            if may_ask(&peer.admitted, &task) {
                serve(PeerRequest {
                    node: peer.node,
                    task,
                    stream,
                })
                .await;
            } else {
                tracing::debug!(peer = %peer.node.fmt_short(), ?task, "a member asks for what it may not have");
            }
        });
    }
}

fn may_ask(admitted: &Admitted, task: &Open) -> bool {
    let may_use = |model: &String| {
        let models = admitted.models.as_ref();
        admitted.role.uses() && models.is_none_or(|models| models.contains(model))
    };
    match task {
        Open::Http { model } => may_use(model),
        Open::Lend(lend) => admitted.role.serves() && may_use(&lend.model),
        Open::Fetch(fetch) => admitted.role.serves() && may_use(&fetch.model),
        // The group's host says who belongs to it.
        Open::Channel { .. } => admitted.role.serves(),
    }
}

/// Opens a stream for a task.
pub(super) async fn open(connection: &Connection, task: &Open) -> Result<PeerStream, StreamError> {
    let (mut sender, receive) = connection.open_bi().await.map_err(ended)?;
    send(&mut sender, task).await?;
    Ok(PeerStream {
        send: sender,
        receive,
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::id::Role;
    use super::super::super::wire::{Fetch, GroupId, Lend};
    use super::*;

    #[tokio::test]
    async fn what_came_just_before_the_end_is_read_although_the_end_is_noticed_first() {
        let (says, hears) = mpsc::unbounded_channel();
        let mut read = Vec::new();
        let reading = async {
            let mut hears = hears;
            while let Some(message) = hears.recv().await {
                read.push(message);
            }
            "read"
        };
        // By now the reader was asked, and there was nothing.
        let others = async {
            says.send("goodbye").unwrap();
            drop(says);
            "ended"
        };
        assert_eq!(until_read(reading, others, || true).await, "ended");
        assert_eq!(read, ["goodbye"]);
        // A connection that goes on is not waited for.
        let silent = std::future::pending();
        assert_eq!(until_read(silent, async { "ended" }, || false).await, "ended");
    }

    #[test]
    fn who_only_uses_is_lent_nothing_has_nothing_fetched_and_opens_no_channel_and_who_only_serves_asks_no_model()
     {
        let group = GroupId([1; 16]);
        let http = |model: &str| Open::Http {
            model: model.to_owned(),
        };
        let lend = |model: &str| {
            Open::Lend(Box::new(Lend {
                group,
                model: model.to_owned(),
                epoch: 1,
                bytes: 0,
                secret: [0; 32],
                workers: Vec::new(),
            }))
        };
        let channel = Open::Channel { group };
        let fetch = |model: &str| {
            Open::Fetch(Box::new(Fetch {
                model: model.to_owned(),
                source: "org/repo".to_owned(),
                bytes: 1,
            }))
        };
        let may = |role, models: Option<&[&str]>| {
            let names = models.map(|names| names.iter().map(ToString::to_string).collect());
            let admitted = Admitted {
                role,
                models: names,
                shown: None,
            };
            let [http, lend, fetch] = [
                [http("a"), http("b")],
                [lend("a"), lend("b")],
                [fetch("a"), fetch("b")],
            ]
            .map(|tasks| tasks.map(|task| may_ask(&admitted, &task)));
            (http, lend, fetch, may_ask(&admitted, &channel))
        };
        let (both, none, one) = ([true; 2], [false; 2], [true, false]);
        assert_eq!(may(Role::Client, None), (both, none, none, false));
        assert_eq!(may(Role::Worker, None), (none, none, none, true));
        assert_eq!(may(Role::Node, None), (both, both, both, true));
        assert_eq!(may(Role::Node, Some(&["a"])), (one, one, one, true));
        assert_eq!(may(Role::Client, Some(&["a"])), (one, none, none, false));
    }
}
