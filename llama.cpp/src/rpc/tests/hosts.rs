//! A host that knows the secret and wants anything, in any order: the fuzz target `lying_host`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::dice::Dice;
use super::lab;
use crate::rpc::graph::{BufferId, Graph, Place, Tensor};
use crate::rpc::link::{Outlet, Receive, lock};
use crate::rpc::wire::{
    Coding, Command, Load, NodeId, Open, OpenQueue, ReadId, SessionId, Step, ToHost, ToWorker, Transfer,
};
use crate::rpc::worker::{Device, ModelSource, Session};

/// Commands of a session, at most.
const MOST_COMMANDS: u64 = 40;
/// Bytes that each queue of a session reserves.
const RESERVE: u64 = 4 << 20;

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

/// What all sessions share.
pub struct Ground {
    device: Arc<Device>,
}

impl Default for Ground {
    fn default() -> Self {
        Self {
            device: lab::cpu(256 << 20),
        }
    }
}

impl Ground {
    /// A session whose host wants what the bytes say: why it ended before all was done, if it did.
    ///
    /// # Panics
    /// Where it does not end, or keeps memory.
    pub fn run(&self, bytes: &[u8]) -> Option<String> {
        self.session(&mut Dice::Bytes(VecDeque::from(bytes.to_vec())))
    }

    fn session(&self, dice: &mut Dice) -> Option<String> {
        let ear = Arc::new(Ear::default());
        let queue = OpenQueue {
            device: 0,
            reserve: RESERVE,
        };
        let open = Open {
            session: SessionId([1; 16]),
            node: NodeId(1),
            queues: vec![queue; 2],
            model: None,
        };
        let host = Outlet::Local(ear.clone() as Arc<dyn Receive<ToHost>>);
        let devices = [self.device.clone()];
        let session = Session::start(
            &open,
            &devices,
            &ModelSource::default(),
            host,
            None,
            std::time::Instant::now(),
        )
        .unwrap();
        let first = Command::Allocate {
            buffer: BufferId(0),
            bytes: 256,
        };
        let mut commands = vec![(first, Vec::new())];
        commands.extend((0..dice.below(MOST_COMMANDS)).map(|_| command(dice)));
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
        lab::until_free(&self.device);
        lock(&ear.failed).take()
    }
}

#[test]
fn a_host_that_wants_anything_gets_no_more_than_it_reserved() {
    let ground = Ground::default();
    let mut causes = std::collections::BTreeMap::<String, usize>::new();
    for seed in 0..2000 {
        let cause = ground.session(&mut Dice::new(seed));
        let cause = cause.unwrap_or_else(|| "nothing".into());
        let kind: String = cause.chars().filter(|c| !c.is_ascii_digit()).take(60).collect();
        *causes.entry(kind).or_default() += 1;
    }
    println!("{causes:#?}");
    assert!(causes.len() > 15);
}

#[test]
fn what_fuzzing_has_found_so_far_breaks_no_worker() {
    let ground = Ground::default();
    let corpus = lab::corpus("lying_host");
    let ended = corpus.iter().filter(|bytes| ground.run(bytes).is_some()).count();
    assert!(0 < ended && ended < corpus.len(), "{ended} of {}", corpus.len());
}
