//! What a split takes of each machine's memory.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use llama_engine::gguf::random::{self, Architecture, Spec, WeightType};
use llama_engine::rpc::dial::{self, Secret};
use llama_engine::rpc::graph::{BufferId, Place};
use llama_engine::rpc::link::{Outlet, SILENCE};
use llama_engine::rpc::wire::frame::Limits;
use llama_engine::rpc::wire::{
    Coding, Command, NodeId, Open, OpenQueue, SessionId, Step, ToHost, ToWorker, Transfer,
};
use serde_json::json;
use tempfile::TempDir;

use crate::answers::answers;
use crate::harness::{DEADLINE, Process, Start, eventually};
use crate::split::{SECRET, SplitLab};

/// A model in a folder of its own.
struct Sample {
    folder: TempDir,
    path: PathBuf,
}

impl Sample {
    /// Most of it is its output matrix: of 33 MB, while all of its layers have 8.
    fn with_large_head() -> Self {
        Self::new(&Spec {
            embedding_length: 256,
            vocabulary_size: 32_000,
            ..random::small(Architecture::Llama, 7)
        })
    }

    /// Most of it is its layers: 66 MB.
    fn heavy() -> Self {
        Self::new(&Spec {
            embedding_length: 1024,
            feed_forward_length: 4096,
            weight_type: WeightType::Q8_0,
            ..random::small(Architecture::Llama, 7)
        })
    }

    fn new(spec: &Spec) -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("model.gguf");
        spec.write(&path).unwrap();
        Self { folder, path }
    }

    /// Workers that find it.
    fn lab(&self, workers: usize) -> SplitLab {
        SplitLab::on_loopback(workers, self.folder.path())
    }
}

fn small(start: Start) -> Start {
    start
        .flag("--ctx-size", "2048")
        .flag("--parallel", "2")
        .flag("--speculate", "off")
}

/// The most bytes that a process ever had in memory.
fn most_resident(process: &Process) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id().as_raw_nonzero())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    let kilobytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kilobytes << 10
}

/// What the log says of who computes what.
fn parts(process: &Process) -> Vec<String> {
    let lines = process.err.so_far();
    lines.into_iter().filter(|line| line.contains("part=")).collect()
}

#[test]
fn a_host_without_room_for_the_head_leaves_it_to_the_last_worker() {
    let large = Sample::with_large_head();
    let expected = answers(&small(Start::model(&large.path)).ready());
    let lab = large.lab(2);
    // The user's shares; a way of its own; and a host that has no room for any layer either.
    for (shares, gigabytes) in [(Some("1,2,1"), "0.03"), (None, "0.03"), (None, "0.012")] {
        let mut start = small(lab.host(&large.path)).flag("--max-memory", gigabytes);
        if let Some(shares) = shares {
            start = start.flag("--tensor-split", shares);
        }
        let daemon = lab.ready(&start.word("-v"));
        let parts = parts(&daemon.process);
        let told = format!("{shares:?}, {gigabytes} GB: {parts:#?}");
        assert!(
            parts
                .iter()
                .any(|part| part.contains("and the output: this machine has no room")),
            "{told}"
        );
        assert_eq!(answers(&daemon), expected, "{told}");
    }
    // One that has keeps it.
    let daemon = lab.ready(
        &small(lab.host(&large.path))
            .flag("--tensor-split", "1,2,1")
            .word("-v"),
    );
    let parts = parts(&daemon.process);
    assert!(
        parts.iter().any(|part| part.contains("part=\"the output\"")),
        "{parts:#?}"
    );
}

#[test]
fn a_worker_that_computes_stays_below_its_max_memory() {
    const MOST: u64 = 400_000_000;
    let heavy = Sample::heavy();
    let mut lab = heavy.lab(1);
    lab.start_worker(0, &[("--max-memory", "0.4".as_ref())]);
    let daemon = lab.ready(&small(lab.host(&heavy.path)).flag("--tensor-split", "0,4"));
    answers(&daemon);
    let taken = most_resident(lab.worker(0));
    println!("{:.0} of {:.0} MB", taken as f64 / 1e6, MOST as f64 / 1e6);
    assert!(taken < MOST, "{taken}");
    // All of the model was there.
    assert!(taken > fs::metadata(&heavy.path).unwrap().len(), "{taken}");
}

#[test]
fn what_embeddings_will_take_of_a_worker_is_reckoned_with_before_it_is_asked_for() {
    /// Of a worker that is asked for more than it lends, a host waits for more.
    const SAID: [&str; 3] = [" answers at ", "a smaller model or quantization", "Waiting for"];
    let heavy = Sample::heavy();
    let mut lab = heavy.lab(1);
    // From a worker that has room for its part to one that has none for any.
    let outcomes = (20..=46).rev().step_by(2).map(|hundredths| {
        let most = format!("0.{hundredths}");
        lab.start_worker(0, &[("--max-memory", most.as_ref())]);
        // It has no room for all layers. The start keeps the folder.
        let start = small(lab.host(&heavy.path)).flag("--max-memory", "0.06");
        let host = lab.process(&start);
        let said = host.err.find(DEADLINE, |lines| {
            let mut said = lines
                .iter()
                .flat_map(|line| SAID.into_iter().filter(|what| line.contains(what)));
            said.next()
        });
        (most, said.unwrap_or_else(|| panic!("{:#?}", host.err.so_far())))
    });
    let outcomes: Vec<_> = outcomes.collect();
    println!("{outcomes:?}");
    let [ready, refused, waits] = SAID.map(|what| outcomes.iter().filter(|(_, said)| *said == what).count());
    assert!(ready > 0 && refused > 0 && waits == 0, "{outcomes:?}");
    // And what was reserved for them is there.
    lab.start_worker(0, &[("--max-memory", "0.46".as_ref())]);
    let daemon = lab.ready(&small(lab.host(&heavy.path)).flag("--max-memory", "0.06"));
    let embedding = daemon
        .post("/v1/embeddings", &json!({"input": "Once upon a time"}))
        .ok();
    assert!(embedding["data"][0]["embedding"].is_array(), "{embedding}");
}

#[test]
fn what_waits_at_a_worker_counts_towards_its_max_memory() {
    const MOST: u64 = 400_000_000;
    /// Bytes of one write.
    const PIECE: u64 = 16 << 20;
    let models = TempDir::new().unwrap();
    let mut lab = SplitLab::on_loopback(1, models.path());
    lab.start_worker(0, &[("--max-memory", "0.4".as_ref())]);
    let secret = Secret::new(SECRET.as_bytes()).unwrap();
    let (mut socket, _) = dial::host(&lab.address(0).to_string(), &secret.clone().into()).unwrap();
    socket.set_patience(SILENCE).unwrap();
    let outlet: Outlet<ToWorker> = socket.outlet().unwrap();
    let queues = vec![OpenQueue {
        device: 0,
        reserve: 2 * PIECE,
    }];
    let (session, node) = (SessionId([5; 16]), NodeId(1));
    let model = None;
    outlet.send(
        ToWorker::Open(Open {
            session,
            node,
            queues,
            model,
        }),
        Bytes::new(),
    );
    let queue = |command, payload| {
        let (queue, step) = (0, Step(0));
        outlet.send(ToWorker::Queue { queue, step, command }, payload);
    };
    let (buffer, bytes) = (BufferId(0), PIECE);
    let place = Place { buffer, offset: 0 };
    queue(Command::Allocate { buffer, bytes }, Bytes::new());
    // The queue waits for what never comes, and all else waits behind it.
    let transfer = Transfer { to: node, number: 1 };
    queue(
        Command::Receive {
            transfer,
            place,
            bytes,
        },
        Bytes::new(),
    );
    let payload: Bytes = vec![1; PIECE as usize].into();
    let sending = std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            for _ in 0..64 {
                let (coding, keep) = (Coding::Plain, None);
                let write = Command::Write {
                    place,
                    bytes,
                    coding,
                    keep,
                };
                queue(write, payload.clone());
            }
        });
        let cause = loop {
            match socket.receive::<ToHost>(Limits::ADMITTED) {
                Ok((ToHost::Failed(cause), _)) => break cause,
                Ok(_) => {}
                Err(error) => panic!("the session ended without a word: {error}"),
            }
        };
        outlet.close();
        flood.join().unwrap();
        cause
    });
    assert!(sending.contains("left of what it offers"), "{sending}");
    let taken = most_resident(lab.worker(0));
    println!("{:.0} of {:.0} MB", taken as f64 / 1e6, MOST as f64 / 1e6);
    assert!(taken < MOST, "{taken}");
    assert!(taken > 10 * PIECE, "it took what there was room for: {taken}");
    // Nothing stays behind.
    eventually(
        "the worker lends all of it again",
        Duration::from_secs(10),
        || {
            let (mut socket, _) = dial::host(&lab.address(0).to_string(), &secret.clone().into()).ok()?;
            socket.set_patience(SILENCE).ok()?;
            match socket.receive::<ToHost>(Limits::ADMITTED).ok()?.0 {
                ToHost::Offer(offers) => (offers[0].free == offers[0].total).then_some(()),
                _ => None,
            }
        },
    );
}
