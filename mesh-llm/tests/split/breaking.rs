//! Breaks a split again and again, at random moments with requests running, and has it answer as before.
//!
//! `just prove-split` does so for 200 rounds; a few are part of `just test`. What is done is printed with the
//! seed that it follows from.

use std::hint::spin_loop;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::harness::{DEADLINE, Kind, Known, Signal, Start, eventually, model};
use crate::netlab::NetLab;
use crate::split::{SplitHost, SplitLab, place};

/// A silent node is found out after 1.6 s; this machine may be busy.
const SOON: Duration = Duration::from_secs(5);

/// How long a network is cut that heals again.
const OUTAGE: Duration = Duration::from_secs(5);

/// What happens to a split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    /// A worker is killed, and started again.
    Kill(usize),
    /// All workers are.
    KillAll,
    /// A worker stands still for a while.
    Stop(usize),
    /// A worker is cut off, and reached again.
    Cut(usize),
    /// The workers do not reach each other for a while.
    Apart,
    /// Some packets are lost: no failure.
    Loss,
    /// The way becomes longer, and short again: no failure.
    Far,
}

impl Event {
    fn any(dice: &mut SmallRng, network: bool) -> Self {
        let worker = dice.random_range(0..2);
        match dice.random_range(0..if network { 10 } else { 5 }) {
            0 | 1 => Self::Kill(worker),
            2 => Self::KillAll,
            3 | 4 => Self::Stop(worker),
            5 | 6 => Self::Cut(worker),
            7 => Self::Apart,
            8 => Self::Loss,
            _ => Self::Far,
        }
    }

    fn is_failure(self) -> bool {
        !matches!(self, Self::Loss | Self::Far)
    }
}

fn greedy(host: &SplitHost) -> Value {
    let request = json!({"prompt": "Once upon a time", "max_tokens": 32, "temperature": 0});
    let answer = host.post("/v1/completions", &request).ok();
    answer["choices"][0]["text"].clone()
}

fn until_ready(host: &SplitHost) {
    eventually("the split is ready", DEADLINE, || {
        host.try_get("/health").ok().filter(|health| health.status == 200)
    });
}

/// A split over two workers, and what it has to say.
struct Proof {
    lab: SplitLab,
    host: SplitHost,
    network: bool,
    expected: Value,
}

impl Proof {
    fn new(test: &str) -> Self {
        let path = model(Kind::Endless);
        let folder = path.parent().unwrap();
        let on_network = SplitLab::on_netlab(test, 2, folder);
        let network = on_network.is_some();
        let lab = on_network.unwrap_or_else(|| SplitLab::on_loopback(2, folder));
        let small = |start: Start| start.flag("--ctx-size", "4096").flag("--parallel", "4");
        let host = lab.ready(&small(lab.host(&path)).flag("--tensor-split", "1,2,1"));
        let expected = greedy(&host);
        assert_eq!(expected, {
            let solo = small(Start::model(&path)).ready();
            let request = json!({"prompt": "Once upon a time", "max_tokens": 32, "temperature": 0});
            solo.post("/v1/completions", &request).ok()["choices"][0]["text"].clone()
        });
        Self {
            lab,
            host,
            network,
            expected,
        }
    }

    fn net(&self) -> &NetLab {
        self.lab.network()
    }

    /// One round; how long it took until requests ended, where they had to.
    fn round(&mut self, dice: &mut SmallRng) -> (Event, Duration) {
        let event = Event::any(dice, self.network);
        let streams = dice.random_range(1..=4);
        let texts = dice.random_range(0..12);
        let length = if event.is_failure() { 900 } else { 60 };
        let mut running: Vec<_> = (0..streams)
            .map(|number| {
                let prompt = format!("Once {number} ").repeat(dice.random_range(1..60));
                let request = json!({"prompt": prompt, "max_tokens": length, "temperature": 0});
                self.host.stream("/v1/completions", &request)
            })
            .collect();
        (0..texts).for_each(|_| drop(running[0].next_text()));
        let begin = Instant::now();
        self.begin(event);
        let outcomes: Vec<_> = running.into_iter().map(|stream| stream.outcome()).collect();
        let took = begin.elapsed();
        for outcome in outcomes {
            assert_eq!(outcome.broken, None, "{event:?}");
            match outcome.error {
                None => assert!(
                    !event.is_failure() && outcome.done && outcome.finish_reason.is_some(),
                    "{event:?} ended well"
                ),
                Some(error) => {
                    let message = error["message"].as_str().unwrap();
                    let named = (0..2).any(|worker| message.contains(&self.lab.address(worker).to_string()));
                    assert!(event.is_failure() && named, "{event:?}: {error}");
                }
            }
        }
        assert!(!event.is_failure() || took < SOON, "{event:?}: {took:?}");
        self.end(event, begin);
        until_ready(&self.host);
        assert_eq!(greedy(&self.host), self.expected, "after {event:?}");
        (event, took)
    }

    fn begin(&mut self, event: Event) {
        match event {
            Event::Kill(worker) => self.lab.kill_worker(worker),
            Event::KillAll => (0..2).for_each(|worker| self.lab.kill_worker(worker)),
            Event::Stop(worker) => self.lab.worker(worker).signal(Signal::STOP),
            Event::Cut(worker) => self.net().cut(place(worker)),
            Event::Apart => self.net().set_apart(place(0), place(1), true),
            Event::Loss => self.net().set_loss(0.01),
            Event::Far => self.net().set_rtt(Duration::from_millis(20)),
        }
    }

    fn end(&mut self, event: Event, begun: Instant) {
        match event {
            Event::Kill(worker) => self.lab.start_worker(worker, &[]),
            Event::KillAll => (0..2).for_each(|worker| self.lab.start_worker(worker, &[])),
            Event::Stop(worker) => self.lab.worker(worker).signal(Signal::CONT),
            Event::Cut(worker) => {
                eventually("the outage is over", DEADLINE, || {
                    (begun.elapsed() > OUTAGE).then_some(())
                });
                self.net().heal(place(worker));
            }
            Event::Apart => self.net().set_apart(place(0), place(1), false),
            Event::Loss => self.net().set_loss(0.0),
            Event::Far => self.net().set_rtt(Duration::ZERO),
        }
    }
}

/// Threads that do nothing but keep cores busy, in the session that hosts and workers are in, too.
#[derive(Debug)]
struct Load {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(threads: u64) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let busy = |_| {
            let over = over.clone();
            thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    spin_loop();
                }
            })
        };
        let threads = (0..threads).map(busy).collect();
        Self { over, threads }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("it only spins");
        }
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap())
}

#[test]
#[ignore = "takes minutes, and a machine to itself: `just prove-split`"]
fn a_split_outlives_whatever_happens_to_it_again_and_again() {
    let rounds = number("ROUNDS").unwrap_or(5);
    let first = number("SEED").unwrap_or_else(|| rand::rng().random_range(0..1 << 32));
    let _load = Load::start(number("LOAD").unwrap_or(0));
    let mut proof = Proof::new("a_split_outlives_whatever_happens_to_it_again_and_again");
    let daemon = Known::new(proof.host.process.id()).unwrap();
    for seed in first..first + rounds {
        println!("round with SEED={seed}");
        let (event, took) = proof.round(&mut SmallRng::seed_from_u64(seed));
        println!("  {event:?}: {:.2} s", took.as_secs_f64());
        assert!(daemon.runs(), "the daemon has ended");
    }
}

#[test]
fn living_nodes_do_not_lose_each_other_beside_busy_programs() {
    let path = model(Kind::Endless);
    let lab = SplitLab::on_loopback(2, path.parent().unwrap());
    let _load = Load::start(10);
    let host = lab.ready(&lab.host(&path).flag("--tensor-split", "1,2,1"));
    let engine = host.engine();
    let text = greedy(&host);
    assert!(text.as_str().is_some_and(|text| !text.is_empty()));
    assert!(
        engine.runs(),
        "it was started again: {:?}",
        host.process.err.so_far()
    );
    let lost = |line: &&String| line.contains("is lost") || line.contains("has lost a node");
    assert_eq!(host.process.err.so_far().iter().find(lost), None);
}
