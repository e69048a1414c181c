//! Downloads by processes that are killed.

#![allow(clippy::unwrap_used)]

#[path = "../support/hub/mod.rs"]
mod hub;

use hub::{Door, Hub};
use mesh_llm::models::download::{Progress, Settings, Source, fetch};
use std::ops::Range;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::sync::watch;

const REPO: &str = "maker/model-GGUF";
const FILE: &str = "model-Q4_K_M.gguf";

/// 4 connections at this rate take 4 s.
const BYTES_PER_SECOND: u64 = 6 << 20;
const LENGTH: usize = 96 << 20;

/// Where a child downloads to; without it, `child` is not one.
const FOLDER: &str = "MESH_LLM_TEST_FOLDER";

/// Starts this program again, as one that downloads and does nothing else.
fn start(hub: &Hub, folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored"])
        .env(FOLDER, folder)
        .env("HF_ENDPOINT", hub.endpoint())
        .env("HF_HOME", folder)
        .env_remove("HF_TOKEN")
        .env_remove("HF_HUB_OFFLINE")
        .env("NO_PROXY", "127.0.0.1")
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
#[ignore = "the other tests start it"]
fn child() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let settings = Settings::from_env(&|name| std::env::var_os(name));
    let source = Source::HuggingFace {
        repo: REPO.to_owned(),
        revision: "main".to_owned(),
        file: FILE.to_owned(),
    };
    let (progress, _) = watch::channel(Progress::default());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime
        .block_on(fetch(&settings, &source, Path::new(&folder), FILE, progress))
        .unwrap();
}

/// What is recorded as durable.
fn durable(folder: &Path) -> Vec<Range<u64>> {
    let Ok(text) = std::fs::read(folder.join(format!("{FILE}.part.json"))) else {
        return Vec::new();
    };
    let record: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let ranges: Vec<(u64, u64)> = serde_json::from_value(record["durable"].clone()).unwrap();
    ranges.into_iter().map(|(start, end)| start..end).collect()
}

fn length(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().map(|range| range.end - range.start).sum()
}

#[test]
fn a_killed_download_goes_on_where_it_stopped() {
    let hub = Hub::start();
    let bytes = hub::bytes(LENGTH);
    hub.add(REPO, FILE, bytes.clone());
    hub.behave(|behaviour| behaviour.bytes_per_second = Some(BYTES_PER_SECOND));
    let folder = tempfile::tempdir().unwrap();
    let mut before: Vec<Range<u64>> = Vec::new();
    for kill in 1..=2 {
        hub.clear_log();
        let mut child = start(&hub, folder.path());
        let begin = Instant::now();
        // Until a record came that this process wrote.
        while length(&durable(folder.path())) <= length(&before) {
            assert!(
                child.try_wait().unwrap().is_none(),
                "it ended before it could be killed"
            );
            assert!(
                begin.elapsed() < Duration::from_secs(60),
                "nothing is made durable"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        // SIGKILL.
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!folder.path().join(FILE).exists());
        nothing_twice(&hub, &before);
        before = durable(folder.path());
        assert!(length(&before) < LENGTH as u64, "kill {kill} came too late");
    }
    hub.clear_log();
    hub.behave(|behaviour| behaviour.bytes_per_second = None);
    assert!(start(&hub, folder.path()).wait().unwrap().success());
    nothing_twice(&hub, &before);
    let sent = hub.sent_bytes();
    assert_eq!(
        sent,
        LENGTH as u64 - length(&before) + 1,
        "what was missing, and the first byte to ask"
    );
    assert!(
        std::fs::read(folder.path().join(FILE)).unwrap() == bytes,
        "other bytes"
    );
    let names: Vec<_> = folder
        .path()
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, [FILE]);
}

/// The server's log has no request for a byte that was durable, but the one that asks what the file is.
fn nothing_twice(hub: &Hub, durable: &[Range<u64>]) {
    for logged in hub
        .log()
        .into_iter()
        .filter(|logged| logged.door == Door::Storage)
    {
        let (first, last) = logged
            .range
            .as_deref()
            .unwrap()
            .trim_start_matches("bytes=")
            .split_once('-')
            .unwrap();
        let asked = first.parse::<u64>().unwrap()..last.parse::<u64>().unwrap() + 1;
        let again = durable
            .iter()
            .any(|range| range.start < asked.end && asked.start < range.end);
        assert!(
            !again || asked == (0..1),
            "{asked:?} was asked for again, of {durable:?}"
        );
    }
}

#[test]
fn two_processes_download_a_file_once() {
    let hub = Hub::start();
    let bytes = hub::bytes(16 << 20);
    hub.add(REPO, FILE, bytes.clone());
    hub.behave(|behaviour| behaviour.bytes_per_second = Some(BYTES_PER_SECOND));
    let folder = tempfile::tempdir().unwrap();
    let mut children = [start(&hub, folder.path()), start(&hub, folder.path())];
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(hub.sent_bytes(), bytes.len() as u64 + 1);
    assert!(
        std::fs::read(folder.path().join(FILE)).unwrap() == bytes,
        "other bytes"
    );
}
