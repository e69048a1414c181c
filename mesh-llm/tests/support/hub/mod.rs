//! A Hugging Face hub on this machine, and the server that stores its files: two ports, as in life.
//!
//! It speaks the hub's protocol as `huggingface_hub` and `hf-hub` use it (`tree`, `refs`, `revision`,
//! `resolve` with its redirect and headers), keeps a log of what it was asked, and can be told to fail.
//! Included by its path from the unit tests and from the black-box tests, each of which uses a part.

#![allow(dead_code, missing_docs)]

mod metadata;
mod reply;
mod storage;

use bytes::Bytes;
use hyper::Method;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::net::TcpListener;

/// The commit that every revision leads to.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// Both servers; they end when it is dropped.
pub struct Hub {
    shared: Arc<Shared>,
    runtime: Option<tokio::runtime::Runtime>,
}

/// Which of the two servers was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    Hub,
    Storage,
}

/// A request that was answered, or is being answered.
#[derive(Debug, Clone)]
pub struct Logged {
    pub door: Door,
    pub method: Method,
    /// With the query.
    pub path: String,
    pub range: Option<String>,
    pub authorization: Option<String>,
    pub status: u16,
    /// The first byte of the file that the body has.
    pub start: u64,
    sent: Arc<AtomicU64>,
}

impl Logged {
    /// The bytes of the file that were sent so far.
    pub fn sent(&self) -> Range<u64> {
        self.start..self.start + self.sent.load(Ordering::SeqCst)
    }
}

/// A repository.
#[derive(Debug, Clone, Default)]
pub struct Repository {
    pub files: BTreeMap<String, Stored>,
    /// Only those tokens may read it that accepted the licence.
    pub gated: bool,
    /// Without a token it does not exist.
    pub private: bool,
}

/// A file.
#[derive(Debug, Clone)]
pub struct Stored {
    pub bytes: Bytes,
    pub sha256: String,
    /// Kept on the storage server, as large files are.
    pub lfs: bool,
}

/// What goes wrong, once.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The connection breaks off after so many bytes of a body that has more.
    Cut(u64),
    /// Nothing comes after so many bytes of a body that has more, and the connection stays open.
    Stall(u64),
    /// Another status, with this `Retry-After`.
    Status(u16, Option<&'static str>),
}

/// What the servers do differently.
#[derive(Debug, Default)]
pub struct Behaviour {
    /// For the hub's next requests.
    pub hub_faults: VecDeque<Fault>,
    /// For the storage's next requests that they can happen to.
    pub faults: VecDeque<Fault>,
    /// A fault for every request of the storage.
    pub always: Option<Fault>,
    /// The storage sends so many bytes more; where it would send others, nothing comes.
    pub allowance: Option<u64>,
    /// For each connection.
    pub bytes_per_second: Option<u64>,
    /// Whole files are sent whatever is asked.
    pub ignores_ranges: bool,
    /// The hub tells this size.
    pub false_size: Option<u64>,
    /// The storage sends other bytes.
    pub corrupts: bool,
    /// Plain addresses have no tag.
    pub no_etag: bool,
    /// Plain addresses have their SHA-256 as a tag.
    pub sha256_etag: bool,
    /// Addresses of the storage are good until this changes.
    pub generation: u64,
    /// Entries of a page of a listing; 0 is all.
    pub page: usize,
    /// The token that may read all.
    pub token: Option<String>,
    /// Tokens that exist but may not read what is gated.
    pub stranger: Option<String>,
}

struct Shared {
    hub: SocketAddr,
    storage: SocketAddr,
    repositories: Mutex<BTreeMap<String, Repository>>,
    plain: Mutex<BTreeMap<String, Stored>>,
    behaviour: Mutex<Behaviour>,
    log: Mutex<Vec<Logged>>,
    open: AtomicUsize,
    peak: AtomicUsize,
}

impl Hub {
    /// Starts both servers on free ports.
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let listen = || {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            listener
        };
        let (hub, storage) = (listen(), listen());
        let shared = Arc::new(Shared {
            hub: hub.local_addr().unwrap(),
            storage: storage.local_addr().unwrap(),
            repositories: Mutex::default(),
            plain: Mutex::default(),
            behaviour: Mutex::default(),
            log: Mutex::default(),
            open: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
        });
        runtime.spawn(serve(hub, Door::Hub, shared.clone()));
        runtime.spawn(serve(storage, Door::Storage, shared.clone()));
        Self {
            shared,
            runtime: Some(runtime),
        }
    }

    /// The value for `HF_ENDPOINT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.shared.hub)
    }

    /// Adds a large file to a repository, which is made if it is missing.
    pub fn add(&self, repo: &str, file: &str, bytes: impl Into<Bytes>) {
        self.put(repo, file, bytes.into(), true);
    }

    /// Adds a small file, which the hub sends itself.
    pub fn add_small(&self, repo: &str, file: &str, bytes: impl Into<Bytes>) {
        self.put(repo, file, bytes.into(), false);
    }

    fn put(&self, repo: &str, file: &str, bytes: Bytes, lfs: bool) {
        self.repository(repo, |repository| {
            let sha256 = sha256(&bytes);
            repository
                .files
                .insert(file.to_owned(), Stored { bytes, sha256, lfs });
        });
    }

    /// Changes a repository.
    pub fn repository(&self, repo: &str, change: impl FnOnce(&mut Repository)) {
        change(
            lock(&self.shared.repositories)
                .entry(repo.to_owned())
                .or_default(),
        );
    }

    /// Puts a file at a plain address, which is returned.
    pub fn add_plain(&self, name: &str, bytes: impl Into<Bytes>) -> String {
        let bytes = bytes.into();
        let sha256 = sha256(&bytes);
        let stored = Stored {
            bytes,
            sha256,
            lfs: false,
        };
        lock(&self.shared.plain).insert(name.to_owned(), stored);
        format!("http://{}/plain/{name}", self.shared.storage)
    }

    /// An address of the hub that leads to that plain address.
    pub fn detour(&self, name: &str) -> String {
        format!("http://{}/detour/{name}", self.shared.hub)
    }

    /// Changes what the servers do.
    pub fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut lock(&self.shared.behaviour));
    }

    /// What was asked so far, in order.
    pub fn log(&self) -> Vec<Logged> {
        lock(&self.shared.log).clone()
    }

    /// Forgets what was asked.
    pub fn clear_log(&self) {
        lock(&self.shared.log).clear();
        self.shared.peak.store(0, Ordering::SeqCst);
    }

    /// The most bodies of the storage that were on their way at a time.
    pub fn peak(&self) -> usize {
        self.shared.peak.load(Ordering::SeqCst)
    }

    /// The bytes that the storage sent.
    pub fn sent_bytes(&self) -> u64 {
        let storage = |logged: &Logged| logged.door == Door::Storage;
        let sent = |logged: Logged| logged.sent().end - logged.sent().start;
        self.log().into_iter().filter(storage).map(sent).sum()
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        // Also within another runtime, where waiting is not allowed.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

async fn serve(listener: std::net::TcpListener, door: Door, shared: Arc<Shared>) {
    let listener = TcpListener::from_std(listener).unwrap();
    while let Ok((stream, _)) = listener.accept().await {
        let shared = shared.clone();
        let service = service_fn(move |request| {
            let shared = shared.clone();
            async move { Ok::<_, Infallible>(reply::answer(&shared, door, &request)) }
        });
        tokio::spawn(async move {
            // A connection that was cut is an error here, as it should be.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

/// In hexadecimal digits.
pub fn sha256(bytes: &Bytes) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Bytes that differ everywhere, the same each time.
pub fn bytes(length: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}
