//! Dialling a worker and answering who dials: both sides prove that they know the secret.

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use subtle::ConstantTimeEq;

use super::door::{self, Door};
use super::link::{Outlet, SILENCE, Socket};
use super::wire::frame::Limits;
use super::wire::handshake::{Greeting, MAGIC, Purpose, Reply, Request, Side, proof};
use super::wire::{PROTOCOL, Peer, PeerReply, ToWorker};
use crate::llama;

/// A handshake that takes longer is given up, on both sides.
const PATIENCE: Duration = Duration::from_secs(5);

/// Addresses of a name that are tried.
const MOST_ADDRESSES: usize = 4;

/// How often a peer hears something, so that it need not take this side for dead.
pub const PING_EVERY: Duration = Duration::from_millis(400);

/// What all nodes of a split share.
#[derive(Clone)]
pub struct Secret(Arc<[u8]>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// A secret of these bytes. `None` where there are none: everybody would know it.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        (!bytes.is_empty()).then(|| Self(bytes.into()))
    }
}

/// Who dials: what it knows, and by which way it reaches others.
#[derive(Debug, Clone)]
pub struct Dialler {
    /// What all nodes of the split know.
    pub secret: Secret,
    /// Where nodes of a mesh are reached; who has a door uses nothing else.
    pub door: Option<Door>,
}

impl From<Secret> for Dialler {
    fn from(secret: Secret) -> Self {
        Self { secret, door: None }
    }
}

fn greeting() -> io::Result<Greeting> {
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).map_err(io::Error::other)?;
    Ok(Greeting {
        magic: MAGIC,
        protocol: PROTOCOL,
        llama_cpp: llama::VERSION.to_owned(),
        nonce,
    })
}

impl Dialler {
    fn connect(&self, address: &str) -> io::Result<TcpStream> {
        match (&self.door, address.starts_with(door::SCHEME)) {
            (Some(door), true) => door.connect(address, PATIENCE),
            (None, false) => connect(address),
            // A host in a mesh has no business with other machines of a worker's network.
            (Some(_), false) => Err(refused("it is no node of the mesh")),
            (None, true) => Err(refused("this process is in no mesh")),
        }
    }
}

fn connect(address: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in address.to_socket_addrs()?.take(MOST_ADDRESSES) {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn refused(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why.into())
}

/// Whether the other side speaks what this one does.
fn check_greeting(theirs: &Greeting, own: &Greeting) -> Result<(), String> {
    if theirs.magic != MAGIC {
        return Err("it is no mesh-llm worker or host".into());
    }
    if (theirs.protocol, &theirs.llama_cpp) != (own.protocol, &own.llama_cpp) {
        return Err(format!(
            "it speaks split protocol {} with llama.cpp {}, and this is {} with {}: use the same version of \
             mesh-llm on both machines",
            theirs.protocol, theirs.llama_cpp, own.protocol, own.llama_cpp
        ));
    }
    Ok(())
}

/// Dials a worker to be its host. Also tells the round trip.
///
/// # Errors
/// Where it cannot be reached, is none, has another secret or version.
pub fn host(address: &str, dialler: &Dialler) -> io::Result<(Socket, Duration)> {
    open(address, dialler, Purpose::Host)
}

/// Dials another worker to push into its session, as the node that `peer` says.
///
/// # Errors
/// As [`host`].
pub fn peer(address: &str, dialler: &Dialler, peer: Peer) -> io::Result<(Outlet<ToWorker>, Duration)> {
    let (mut socket, round_trip) = open(address, dialler, Purpose::Peer(peer))?;
    match socket.receive_by(Limits::GREETING, Instant::now() + PATIENCE)? {
        PeerReply::Joined => {}
        PeerReply::Refused(why) => return Err(refused(why)),
    }
    socket.set_send_patience(SILENCE)?;
    socket.give_up_unanswered(SILENCE)?;
    Ok((socket.outlet()?, round_trip))
}

fn open(address: &str, dialler: &Dialler, purpose: Purpose) -> io::Result<(Socket, Duration)> {
    let secret = &dialler.secret;
    let deadline = Instant::now() + PATIENCE;
    let mut socket = Socket::tcp(dialler.connect(address)?)?;
    let own = greeting()?;
    socket.send(&own)?;
    let theirs: Greeting = socket.receive_by(Limits::GREETING, deadline)?;
    check_greeting(&theirs, &own).map_err(refused)?;
    let asked = Instant::now();
    socket.send(&Request {
        proof: proof(&secret.0, Side::Dialler, &own.nonce, &theirs.nonce, purpose),
        purpose,
    })?;
    let reply: Reply = socket.receive_by(Limits::GREETING, deadline)?;
    let round_trip = asked.elapsed();
    match reply {
        Reply::Refused(why) => Err(refused(why)),
        Reply::Welcome(theirs_proof) => {
            let right = proof(&secret.0, Side::Listener, &own.nonce, &theirs.nonce, purpose);
            if bool::from(theirs_proof.ct_eq(&right)) {
                Ok((socket, round_trip))
            } else {
                Err(refused("it does not know the secret"))
            }
        }
    }
}

/// Answers who dialled: what it wants, if it knows the secret.
///
/// # Errors
/// Where it does not, is of another version, or takes too long.
pub fn answer(socket: &mut Socket, secret: &Secret) -> io::Result<Purpose> {
    let deadline = Instant::now() + PATIENCE;
    let own = greeting()?;
    let theirs: Greeting = socket.receive_by(Limits::GREETING, deadline)?;
    socket.send(&own)?;
    check_greeting(&theirs, &own).map_err(refused)?;
    let request: Request = socket.receive_by(Limits::GREETING, deadline)?;
    let purpose = request.purpose;
    let right = proof(&secret.0, Side::Dialler, &theirs.nonce, &own.nonce, purpose);
    if !bool::from(request.proof.ct_eq(&right)) {
        let why = "the secret is another one: start both sides with the same --rpc-secret-file".to_owned();
        socket.send(&Reply::Refused(why.clone()))?;
        return Err(refused(why));
    }
    let own_proof = proof(&secret.0, Side::Listener, &theirs.nonce, &own.nonce, purpose);
    socket.send(&Reply::Welcome(own_proof))?;
    Ok(purpose)
}
