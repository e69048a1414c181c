//! The sending end of a socket.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use bytes::Bytes;
use rustix::io::Errno;
use rustix::net::{SendFlags, send, shutdown};

use super::socket::send_all;
use super::{Full, lock};
use crate::priority;

/// Bytes that may wait to be sent before the sender must.
const MOST_WAITING: usize = 64 << 20;

/// Sends at once what the system takes, and the rest on a thread of its own.
#[derive(Debug)]
pub struct SocketOutlet {
    stream: OwnedFd,
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    pieces: VecDeque<Bytes>,
    bytes: usize,
    /// The thread is sending a piece.
    sending: bool,
    closed: bool,
}

impl SocketOutlet {
    pub(super) fn start(stream: OwnedFd) -> io::Result<Arc<Self>> {
        let outlet = Arc::new(Self {
            stream,
            waiting: Mutex::default(),
            changed: Condvar::new(),
        });
        let own = outlet.clone();
        thread::Builder::new()
            .name("split send".into())
            .spawn(move || own.send_waiting())?;
        Ok(outlet)
    }

    pub(super) fn send(&self, pieces: Vec<Bytes>, full: Full) {
        let mut waiting = lock(&self.waiting);
        while waiting.bytes > MOST_WAITING && !waiting.closed && full != Full::Exceed {
            if full == Full::Skip {
                return;
            }
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        if waiting.closed {
            return;
        }
        let mut idle = waiting.pieces.is_empty() && !waiting.sending;
        for mut piece in pieces {
            while idle && !piece.is_empty() {
                match send(&self.stream, &piece, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                    Ok(count) => drop(piece.split_to(count)),
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => idle = false,
                    Err(_) => return self.close_locked(&mut waiting),
                }
            }
            if !piece.is_empty() {
                waiting.bytes += piece.len();
                waiting.pieces.push_back(piece);
            }
        }
        if !waiting.pieces.is_empty() {
            self.changed.notify_all();
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        lock(&self.waiting).closed
    }

    fn send_waiting(&self) {
        priority::carry_answers();
        let mut waiting = lock(&self.waiting);
        while !waiting.closed {
            let Some(piece) = waiting.pieces.pop_front() else {
                waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            waiting.sending = true;
            drop(waiting);
            let sent = send_all(&self.stream, &piece);
            waiting = lock(&self.waiting);
            waiting.sending = false;
            // Nothing waits any more where it was closed meanwhile.
            waiting.bytes = waiting.bytes.saturating_sub(piece.len());
            if sent.is_err() {
                self.close_locked(&mut waiting);
            }
            self.changed.notify_all();
        }
    }

    pub(super) fn close(&self) {
        self.close_locked(&mut lock(&self.waiting));
    }

    fn close_locked(&self, waiting: &mut Waiting) {
        if !std::mem::replace(&mut waiting.closed, true) {
            // One that the peer has closed already needs no closing.
            let _ = shutdown(&self.stream, rustix::net::Shutdown::Both);
            waiting.pieces.clear();
            waiting.bytes = 0;
            self.changed.notify_all();
        }
    }
}
