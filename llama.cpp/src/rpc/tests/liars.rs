//! Nodes that know the secret and lie.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::lab::{self, DEADLINE, Sample};
use crate::gguf::random::Architecture;
use crate::rpc::graph::{BufferId, Graph, Place, Tensor};
use crate::rpc::link::{Outlet, Receive, lock};
use crate::rpc::wire::frame::{self, HEAD, Limits};
use crate::rpc::wire::{
    Coding, Command, DeviceOffer, Load, NodeId, Open, OpenQueue, Ran, ReadId, SessionId, Step, ToHost,
    ToWorker, Transfer,
};
use crate::rpc::worker::{ModelSource, Session};
use crate::server::engine::pipeline::Submitted;
use crate::server::options::CacheType;

/// Splits over a liar in each of these tests.
const ROUNDS: usize = 40;

/// Reproducible chance.
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 11) % limit
    }

    /// Small mostly, and now and then at the edge of what numbers are.
    fn number(&mut self) -> u64 {
        match self.below(8) {
            0 => u64::MAX - self.below(3),
            1 => 1 << self.below(64),
            2 => self.below(1 << 24),
            _ => self.below(48),
        }
    }

    fn text(&mut self) -> String {
        let length = [3, 80, 20_000][self.below(3) as usize];
        (0..length)
            .map(|_| ['a', '\0', '\u{1b}', '\u{1f600}'][self.below(4) as usize])
            .collect()
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = [0, 1, 64, 4096, 1 << 20][self.below(5) as usize];
        vec![self.next() as u8; length]
    }
}

/// Something that a worker might say.
fn to_host(dice: &mut Dice) -> ToHost {
    let transfer = Transfer {
        to: NodeId(dice.number() as u16),
        number: dice.number(),
    };
    match dice.below(10) {
        0 => ToHost::Offer(vec![
            DeviceOffer {
                name: dice.text(),
                description: dice.text(),
                free: dice.number(),
                total: dice.number(),
                bandwidth: dice.number(),
            };
            dice.below(3) as usize
        ]),
        1 => ToHost::Opened {
            has_model: dice.below(2) == 0,
        },
        2 => ToHost::Connected {
            node: transfer.to,
            fault: (dice.below(2) == 0).then(|| dice.text()),
            round_trip: dice.number(),
        },
        3 => ToHost::Loading(dice.number()),
        4 => ToHost::Reached(dice.number()),
        5 => ToHost::Deliver(transfer),
        6 => ToHost::Data(ReadId(dice.number())),
        7 => ToHost::Pong {
            number: dice.number(),
            now: dice.number(),
            ran: (0..dice.below(5))
                .map(|_| Ran {
                    queue: dice.number() as u8,
                    step: Step(dice.number()),
                    begin: dice.number(),
                    end: dice.number(),
                })
                .collect(),
        },
        8 => ToHost::Unheard {
            node: transfer.to,
            cause: dice.text(),
        },
        _ => ToHost::Failed(dice.text()),
    }
}

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
fn a_worker_that_says_what_nobody_asked_ends_the_split_at_worst() {
    let sample = Sample::new(Architecture::Llama);
    let device = lab::cpu(1 << 30);
    let worker = lab::worker_with(device.clone(), sample.folder.path());
    let right = attempt(&sample, &worker).unwrap();
    let address = liar(&worker, |dice, up, _| {
        if up || dice.below(4) > 0 {
            return Vec::new();
        }
        let message = postcard::to_allocvec(&to_host(dice)).unwrap();
        let payload = dice.bytes();
        vec![Raw { message, payload }]
    });
    let mut survived = 0;
    for _ in 0..ROUNDS {
        match attempt(&sample, &address) {
            // An answer that it made up is one all the same.
            Ok(all) => survived += usize::from(all == right),
            Err(error) => assert!(
                error.contains(&address) || error.contains("this machine"),
                "{error}"
            ),
        }
        lab::until_free(&device);
    }
    println!("{survived} of {ROUNDS} were right all the same");
    assert_eq!(attempt(&sample, &worker).unwrap(), right);
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

/// The barrier behind everything that a host wants.
const END: u64 = 1 << 60;

/// Takes what a session says: why it ended, and the barriers that it passed.
#[derive(Default)]
struct Ear {
    failed: Mutex<Option<String>>,
    reached: Mutex<usize>,
}

impl Receive<ToHost> for Ear {
    fn receive(&self, message: ToHost, _: Bytes) {
        match message {
            ToHost::Failed(cause) => *lock(&self.failed) = Some(cause),
            ToHost::Reached(END) => *lock(&self.reached) += 1,
            _ => {}
        }
    }

    fn closed(&self) {}
}

fn place(dice: &mut Dice) -> Place {
    Place {
        buffer: BufferId(dice.below(4) as u32),
        offset: dice.number(),
    }
}

/// Something that a host might want.
fn command(dice: &mut Dice) -> (Command, Vec<u8>) {
    let (at, bytes) = (place(dice), dice.number());
    let buffer = at.buffer;
    let transfer = Transfer {
        to: NodeId(dice.below(3) as u16),
        number: dice.below(4),
    };
    let load = Load {
        name: ["token_embd.weight", "no such", ""][dice.below(3) as usize].into(),
        offset: at.offset,
        op: dice.number() as u32,
    };
    let tensor = |op, sources, offset| Tensor {
        element: 0,
        shape: [4, 1, 1, 1],
        strides: [4, 16, 16, 16],
        op,
        params: [0; 16],
        flags: 0,
        sources,
        view: None,
        place: Some(Place { buffer, offset }),
    };
    let command = match dice.below(18) {
        0 | 1 => Command::Allocate { buffer, bytes },
        2 => Command::AllocateWeights { buffer, bytes },
        3 => Command::Free(buffer),
        4 => Command::Fill {
            place: at,
            bytes,
            value: 7,
        },
        5 => Command::Load {
            buffer,
            weights: vec![load; dice.below(3) as usize],
        },
        6 => Command::Weight {
            buffer,
            weight: load,
            element: dice.below(45) as u32,
            shape: std::array::from_fn(|_| dice.number()),
        },
        7 => Command::Barrier(bytes),
        8..=10 => {
            let payload = dice.bytes();
            let command = Command::Write {
                place: at,
                bytes: if dice.below(3) == 0 {
                    bytes
                } else {
                    payload.len() as u64
                },
                coding: [Coding::Plain, Coding::Lz4, Coding::Changed(dice.below(66) as u8)]
                    [dice.below(3) as usize],
                keep: (dice.below(2) == 0).then(|| dice.below(66) as u8),
            };
            return (command, payload);
        }
        11 => Command::Receive {
            transfer,
            place: at,
            bytes,
        },
        12 | 13 => Command::Define {
            graph: dice.below(34) as u8,
            content: Graph {
                tensors: vec![
                    tensor(0, vec![], 0),
                    tensor(2, vec![Some(0), Some(dice.below(2) as u32)], dice.below(64)),
                ],
                nodes: vec![1],
            },
        },
        14 => Command::Run(dice.below(34) as u8),
        15 => Command::Push {
            transfer,
            place: at,
            bytes,
            through_host: dice.below(2) == 0,
        },
        16 => Command::Read {
            read: ReadId(bytes),
            place: at,
            bytes: dice.number(),
        },
        _ => Command::Copy {
            from: at,
            to: place(dice),
            bytes,
        },
    };
    (command, Vec::new())
}

#[test]
fn a_host_that_wants_anything_gets_no_more_than_it_reserved() {
    let device = lab::cpu(256 << 20);
    let devices = [device.clone()];
    let mut causes = std::collections::BTreeMap::<String, usize>::new();
    for seed in 0..2000 {
        let mut dice = Dice::new(seed);
        let ear = Arc::new(Ear::default());
        let open = Open {
            session: SessionId([1; 16]),
            node: NodeId(1),
            queues: vec![
                OpenQueue {
                    device: 0,
                    reserve: 4 << 20
                };
                2
            ],
            model: None,
        };
        let host = Outlet::Local(ear.clone() as Arc<dyn Receive<ToHost>>);
        let session = Session::start(
            &open,
            &devices,
            &ModelSource::default(),
            host,
            None,
            Instant::now(),
        )
        .unwrap();
        let mut commands = vec![(
            Command::Allocate {
                buffer: BufferId(0),
                bytes: 256,
            },
            Vec::new(),
        )];
        commands.extend((0..dice.below(40)).map(|_| command(&mut dice)));
        for (command, payload) in commands {
            let queue = dice.below(2) as u8;
            let step = Step(dice.below(4));
            match dice.below(12) {
                0 => session.receive(
                    ToWorker::Deliver(Transfer {
                        to: NodeId(1),
                        number: dice.below(4),
                    }),
                    payload.clone().into(),
                ),
                1 => session.receive(
                    ToWorker::Cancel {
                        first: Step(dice.below(4)),
                        last: Step(dice.number()),
                    },
                    Bytes::new(),
                ),
                2 => session.receive(ToWorker::Ping(1), Bytes::new()),
                _ => {}
            }
            session.receive(ToWorker::Queue { queue, step, command }, payload.into());
        }
        for queue in 0..2 {
            let (step, command) = (Step(0), Command::Barrier(END));
            session.receive(ToWorker::Queue { queue, step, command }, Bytes::new());
        }
        lab::eventually("the session is done", || {
            // Whatever a queue waits for comes, right or wrong.
            let to = NodeId(1);
            (0..4).for_each(|number| session.arrive(Transfer { to, number }, Bytes::new()));
            let done = *lock(&ear.reached) == 2 || lock(&ear.failed).is_some();
            done.then_some(())
        });
        session.end();
        drop(session);
        lab::until_free(&device);
        let cause = lock(&ear.failed).take().unwrap_or_else(|| "nothing".into());
        let kind: String = cause.chars().filter(|c| !c.is_ascii_digit()).take(60).collect();
        *causes.entry(kind).or_default() += 1;
    }
    println!("{causes:#?}");
    assert!(causes.len() > 15);
}

#[test]
fn a_host_that_sends_faster_than_its_worker_works_waits() {
    let sample = Sample::new(Architecture::Llama);
    let device = lab::cpu(1 << 30);
    let address = lab::worker_with(device.clone(), sample.folder.path());
    let (mut socket, _) = crate::rpc::dial::host(&address, &lab::secret()).unwrap();
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
