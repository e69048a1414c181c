//! Tests of the network that tests of several hosts stand on.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

#[path = "../support/netlab/mod.rs"]
mod netlab;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use netlab::NetLab;

const PORT: u16 = 7000;

/// No test waits this long, unless something hangs.
const DEADLINE: Duration = Duration::from_secs(30);

/// A connection from host 0 to host 1; the accepted end is second.
fn connected(lab: &NetLab) -> (TcpStream, TcpStream) {
    let listener = lab.within(1, || TcpListener::bind(("0.0.0.0", PORT)).unwrap());
    let address = SocketAddr::new(lab.address(1), PORT);
    let client = lab.within(0, || TcpStream::connect_timeout(&address, DEADLINE).unwrap());
    let (server, _) = listener.accept().unwrap();
    for stream in [&client, &server] {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
    }
    (client, server)
}

/// The least time of some round trips of a byte.
fn round_trip(client: &mut TcpStream, server: &mut TcpStream) -> Duration {
    let trip = |_| {
        let began = Instant::now();
        let mut byte = [0];
        client.write_all(b"?").unwrap();
        server.read_exact(&mut byte).unwrap();
        server.write_all(b"!").unwrap();
        client.read_exact(&mut byte).unwrap();
        began.elapsed()
    };
    (0..10).map(trip).min().unwrap()
}

#[test]
fn a_round_trip_takes_as_long_as_was_set() {
    if !NetLab::available("a_round_trip_takes_as_long_as_was_set") {
        return;
    }
    let lab = NetLab::start(2).unwrap();
    let (mut client, mut server) = connected(&lab);
    for milliseconds in [0, 5, 20, 80] {
        let rtt = Duration::from_millis(milliseconds);
        lab.set_rtt(rtt);
        let measured = round_trip(&mut client, &mut server);
        println!("round trip of {rtt:?}: {measured:?}");
        assert!(
            measured >= rtt && measured < rtt + Duration::from_millis(3),
            "{measured:?} for {rtt:?}"
        );
    }
}

#[test]
fn pairs_have_their_own_round_trips() {
    if !NetLab::available("pairs_have_their_own_round_trips") {
        return;
    }
    let lab = NetLab::start(3).unwrap();
    lab.set_rtt(Duration::from_millis(60));
    lab.set_rtt_between(0, 1, Duration::from_millis(10));
    let (mut client, mut server) = connected(&lab);
    let measured = round_trip(&mut client, &mut server);
    assert!(
        measured >= Duration::from_millis(10) && measured < Duration::from_millis(40),
        "{measured:?}"
    );
}

#[test]
fn traffic_is_counted_by_way() {
    if !NetLab::available("traffic_is_counted_by_way") {
        return;
    }
    let lab = NetLab::start(2).unwrap();
    let (mut client, mut server) = connected(&lab);
    let before = lab.traffic(0, 1);
    let sent = vec![7; 1_000_000];
    let reader = thread::spawn(move || {
        let mut received = vec![0; 1_000_000];
        server.read_exact(&mut received).unwrap();
        (server, received)
    });
    let began = Instant::now();
    client.write_all(&sent).unwrap();
    let (_server, received) = reader.join().unwrap();
    println!("1 MB in {:?}", began.elapsed());
    assert_eq!(received, sent);
    let traffic = lab.traffic(0, 1) - before;
    assert!(
        (1_000_000..1_100_000).contains(&traffic.payload),
        "nothing was lost, so hardly anything was sent twice: {traffic:?}"
    );
    assert!(traffic.bytes >= traffic.payload + 40 * traffic.packets);
    let back = lab.traffic(1, 0);
    assert_eq!(back.payload, 0);
    assert!(back.packets > 0);
}

#[test]
fn a_rate_is_not_exceeded() {
    if !NetLab::available("a_rate_is_not_exceeded") {
        return;
    }
    let lab = NetLab::start(2).unwrap();
    let (mut client, mut server) = connected(&lab);
    lab.set_rate(Some(40e6));
    let writer = thread::spawn(move || client.write_all(&[7; 1_000_000]).map(|()| client));
    let began = Instant::now();
    server.read_exact(&mut [0; 1_000_000]).unwrap();
    let took = began.elapsed();
    writer.join().unwrap().unwrap();
    // 8 Mbit at 40 Mbit/s.
    assert!(took >= Duration::from_millis(190), "{took:?}");
}

#[test]
fn a_cut_host_is_silent_until_it_is_healed() {
    if !NetLab::available("a_cut_host_is_silent_until_it_is_healed") {
        return;
    }
    let lab = NetLab::start(2).unwrap();
    let (mut client, mut server) = connected(&lab);
    lab.cut(1);
    client.write_all(b"?").unwrap();
    server.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let kind = server.read(&mut [0]).unwrap_err().kind();
    assert_eq!(kind, ErrorKind::WouldBlock);
    lab.heal(1);
    server.set_read_timeout(Some(DEADLINE)).unwrap();
    server.read_exact(&mut [0]).unwrap();
}

#[test]
fn lost_packets_are_lost() {
    if !NetLab::available("lost_packets_are_lost") {
        return;
    }
    let lab = NetLab::start(2).unwrap();
    lab.set_loss(0.25);
    let receiver = lab.within(1, || UdpSocket::bind(("0.0.0.0", PORT)).unwrap());
    let address = SocketAddr::new(lab.address(1), PORT);
    lab.within(0, || {
        let sender = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
        for number in 0..400u32 {
            sender.send_to(&number.to_be_bytes(), address).unwrap();
            // The receiver's buffer is smaller than all of them.
            thread::yield_now();
        }
    });
    receiver
        .set_read_timeout(Some(Duration::from_millis(500)))
        .unwrap();
    let mut received = 0;
    while receiver.recv(&mut [0; 4]).is_ok() {
        received += 1;
    }
    assert!((240..360).contains(&received), "{received} of 400");
}

#[test]
fn processes_started_within_a_host_are_there_and_labs_are_apart() {
    if !NetLab::available("processes_started_within_a_host_are_there_and_labs_are_apart") {
        return;
    }
    let labs = [NetLab::start(2).unwrap(), NetLab::start(2).unwrap()];
    for lab in &labs {
        let output = lab.within(1, || Command::new("ip").args(["-4", "addr"]).output().unwrap());
        let output = String::from_utf8(output.stdout).unwrap();
        assert!(output.contains("10.77.0.2/16"), "{output}");
    }
    let _listener = labs[0].within(1, || TcpListener::bind(("0.0.0.0", PORT)).unwrap());
    let address = SocketAddr::new(labs[1].address(1), PORT);
    let refused = labs[1].within(0, || TcpStream::connect_timeout(&address, DEADLINE).unwrap_err());
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_door_leads_to_a_host() {
    if !NetLab::available("a_door_leads_to_a_host") {
        return;
    }
    let lab = NetLab::start(1).unwrap();
    let listener = lab.within(0, || TcpListener::bind(("127.0.0.1", PORT)).unwrap());
    let door = lab.door(0, PORT).unwrap();
    let mut client = TcpStream::connect(door.address()).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    client.write_all(b"hello").unwrap();
    let mut hello = [0; 5];
    server.read_exact(&mut hello).unwrap();
    assert_eq!(&hello, b"hello");
    server.write_all(b"bye").unwrap();
    drop(server);
    let mut rest = String::new();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "bye");
}

#[test]
fn a_host_behind_a_router_is_reached_only_by_whom_it_spoke_to() {
    if !NetLab::available("a_host_behind_a_router_is_reached_only_by_whom_it_spoke_to") {
        return;
    }
    let lab = NetLab::start(3).unwrap();
    lab.put_behind_router(0);
    let sockets = [0, 1, 2].map(|host| {
        let socket = lab.within(host, || UdpSocket::bind(("0.0.0.0", PORT)).unwrap());
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket
    });
    let [inside, known, stranger] = &sockets;
    let heard = |socket: &UdpSocket| {
        let mut text = [0; 9];
        let (length, from) = socket.recv_from(&mut text).unwrap();
        (String::from_utf8(text[..length].to_vec()).unwrap(), from)
    };
    inside.send_to(b"out", (lab.address(1), PORT)).unwrap();
    let (text, outside) = heard(known);
    assert_eq!((text.as_str(), outside.ip()), ("out", lab.public_address(0)));
    assert_ne!(outside.port(), PORT);
    // Nobody else gets in, neither there nor by its own address; and whom it spoke to only by the port that it has outside.
    stranger.send_to(b"stranger", outside).unwrap();
    stranger.send_to(b"stranger", (lab.address(0), PORT)).unwrap();
    known.send_to(b"private", (lab.address(0), PORT)).unwrap();
    known
        .send_to(b"closed", (outside.ip(), outside.port() + 1))
        .unwrap();
    known.send_to(b"in", outside).unwrap();
    assert_eq!(
        heard(inside),
        ("in".to_owned(), SocketAddr::new(lab.address(1), PORT))
    );
    // Whoever else it speaks to sees the same port.
    inside.send_to(b"out", (lab.address(2), PORT)).unwrap();
    assert_eq!(heard(stranger), ("out".to_owned(), outside));
    stranger.send_to(b"known", outside).unwrap();
    assert_eq!(heard(inside).0, "known");
    // TCP goes through it as well.
    let listener = lab.within(1, || TcpListener::bind(("0.0.0.0", PORT)).unwrap());
    let address = SocketAddr::new(lab.address(1), PORT);
    let mut client = lab.within(0, || TcpStream::connect_timeout(&address, DEADLINE).unwrap());
    let (mut server, seen) = listener.accept().unwrap();
    assert_eq!(seen.ip(), lab.public_address(0));
    server.set_nodelay(true).unwrap();
    round_trip(&mut client, &mut server);
}
