//! Who gets in: only who knows the secret, whoever else is at the door.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::lab::{self, DEADLINE, Sample};
use crate::gguf::random::Architecture;
use crate::rpc::dial::{self, Secret};
use crate::rpc::link::{SILENCE, Socket};
use crate::rpc::wire::frame::{self, Limits};
use crate::rpc::wire::handshake::{Greeting, MAGIC, Purpose, Reply, Request, Side, proof};
use crate::rpc::wire::{NodeId, PROTOCOL, Peer, SessionId, ToHost};

fn worker() -> (Sample, String) {
    let sample = Sample::new(Architecture::Llama);
    let address = lab::worker(sample.folder.path());
    (sample, address)
}

/// A host gets in, and is made an offer.
fn admitted(address: &str) {
    let (mut socket, _) = dial::host(address, &lab::secret().into()).unwrap();
    socket.set_patience(SILENCE).unwrap();
    let (offer, _) = socket.receive::<ToHost>(Limits::ADMITTED).unwrap();
    assert!(matches!(offer, ToHost::Offer(_)), "{offer:?}");
}

/// Reads until the worker ends the connection; how much came.
fn until_closed(mut stream: &TcpStream) -> usize {
    stream.set_read_timeout(Some(2 * DEADLINE)).unwrap();
    let mut count = 0;
    let mut bytes = [0; 4096];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return count,
            Ok(more) => count += more,
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
                return count;
            }
        }
    }
}

#[test]
fn another_secret_is_refused_with_what_to_do() {
    let (_sample, address) = worker();
    let other = Secret::new(b"another secret").unwrap();
    let error = dial::host(&address, &other.into()).unwrap_err().to_string();
    assert!(error.contains("the secret is another one"), "{error}");
    admitted(&address);
}

#[test]
fn another_version_is_refused_by_both_sides() {
    let (_sample, address) = worker();
    let mut stream = TcpStream::connect(&address).unwrap();
    let mut bytes = Vec::new();
    let greeting = Greeting {
        magic: MAGIC,
        protocol: PROTOCOL + 1,
        llama_cpp: "another".into(),
        nonce: [0; 32],
    };
    frame::append(&mut bytes, &greeting, &[]);
    stream.write_all(&bytes).unwrap();
    // Its own greeting, from which the other side knows why, and no more.
    let mut own = Vec::new();
    let greeting = Greeting {
        protocol: PROTOCOL,
        llama_cpp: crate::llama::VERSION.into(),
        ..greeting
    };
    frame::append(&mut own, &greeting, &[]);
    assert_eq!(until_closed(&stream), own.len());
    admitted(&address);
}

#[test]
fn who_says_nothing_junk_or_next_to_nothing_is_shown_out() {
    let (_sample, address) = worker();
    let begin = Instant::now();
    let silent = TcpStream::connect(&address).unwrap();
    let trickle = TcpStream::connect(&address).unwrap();
    let mut junk = TcpStream::connect(&address).unwrap();
    junk.write_all(b"GET / HTTP/1.1\r\nHost: worker\r\n\r\n").unwrap();
    assert_eq!(until_closed(&junk), 0);
    // A byte now and then, with each of which a patience that begins anew would begin anew.
    let mut trickled = trickle.try_clone().unwrap();
    let trickling = std::thread::spawn(move || {
        let mut bytes = [40, 0, 0, 0, 0, 0, 0, 0].iter().chain([0; 40].iter());
        while bytes
            .next()
            .is_some_and(|byte| trickled.write_all(&[*byte]).is_ok())
        {
            std::thread::park_timeout(Duration::from_millis(500));
        }
    });
    assert_eq!(until_closed(&silent), 0);
    assert_eq!(until_closed(&trickle), 0);
    assert!(begin.elapsed() < 2 * DEADLINE, "{:?}", begin.elapsed());
    trickling.join().unwrap();
    admitted(&address);
}

#[test]
fn three_hundred_who_say_nothing_do_not_keep_a_host_out() {
    let (_sample, address) = worker();
    let silent: Vec<_> = (0..300).map(|_| TcpStream::connect(&address).unwrap()).collect();
    let begin = Instant::now();
    admitted(&address);
    assert!(begin.elapsed() < SILENCE, "{:?}", begin.elapsed());
    drop(silent);
}

#[test]
fn who_pushes_into_a_session_that_is_not_there_is_told() {
    let (_sample, address) = worker();
    let peer = Peer {
        session: SessionId([7; 16]),
        node: NodeId(1),
    };
    let error = dial::peer(&address, &lab::secret().into(), peer).unwrap_err();
    assert!(error.to_string().contains("the session is not here"), "{error}");
    admitted(&address);
}

#[test]
fn a_worker_that_falls_silent_during_the_handshake_is_given_up() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let begin = Instant::now();
    let error = dial::host(&address, &lab::secret().into()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    assert!(begin.elapsed() < 2 * DEADLINE);
}

#[test]
fn a_host_that_dialled_and_falls_silent_is_let_go() {
    let (_sample, address) = worker();
    let (socket, _) = dial::host(&address, &lab::secret().into()).unwrap();
    let begin = Instant::now();
    let mut socket: Socket = socket;
    socket.set_patience(DEADLINE).unwrap();
    let (offer, _) = socket.receive::<ToHost>(Limits::ADMITTED).unwrap();
    assert!(matches!(offer, ToHost::Offer(_)));
    // The worker shows that it lives, for as long as it waits.
    let error = loop {
        match socket.receive::<ToHost>(Limits::ADMITTED) {
            Ok((message, _)) => assert!(matches!(message, ToHost::Doing(_)), "{message:?}"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof, "{error}");
    assert!(begin.elapsed() < DEADLINE, "{:?}", begin.elapsed());
}

#[test]
fn a_proof_counts_only_for_what_it_was_made_for() {
    let (_sample, address) = worker();
    let peer = Purpose::Peer(Peer {
        session: SessionId([7; 16]),
        node: NodeId(1),
    });
    let dial = |claimed: Purpose| {
        let stream = TcpStream::connect(&address).unwrap();
        let mut socket = Socket::tcp(stream).unwrap();
        socket.set_patience(2 * DEADLINE).unwrap();
        let own = Greeting {
            magic: MAGIC,
            protocol: PROTOCOL,
            llama_cpp: crate::llama::VERSION.into(),
            nonce: [3; 32],
        };
        socket.send(&own).unwrap();
        let (theirs, _) = socket.receive::<Greeting>(Limits::GREETING).unwrap();
        let secret = b"a secret for tests";
        let proof = proof(secret, Side::Dialler, &own.nonce, &theirs.nonce, peer);
        let purpose = claimed;
        socket.send(&Request { proof, purpose }).unwrap();
        socket.receive::<Reply>(Limits::GREETING).unwrap().0
    };
    assert!(matches!(dial(Purpose::Host), Reply::Refused(_)));
    assert!(matches!(dial(peer), Reply::Welcome(_)));
}
