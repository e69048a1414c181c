//! Nodes that know the secret and lie.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use bytes::Bytes;

use super::dice::Dice;
use super::lab::{self, DEADLINE, Sample};
use crate::gguf::random::Architecture;
use crate::rpc::graph::{BufferId, Place};
use crate::rpc::link::{Outlet, lock};
use crate::rpc::wire::frame::{self, HEAD, Limits};
use crate::rpc::wire::{Coding, Command, NodeId, Open, OpenQueue, SessionId, Step, ToHost, ToWorker};
use crate::server::engine::pipeline::Submitted;
use crate::server::options::CacheType;

/// Splits over a liar in each of these tests.
const ROUNDS: usize = 40;

/// A frame as it is on the wire.
struct Raw {
    message: Vec<u8>,
    payload: Vec<u8>,
}

impl Raw {
    fn read(from: &mut impl Read) -> io::Result<Self> {
        let mut head = [0; HEAD];
        from.read_exact(&mut head)?;
        let lengths = frame::lengths(head, Limits::ADMITTED).map_err(io::Error::other)?;
        let mut raw = Self {
            message: vec![0; lengths.message],
            payload: vec![0; lengths.payload],
        };
        from.read_exact(&mut raw.message)?;
        from.read_exact(&mut raw.payload)?;
        Ok(raw)
    }

    fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let mut bytes = Vec::new();
        bytes.extend((self.message.len() as u32).to_le_bytes());
        bytes.extend((self.payload.len() as u32).to_le_bytes());
        bytes.extend(&self.message);
        bytes.extend(&self.payload);
        to.write_all(&bytes)
    }
}

/// Stands before a worker and changes what goes by, from the third frame on: the first two of a side are
/// the handshake.
fn liar(
    target: &str,
    change: impl Fn(&mut Dice, bool, &mut Raw) -> Vec<Raw> + Send + Sync + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let target = target.to_owned();
    let change = Arc::new(change);
    thread::spawn(move || {
        for (seed, near) in (1..).zip(listener.incoming()) {
            let near = near.unwrap();
            let far = TcpStream::connect(&target).unwrap();
            let pairs = [
                (near.try_clone().unwrap(), far.try_clone().unwrap(), true),
                (far, near, false),
            ];
            for (mut from, mut to, up) in pairs {
                let change = change.clone();
                thread::spawn(move || {
                    let mut dice = Dice::new(2 * seed + u64::from(up));
                    for number in 0.. {
                        let Ok(mut raw) = Raw::read(&mut from) else { break };
                        let more = if number < 2 {
                            Vec::new()
                        } else {
                            change(&mut dice, up, &mut raw)
                        };
                        let sent =
                            raw.write(&mut to).is_ok() && more.iter().all(|raw| raw.write(&mut to).is_ok());
                        if !sent {
                            break;
                        }
                    }
                    let _ = from.shutdown(Shutdown::Both);
                    let _ = to.shutdown(Shutdown::Both);
                });
            }
        }
    });
    address
}

/// One use of a split by way of `address`; what it computed, or why not.
fn attempt(sample: &Sample, address: &str) -> Result<Vec<f32>, String> {
    let (path, address) = (sample.path.clone(), address.to_owned());
    let (done, result) = mpsc::channel();
    thread::spawn(move || {
        let params = lab::context_params(CacheType::F16);
        let split = lab::try_split(&path, params, &[address], &[1, 3], 64 << 20);
        let mut pipeline = match split {
            Ok(pipeline) => pipeline,
            Err(error) => return done.send(Err(error.to_string())).unwrap(),
        };
        let mut all = Vec::new();
        for position in 0..4 {
            let mut batch = crate::llama::Batch::default();
            batch.push(20 + position, position as u32, 0, true);
            if let Submitted::Failed((), error) = pipeline.submit(&mut batch, ()) {
                return done.send(Err(error.to_string())).unwrap();
            }
        }
        while let Some(finished) = pipeline.take() {
            if let Err(error) = finished.outcome {
                return done.send(Err(error.to_string())).unwrap();
            }
            all.extend(pipeline.context().logits(0).unwrap());
        }
        drop(pipeline);
        done.send(Ok(all)).unwrap();
    });
    result
        .recv_timeout(2 * DEADLINE)
        .expect("a split ends, without a panic")
}

#[test]
fn answers_of_another_length_are_not_used() {
    let sample = Sample::new(Architecture::Llama);
    let worker = lab::worker(sample.folder.path());
    let address = liar(&worker, |_, up, raw| {
        if !up
            && matches!(
                frame::message::<ToHost>(&raw.message),
                Ok(ToHost::Data(_) | ToHost::Deliver(_))
            )
        {
            raw.payload.truncate(raw.payload.len() / 2);
        }
        Vec::new()
    });
    let error = attempt(&sample, &address).unwrap_err();
    assert!(error.contains(&address), "{error}");
}

#[test]
fn frames_that_are_changed_on_the_way_break_no_process() {
    let sample = Sample::new(Architecture::Llama);
    let device = lab::cpu(1 << 30);
    let worker = lab::worker_with(device.clone(), sample.folder.path());
    let right = attempt(&sample, &worker).unwrap();
    for towards_worker in [true, false] {
        let address = liar(&worker, move |dice, up, raw| {
            // Payloads may be anything: what is computed from them is wrong, and nothing else.
            if up == towards_worker && dice.below(12) == 0 && !raw.message.is_empty() {
                let at = dice.below(raw.message.len() as u64) as usize;
                raw.message[at] ^= 1 << dice.below(8);
            }
            Vec::new()
        });
        let mut failed = 0;
        for _ in 0..ROUNDS {
            // A number that nobody knows may leave both sides waiting: that is for whoever asked to end.
            let (path, own) = (sample.path.clone(), address.clone());
            let (done, ended) = mpsc::channel();
            let kept: Arc<Mutex<Option<Arc<crate::rpc::client::Shared>>>> = Arc::default();
            let holder = kept.clone();
            thread::spawn(move || {
                let params = lab::context_params(CacheType::F16);
                let split = lab::try_split(&path, params, &[own], &[1, 3], 64 << 20);
                if let Ok(mut pipeline) = split {
                    *lock(&holder) = pipeline.split().map(|split| split.shared().clone());
                    for position in 0..4 {
                        let mut batch = crate::llama::Batch::default();
                        batch.push(20 + position, position as u32, 0, true);
                        let _ = pipeline.submit(&mut batch, ());
                    }
                    while let Some(finished) = pipeline.take() {
                        let _ = done.send(finished.outcome.is_err());
                    }
                }
                let _ = done.send(true);
            });
            failed += usize::from(ended.recv_timeout(Duration::from_millis(500)).unwrap_or(true));
            if let Some(shared) = lock(&kept).take() {
                shared.lose(NodeId(1), "the test is over");
            }
        }
        println!("{failed} of {ROUNDS} failed");
        assert_eq!(attempt(&sample, &worker).unwrap(), right);
    }
}

#[test]
fn a_host_that_sends_faster_than_its_worker_works_waits() {
    let sample = Sample::new(Architecture::Llama);
    let device = lab::cpu(1 << 30);
    let address = lab::worker_with(device.clone(), sample.folder.path());
    let (mut socket, _) = crate::rpc::dial::host(&address, &lab::secret().into()).unwrap();
    let outlet: Outlet<ToWorker> = socket.outlet().unwrap();
    socket.set_patience(DEADLINE).unwrap();
    let open = Open {
        session: SessionId([9; 16]),
        node: NodeId(1),
        queues: vec![OpenQueue {
            device: 0,
            reserve: 64 << 20,
        }],
        model: None,
    };
    outlet.send(ToWorker::Open(open), Bytes::new());
    let queue = |command, payload: Bytes| {
        let message = ToWorker::Queue {
            queue: 0,
            step: Step(0),
            command,
        };
        outlet.send(message, payload);
    };
    let buffer = BufferId(0);
    let bytes = 32 << 20;
    queue(Command::Allocate { buffer, bytes }, Bytes::new());
    // The ends of the longest payloads there are, again and again.
    let payload: Bytes = vec![1; bytes as usize].into();
    for _ in 0..40 {
        let place = Place { buffer, offset: 0 };
        let write = Command::Write {
            place,
            bytes,
            coding: Coding::Plain,
            keep: None,
        };
        queue(write, payload.clone());
    }
    queue(Command::Barrier(77), Bytes::new());
    loop {
        match socket.receive::<ToHost>(Limits::ADMITTED).unwrap().0 {
            ToHost::Reached(77) => break,
            ToHost::Failed(cause) => panic!("{cause}"),
            _ => {}
        }
    }
    outlet.close();
    lab::until_free(&device);
}
