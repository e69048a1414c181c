//! Whatever breaks, everything in flight ends with an error that names the node, the worker's memory comes
//! back, and the next split over it is right.

use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::lab::{self, DEADLINE, Sample};
use super::proxy::{Mode, Proxy};
use crate::gguf::random::Architecture;
use crate::llama::{Batch, Error};
use crate::rpc::worker::Device;
use crate::server::engine::pipeline::{Pipeline, Submitted};
use crate::server::options::CacheType;

/// What a silent node is given, and as much again for a busy machine.
const SOON: Duration = Duration::from_millis(3600);

const PROMPT: u32 = 12;

/// The n-th token after the prompt.
fn next(n: u32) -> Vec<(i32, u32, i32, bool)> {
    vec![(20 + (n * 7919 % 200) as i32, PROMPT + n, 0, true)]
}

fn prompt() -> Vec<(i32, u32, i32, bool)> {
    (0..PROMPT)
        .map(|n| (30 + n as i32, n, 0, n + 1 == PROMPT))
        .collect()
}

/// The logits behind the prompt and the first tokens.
fn logits(pipeline: &mut Pipeline<()>) -> Vec<Vec<f32>> {
    let mut all = Vec::new();
    for step in [prompt(), next(0), next(1)] {
        lab::submit(pipeline, &step);
        all.extend(lab::take(pipeline, step.len()));
    }
    all
}

/// A model, workers behind proxies, and the right logits.
struct Lab {
    sample: Sample,
    devices: Vec<Arc<Device>>,
    workers: Vec<String>,
    proxies: Vec<Proxy>,
    right: Vec<Vec<f32>>,
}

impl Lab {
    fn new(workers: usize) -> Self {
        let sample = Sample::new(Architecture::Llama);
        let devices: Vec<_> = (0..workers).map(|_| lab::cpu(1 << 30)).collect();
        let started = devices
            .iter()
            .map(|device| lab::worker_with(device.clone(), sample.folder.path()));
        let workers: Vec<String> = started.collect();
        let proxies = workers.iter().map(|worker| Proxy::to(worker)).collect();
        let right = logits(&mut lab::solo(&sample.path, lab::context_params(CacheType::F16)));
        Self {
            sample,
            devices,
            workers,
            proxies,
            right,
        }
    }

    fn shares(&self) -> Vec<u32> {
        let model = crate::gguf::Model::open(&self.sample.path).unwrap();
        let layers: u32 = model.metadata().get("llama.block_count").unwrap().unwrap();
        let mut shares = vec![1; self.workers.len()];
        shares.push(layers - self.workers.len() as u32);
        shares
    }

    /// A split by way of the proxies, or past them.
    fn split(&self, through: bool) -> Result<Pipeline<()>, String> {
        let proxies: Vec<String> = self.proxies.iter().map(|proxy| proxy.address.clone()).collect();
        let workers = if through { &proxies } else { &self.workers };
        lab::try_split(
            &self.sample.path,
            lab::context_params(CacheType::F16),
            workers,
            &self.shares(),
            64 << 20,
        )
        .map_err(|error| error.to_string())
    }

    /// A split past the proxies computes what is right.
    fn check_next(&self) {
        assert_eq!(logits(&mut self.split(false).unwrap()), self.right);
    }

    /// The workers are free again; the longest that it took.
    fn until_free(&self) -> Duration {
        let times = self.devices.iter().map(|device| lab::until_free(device));
        times.max().unwrap()
    }
}

/// Runs `work` on a thread; panics where it does not end in time.
fn in_time<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, result) = mpsc::channel();
    let thread = thread::spawn(move || {
        let _ = done.send(work());
    });
    match result.recv_timeout(2 * DEADLINE) {
        Ok(value) => value,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("{what} hangs"),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            std::panic::resume_unwind(thread.join().unwrap_err());
        }
    }
}

/// Everything in flight ends with a loss that names the node; and what is submitted then does, too.
fn expect_lost(pipeline: &mut Pipeline<()>, name: &str) {
    let named = |error: &Error| match error {
        Error::Lost(text) => assert!(text.contains(name), "{text}: not {name}"),
        other => panic!("{other}"),
    };
    while let Some(finished) = pipeline.take() {
        named(&finished.outcome.unwrap_err());
    }
    lab::eventually("the loss is known", || pipeline.lost());
    let mut batch = Batch::default();
    batch.push(1, 200, 1, true);
    match pipeline.submit(&mut batch, ()) {
        Submitted::Failed((), error) => named(&error),
        other => panic!("{other:?}"),
    }
}

/// Breaks the link with so many steps in flight.
fn break_with(mode: Mode, steps: u32) {
    let lab = Lab::new(1);
    let [proxy] = &lab.proxies[..] else { unreachable!() };
    let mut pipeline = lab.split(true).unwrap();
    assert_eq!(logits(&mut pipeline), lab.right);
    if steps > 0 {
        proxy.set(Mode::Stall);
        (0..steps).for_each(|n| lab::submit(&mut pipeline, &next(2 + n)));
    }
    let begin = Instant::now();
    proxy.set(mode);
    let name = proxy.address.clone();
    // Its memory comes back although the host still holds all of its own.
    let mut pipeline = in_time("a broken split", move || {
        expect_lost(&mut pipeline, &name);
        pipeline
    });
    let lost = begin.elapsed();
    lab.until_free();
    let free = begin.elapsed();
    println!("{mode:?} with {steps} steps in flight: lost after {lost:?}, memory back after {free:?}");
    assert!(lost < SOON && free < SOON, "{lost:?}, {free:?}");
    lab.check_next();
    // What is lost cannot be saved, and that is told.
    in_time("what a lost split still does", move || {
        let saved = pipeline.save(0, 1 << 24).map(|bytes| bytes.len());
        assert!(matches!(saved, Err(Error::Lost(_))), "{saved:?}");
        pipeline.context().truncate(0, 1);
        drop(pipeline);
    });
}

macro_rules! breaks {
    ($($test:ident = $mode:ident, $steps:literal;)+) => {
        $(
            #[test]
            fn $test() {
                break_with(Mode::$mode, $steps);
            }
        )+
    };
}

breaks! {
    cut_while_idle = Cut, 0;
    cut_with_a_step_in_flight = Cut, 1;
    cut_with_16_steps_in_flight = Cut, 16;
    silence_while_idle = Stall, 0;
    silence_with_a_step_in_flight = Stall, 1;
    silence_with_16_steps_in_flight = Stall, 16;
    garbage_while_idle = Garble, 0;
    garbage_with_a_step_in_flight = Garble, 1;
    garbage_with_16_steps_in_flight = Garble, 16;
}

/// Breaks the link at several moments from the first byte on: handshake, opening, loading, computing.
fn break_on_the_way(mode: Mode) {
    let lab = Arc::new(Lab::new(1));
    let whole = |lab: &Lab| lab.split(true).map(|mut pipeline| logits(&mut pipeline));
    assert_eq!(whole(&lab).unwrap(), lab.right);
    let total = lab.proxies[0].forwarded();
    for part in 0..10 {
        let proxy = &lab.proxies[0];
        proxy.set(Mode::Pass);
        lab.until_free();
        proxy.set_after(total * part / 10, mode);
        let own = lab.clone();
        let begin = Instant::now();
        in_time("a split that breaks on the way", move || {
            let name = own.proxies[0].address.clone();
            match own.split(true) {
                Ok(mut pipeline) => {
                    // Some of it may have come through.
                    let try_to_submit = |pipeline: &mut Pipeline<()>, tokens: &[(i32, u32, i32, bool)]| {
                        let mut batch = Batch::default();
                        tokens.iter().for_each(|(token, at, sequence, output)| {
                            batch.push(*token, *at, *sequence, *output)
                        });
                        let _ = pipeline.submit(&mut batch, ());
                    };
                    try_to_submit(&mut pipeline, &prompt());
                    own.proxies[0].set(mode);
                    let came = pipeline.take().is_some_and(|first| first.outcome.is_ok());
                    if came {
                        // The loss may be known by now, or not.
                        try_to_submit(&mut pipeline, &next(0));
                    }
                    expect_lost(&mut pipeline, &name);
                }
                Err(error) => assert!(error.contains(&name), "{error}"),
            }
        });
        let lost = begin.elapsed();
        lab.until_free();
        println!(
            "{mode:?} after {part}/10: lost after {lost:?}, memory back after {:?}",
            begin.elapsed()
        );
    }
    lab.check_next();
}

#[test]
fn cut_on_the_way() {
    break_on_the_way(Mode::Cut);
}

#[test]
fn silence_on_the_way() {
    break_on_the_way(Mode::Stall);
}

#[test]
fn garbage_on_the_way() {
    break_on_the_way(Mode::Garble);
}

/// Breaks only the link between two workers: the second that the second one's proxy sees.
fn break_between_workers(mode: Mode, steps: u32) {
    let lab = Lab::new(2);
    let mut pipeline = lab.split(true).unwrap();
    assert_eq!(logits(&mut pipeline), lab.right);
    let proxy = &lab.proxies[1];
    if steps > 0 {
        proxy.set_link(1, Mode::Stall);
        (0..steps).for_each(|n| lab::submit(&mut pipeline, &next(2 + n)));
    }
    let begin = Instant::now();
    proxy.set_link(1, mode);
    // It is the first one that the second hears nothing of.
    let name = lab.proxies[0].address.clone();
    in_time("a split without its ring", move || {
        expect_lost(&mut pipeline, &name)
    });
    lab.until_free();
    println!(
        "ring {mode:?} with {steps} steps in flight: {:?}",
        begin.elapsed()
    );
    assert!(begin.elapsed() < SOON);
    lab.check_next();
}

#[test]
fn workers_that_lose_each_other_tell_the_host() {
    for steps in [0, 1, 16] {
        break_between_workers(Mode::Cut, steps);
        break_between_workers(Mode::Stall, steps);
    }
}

#[test]
fn workers_that_never_reach_each_other_go_by_way_of_the_host() {
    let lab = Lab::new(2);
    // The host is there first.
    let proxy = &lab.proxies[1];
    proxy.set_delay(Duration::from_millis(5));
    let (done, ready) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            lab::eventually("the host has come", || (proxy.forwarded() > 0).then_some(()));
            proxy.set_new(Mode::Cut);
            done.send(()).unwrap();
        });
        let mut pipeline = lab.split(true).unwrap();
        ready.recv().unwrap();
        assert_eq!(logits(&mut pipeline), lab.right);
    });
}

#[test]
fn a_slow_link_is_no_broken_one() {
    let lab = Lab::new(1);
    lab.proxies[0].set_delay(Duration::from_millis(40));
    let mut pipeline = lab.split(true).unwrap();
    assert_eq!(logits(&mut pipeline), lab.right);
    assert_eq!(pipeline.lost(), None);
}

#[test]
fn two_hosts_at_once_are_served_and_a_third_that_wants_too_much_is_refused_with_numbers() {
    let lab = Lab::new(1);
    let host = |reserve: u64| {
        let params = lab::context_params(CacheType::F16);
        lab::try_split(&lab.sample.path, params, &lab.workers, &lab.shares(), reserve)
    };
    let mut first = host(400 << 20).unwrap();
    let mut second = host(400 << 20).unwrap();
    let refused = host(400 << 20).map(drop).unwrap_err().to_string();
    assert!(
        refused.contains(&lab.workers[0]) && refused.contains("0.09 GB left") && refused.contains("0.42 GB"),
        "{refused}"
    );
    assert_eq!(logits(&mut first), lab.right);
    drop(first);
    let begin = Instant::now();
    let left = || (lab.devices[0].offer().free >= 400 << 20).then_some(());
    lab::eventually("the first one's memory comes back", left);
    println!("back after {:?}", begin.elapsed());
    assert_eq!(logits(&mut second), lab.right);
    assert_eq!(logits(&mut host(400 << 20).unwrap()), lab.right);
}
