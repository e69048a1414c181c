//! What stands between two machines, and breaks.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::rpc::link::lock;

/// What happens to bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Pass,
    /// They stay where they are, as those for a machine that stands still.
    Stall,
    /// They come as others.
    Garble,
    /// There is no connection any more, and no new one.
    Cut,
}

#[derive(Debug)]
struct Link {
    mode: Mode,
    ends: [TcpStream; 2],
}

#[derive(Debug)]
struct State {
    links: Vec<Link>,
    /// Of new connections.
    mode: Mode,
    /// Bytes to the worker, over all links.
    forwarded: usize,
    /// What happens to all links once so many bytes were forwarded.
    later: Option<(usize, Mode)>,
    delay: Duration,
}

/// A port that leads to a worker.
#[derive(Debug)]
pub struct Proxy {
    pub address: String,
    shared: Arc<(Mutex<State>, Condvar)>,
}

impl Proxy {
    pub fn to(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = State {
            links: Vec::new(),
            mode: Mode::Pass,
            forwarded: 0,
            later: None,
            delay: Duration::ZERO,
        };
        let shared = Arc::new((Mutex::new(state), Condvar::new()));
        let (own, target) = (shared.clone(), target.to_owned());
        thread::spawn(move || {
            for stream in listener.incoming() {
                carry(&own, stream.unwrap(), &target);
            }
        });
        Self { address, shared }
    }

    /// All links, and new ones.
    pub fn set(&self, mode: Mode) {
        let (state, changed) = &*self.shared;
        let mut state = lock(state);
        state.mode = mode;
        state.links.iter_mut().for_each(|link| link.set(mode));
        changed.notify_all();
    }

    /// One link, in the order in which they came.
    pub fn set_link(&self, link: usize, mode: Mode) {
        let (state, changed) = &*self.shared;
        lock(state).links[link].set(mode);
        changed.notify_all();
    }

    /// What becomes of new links only.
    pub fn set_new(&self, mode: Mode) {
        lock(&self.shared.0).mode = mode;
    }

    /// All links, after so many more bytes to the worker.
    pub fn set_after(&self, bytes: usize, mode: Mode) {
        let mut state = lock(&self.shared.0);
        state.later = Some((state.forwarded + bytes, mode));
    }

    pub fn set_delay(&self, delay: Duration) {
        lock(&self.shared.0).delay = delay;
    }

    pub fn forwarded(&self) -> usize {
        lock(&self.shared.0).forwarded
    }
}

impl Link {
    fn set(&mut self, mode: Mode) {
        self.mode = mode;
        if mode == Mode::Cut {
            for end in &self.ends {
                let _ = end.shutdown(Shutdown::Both);
            }
        }
    }
}

fn carry(shared: &Arc<(Mutex<State>, Condvar)>, near: TcpStream, target: &str) {
    let mut state = lock(&shared.0);
    if state.mode == Mode::Cut {
        return;
    }
    let far = TcpStream::connect(target).unwrap();
    near.set_nodelay(true).unwrap();
    far.set_nodelay(true).unwrap();
    let number = state.links.len();
    let mode = state.mode;
    state.links.push(Link {
        mode,
        ends: [near.try_clone().unwrap(), far.try_clone().unwrap()],
    });
    for (from, to, up) in [
        (near.try_clone().unwrap(), far.try_clone().unwrap(), true),
        (far, near, false),
    ] {
        let shared = shared.clone();
        thread::spawn(move || pump(&shared, number, from, to, up));
    }
}

fn pump(shared: &(Mutex<State>, Condvar), link: usize, mut from: TcpStream, mut to: TcpStream, up: bool) {
    let mut bytes = vec![0; 16 << 10];
    loop {
        let count = from.read(&mut bytes).unwrap_or(0);
        let came = Instant::now();
        let (state, changed) = shared;
        let mut state = lock(state);
        if up {
            state.forwarded += count;
            if let Some((at, mode)) = state.later.filter(|(at, _)| state.forwarded > *at) {
                let _ = at;
                state.later = None;
                state.mode = mode;
                state.links.iter_mut().for_each(|link| link.set(mode));
                changed.notify_all();
            }
        }
        while state.links[link].mode == Mode::Stall {
            state = changed.wait(state).unwrap();
        }
        let (mode, delay) = (state.links[link].mode, state.delay);
        drop(state);
        if mode == Mode::Garble {
            bytes.iter_mut().for_each(|byte| *byte ^= 0x5a);
        }
        // The way takes its time.
        thread::sleep(delay.saturating_sub(came.elapsed()));
        if count == 0 || to.write_all(&bytes[..count]).is_err() {
            let _ = to.shutdown(Shutdown::Both);
            let _ = from.shutdown(Shutdown::Both);
            return;
        }
    }
}
