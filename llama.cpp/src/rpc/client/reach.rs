//! Dials workers, takes what they send, and shows them that this host lives.

use std::io;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use super::inbox;
use super::shared::Shared;
use crate::priority;
use crate::rpc::dial::{self, Dialler, PING_EVERY};
use crate::rpc::link::{SILENCE, Socket};
use crate::rpc::wire::frame::Limits;
use crate::rpc::wire::{DeviceOffer, MOST_QUEUES, NodeId, ToHost};

/// No device offers more, in bytes or bytes a second.
const MOST_BYTES: u64 = 1 << 50;

/// The round trip to a worker, and what it offers.
type Reached = io::Result<(Duration, Vec<DeviceOffer>)>;

/// Dials all workers at once, and links each to the node with its place in the list, counted from 1.
pub(super) fn all(shared: &Arc<Shared>, addresses: &[String], dialler: &Dialler) -> Vec<Reached> {
    thread::scope(|scope| {
        let dialling: Vec<_> = (1..)
            .map(NodeId)
            .zip(addresses)
            .map(|(node, address)| {
                let dial = move || one(shared, node, address, dialler);
                thread::Builder::new()
                    .name("split dial".into())
                    .spawn_scoped(scope, dial)
            })
            .collect();
        let joined = dialling.into_iter().map(|started| match started?.join() {
            Ok(reached) => reached,
            Err(_) => Err(io::Error::other("its thread panicked")),
        });
        joined.collect()
    })
}

fn one(shared: &Arc<Shared>, node: NodeId, address: &str, dialler: &Dialler) -> Reached {
    let (mut socket, round_trip) = dial::host(address, dialler)?;
    socket.set_patience(SILENCE)?;
    let offers = offers(&mut socket)?;
    shared.link(node, socket.outlet()?);
    listen_to(shared, node, socket)?;
    Ok((round_trip, offers))
}

fn offers(socket: &mut Socket) -> io::Result<Vec<DeviceOffer>> {
    match socket.receive(Limits::ADMITTED)?.0 {
        ToHost::Offer(offers) if (1..=MOST_QUEUES).contains(&offers.len()) => {
            Ok(offers.into_iter().map(sane).collect())
        }
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "it offers no device")),
    }
}

/// An offer with names that can be shown and numbers that can be added.
fn sane(offer: DeviceOffer) -> DeviceOffer {
    DeviceOffer {
        name: inbox::plain(&offer.name),
        description: inbox::plain(&offer.description),
        free: offer.free.min(MOST_BYTES),
        total: offer.total.min(MOST_BYTES),
        bandwidth: offer.bandwidth.min(MOST_BYTES),
    }
}

/// Takes what a worker sends, on a thread of its own.
fn listen_to(shared: &Arc<Shared>, node: NodeId, mut socket: Socket) -> io::Result<()> {
    if let Some(node) = shared.node(node) {
        socket.count_payloads(node.brought.clone());
    }
    let shared = Arc::downgrade(shared);
    let listen = move || {
        priority::carry_answers();
        loop {
            let received = socket.receive(Limits::ADMITTED);
            let Some(shared) = shared.upgrade() else { return };
            match received {
                Ok((message, payload)) => shared.receive(node, message, payload),
                Err(error) => return shared.lose(node, describe(&error)),
            }
        }
    };
    thread::Builder::new()
        .name("split receive".into())
        .spawn(listen)
        .map(drop)
}

fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            "it closed the connection".into()
        }
        io::ErrorKind::TimedOut => format!("it was silent for {:.1} s", SILENCE.as_secs_f64()),
        _ => error.to_string(),
    }
}

/// Pings all workers, and watches over the split, until it fails or is `dropped`.
pub(super) fn keep_alive(shared: &Arc<Shared>, dropped: mpsc::Receiver<()>) -> io::Result<()> {
    let shared = shared.clone();
    let ping = move || {
        priority::carry_answers();
        while !shared.has_failed() {
            shared.ping();
            if dropped.recv_timeout(PING_EVERY) != Err(mpsc::RecvTimeoutError::Timeout) {
                return;
            }
            shared.watch();
        }
    };
    thread::Builder::new()
        .name("split pings".into())
        .spawn(ping)
        .map(drop)
}
