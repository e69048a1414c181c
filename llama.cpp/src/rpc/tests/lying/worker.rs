//! A worker that computes like any other, and says something else than it should.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use bytes::Bytes;

use super::script::{self, Habit, Lie, Plan, Timed};
use super::{Ground, PATIENCE, lab};
use crate::rpc::dial;
use crate::rpc::link::{Outlet, Receive, Socket, lock};
use crate::rpc::wire::frame::{self, HEAD, Limits};
use crate::rpc::wire::{ToHost, ToWorker};
use crate::rpc::worker::{ModelSource, Session};

/// What a liar has told.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Told {
    pub(super) lies: usize,
    /// What is computed from its answers may be something else.
    pub(super) numbers: bool,
    /// The host may wait for something that does not come.
    owing: bool,
}

/// The end of a worker's connection that talks.
struct Mouth {
    stream: TcpStream,
    state: Mutex<Speech>,
}

struct Speech {
    lies: VecDeque<Timed>,
    /// When something was said last.
    since: Instant,
    /// What the next message overtakes.
    late: Option<Vec<u8>>,
    told: Told,
}

fn coded(message: &ToHost, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::append(&mut bytes, message, payload);
    bytes
}

/// A frame of any message.
fn raw(message: &[u8], payload: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend((message.len() as u32).to_le_bytes());
    bytes.extend((payload as u32).to_le_bytes());
    bytes.extend(message);
    bytes.resize(bytes.len() + payload, 0x3f);
    bytes
}

impl Mouth {
    fn say(&self, message: ToHost, payload: &[u8]) {
        let mut speech = lock(&self.state);
        speech.since = Instant::now();
        let late = speech.late.take();
        let lie = match speech.lies.front_mut() {
            Some(Timed { skip: 0, .. }) => speech.lies.pop_front().map(|timed| timed.lie),
            Some(timed) => {
                timed.skip -= 1;
                None
            }
            None => None,
        };
        let bytes = match lie {
            Some(lie) => self.lie(lie, &mut speech, message, payload.to_vec()),
            None => coded(&message, payload),
        };
        self.write(&bytes);
        if let Some(late) = late {
            self.write(&late);
        }
    }

    /// What is said in place of `message`.
    fn lie(&self, lie: Lie, speech: &mut Speech, mut message: ToHost, mut payload: Vec<u8>) -> Vec<u8> {
        let told = &mut speech.told;
        told.lies += 1;
        let honest = script::number(&mut message).map_or(0, |number| *number);
        match lie {
            Lie::Drop => {
                told.owing = true;
                return Vec::new();
            }
            Lie::Twice => {
                let once = coded(&message, &payload);
                return once.repeat(2);
            }
            Lie::Late => {
                told.owing = true;
                speech.late = Some(coded(&message, &payload));
                return Vec::new();
            }
            Lie::Close => {
                self.close();
                return Vec::new();
            }
            Lie::Before(made) => {
                told.numbers = true;
                let (first, bytes) = made.message(honest, payload.len());
                return [coded(&first, &bytes), coded(&message, &payload)].concat();
            }
            Lie::Instead(made) => (message, payload) = made.message(honest, payload.len()),
            Lie::Flood { made, count } => {
                let (first, bytes) = made.message(honest, payload.len());
                let first = coded(&first, &bytes);
                let count = (count as usize).min((8 << 20) / first.len());
                (0..count).for_each(|_| self.write(&first));
            }
            Lie::Any {
                message: first,
                payload: bytes,
            } => self.write(&raw(&first, bytes.into())),
            Lie::Head(bytes) => self.write(&bytes),
            Lie::Empty => payload.clear(),
            Lie::Shorter(bytes) => payload.truncate(payload.len().saturating_sub(bytes.into())),
            Lie::Longer(bytes) => payload.resize(payload.len() + usize::from(bytes), 0),
            Lie::Numbers { at, piece } => {
                told.numbers = true;
                let at = at as usize % (payload.len() / 4).max(1) * 4;
                if let Some(place) = payload.get_mut(at..at + 4) {
                    place.copy_from_slice(&piece);
                }
                return coded(&message, &payload);
            }
            Lie::Number(delta) => {
                if let Some(number) = script::number(&mut message) {
                    *number = number.wrapping_add_signed(delta.into());
                }
            }
            Lie::Node(other) => {
                if let Some(node) = script::node(&mut message) {
                    node.0 = other.into();
                }
            }
            Lie::Bit { at, bit } => {
                (told.numbers, told.owing) = (true, true);
                let mut bytes = coded(&message, &payload);
                let end = bytes.len() - payload.len() - HEAD;
                bytes[HEAD + usize::from(at) % end] ^= 1 << bit;
                return bytes;
            }
        }
        (told.numbers, told.owing) = (true, true);
        coded(&message, &payload)
    }

    fn write(&self, bytes: &[u8]) {
        // A host that has gone misses nothing.
        let _ = (&self.stream).write_all(bytes);
    }

    fn close(&self) {
        // It may be closed already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

impl Receive<ToHost> for Mouth {
    fn receive(&self, message: ToHost, payload: Bytes) {
        match message {
            // How many there are depends on time, which a script must not.
            ToHost::Pong { .. } => self.write_between(&coded(&message, &payload)),
            message => self.say(message, &payload),
        }
    }

    fn closed(&self) {
        self.close();
    }
}

impl Mouth {
    fn write_between(&self, bytes: &[u8]) {
        let _speech = lock(&self.state);
        self.write(bytes);
    }
}

/// A worker for one host.
pub(super) struct Liar {
    pub(super) address: String,
    mouth: Arc<Mutex<Option<Arc<Mouth>>>>,
    thread: JoinHandle<()>,
}

impl Liar {
    pub(super) fn start(ground: &Ground, plan: &Plan, lies: VecDeque<Timed>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mouth = Arc::default();
        let (own, device) = (Arc::clone(&mouth), ground.device.clone());
        let has_model = !plan.has(Habit::NoFile);
        let source = if has_model {
            ground.source.clone()
        } else {
            ModelSource::default()
        };
        let thread = thread::spawn(move || {
            // However it ends: what matters is how the host does.
            let _ = serve(&listener, &own, lies, &[device], &source, has_model);
        });
        Self {
            address,
            mouth,
            thread,
        }
    }

    /// Ends a wait that would have no end.
    pub(super) fn close_if_owing(&self) {
        let Some(mouth) = lock(&self.mouth).clone() else {
            return;
        };
        // Who is speaking now is not silent.
        let Ok(speech) = mouth.state.try_lock() else {
            return;
        };
        if speech.told.owing && speech.since.elapsed() > PATIENCE {
            mouth.close();
        }
    }

    /// Ends it, now that its host has ended: who writes to a connection that is there and read by nobody would
    /// wait for ever.
    pub(super) fn end(self) -> Told {
        if let Some(mouth) = lock(&self.mouth).clone() {
            mouth.close();
        }
        self.thread.join().expect("a liar ends as it should");
        let mouth = lock(&self.mouth).take();
        mouth.map_or_else(Told::default, |mouth| lock(&mouth.state).told)
    }
}

fn serve(
    listener: &TcpListener,
    kept: &Mutex<Option<Arc<Mouth>>>,
    lies: VecDeque<Timed>,
    devices: &[Arc<crate::rpc::worker::Device>],
    source: &ModelSource,
    has_model: bool,
) -> io::Result<()> {
    let (stream, _) = listener.accept()?;
    let mut socket = Socket::tcp(stream.try_clone()?)?;
    dial::answer(&mut socket, &lab::secret())?;
    let mouth = Arc::new(Mouth {
        stream,
        state: Mutex::new(Speech {
            lies,
            since: Instant::now(),
            late: None,
            told: Told::default(),
        }),
    });
    *lock(kept) = Some(mouth.clone());
    mouth.say(
        ToHost::Offer(devices.iter().map(|device| device.offer()).collect()),
        &[],
    );
    let session: Arc<Session> = loop {
        match socket.receive(Limits::ADMITTED)?.0 {
            ToWorker::Open(open) => {
                let host = Outlet::Local(mouth.clone() as Arc<dyn Receive<ToHost>>);
                match Session::start(&open, devices, source, host, None, std::time::Instant::now()) {
                    Ok(session) => break session,
                    Err(fault) => mouth.say(ToHost::Failed(fault.to_string()), &[]),
                }
            }
            ToWorker::Ping(number) => mouth.receive(pong(number), Bytes::new()),
            _ => return Ok(()),
        }
    };
    mouth.say(ToHost::Opened { has_model }, &[]);
    while let Ok((message, payload)) = socket.receive(Limits::ADMITTED) {
        match message {
            // What is exchanged passes the host, so that there is more to lie about.
            ToWorker::Connect { node, .. } => {
                let fault = Some("it does not want to".into());
                let round_trip = 0;
                mouth.say(
                    ToHost::Connected {
                        node,
                        fault,
                        round_trip,
                    },
                    &[],
                );
            }
            message => session.receive(message, payload),
        }
    }
    mouth.close();
    session.closed();
    Ok(())
}

fn pong(number: u64) -> ToHost {
    ToHost::Pong {
        number,
        now: 0,
        ran: Vec::new(),
    }
}
