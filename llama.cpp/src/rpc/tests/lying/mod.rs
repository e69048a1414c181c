//! A split over workers that know the secret and lie by a script: the fuzz target `lying_worker`, whose
//! corpus the tests play again.
//!
//! `script` says what bytes mean, `worker` tells the lies of one, `host` uses a split over such workers as
//! the server does, and is told how it ended.

mod host;
mod script;
mod worker;

use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use super::lab::{self, Sample};
use crate::gguf::random::Architecture;
use crate::rpc::files::{Identity, Memory, WeightFile};
use crate::rpc::worker::{Device, ModelSource};
use host::Host;
#[cfg(test)]
use rand::{RngExt, SeedableRng};
#[cfg(test)]
use rand_xoshiro::Xoshiro256PlusPlus;
use script::{Habit, MOST_STEPS, Script, TOKENS};
use worker::Liar;

/// A worker that owes an answer closes the connection after so much silence: it answers pings, so that
/// nothing else tells its host.
const PATIENCE: Duration = Duration::from_millis(20);
/// How often that is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Whatever the lies, all has ended by then, on a busy machine and with AddressSanitizer.
const DEADLINE: Duration = Duration::from_secs(60);

/// What all runs share.
pub struct Ground {
    sample: Sample,
    identity: Identity,
    source: ModelSource,
    device: Arc<Device>,
    own: Arc<Device>,
    /// The logits of an honest run, by tokens a step and step.
    right: Vec<Vec<Vec<f32>>>,
}

impl Default for Ground {
    fn default() -> Self {
        Self::new()
    }
}

impl Ground {
    /// A model, and what it computes without a split.
    pub fn new() -> Self {
        let sample = Sample::new(Architecture::Llama);
        let file = WeightFile::open(&sample.path).unwrap();
        let identity = file.identify(&Memory::in_process()).unwrap();
        let right = TOKENS
            .iter()
            .map(|tokens| {
                let mut solo = lab::solo(&sample.path, host::context_params());
                let logits = |step| {
                    lab::submit(&mut solo, &host::step(*tokens, step));
                    lab::take(&mut solo, *tokens as usize).concat()
                };
                (0..MOST_STEPS).map(logits).collect()
            })
            .collect();
        Self {
            identity,
            source: ModelSource::new(Some(file)),
            device: lab::cpu(1 << 30),
            own: lab::cpu(u64::MAX / 2),
            sample,
            right,
        }
    }

    /// Uses a split over liars once: why it ended before it should, if it did.
    ///
    /// # Panics
    /// Where it does not end, ends without a word, or computes something else than the model although no
    /// number was changed; and where memory is not given back.
    pub fn run(self: &Arc<Self>, bytes: &[u8]) -> Option<String> {
        let Script { plan, lies } = Script::parse(bytes);
        let workers = lies.into_iter().take(plan.workers());
        let liars: Vec<Liar> = workers.map(|lies| Liar::start(self, &plan, lies)).collect();
        let addresses: Vec<String> = liars.iter().map(|liar| liar.address.clone()).collect();
        let (done, ended) = mpsc::channel();
        let host = Host::new(self.clone(), plan, addresses.clone());
        thread::spawn(move || {
            // Nobody waits for it any more where it came too late.
            let _ = done.send(host.attempt());
        });
        let begin = Instant::now();
        let outcome = loop {
            match ended.recv_timeout(LOOK_EVERY) {
                Ok(outcome) => break outcome,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    assert!(begin.elapsed() < DEADLINE, "a split over liars does not end");
                    liars.iter().for_each(Liar::close_if_owing);
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => panic!("the host's thread panicked"),
            }
        };
        let told: Vec<_> = liars.into_iter().map(Liar::end).collect();
        // All sessions give back what they had, the host's own as well.
        lab::until_free(&self.device);
        lab::until_free(&self.own);
        let numbers = told.iter().any(|told| told.numbers);
        match outcome {
            Ok(steps) => {
                let right = &self.right[plan.tokens];
                let same = steps.iter().all(|(step, logits)| *logits == right[*step]);
                assert!(
                    same || numbers || plan.has(Habit::Cancels),
                    "other numbers without a lie in them"
                );
                None
            }
            Err(error) => {
                let lied = told.iter().any(|told| told.lies > 0);
                // A machine that stood still for seconds makes honest nodes silent.
                assert!(lied || error.contains("silent"), "{error}");
                let names = |address: &String| error.contains(address);
                assert!(
                    addresses.iter().any(names) || error.contains("this machine"),
                    "{error}"
                );
                Some(error)
            }
        }
    }
}

#[test]
fn honest_workers_are_believed() {
    let ground = Arc::new(Ground::new());
    for plan in 0..=u8::MAX {
        assert_eq!(ground.run(&[plan, plan.rotate_left(3)]), None, "{plan}");
    }
}

/// How many runs, and from which on, is in `LYING_TRIES`, such as `100000+500`.
#[test]
fn lies_at_random_break_no_host() {
    let tries = std::env::var("LYING_TRIES").unwrap_or("300+0".into());
    let (tries, first) = tries.split_once('+').unwrap();
    let first: u64 = first.parse().unwrap();
    let ground = Arc::new(Ground::new());
    let mut causes = std::collections::BTreeMap::<String, usize>::new();
    for seed in first..first + tries.parse::<u64>().unwrap() {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
        let mut bytes = [0; 24];
        let length = random.random_range(2..bytes.len());
        random.fill(&mut bytes[..length]);
        let cause = ground.run(&bytes[..length]).unwrap_or_else(|| "nothing".into());
        let cause: String = cause.chars().filter(|c| !c.is_ascii_digit()).take(70).collect();
        *causes.entry(cause).or_default() += 1;
    }
    println!("{causes:#?}");
    assert!(causes.len() > 5);
}

#[test]
fn what_fuzzing_has_found_so_far_breaks_no_host() {
    let ground = Arc::new(Ground::new());
    let corpus = lab::corpus("lying_worker");
    let failed = corpus.iter().filter(|bytes| ground.run(bytes).is_some()).count();
    assert!(
        0 < failed && failed < corpus.len(),
        "{failed} of {}",
        corpus.len()
    );
}
