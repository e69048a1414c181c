//! Whole downloads from a hub on this machine that misbehaves.

mod connections;
mod refusals;
mod whole;

use super::hub::{self, Hub};
use super::*;
use bytes::Bytes;
use std::time::Duration;

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

    /// Waits until the hub has sent more than so many bytes.
    async fn sent(&self, bytes: u64) {
        until(|| self.hub.sent_bytes() > bytes).await;
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
        let Ok(text) = std::fs::read(self.folder.path().join(format!("{FILE}.part.json"))) else {
            return 0;
        };
        let record: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let ranges: Vec<(u64, u64)> = serde_json::from_value(record["durable"].clone()).unwrap();
        ranges.iter().map(|(start, end)| end - start).sum()
    }
}

/// Waits for a condition, half a minute at most.
async fn until(condition: impl Fn() -> bool) {
    let look = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(30), look).await;
    waited.expect("what is waited for happens");
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
