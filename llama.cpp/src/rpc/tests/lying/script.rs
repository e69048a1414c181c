//! What the bytes of a run mean: how the split is used, and which lies are told when. Pure.

use std::collections::VecDeque;

use crate::rpc::wire::{DeviceOffer, NodeId, Ran, ReadId, Step, ToHost, Transfer};

/// Steps of a run.
pub(super) const MOST_STEPS: usize = 6;
/// How many tokens a step may have.
pub(super) const TOKENS: [u32; 4] = [1, 2, 5, 17];
/// Lies of a run, at most: more cost time and say no more.
const MOST_LIES: usize = 64;
/// Messages between two lies, at most: a run has few more.
const MOST_SKIPPED: u8 = 16;
/// Made-up messages of one lie, at most.
const MOST_MADE: u32 = 3000;

/// What some uses of a split have and others have not: the bits of a script's first byte.
#[derive(Debug, Clone, Copy)]
pub(super) enum Habit {
    /// Two workers, which exchange by way of the host, in place of one.
    TwoWorkers,
    /// No worker has the model's file.
    NoFile,
    /// All steps are on their way before the first is taken.
    Ahead,
    /// The cache is saved and restored behind the last step.
    Saves,
    /// Some steps are cancelled.
    Cancels,
    /// The last step is never taken.
    Leaves,
    /// All devices that are offered get layers, not only the first of each worker.
    TakesAll,
    /// The host has layers of its own.
    HostLayers,
}

/// How a split is used.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    habits: u8,
    /// Which of [`TOKENS`].
    pub(super) tokens: usize,
    pub(super) steps: usize,
    /// Which chain of samplers.
    pub(super) sampler: u8,
}

impl Plan {
    fn parse(habits: u8, numbers: u8) -> Self {
        Self {
            habits,
            tokens: usize::from(numbers & 3),
            sampler: numbers >> 2 & 3,
            steps: 1 + usize::from(numbers >> 4) % MOST_STEPS,
        }
    }

    pub(super) fn has(&self, habit: Habit) -> bool {
        self.habits >> habit as u8 & 1 == 1
    }

    pub(super) fn workers(&self) -> usize {
        1 + usize::from(self.has(Habit::TwoWorkers))
    }
}

/// How a message is made up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Made {
    kind: u8,
    /// From the number of the honest message.
    delta: i8,
    node: u8,
    /// Which length the payload has, and texts.
    size: u8,
}

/// What is done to a message.
#[derive(Debug, Clone)]
pub(super) enum Lie {
    /// It is not sent.
    Drop,
    /// It comes twice.
    Twice,
    /// The next one overtakes it.
    Late,
    /// The connection is closed in its place.
    Close,
    /// Its payload has nothing.
    Empty,
    /// Bytes are missing at its payload's end.
    Shorter(u16),
    /// There are more of them.
    Longer(u16),
    /// A piece of its payload is something else.
    Numbers { at: u32, piece: [u8; 4] },
    /// Its number is another one.
    Number(i8),
    /// The node that it names is another one.
    Node(u8),
    /// A bit of it is another one.
    Bit { at: u16, bit: u8 },
    /// Another one comes first.
    Before(Made),
    /// Another one comes in its place.
    Instead(Made),
    /// Many others come first.
    Flood { made: Made, count: u32 },
    /// These bytes, as a message with a payload of so many bytes, come first.
    Any { message: Vec<u8>, payload: u16 },
    /// These bytes come first, which should be a frame's lengths.
    Head([u8; 8]),
}

/// A lie, and how many messages go by before it.
#[derive(Debug, Clone)]
pub(super) struct Timed {
    pub(super) skip: u8,
    pub(super) lie: Lie,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) plan: Plan,
    /// Of each worker.
    pub(super) lies: [VecDeque<Timed>; 2],
}

/// Reads bytes, and zeros behind their end.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let piece = self.some(N);
        array[..piece.len()].copy_from_slice(&piece);
        array
    }

    fn some(&mut self, count: usize) -> Vec<u8> {
        let (piece, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        piece.to_vec()
    }

    fn made(&mut self) -> Made {
        let [kind, delta, node, size] = self.array();
        Made {
            kind,
            delta: delta.cast_signed(),
            node,
            size,
        }
    }

    fn lie(&mut self, kind: u8) -> Lie {
        match kind % 16 {
            0 => Lie::Drop,
            1 => Lie::Twice,
            2 => Lie::Late,
            3 => Lie::Close,
            4 => Lie::Empty,
            5 => Lie::Shorter(u16::from_le_bytes(self.array())),
            6 => Lie::Longer(u16::from_le_bytes(self.array())),
            7 => Lie::Numbers {
                at: u32::from_le_bytes(self.array()),
                piece: self.array(),
            },
            8 => Lie::Number(self.byte().cast_signed()),
            9 => Lie::Node(self.byte()),
            10 => Lie::Bit {
                at: u16::from_le_bytes(self.array()),
                bit: self.byte() % 8,
            },
            11 => Lie::Before(self.made()),
            12 => Lie::Instead(self.made()),
            13 => Lie::Flood {
                made: self.made(),
                count: u32::from(u16::from_le_bytes(self.array())) % MOST_MADE,
            },
            14 => {
                let length = usize::from(self.byte());
                Lie::Any {
                    payload: u16::from_le_bytes(self.array()),
                    message: self.some(length),
                }
            }
            _ => Lie::Head(self.array()),
        }
    }
}

impl Script {
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let mut bytes = Bytes(bytes);
        let plan = Plan::parse(bytes.byte(), bytes.byte());
        let mut lies = [VecDeque::new(), VecDeque::new()];
        for _ in 0..MOST_LIES {
            if bytes.0.is_empty() {
                break;
            }
            let [kind, skip] = bytes.array();
            let skip = skip % MOST_SKIPPED;
            let lie = bytes.lie(kind);
            lies[usize::from(kind >> 7)].push_back(Timed { skip, lie });
        }
        Self { plan, lies }
    }
}

/// The number by which a message is known, if it has one.
pub(super) fn number(message: &mut ToHost) -> Option<&mut u64> {
    match message {
        ToHost::Data(ReadId(number))
        | ToHost::Reached(number)
        | ToHost::Loading(number)
        | ToHost::Pong { number, .. } => Some(number),
        ToHost::Deliver(transfer) => Some(&mut transfer.number),
        _ => None,
    }
}

/// The node that a message names, if it does.
pub(super) fn node(message: &mut ToHost) -> Option<&mut NodeId> {
    match message {
        ToHost::Deliver(Transfer { to, .. }) => Some(to),
        ToHost::Connected { node, .. } | ToHost::Unheard { node, .. } => Some(node),
        _ => None,
    }
}

impl Made {
    /// The message, where the honest one has this number and a payload of so many bytes.
    pub(super) fn message(self, number: u64, payload: usize) -> (ToHost, Vec<u8>) {
        let number = match self.delta {
            i8::MIN => u64::MAX,
            i8::MAX => u64::MAX / 2,
            delta => number.wrapping_add_signed(i64::from(delta)),
        };
        let node = NodeId(match self.node {
            u8::MAX => u16::MAX,
            node => u16::from(node % 4),
        });
        let flag = self.node & 64 == 0;
        let bytes = match self.size % 8 {
            0 | 1 => payload,
            2 => payload.saturating_sub(1),
            3 => payload + 4,
            4 => 0,
            5 => 1 << 20,
            size => usize::from(size) * 37,
        };
        let text = || {
            let count = [0, 5, 600, 100_000][usize::from(self.size >> 6)];
            ['a', '\0', '\u{1b}', '\u{1f600}']
                .into_iter()
                .cycle()
                .take(count)
                .collect::<String>()
        };
        let message = match self.kind % 10 {
            0 => ToHost::Offer(vec![
                DeviceOffer {
                    name: text(),
                    description: text(),
                    free: number,
                    total: number,
                    bandwidth: number,
                };
                usize::from(self.node % 20)
            ]),
            1 => ToHost::Opened { has_model: flag },
            2 => ToHost::Connected {
                node,
                fault: flag.then(text),
                round_trip: number,
            },
            3 => ToHost::Loading(number),
            4 => ToHost::Reached(number),
            5 => ToHost::Deliver(Transfer { to: node, number }),
            6 => ToHost::Data(ReadId(number)),
            7 => ToHost::Pong {
                number,
                now: number,
                ran: (0..u64::from(self.node))
                    .map(|more| Ran {
                        queue: self.size,
                        step: Step(number.wrapping_add(more)),
                        begin: number,
                        end: number.wrapping_sub(more),
                        waited: number.wrapping_mul(more),
                    })
                    .collect(),
            },
            8 => ToHost::Unheard { node, cause: text() },
            _ => ToHost::Failed(text()),
        };
        // What has no payload is sent one all the same.
        let bytes = if self.kind < 128 { bytes } else { 0 };
        (message, vec![self.node; bytes])
    }
}
