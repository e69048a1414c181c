//! Downloads that go well.

use super::super::hub::{self, Door};
use super::super::*;
use super::{Bench, FILE, LENGTH, REPO, at_revision, file};
use bytes::Bytes;

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
