//! Lets hosts and other workers in.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, Weak};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Fault;
use super::device::Device;
use super::session::{ModelSource, Session};
use super::watch::Watch;
use crate::priority;
use crate::rpc::dial::{self, Dialler};
use crate::rpc::files::Library;
use crate::rpc::link::{Outlet, Receive, SILENCE, Socket, lock};
use crate::rpc::wire::frame::Limits;
use crate::rpc::wire::handshake::Purpose;
use crate::rpc::wire::{Open, Peer, PeerReply, SessionId, ToHost, ToWorker};

/// Connections at once that know the secret.
const MOST_ADMITTED: usize = 256;

/// Connections at once that have not shown yet that they know it. The oldest one makes room: who knows
/// the secret needs two round trips, and those who only wait must not keep it out.
const MOST_PENDING: usize = 64;

/// A pause after the system refused a connection, for it has no descriptors then.
const REST: Duration = Duration::from_millis(100);

/// What a worker offers.
#[derive(Debug)]
pub struct WorkerParams {
    /// Its devices.
    pub devices: Vec<Arc<Device>>,
    /// Where models are.
    pub library: Library,
    /// What hosts must know.
    pub dialler: Dialler,
}

/// A worker that listens.
#[derive(Debug)]
pub struct Worker {
    listener: TcpListener,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    params: WorkerParams,
    sessions: Mutex<HashMap<SessionId, Weak<Session>>>,
    doors: Mutex<Doors>,
}

/// Who is at the door, and how many came in.
#[derive(Debug, Default)]
struct Doors {
    pending: BTreeMap<u64, TcpStream>,
    next: u64,
    admitted: usize,
}

/// A connection that is being shaken hands with.
struct Pending<'a> {
    shared: &'a Shared,
    number: u64,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        lock(&self.shared.doors).pending.remove(&self.number);
    }
}

/// The link to a host, which is closed whatever becomes of the thread that serves it.
struct Host(Outlet<ToHost>);

impl Drop for Host {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// A session's place among the worker's, which ends with the thread that serves its host.
struct Seat<'a> {
    shared: &'a Shared,
    session: Arc<Session>,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.session.end();
        lock(&self.shared.sessions).remove(&self.session.id());
    }
}

/// A connection that counts.
struct Admitted<'a>(&'a Shared);

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        lock(&self.0.doors).admitted -= 1;
    }
}

impl Worker {
    /// A worker behind this listener.
    pub fn new(listener: TcpListener, params: WorkerParams) -> Self {
        Self {
            listener,
            shared: Arc::new(Shared {
                params,
                sessions: Mutex::default(),
                doors: Mutex::default(),
            }),
        }
    }

    /// Serves for as long as the process lives.
    pub fn serve(&self) {
        loop {
            match self.listener.accept() {
                Ok((stream, from)) => self.shared.clone().welcome(stream, from),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be taken");
                    thread::sleep(REST);
                }
            }
        }
    }
}

impl Shared {
    fn welcome(self: Arc<Self>, stream: TcpStream, from: SocketAddr) {
        let number = match self.note_pending(&stream) {
            Ok(number) => number,
            Err(error) => return tracing::warn!(%from, %error, "a connection could not be taken"),
        };
        let own = self.clone();
        let serve = move || {
            let pending = Pending { shared: &own, number };
            if let Err(error) = own.serve(stream, from, pending) {
                tracing::info!(%from, %error, "a connection ended");
            }
        };
        if let Err(error) = thread::Builder::new().name("split receive".into()).spawn(serve) {
            lock(&self.doors).pending.remove(&number);
            tracing::warn!(%from, %error, "a connection has no thread");
        }
    }

    fn note_pending(&self, stream: &TcpStream) -> io::Result<u64> {
        let handle = stream.try_clone()?;
        let mut doors = lock(&self.doors);
        if doors.pending.len() >= MOST_PENDING
            && let Some((_, oldest)) = doors.pending.pop_first()
        {
            tracing::debug!("a connection that says nothing makes room for another");
            // One that is closed already needs no closing.
            let _ = oldest.shutdown(Shutdown::Both);
        }
        let number = doors.next;
        doors.next += 1;
        doors.pending.insert(number, handle);
        Ok(number)
    }

    fn serve(&self, stream: TcpStream, from: SocketAddr, pending: Pending<'_>) -> io::Result<()> {
        let mut socket = Socket::tcp(stream)?;
        let purpose = dial::answer(&mut socket, &self.params.dialler.secret)?;
        drop(pending);
        let _admitted = self.admit()?;
        priority::carry_answers();
        socket.set_patience(SILENCE)?;
        socket.set_send_patience(SILENCE)?;
        match purpose {
            Purpose::Host => self.serve_host(socket, from),
            Purpose::Peer(peer) => self.serve_peer(socket, peer),
        }
    }

    fn admit(&self) -> io::Result<Admitted<'_>> {
        let mut doors = lock(&self.doors);
        if doors.admitted >= MOST_ADMITTED {
            let why = format!("{MOST_ADMITTED} connections are enough");
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, why));
        }
        doors.admitted += 1;
        Ok(Admitted(self))
    }

    fn serve_host(&self, mut socket: Socket, from: SocketAddr) -> io::Result<()> {
        let clock = Instant::now();
        let host = Host(socket.outlet()?);
        let offer = self.params.devices.iter().map(|device| device.offer()).collect();
        host.0.send(ToHost::Offer(offer), Bytes::new());
        let watch = Watch::start(host.0.clone())?;
        let open = opening(&mut socket, &host.0, clock)?;
        let seat = match self.open(&open, &host.0, clock) {
            Ok(session) => Seat {
                shared: self,
                session,
            },
            Err(fault) => {
                host.0.send(ToHost::Failed(fault.to_string()), Bytes::new());
                // Until the host has read it and gone.
                while socket.receive::<ToWorker>(Limits::ADMITTED).is_ok() {}
                return Err(io::Error::other(fault));
            }
        };
        let session = &seat.session;
        watch.over(session);
        socket.count_payloads(session.brought().clone());
        tracing::info!(%from, session = ?session.id(), "a host has come");
        loop {
            match socket.receive(Limits::ADMITTED) {
                Ok((message, payload)) => session.receive(message, payload),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    tracing::info!(%from, session = ?session.id(), "a host has gone");
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn open(&self, open: &Open, host: &Outlet<ToHost>, clock: Instant) -> Result<Arc<Session>, Fault> {
        if lock(&self.sessions).contains_key(&open.session) {
            return Err(Fault::protocol("the id of another session"));
        }
        let file = open.model.as_ref().and_then(|wanted| {
            let search = self.params.library.find(wanted);
            tracing::debug!(model = %wanted.fingerprint.short(), tally = ?search.tally, found = search.found.is_some(), "looked for a model");
            search.found
        });
        let has_model = file.is_some();
        let source = ModelSource::new(file);
        let dialler = Some(self.params.dialler.clone());
        let session = Session::start(open, &self.params.devices, &source, host.clone(), dialler, clock)?;
        lock(&self.sessions).insert(open.session, Arc::downgrade(&session));
        host.send(ToHost::Opened { has_model }, Bytes::new());
        Ok(session)
    }

    /// Takes hidden states from another worker.
    fn serve_peer(&self, mut socket: Socket, peer: Peer) -> io::Result<()> {
        let Peer { session, node } = peer;
        let session = lock(&self.sessions).get(&session).and_then(Weak::upgrade);
        let Some(session) = session.filter(|session| !session.is_over()) else {
            let why = "the session is not here";
            socket.send(&PeerReply::Refused(why.into()))?;
            return Err(io::Error::new(io::ErrorKind::NotFound, why));
        };
        socket.send(&PeerReply::Joined)?;
        socket.count_payloads(session.brought().clone());
        loop {
            match socket.receive(Limits::ADMITTED) {
                Ok((ToWorker::Deliver(transfer), payload)) => session.arrive(transfer, payload),
                Ok((ToWorker::Ping(_), _)) => {}
                Ok(_) => {
                    session.fail(&Fault::protocol("by a peer what only hosts may send"));
                    return Err(io::ErrorKind::InvalidData.into());
                }
                Err(error) => {
                    let cause = error.to_string();
                    session.fail(&Fault::Peer { node, cause });
                    return Err(error);
                }
            }
            if session.is_over() {
                return Ok(());
            }
        }
    }
}

/// Waits for the opening of a session, and answers pings meanwhile.
fn opening(socket: &mut Socket, host: &Outlet<ToHost>, clock: Instant) -> io::Result<Open> {
    loop {
        match socket.receive(Limits::ADMITTED)?.0 {
            ToWorker::Open(open) => return Ok(open),
            ToWorker::Ping(number) => host.send_if_idle(ToHost::Pong {
                number,
                now: clock.elapsed().as_micros() as u64,
                ran: Vec::new(),
            }),
            _ => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "no opening came first",
                ));
            }
        }
    }
}
