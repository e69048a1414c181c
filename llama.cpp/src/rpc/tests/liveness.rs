//! Who lives, who hangs, and who is only slow.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::lab::{self, Sample};
use super::proxy::{Mode, Proxy};
use crate::gguf::random::Architecture;
use crate::llama::Error;
use crate::rpc::client::{Patience, SplitError};
use crate::rpc::dial;
use crate::rpc::link::{Outlet, SILENCE, Socket};
use crate::rpc::wire::frame::Limits;
use crate::rpc::wire::handshake::Purpose;
use crate::rpc::wire::{Command, DeviceOffer, PeerReply, ToHost, ToWorker};
use crate::server::engine::pipeline::Pipeline;
use crate::server::options::CacheType;

/// A short one, so that tests need not wait for long; a busy machine keeps to it all the same.
const PATIENCE: Patience = Patience {
    usual: Duration::from_secs(2),
    absorbed: Duration::from_secs(60),
};

/// What a worker does that hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hangs {
    /// It never begins its session.
    Opening,
    /// It loads, and computes nothing.
    Computing,
}

/// A worker that answers pings, and never what it is asked for.
fn hanging(hangs: Hangs) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut socket = Socket::tcp(stream.unwrap()).unwrap();
            thread::spawn(move || match dial::answer(&mut socket, &lab::secret()).unwrap() {
                Purpose::Host => hang(&mut socket, hangs),
                Purpose::Peer(_) => {
                    socket.send(&PeerReply::Joined).unwrap();
                    while socket.receive::<ToWorker>(Limits::ADMITTED).is_ok() {}
                }
            });
        }
    });
    address
}

/// Serves a host, until it has gone.
fn hang(socket: &mut Socket, hangs: Hangs) {
    let host: Outlet<ToHost> = socket.outlet().unwrap();
    let tell = |message| host.send(message, Bytes::new());
    tell(ToHost::Offer(vec![DeviceOffer {
        name: "CPU".into(),
        description: String::new(),
        free: 1 << 30,
        total: 1 << 30,
        bandwidth: 1 << 30,
    }]));
    while let Ok((message, _)) = socket.receive(Limits::ADMITTED) {
        match message {
            ToWorker::Ping(number) => tell(ToHost::Pong {
                number,
                now: 0,
                ran: Vec::new(),
            }),
            ToWorker::Open(_) if hangs == Hangs::Computing => tell(ToHost::Opened { has_model: true }),
            ToWorker::Queue {
                command: Command::Barrier(number),
                ..
            } => tell(ToHost::Reached(number)),
            _ => {}
        }
    }
}

fn split(sample: &Sample, workers: &[String], layers: &[u32]) -> Result<Pipeline<()>, SplitError> {
    let params = lab::context_params(CacheType::F16);
    lab::split_with(&sample.path, params, workers, layers, 64 << 20, PATIENCE)
}

/// The logits behind one token.
fn logits(pipeline: &mut Pipeline<()>, position: u32) -> Vec<Vec<f32>> {
    lab::submit(pipeline, &[(20, position, 0, true)]);
    lab::take(pipeline, 1)
}

fn expect_hang(error: &str, name: &str) {
    assert!(error.contains(name) && error.contains("no progress"), "{error}");
}

#[test]
fn a_worker_that_answers_pings_and_nothing_else_is_lost() {
    let sample = Sample::new(Architecture::Llama);
    let address = hanging(Hangs::Opening);
    let error = split(&sample, std::slice::from_ref(&address), &[1, 3]).unwrap_err();
    expect_hang(&error.to_string(), &address);

    let address = hanging(Hangs::Computing);
    let mut pipeline = split(&sample, std::slice::from_ref(&address), &[1, 3]).unwrap();
    (0..4).for_each(|position| lab::submit(&mut pipeline, &[(20, position, 0, true)]));
    while let Some(finished) = pipeline.take() {
        match finished.outcome.unwrap_err() {
            Error::Lost(cause) => expect_hang(&cause, &address),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn of_two_workers_the_one_that_hangs_is_lost() {
    let sample = Sample::new(Architecture::Llama);
    let honest = lab::worker(sample.folder.path());
    for first in [true, false] {
        let address = hanging(Hangs::Computing);
        let workers = if first {
            [address.clone(), honest.clone()]
        } else {
            [honest.clone(), address.clone()]
        };
        let mut pipeline = match split(&sample, &workers, &[1, 1, 2]) {
            Ok(pipeline) => pipeline,
            // It never says whether it reaches the other one.
            Err(error) => {
                assert!(first, "{error}");
                expect_hang(&error.to_string(), &address);
                continue;
            }
        };
        lab::submit(&mut pipeline, &[(20, 0, 0, true)]);
        match pipeline.take().unwrap().outcome.unwrap_err() {
            Error::Lost(cause) => expect_hang(&cause, &address),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn a_device_that_hangs_is_found_out_and_its_memory_comes_back() {
    let sample = Sample::new(Architecture::Llama);
    let device = lab::cpu(1 << 30);
    let worker = lab::worker_with(device.clone(), sample.folder.path());
    let mut pipeline = split(&sample, std::slice::from_ref(&worker), &[1, 3]).unwrap();
    logits(&mut pipeline, 0);
    // Another session computes, and does not come to an end.
    let go_on = AtomicBool::new(false);
    let other = device.turn.take(0, &go_on).unwrap();
    lab::submit(&mut pipeline, &[(20, 1, 0, true)]);
    match pipeline.take().unwrap().outcome.unwrap_err() {
        Error::Lost(cause) => expect_hang(&cause, &worker),
        other => panic!("{other}"),
    }
    lab::until_free(&device);
    drop(other);
    assert!(split(&sample, &[worker], &[1, 3]).is_ok());
}

#[test]
fn a_slow_worker_that_gets_on_is_not_lost() {
    let sample = Sample::new(Architecture::Llama);
    let device = lab::cpu(1 << 30);
    let worker = lab::worker_with(device.clone(), sample.folder.path());
    let mut pipeline = split(&sample, &[worker], &[1, 3]).unwrap();
    logits(&mut pipeline, 0);
    let go_on = AtomicBool::new(false);
    let slow = device.turn.take(0, &go_on).unwrap();
    lab::submit(&mut pipeline, &[(20, 1, 0, true)]);
    // One graph takes as long as three times the patience, an operation every now and then.
    let begin = Instant::now();
    while begin.elapsed() < 3 * PATIENCE.usual {
        assert_eq!(pipeline.lost(), None);
        device.note_computed();
        thread::park_timeout(Duration::from_millis(50));
    }
    drop(slow);
    assert_eq!(lab::take(&mut pipeline, 1).len(), 1);
    assert_eq!(pipeline.lost(), None);
}

#[test]
fn operations_inside_a_graph_are_told() {
    let sample = Sample::new(Architecture::Llama);
    let device = lab::cpu(1 << 30);
    let worker = lab::worker_with(device.clone(), sample.folder.path());
    let mut pipeline = split(&sample, &[worker], &[1, 3]).unwrap();
    logits(&mut pipeline, 0);
    let before = device.computed();
    logits(&mut pipeline, 1);
    let operations = device.computed() - before;
    assert!(operations > 3 * 10, "{operations} operations of three layers");
}

#[test]
fn workers_wait_for_a_host_that_dials_another_one_slowly() {
    let sample = Sample::new(Architecture::Llama);
    let [first, second] = [(); 2].map(|()| lab::worker(sample.folder.path()));
    let slow = Arc::new(Proxy::to(&second));
    slow.set(Mode::Stall);
    let later = slow.clone();
    let begin = Instant::now();
    let heals = thread::spawn(move || {
        while begin.elapsed() < 5 * SILENCE / 4 {
            thread::park_timeout(Duration::from_millis(20));
        }
        later.set(Mode::Pass);
    });
    let mut pipeline = split(&sample, &[first, slow.address.clone()], &[1, 1, 2]).unwrap();
    heals.join().unwrap();
    assert_eq!(logits(&mut pipeline, 0).len(), 1);
}
