//! Whole downloads from a hub on this machine that misbehaves.

use super::hub::{self, Door, Fault, Hub};
use super::*;
use bytes::Bytes;
use std::time::{Duration, Instant};

const REPO: &str = "maker/model-GGUF";
const FILE: &str = "model-Q4_K_M.gguf";
const MIB: usize = 1 << 20;

/// Three pieces: enough for ranges, few enough for patience.
const LENGTH: usize = 9 * MIB + 12_345;

/// A hub, and an empty folder.
struct Bench {
    hub: Hub,
    folder: tempfile::TempDir,
    settings: Settings,
    patience: Patience,
    bytes: Bytes,
}

impl Bench {
    fn new() -> Self {
        let (hub, bytes) = (Hub::start(), hub::bytes(LENGTH));
        hub.add(REPO, FILE, bytes.clone());
        hub.add_small(REPO, "README.md", "# model");
        let settings = Settings {
            endpoint: hub.endpoint(),
            ..Settings::default()
        };
        let patience = Patience {
            connect: Duration::from_secs(2),
            read: Duration::from_millis(800),
            first_delay: Duration::from_millis(5),
            longest_delay: Duration::from_millis(20),
            ..Patience::default()
        };
        let folder = tempfile::tempdir().unwrap();
        Self {
            hub,
            folder,
            settings,
            patience,
            bytes,
        }
    }

    fn source(&self) -> Source {
        file(FILE)
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join(FILE)
    }

    async fn fetch(&self, source: &Source) -> Result<PathBuf, Error> {
        let (progress, _) = watch::channel(Progress::default());
        fetch_with(
            &self.settings,
            self.patience,
            source,
            self.folder.path(),
            FILE,
            &progress,
        )
        .await
        .map(|fetched| fetched.path)
    }

    /// Fetches and looks that exactly the file is there.
    async fn succeed(&self, source: &Source) {
        let path = self.fetch(source).await.unwrap();
        assert_eq!(path, self.path());
        assert!(std::fs::read(path).unwrap() == self.bytes, "other bytes");
        assert_eq!(self.names(), [FILE]);
    }

    /// Fetches and looks that no file is there.
    async fn fail(&self, source: &Source) -> Error {
        let error = self.fetch(source).await.unwrap_err();
        assert!(!self.path().exists());
        error
    }

    fn names(&self) -> Vec<String> {
        let entries = self.folder.path().read_dir().unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// The record of a download, instead of which the next one would start at the beginning.
    fn durable(&self) -> u64 {
        let text = std::fs::read(self.folder.path().join(format!("{FILE}.part.json"))).unwrap();
        let record: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let ranges: Vec<(u64, u64)> = serde_json::from_value(record["durable"].clone()).unwrap();
        ranges.iter().map(|(start, end)| end - start).sum()
    }
}

fn file(name: &str) -> Source {
    at_revision(name, "main")
}

fn at_revision(name: &str, revision: &str) -> Source {
    Source::HuggingFace {
        repo: REPO.to_owned(),
        revision: revision.to_owned(),
        file: name.to_owned(),
    }
}

#[tokio::test]
async fn a_file_arrives_in_parts_from_where_the_hub_leads_to() {
    let bench = Bench::new();
    bench
        .hub
        .behave(|behaviour| behaviour.bytes_per_second = Some(20 << 20));
    bench.succeed(&bench.source()).await;
    assert!(bench.hub.peak() > 1, "one connection at a time");
    let log = bench.hub.log();
    let to_hub = log.iter().filter(|logged| logged.door == Door::Hub).count();
    assert_eq!(
        to_hub, 1,
        "each request costs something of what the hub allows: {log:?}"
    );
    assert_eq!(
        bench.hub.sent_bytes(),
        LENGTH as u64 + 1,
        "all once, and the first byte to ask"
    );
}

#[tokio::test]
async fn what_is_there_is_not_asked_for() {
    let mut bench = Bench::new();
    std::fs::write(bench.path(), "what I converted myself").unwrap();
    bench.settings.offline = true;
    assert_eq!(bench.fetch(&bench.source()).await.unwrap(), bench.path());
    assert!(bench.hub.log().is_empty());
}

#[tokio::test]
async fn small_files_and_empty_ones_come_from_the_hub_itself() {
    let mut bench = Bench::new();
    for bytes in [Bytes::from_static(b"{}"), Bytes::new()] {
        bench.hub.add_small(REPO, "config.json", bytes.clone());
        bench.bytes = bytes;
        bench.succeed(&file("config.json")).await;
        std::fs::remove_file(bench.path()).unwrap();
    }
}

#[tokio::test]
async fn a_revision_with_a_slash_is_one_segment() {
    let bench = Bench::new();
    bench.succeed(&at_revision(FILE, "refs/pr/1")).await;
    assert!(
        bench.hub.log()[0].path.contains("/resolve/refs%2Fpr%2F1/"),
        "{:?}",
        bench.hub.log()[0]
    );
}

#[tokio::test]
async fn a_plain_address_is_enough() {
    for sha256_etag in [false, true] {
        let bench = Bench::new();
        bench.hub.behave(|behaviour| behaviour.sha256_etag = sha256_etag);
        bench
            .succeed(&Source::Url(bench.hub.add_plain("m", bench.bytes.clone())))
            .await;
    }
}

#[tokio::test]
async fn without_ranges_it_comes_over_one_connection_and_survives_cuts() {
    for no_etag in [false, true] {
        let bench = Bench::new();
        bench.hub.behave(|behaviour| {
            behaviour.ignores_ranges = true;
            behaviour.no_etag = no_etag;
            // One for the question, two for what follows.
            behaviour
                .faults
                .extend([Fault::Cut(0), Fault::Cut(5 << 20), Fault::Cut(7 << 20)]);
        });
        bench
            .succeed(&Source::Url(bench.hub.add_plain("m", bench.bytes.clone())))
            .await;
        assert!(bench.hub.log().iter().all(|logged| logged.status == 200));
    }
}

#[tokio::test]
async fn cut_connections_continue_where_they_stopped() {
    let bench = Bench::new();
    // As long as each brings something, there is no limit to how often.
    bench
        .hub
        .behave(|behaviour| behaviour.always = Some(Fault::Cut(300_000)));
    bench.succeed(&bench.source()).await;
    assert!(bench.hub.log().len() > LENGTH / 300_000);
    let again = bench.hub.sent_bytes() as f64 / LENGTH as f64;
    assert!(again < 1.3, "{again:.2} times the file was sent");
}

#[tokio::test]
async fn connections_that_bring_nothing_are_an_error_in_the_end_and_what_came_stays() {
    let mut bench = Bench::new();
    bench.patience.retries = 1;
    bench.hub.behave(|behaviour| behaviour.allowance = Some(6 << 20));
    let error = bench.fail(&bench.source()).await;
    let Error::Broken { cause, .. } = &error else {
        panic!("{error}")
    };
    assert!(cause.contains("nothing came for"), "{error}");
    let durable = bench.durable();
    assert_eq!(
        durable,
        (6 << 20) - 1,
        "all but the first byte, which was asked for alone"
    );
    bench.hub.clear_log();
    bench.hub.behave(|behaviour| behaviour.allowance = None);
    bench.succeed(&bench.source()).await;
    assert_eq!(bench.hub.sent_bytes(), LENGTH as u64 - durable + 1);
}

#[tokio::test]
async fn a_dead_connection_is_noticed_and_a_slow_one_kept() {
    let bench = Bench::new();
    bench
        .hub
        .behave(|behaviour| behaviour.faults.push_back(Fault::Stall(100_000)));
    let start = Instant::now();
    bench.succeed(&bench.source()).await;
    assert!(start.elapsed() >= bench.patience.read, "it was not waited for");

    let mut bench = Bench::new();
    bench.bytes = hub::bytes(300_000);
    bench.hub.add(REPO, FILE, bench.bytes.clone());
    // Longer in all than a connection may be silent.
    bench
        .hub
        .behave(|behaviour| behaviour.bytes_per_second = Some(200_000));
    bench.succeed(&bench.source()).await;
    assert_eq!(bench.hub.log().len(), 3, "{:?}", bench.hub.log());
}

#[tokio::test]
async fn a_busy_server_is_given_the_time_that_it_wants() {
    let bench = Bench::new();
    bench.hub.behave(|behaviour| {
        behaviour.hub_faults.push_back(Fault::Status(429, Some("1")));
        behaviour
            .faults
            .extend([Fault::Status(503, None), Fault::Status(503, None)]);
    });
    let start = Instant::now();
    bench.succeed(&bench.source()).await;
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_server_that_wants_too_much_time_is_named() {
    let bench = Bench::new();
    bench
        .hub
        .behave(|behaviour| behaviour.hub_faults.push_back(Fault::Status(429, Some("4000"))));
    let error = bench.fail(&bench.source()).await.to_string();
    assert!(
        error.contains("status 429") && error.contains("in 4000 seconds"),
        "{error}"
    );
}

#[tokio::test]
async fn an_address_that_expired_is_asked_for_again() {
    let bench = Bench::new();
    bench.hub.behave(|behaviour| {
        behaviour.bytes_per_second = Some(4 << 20);
        behaviour.always = Some(Fault::Cut(1 << 20));
    });
    let source = bench.source();
    let expire = async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        bench.hub.behave(|behaviour| behaviour.generation += 1);
    };
    tokio::join!(bench.succeed(&source), expire);
    assert!(bench.hub.log().iter().any(|logged| logged.status == 403));
}

#[tokio::test]
async fn the_token_is_shown_to_the_hub_only() {
    let mut bench = Bench::new();
    bench.settings.token = Some("hf_good".to_owned());
    bench
        .hub
        .behave(|behaviour| behaviour.token = Some("hf_good".to_owned()));
    bench.hub.repository(REPO, |repository| repository.gated = true);
    bench.succeed(&bench.source()).await;
    std::fs::remove_file(bench.path()).unwrap();
    bench.hub.add_plain("m", bench.bytes.clone());
    bench.succeed(&Source::Url(bench.hub.detour("m"))).await;
    let log = bench.hub.log();
    for logged in &log {
        let expected = (logged.door == Door::Hub).then_some("Bearer hf_good");
        assert_eq!(logged.authorization.as_deref(), expected, "{logged:?}");
    }
    assert!(log.iter().any(|logged| logged.door == Door::Storage));
}

#[tokio::test]
async fn what_may_not_be_read_says_what_to_do() {
    let mut bench = Bench::new();
    bench.hub.behave(|behaviour| {
        behaviour.token = Some("hf_good".to_owned());
        behaviour.stranger = Some("hf_stranger".to_owned());
    });
    bench.hub.repository(REPO, |repository| repository.gated = true);
    let page = format!("{}/{REPO}", bench.hub.endpoint());
    let gated = bench.fail(&bench.source()).await.to_string();
    assert!(
        gated.contains(&format!("licence at {page}")) && gated.contains("set HF_TOKEN to"),
        "{gated}"
    );
    bench.settings.token = Some("hf_stranger".to_owned());
    let gated = bench.fail(&bench.source()).await.to_string();
    assert!(
        gated.contains(&page) && gated.contains("the account that accepted it"),
        "{gated}"
    );
    bench.settings.token = Some("hf_bad".to_owned());
    let bad = bench.fail(&bench.source()).await.to_string();
    assert!(
        bad.contains("does not accept the token") && bad.contains("/settings/tokens"),
        "{bad}"
    );
    assert!(!bad.contains("hf_bad"), "{bad}");
    bench.settings.token = Some("hf\nbad".to_owned());
    assert!(matches!(
        bench.fail(&bench.source()).await,
        Error::BadToken { .. }
    ));
    bench.settings.token = None;
    bench.hub.repository(REPO, |repository| repository.private = true);
    let private = bench.fail(&bench.source()).await.to_string();
    assert!(
        private.contains("no repository maker/model-GGUF") && private.contains("set HF_TOKEN"),
        "{private}"
    );
}

#[tokio::test]
async fn what_does_not_exist_is_answered_with_what_does() {
    let mut bench = Bench::new();
    let error = bench.fail(&file("model-Q5.gguf")).await.to_string();
    assert_eq!(
        error,
        format!("{REPO} has no file model-Q5.gguf at revision main; there is {FILE}, README.md")
    );
    let error = bench.fail(&at_revision(FILE, "v9")).await.to_string();
    assert_eq!(error, format!("{REPO} has no revision v9; there is main, v1"));
    bench.settings.token = Some("hf_good".to_owned());
    bench
        .hub
        .behave(|behaviour| behaviour.token = Some("hf_good".to_owned()));
    let nowhere = Source::HuggingFace {
        repo: "maker/none".to_owned(),
        revision: "main".to_owned(),
        file: FILE.to_owned(),
    };
    let error = bench.fail(&nowhere).await;
    assert!(
        matches!(&error, Error::NoRepository { has_token: true, .. }),
        "{error}"
    );
    let url = bench.hub.add_plain("m", "x").replace("/m", "/none");
    let error = bench.fail(&Source::Url(url.clone())).await.to_string();
    assert!(error.contains(&format!("nothing at {url}")), "{error}");
}

#[tokio::test]
async fn wrong_bytes_and_wrong_lengths_are_thrown_away() {
    let bench = Bench::new();
    bench.hub.behave(|behaviour| behaviour.corrupts = true);
    let error = bench.fail(&bench.source()).await;
    let Error::WrongHash { expected, found, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(expected.to_string(), hub::sha256(&bench.bytes));
    assert_ne!(expected, found);
    assert!(bench.names().is_empty(), "{:?}", bench.names());
    bench.hub.behave(|behaviour| behaviour.corrupts = false);
    bench.succeed(&bench.source()).await;

    let bench = Bench::new();
    bench.hub.behave(|behaviour| behaviour.false_size = Some(7));
    let error = bench.fail(&bench.source()).await.to_string();
    assert!(
        error.contains(&format!("should have 7 bytes and has {LENGTH}")),
        "{error}"
    );
    assert!(bench.names().is_empty(), "{:?}", bench.names());
}

#[tokio::test]
async fn a_file_that_changes_in_the_middle_starts_over() {
    for no_etag in [false, true] {
        let mut bench = Bench::new();
        bench.hub.behave(|behaviour| {
            behaviour.no_etag = no_etag;
            behaviour.bytes_per_second = Some(4 << 20);
            behaviour.always = Some(Fault::Cut(2 << 20));
        });
        let source = Source::Url(bench.hub.add_plain("m", hub::bytes(LENGTH + 1)));
        let mut changed = bench.bytes.to_vec();
        changed.reverse();
        bench.bytes = changed.into();
        let change = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            bench.hub.add_plain("m", bench.bytes.clone());
        };
        tokio::join!(bench.succeed(&source), change);
    }
}

#[tokio::test]
async fn another_file_in_its_place_is_not_mixed_with_what_was_left() {
    let mut bench = Bench::new();
    bench.patience.retries = 0;
    bench.hub.behave(|behaviour| behaviour.allowance = Some(6 << 20));
    bench.fail(&bench.source()).await;
    assert!(bench.durable() > 0);
    bench.hub.behave(|behaviour| behaviour.allowance = None);
    let mut changed = bench.bytes.to_vec();
    changed.reverse();
    bench.bytes = changed.into();
    bench.hub.add(REPO, FILE, bench.bytes.clone());
    bench.succeed(&bench.source()).await;
}

#[tokio::test]
async fn a_download_that_is_dropped_is_continued() {
    let bench = Bench::new();
    bench
        .hub
        .behave(|behaviour| behaviour.bytes_per_second = Some(1 << 20));
    let time = Duration::from_millis(1700);
    assert!(
        tokio::time::timeout(time, bench.fetch(&bench.source()))
            .await
            .is_err()
    );
    let durable = bench.durable();
    assert!(durable > 1 << 20, "{durable}");
    bench.hub.clear_log();
    bench.hub.behave(|behaviour| behaviour.bytes_per_second = None);
    bench.succeed(&bench.source()).await;
    assert!(bench.hub.sent_bytes() <= LENGTH as u64 - durable + 1);
}

#[tokio::test]
async fn two_downloads_of_one_file_are_one() {
    let bench = Bench::new();
    bench
        .hub
        .behave(|behaviour| behaviour.bytes_per_second = Some(4 << 20));
    let source = bench.source();
    let (progress, mut seen) = watch::channel(Progress::default());
    let second = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let folder = bench.folder.path();
        fetch_with(&bench.settings, bench.patience, &source, folder, FILE, &progress)
            .await
            .unwrap();
    };
    let watched = async {
        while seen.changed().await.is_ok() {
            if seen.borrow().phase == Phase::Waiting {
                return true;
            }
        }
        false
    };
    let ((), (), waited) = tokio::join!(bench.succeed(&source), second, watched);
    assert!(waited);
    assert_eq!(bench.hub.sent_bytes(), LENGTH as u64 + 1);
    assert_eq!(bench.names(), [FILE]);
}

#[tokio::test]
async fn progress_goes_from_checking_to_verifying() {
    let bench = Bench::new();
    bench
        .hub
        .behave(|behaviour| behaviour.bytes_per_second = Some(8 << 20));
    let (progress, mut seen) = watch::channel(Progress::default());
    let watched = tokio::spawn(async move {
        let mut all = vec![*seen.borrow()];
        while seen.changed().await.is_ok() {
            all.push(*seen.borrow());
        }
        all
    });
    let folder = bench.folder.path();
    fetch_with(
        &bench.settings,
        bench.patience,
        &bench.source(),
        folder,
        FILE,
        &progress,
    )
    .await
    .unwrap();
    drop(progress);
    let all = watched.await.unwrap();
    assert_eq!(all[0].phase, Phase::Checking);
    let downloading: Vec<_> = all
        .iter()
        .filter(|seen| seen.phase == Phase::Downloading)
        .collect();
    assert!(
        downloading.len() > 2 && downloading.is_sorted_by_key(|seen| seen.done_bytes),
        "{all:?}"
    );
    let last = all.last().unwrap();
    assert_eq!((last.phase, last.total_bytes), (Phase::Verifying, LENGTH as u64));
}

#[tokio::test]
async fn without_a_network_one_line_says_so() {
    let mut bench = Bench::new();
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    bench.settings.endpoint = format!("http://{free}");
    let error = bench.fail(&bench.source()).await;
    assert!(matches!(error, Error::NoConnection { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains(&free.to_string()) && text.contains("refused") && !text.contains('\n'),
        "{text}"
    );
    bench.settings.offline = true;
    let text = bench.fail(&bench.source()).await.to_string();
    assert!(text.contains("HF_HUB_OFFLINE"), "{text}");
    assert!(bench.names().is_empty());
}

#[tokio::test]
async fn names_stay_in_the_folder() {
    let bench = Bench::new();
    let (progress, _) = watch::channel(Progress::default());
    for name in ["", "..", "../m.gguf", "/m.gguf", "a/../m.gguf", "a/"] {
        let result = fetch(
            &bench.settings,
            &bench.source(),
            bench.folder.path(),
            name,
            progress.clone(),
        )
        .await;
        assert!(matches!(result, Err(Error::Name { .. })), "{name}: {result:?}");
    }
    let path = fetch(
        &bench.settings,
        &bench.source(),
        bench.folder.path(),
        "Q4/m.gguf",
        progress,
    )
    .await
    .unwrap()
    .path;
    assert_eq!(path, bench.folder.path().join("Q4/m.gguf"));
}

#[tokio::test]
async fn a_repository_is_listed_over_all_pages() {
    let bench = Bench::new();
    bench.hub.add(REPO, "Q8_0/model-00001-of-00002.gguf", "GGUF");
    bench.hub.behave(|behaviour| behaviour.page = 2);
    let files = list(&bench.settings, REPO, "main").await.unwrap();
    let names: Vec<_> = files
        .iter()
        .map(|file| (file.name.as_str(), file.bytes))
        .collect();
    assert_eq!(
        names,
        [
            ("Q8_0/model-00001-of-00002.gguf", 4),
            ("README.md", 7),
            (FILE, LENGTH as u64)
        ]
    );
    assert_eq!(files[2].sha256.unwrap().to_string(), hub::sha256(&bench.bytes));
    assert_eq!(files[1].sha256, None);
    let error = list(&bench.settings, REPO, "v9").await.unwrap_err();
    assert!(matches!(error, Error::NoRevision { .. }), "{error}");
}
