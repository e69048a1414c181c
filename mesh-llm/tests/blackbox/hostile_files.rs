//! Model files that are cut or damaged.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use llama_engine::gguf::random::Architecture;
use llama_engine::gguf::{self, Array};
use llama_engine::status::{Refusal, Status};
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use crate::harness::{BINARY, DEADLINE, Kind, Process, Start, model};

/// What became of a llama-server.
#[derive(Debug)]
enum Fate {
    /// It answered requests.
    Served,
    /// It said why not.
    Refused(Refusal, String),
    /// It died.
    Died(String),
}

/// Starts the child as the daemon does, and ends it once it is ready.
fn serve(file: &Path, socket: &Path) -> Fate {
    let mut command = Command::new(BINARY);
    command.arg("llama-server").arg("--model").arg(file);
    command.arg("--listen").arg(format!("unix:{}", socket.display()));
    command.args(["--model-name", "damaged", "--threads", "1", "--ctx-size", "64"]);
    let mut process = Process::start(command.stdin(Stdio::piped()));
    let input = process.take_input();
    let decided = |lines: &[String]| {
        let decided = |status: &Status| matches!(status, Status::Ready(_) | Status::Refused { .. });
        lines
            .iter()
            .filter_map(|line| serde_json::from_str(line).ok())
            .find(decided)
    };
    let status = process.out.find(DEADLINE, decided);
    // Without input its parent is gone, and it ends. One that refuses does so by itself.
    let input = input.filter(|_| !matches!(status, Some(Status::Ready(_))));
    let ended = process.end(DEADLINE);
    drop(input);
    match status {
        Some(Status::Ready(_)) => Fate::Served,
        Some(Status::Refused { reason, message }) => {
            assert_eq!(ended.code(), Some(reason.exit_code().into()), "{message}");
            assert!(!message.is_empty() && !message.contains('\n'), "{message:?}");
            Fate::Refused(reason, message)
        }
        _ => {
            let log = process.err.all(DEADLINE).join("\n");
            Fate::Died(format!(
                "signal {:?}, code {:?}\n{log}",
                ended.signal(),
                ended.code()
            ))
        }
    }
}

/// Calls `test` for so many numbers, on as many threads as there are cores, each with a folder.
fn on_all_cores(count: usize, test: impl Fn(usize, &Path) + Sync) {
    let next = AtomicUsize::new(0);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let folder = tempfile::tempdir().unwrap();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    test(number, folder.path());
                }
            });
        }
    });
}

/// Random numbers that are the same in every run.
fn random(seed: usize) -> Xoshiro256PlusPlus {
    Xoshiro256PlusPlus::seed_from_u64(seed as u64)
}

#[test]
fn a_file_cut_at_any_of_500_places_is_refused_and_the_file_named() {
    let whole = fs::read(model(Kind::Least)).unwrap();
    on_all_cores(500, |number, folder| {
        let file = folder.join("cut.gguf");
        // Half of the places are in the header, where there is most to get wrong.
        let end = if number.is_multiple_of(2) {
            whole.len()
        } else {
            whole.len().min(20_000)
        };
        let length = random(number).random_range(0..end);
        fs::write(&file, &whole[..length]).unwrap();
        let ours = gguf::Model::open(&file).unwrap_err().to_string();
        match serve(&file, &folder.join("s")) {
            Fate::Refused(Refusal::Model, message) => {
                assert_eq!(message, ours);
                assert!(message.contains("cut.gguf"), "{message}");
            }
            other => panic!("cut to {length} bytes: {other:?}"),
        }
    });
}

/// A model file, and where its header ends.
struct Original {
    bytes: Vec<u8>,
    header: usize,
}

impl Original {
    fn new(kind: Kind) -> Self {
        let gguf = gguf::Gguf::open(model(kind)).unwrap();
        let header = gguf.data_offset();
        Self {
            bytes: fs::read(model(kind)).unwrap(),
            header: header.try_into().unwrap(),
        }
    }

    /// A copy with a few wrong bytes, most of them in the header, and where they are.
    fn damaged(&self, random: &mut Xoshiro256PlusPlus) -> (Vec<u8>, Vec<usize>) {
        let mut bytes = self.bytes.clone();
        let places = (0..random.random_range(1..=4)).map(|_| match random.random_range(0..4) {
            // The numbers that say what the model is like.
            0 => random.random_range(0..1000),
            // The table of tensors.
            1 => random.random_range(self.header - 2000..self.header),
            2 => random.random_range(0..self.header),
            _ => random.random_range(0..self.bytes.len()),
        });
        let places: Vec<usize> = places.collect();
        for place in &places {
            bytes[*place] ^= random.random_range(1..=255_u8);
        }
        (bytes, places)
    }
}

/// How many damaged files are tried.
const FLIPPED: usize = 400;

#[test]
fn a_file_with_flipped_bytes_is_refused_or_served() {
    let kinds = Architecture::ALL.into_iter().map(Kind::Of).chain([Kind::Least]);
    let originals: Vec<Original> = kinds.map(Original::new).collect();
    let (served, asserted) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let died = Mutex::new(Vec::new());
    on_all_cores(FLIPPED, |number, folder| {
        let original = &originals[number % originals.len()];
        let (bytes, places) = original.damaged(&mut random(1_000_000 + number));
        let file = folder.join("flipped.gguf");
        fs::write(&file, bytes).unwrap();
        match serve(&file, &folder.join("s")) {
            Fate::Served => drop(served.fetch_add(1, Ordering::Relaxed)),
            Fate::Refused(_, message) => {
                let named = message.contains("flipped.gguf") || message.contains("damaged");
                assert!(named, "whose fault is it? {message}");
            }
            // llama.cpp's own assertions end the process: that is what it is a process for.
            Fate::Died(how) if how.contains("GGML_ASSERT") => drop(asserted.fetch_add(1, Ordering::Relaxed)),
            Fate::Died(how) => died
                .lock()
                .unwrap()
                .push(format!("file {number}, bytes {places:?}: {how}")),
        }
    });
    let died = died.into_inner().unwrap();
    assert!(
        died.is_empty(),
        "{} of {FLIPPED} died:\n{}",
        died.len(),
        died.join("\n\n")
    );
    let (served, asserted) = (served.into_inner(), asserted.into_inner());
    assert!(
        asserted <= FLIPPED / 50,
        "llama.cpp gave up on {asserted} of {FLIPPED}"
    );
    assert!(
        (1..FLIPPED).contains(&served),
        "{served} of {FLIPPED} were served"
    );
}

/// A model file with the word `from` of its vocabulary, wherever it stands, written over by `to`.
fn with_word(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    let stored = |word: &str| [&(word.len() as u64).to_le_bytes(), word.as_bytes()].concat();
    let (from, to) = (stored(from), stored(to));
    let mut bytes = bytes.to_vec();
    let place = bytes
        .windows(from.len())
        .position(|window| window == from)
        .unwrap();
    bytes[place..place + to.len()].copy_from_slice(&to);
    bytes
}

/// llama.cpp ends the process for these; whoever downloaded them should be told what is wrong.
#[test]
fn a_vocabulary_with_a_word_twice_is_refused() {
    let gguf = gguf::Gguf::open(model(Kind::Least)).unwrap();
    let words: &Array = gguf.require("tokenizer.ggml.tokens").unwrap();
    let words = words
        .strings()
        .unwrap()
        .map(|word| std::str::from_utf8(word).unwrap());
    let long: Vec<&str> = words.filter(|word| word.len() == 5).collect();
    let (first, second) = (long[0], long[1]);
    let start = Start::bare().flag("--port", "0");
    let file = start.folder().join("twice.gguf");
    fs::write(
        &file,
        with_word(&fs::read(model(Kind::Least)).unwrap(), first, second),
    )
    .unwrap();
    let ended = start.flag("--model", &file).ended();
    assert_eq!(ended.code, Some(65), "{:#?}", ended.err);
    assert_eq!(ended.err.len(), 1, "{:#?}", ended.err);
    assert!(ended.err[0].contains(second), "{}", ended.err[0]);
}

/// What only llama.cpp itself finds out is told in its own words, and not in those of a debugger.
#[test]
fn a_model_that_llama_cpp_gives_up_on_is_given_up_with_its_last_words() {
    let key = b"llama.attention.layer_norm_rms_epsilon";
    let mut bytes = fs::read(model(Kind::Least)).unwrap();
    let place = bytes.windows(key.len()).position(|window| window == key).unwrap();
    // Behind the key stand the type and the number, whose sign is in its last byte.
    bytes[place + key.len() + 7] ^= 0x80;
    let start = Start::bare().flag("--port", "0");
    let file = start.folder().join("negative.gguf");
    fs::write(&file, bytes).unwrap();
    let ended = start.flag("--model", &file).ended();
    assert_eq!(ended.code, Some(70), "{:#?}", ended.err);
    let told = ended.err.join("\n");
    let last = told.split_once("last lines").map_or("", |(_, last)| last);
    assert!(
        last.contains("GGML_ASSERT(eps >= 0") && last.contains("SIGABRT"),
        "{told}"
    );
    for word in ["gdb", "libthread_db", "unknown"] {
        assert!(!told.contains(word), "{told}");
    }
}
