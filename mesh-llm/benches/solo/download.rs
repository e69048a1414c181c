//! A large file from a server on this machine: by curl, by curl four times at once, and by us.
//!
//! Nothing but this machine limits it, so what is compared is what each costs. To memory, that is all;
//! to the disk, each ends when the file is durable, as our downloads do.

use std::fs::{self, File};
use std::hint::black_box;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Instant;

use anyhow::{Context, ensure};
use mesh_llm::models::download::{Progress, Settings, Source, fetch};
use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use sha2::{Digest, Sha256};
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::support::arguments::Arguments;
use crate::support::files;
use crate::support::report::{Case, Goal, Metric, Report};

const RATE: Metric = Metric::new("rate", "MB/s");
const RATIO: Metric = Metric::new("ratio of rates", "");

/// Of what curl reaches.
const GOAL_RATIO: Goal = Goal::AtLeast(0.9);

/// What both ours and curl's ranges use.
const CONNECTIONS: u64 = 4;

/// A folder in memory, on Linux.
const MEMORY: &str = "/dev/shm";

const MEBIBYTE: usize = 1 << 20;

/// Who downloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The program, so many at once.
    Curl { ranges: u64 },
    /// The same, and a hash of the whole afterwards, as far from memory as it is there.
    CurlThenHash { ranges: u64 },
    /// A plain address, of which no hash is known.
    Plain,
    /// As from the hub: hashed while it arrives.
    Hashed,
}

const WAYS: [(&str, Way); 5] = [
    ("curl", Way::Curl { ranges: 1 }),
    ("curl ×4", Way::Curl { ranges: CONNECTIONS }),
    ("curl ×4, then hash", Way::CurlThenHash { ranges: CONNECTIONS }),
    ("ours", Way::Plain),
    ("ours, hashed", Way::Hashed),
];

/// Which of them are compared: like with like, and all with a plain curl.
const COMPARED: [(usize, usize); 5] = [(3, 0), (3, 1), (4, 0), (4, 1), (4, 2)];

/// Downloads the same file in each way, in turns.
///
/// # Errors
/// Where there is no curl, or a download fails.
pub fn measure(arguments: &Arguments, report: &mut Report) -> anyhow::Result<()> {
    let mebibytes = arguments.amount(512, 2048);
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("served");
    let (sha256, hash_rate) = write(&file, mebibytes)?;
    let bench = Bench {
        server: files::serve(&file, sha256)?,
        bytes: (mebibytes * MEBIBYTE) as u64,
        runtime: Runtime::new()?,
    };
    let rounds = arguments.amount(3, 7);
    if Path::new(MEMORY).is_dir() {
        let target = tempfile::tempdir_in(MEMORY)?;
        let mut case = report.case(format!("{mebibytes} MiB, to memory"));
        case.row("SHA-256 alone, on one core", RATE, &[hash_rate]);
        bench.rounds(target.path(), false, rounds, &mut case)?;
    }
    let mut case = report.case(format!("{mebibytes} MiB, to the disk, until durable"));
    bench.rounds(folder.path(), true, rounds, &mut case)?;
    report.remark(
        "download: server, client and hashing share this machine's cores; where they are few, hashing \
         (a core at the rate above) takes from the rest what a network never would.",
    );
    Ok(())
}

struct Bench {
    server: SocketAddr,
    bytes: u64,
    runtime: Runtime,
}

impl Bench {
    fn rounds(&self, folder: &Path, durable: bool, rounds: usize, case: &mut Case<'_>) -> anyhow::Result<()> {
        let mut rates = WAYS.map(|_| Vec::new());
        for round in 0..rounds {
            for turn in 0..WAYS.len() {
                // Each comes after each other one: what one leaves behind is not always the next one's.
                let turn = (round + turn) % WAYS.len();
                let (way, rates) = (&WAYS[turn].1, &mut rates[turn]);
                let target = tempfile::tempdir_in(folder)?;
                // What the one before left for the disk to do is not this one's.
                rustix::fs::sync();
                let begin = Instant::now();
                self.download(*way, target.path())?;
                if durable {
                    sync(target.path())?;
                }
                rates.push(self.bytes as f64 / begin.elapsed().as_secs_f64() / 1e6);
            }
        }
        for ((name, _), rates) in WAYS.iter().zip(&rates) {
            case.row(*name, RATE, rates);
        }
        for (ours, theirs) in COMPARED {
            let pairs = rates[ours].iter().zip(&rates[theirs]);
            let ratios: Vec<f64> = pairs.map(|(ours, theirs)| ours / theirs).collect();
            let variant = format!("{} / {}", WAYS[ours].0, WAYS[theirs].0);
            case.row_with_goal(variant, RATIO, &ratios, GOAL_RATIO);
        }
        Ok(())
    }

    fn download(&self, way: Way, folder: &Path) -> anyhow::Result<()> {
        let source = match way {
            Way::Curl { ranges } => return self.curl(ranges, folder),
            Way::CurlThenHash { ranges } => {
                self.curl(ranges, folder)?;
                return hash(folder);
            }
            Way::Plain => Source::Url(format!("http://{}/plain", self.server)),
            Way::Hashed => Source::HuggingFace {
                repo: "bench/bench".to_owned(),
                revision: "main".to_owned(),
                file: "file".to_owned(),
            },
        };
        let settings = Settings {
            endpoint: format!("http://{}/hub", self.server),
            connections: CONNECTIONS as usize,
            ..Settings::default()
        };
        let (progress, _) = watch::channel(Progress::default());
        let fetched = self
            .runtime
            .block_on(fetch(&settings, &source, folder, "file", progress))?;
        ensure!(fetched.sha256.is_some() == (way == Way::Hashed), "{fetched:?}");
        Ok(())
    }

    fn curl(&self, ranges: u64, folder: &Path) -> anyhow::Result<()> {
        let piece = self.bytes.div_ceil(ranges);
        let started: Vec<Child> = (0..ranges)
            .map(|number| {
                let (start, end) = (number * piece, ((number + 1) * piece).min(self.bytes));
                let mut curl = Command::new("curl");
                curl.args(["--silent", "--fail", "--output"]);
                curl.arg(folder.join(format!("file.{number}")));
                if ranges > 1 {
                    curl.arg("--range").arg(format!("{start}-{}", end - 1));
                }
                let curl = curl.arg(format!("http://{}/plain", self.server));
                curl.spawn().context("curl cannot be started")
            })
            .collect::<anyhow::Result<_>>()?;
        for mut curl in started {
            let status = curl.wait()?;
            ensure!(status.success(), "curl: {status}");
        }
        Ok(())
    }
}

/// Makes durable what is in the folder; where it is already, this takes no time.
fn sync(folder: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        File::open(entry?.path())?.sync_all()?;
    }
    Ok(())
}

/// Hashes what is in the folder, one file after the other.
fn hash(folder: &Path) -> anyhow::Result<()> {
    let (mut hash, mut block) = (Sha256::new(), vec![0; MEBIBYTE]);
    for entry in fs::read_dir(folder)? {
        let mut file = File::open(entry?.path())?;
        loop {
            match file.read(&mut block)? {
                0 => break,
                read => hash.update(&block[..read]),
            }
        }
    }
    black_box(hash.finalize());
    Ok(())
}

/// Writes a file that nothing can compress; returns its hash and how fast hashing was, in MB/s.
fn write(path: &Path, mebibytes: usize) -> anyhow::Result<(String, f64)> {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
    let mut block = vec![0; MEBIBYTE];
    let (mut file, mut hash, mut seconds) = (File::create(path)?, Sha256::new(), 0.0);
    for _ in 0..mebibytes {
        random.fill_bytes(&mut block);
        file.write_all(&block)?;
        let begin = Instant::now();
        hash.update(&block);
        seconds += begin.elapsed().as_secs_f64();
    }
    let digest = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((digest, (mebibytes * MEBIBYTE) as f64 / seconds / 1e6))
}
