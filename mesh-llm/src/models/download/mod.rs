//! Fetches one file of a Hugging Face repository, or of a plain URL, into a folder.
//!
//! A file appears under its name only once it is whole and checked; until then there are, beside
//! it, `NAME.part` (the bytes), `NAME.part.json` (which of them are on the disk for certain) and
//! `NAME.part.lock` (held by the process that downloads). Start reading at [`fetch`].
//!
//! This room knows HTTP and the hub's addresses and headers. It does not know what a model is, which
//! file of a repository is wanted, or where models are kept.

mod digest;
mod disk;
mod error;
mod facts;
mod http;
mod listing;
mod lock;
mod part;
mod patience;
mod record;
mod remote;
mod settings;
mod status;
mod transfer;
mod unfinished;

#[cfg(test)]
#[path = "../../../tests/support/hub/mod.rs"]
mod hub;
#[cfg(test)]
mod tests;

pub use disk::check_room;
pub use error::{Error, Names};
pub use listing::{RemoteFile, list};
pub use settings::Settings;
pub use unfinished::{Unfinished, discard, unfinished};

use disk::Paths;
use facts::Facts;
use http::Client;
use lock::Lock;
use part::Part;
use patience::Patience;
use remote::Remote;
use std::fs::File;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use tokio::sync::watch;
use transfer::{Outcome, Transfer};

/// How often a file may change on the server while it is downloaded, before that is an error.
const MAX_CHANGES: usize = 4;

/// Where one file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file of a repository.
    HuggingFace {
        /// `owner/name`.
        repo: String,
        /// A branch, a tag or a commit.
        revision: String,
        /// Its path in the repository.
        file: String,
    },
    /// A file that has an address of its own (http or https).
    Url(String),
}

/// A file that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The file.
    pub path: PathBuf,
    /// Whether it was downloaded now; else it was there.
    pub is_new: bool,
    /// Its SHA-256, where it was downloaded now, and checked against what the server told.
    pub sha256: Option<String>,
}

impl Fetched {
    fn found(path: PathBuf) -> Self {
        Self {
            path,
            is_new: false,
            sha256: None,
        }
    }
}

/// How far a download is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes that are written, those of an earlier attempt too; while verifying, bytes verified.
    pub done_bytes: u64,
    /// The file's length; 0 while it is not known.
    pub total_bytes: u64,
    /// What goes on.
    pub phase: Phase,
}

/// What goes on in a download.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Phase {
    /// The server is asked about the file.
    #[default]
    Checking,
    /// Bytes arrive.
    Downloading,
    /// All bytes are there; the last of them are checked.
    Verifying,
    /// Another process downloads the same file.
    Waiting,
}

/// Downloads a file to `folder/file_name` and returns once the file is whole and checked.
///
/// A file that is there already is taken for what was wanted, without asking the server. What an
/// earlier attempt left, however it ended, is continued. Dropping the future ends the download; what
/// was written remains for the next attempt.
pub async fn fetch(
    settings: &Settings,
    source: &Source,
    folder: &Path,
    file_name: &str,
    progress: watch::Sender<Progress>,
) -> Result<Fetched, Error> {
    fetch_with(
        settings,
        Patience::default(),
        source,
        folder,
        file_name,
        &progress,
    )
    .await
}

async fn fetch_with(
    settings: &Settings,
    patience: Patience,
    source: &Source,
    folder: &Path,
    file_name: &str,
    progress: &watch::Sender<Progress>,
) -> Result<Fetched, Error> {
    let target = target(folder, file_name)?;
    if target.is_file() {
        return Ok(Fetched::found(target));
    }
    let client = Client::new(settings, patience)?;
    let remote = Remote::new(client.clone(), source)?;
    if settings.offline {
        return Err(Error::Offline { what: remote.start() });
    }
    let paths = Paths::of(&target);
    // Before the lock, which is in the same folder.
    let parent = paths.folder().to_owned();
    std::fs::create_dir_all(&parent).map_err(Error::disk(&parent))?;
    let lock = Arc::new(Lock::acquire(&paths.lock, || progress_phase(progress, Phase::Waiting)).await?);
    if target.is_file() {
        return Ok(Fetched::found(target));
    }
    for _ in 0..MAX_CHANGES {
        progress.send_replace(Progress::default());
        let facts = match remote.probe().await {
            Ok(facts) => facts,
            Err(error) => return Err(listing::explain(&client, error).await),
        };
        match attempt(
            &remote,
            &facts,
            &paths,
            lock.clone(),
            settings.connections,
            progress,
        )
        .await?
        {
            Outcome::Complete => {
                finish(paths, target.clone()).await?;
                return Ok(Fetched {
                    path: target,
                    is_new: true,
                    sha256: facts.sha256.map(|digest| digest.to_string()),
                });
            }
            Outcome::Changed => {
                tracing::info!(url = %remote.start(), "the file changed on the server: the download starts over");
                remote.forget();
            }
        }
    }
    Err(Error::Unstable { url: remote.start() })
}

/// Downloads what is missing and checks the whole; the file has no name of its own yet.
async fn attempt(
    remote: &Remote,
    facts: &Facts,
    paths: &Paths,
    lock: Arc<Lock>,
    connections: usize,
    progress: &watch::Sender<Progress>,
) -> Result<Outcome, Error> {
    let (opened, wanted) = (paths.clone(), facts.clone());
    let part = blocking(move || Part::open(opened, &wanted, lock)).await?;
    let part = Arc::new(part);
    let transfer = Transfer::new(remote, facts, part.clone(), connections);
    let (outcome, digest) = transfer.run(progress).await?;
    if outcome == Outcome::Changed {
        return Ok(outcome);
    }
    match (facts.sha256, digest) {
        (Some(expected), Some(found)) if expected != found => {
            let discarded = part.clone();
            blocking(move || discarded.discard()).await?;
            Err(Error::WrongHash {
                url: remote.start(),
                expected,
                found,
            })
        }
        _ => Ok(outcome),
    }
}

/// Gives the file its name.
async fn finish(paths: Paths, target: PathBuf) -> Result<(), Error> {
    blocking(move || {
        let file = File::open(&paths.part).map_err(Error::disk(&paths.part))?;
        // What has the name must be whole after a power cut, too: first the bytes, then the name.
        file.sync_all().map_err(Error::disk(&paths.part))?;
        std::fs::rename(&paths.part, &target).map_err(Error::disk(&target))?;
        disk::sync_folder(paths.folder()).map_err(Error::disk(paths.folder()))?;
        disk::remove(&paths.record)
    })
    .await
}

/// Runs what waits for the disk where it holds up nobody.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(Error::Interrupted {
            cause: error.to_string(),
        })
    })
}

fn progress_phase(progress: &watch::Sender<Progress>, phase: Phase) {
    progress.send_if_modified(|progress| std::mem::replace(&mut progress.phase, phase) != phase);
}

/// Where the file goes: into the folder, or a folder in it, never out of it.
fn target(folder: &Path, file_name: &str) -> Result<PathBuf, Error> {
    let name = Path::new(file_name);
    let mut components = name.components().peekable();
    let inside = components.peek().is_some() && components.all(|part| matches!(part, Component::Normal(_)));
    match inside && !file_name.ends_with('/') {
        true => Ok(folder.join(name)),
        false => Err(Error::Name {
            name: file_name.to_owned(),
        }),
    }
}
