//! What was computed of files, kept for the next time.

use super::fingerprint::{Fingerprint, Outline, VERSION};
use super::stamp::Stamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// Models that are remembered; those that were asked for least recently are forgotten.
pub(super) const MOST_RECORDS: usize = 2048;
/// The longest file that is read, in bytes; far more than so many records take.
const MOST_BYTES: u64 = 16 << 20;
/// How long a file must have been left alone before its stamp is believed in.
const SETTLING: Duration = Duration::from_secs(2);

/// The outlines and fingerprints of model files, each as long as size, times and place on disk of its
/// files are the same. Kept in a file, if one was given, which saves time and nothing else: what cannot
/// be read or makes no sense is ignored, and what cannot be written is forgotten.
#[derive(Debug)]
pub struct Memory {
    file: Option<PathBuf>,
    settling: Duration,
    records: Mutex<Records>,
}

#[derive(Debug, Default)]
struct Records {
    by_path: BTreeMap<PathBuf, Record>,
    /// Whether the file does not have what is here.
    is_new: bool,
}

/// A model, by its first file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Record {
    files: Vec<(PathBuf, Stamp)>,
    outline: Outline,
    fingerprint: Option<Fingerprint>,
    /// When it was last asked for, in seconds since 1970.
    used: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    /// That of fingerprints: what an older definition made is of no use.
    version: u8,
    models: BTreeMap<PathBuf, Record>,
}

/// What is known of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    /// What its tensor table is like.
    pub outline: Outline,
    /// Which model it is, if that was ever computed.
    pub fingerprint: Option<Fingerprint>,
}

impl Memory {
    /// What is kept in `file`, which need not exist yet.
    pub fn open(file: impl Into<PathBuf>) -> Self {
        Self::new(Some(file.into()), SETTLING)
    }

    /// A memory that lives as long as the process.
    pub fn in_process() -> Self {
        Self::new(None, SETTLING)
    }

    /// Like those two, for files that have been left alone for so long; tests have no 2 s to wait.
    pub(in crate::rpc) fn new(file: Option<PathBuf>, settling: Duration) -> Self {
        let by_path = file.as_deref().map(load).unwrap_or_default();
        Self {
            file,
            settling,
            records: Mutex::new(Records {
                by_path,
                is_new: false,
            }),
        }
    }

    /// What is known of the model with this first file, if all its files have the stamps that `stamp_of`
    /// says.
    pub(super) fn recall(&self, first: &Path, stamp_of: impl Fn(&Path) -> Option<Stamp>) -> Option<Known> {
        let mut records = self.lock();
        let record = records.by_path.get_mut(&absolute(first))?;
        let is_same = |(file, stamp): &(PathBuf, Stamp)| stamp_of(file) == Some(*stamp);
        if !record.files.iter().all(is_same) {
            return None;
        }
        record.used = since_epoch().as_secs();
        Some(Known {
            outline: record.outline,
            fingerprint: record.fingerprint,
        })
    }

    /// Keeps what was computed of a model in these files, unless they were written just now.
    pub(super) fn remember(
        &self,
        files: &[(PathBuf, Stamp)],
        outline: Outline,
        fingerprint: Option<Fingerprint>,
    ) {
        let now = SystemTime::now();
        let settled = files
            .iter()
            .all(|(_, stamp)| stamp.is_settled(now, self.settling));
        // The file is JSON, which has no other names.
        let has_text = files.iter().all(|(path, _)| path.to_str().is_some());
        let Some((first, _)) = files.first().filter(|_| settled && has_text) else {
            return;
        };
        let first = absolute(first);
        let mut records = self.lock();
        let used = since_epoch().as_secs();
        let record = Record {
            files: files.to_vec(),
            outline,
            fingerprint,
            used,
        };
        let same = |known: &Record| {
            let known = Record {
                used,
                ..known.clone()
            };
            known == record
        };
        if !records.by_path.get(&first).is_some_and(same) {
            records.by_path.insert(first, record);
            records.is_new = true;
        }
        forget(&mut records.by_path);
    }

    /// Writes what is new to the file, so that nobody ever reads a part of it, and keeps what others have
    /// written there since.
    pub fn save(&self) {
        let mut records = self.lock();
        let Some(file) = self.file.as_deref().filter(|_| records.is_new) else {
            return;
        };
        let mut models = load(file);
        models.extend(records.by_path.clone());
        forget(&mut models);
        // Two at once may each miss what the other learned, which is then computed once more.
        match write(file, models) {
            Ok(()) => records.is_new = false,
            Err(error) => {
                tracing::debug!(%error, file = %file.display(), "fingerprints were not written");
            }
        }
    }

    /// How many models are remembered.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().by_path.len()
    }

    fn lock(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets what was least recently asked for, down to the limit.
fn forget(models: &mut BTreeMap<PathBuf, Record>) {
    let Some(too_many) = models.len().checked_sub(MOST_RECORDS).filter(|&count| count > 0) else {
        return;
    };
    let mut by_use: Vec<(u64, PathBuf)> = models
        .iter()
        .map(|(path, record)| (record.used, path.clone()))
        .collect();
    by_use.sort();
    for (_, path) in by_use.into_iter().take(too_many) {
        models.remove(&path);
    }
}

/// Names do not depend on the directory that a process was started in. Links are kept: a model's parts
/// are found beside the name that it was given by.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn since_epoch() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

fn load(file: &Path) -> BTreeMap<PathBuf, Record> {
    let is_fit = fs::metadata(file).is_ok_and(|metadata| metadata.is_file() && metadata.len() <= MOST_BYTES);
    let text = is_fit.then(|| fs::read(file).ok()).flatten();
    let saved: Option<Saved> = text.and_then(|text| serde_json::from_slice(&text).ok());
    let mut models = saved
        .filter(|saved| saved.version == VERSION)
        .map(|saved| saved.models)
        .unwrap_or_default();
    // No files at all would be as they were, always.
    models.retain(|_, record| !record.files.is_empty());
    forget(&mut models);
    models
}

fn write(file: &Path, models: BTreeMap<PathBuf, Record>) -> io::Result<()> {
    let saved = Saved {
        version: VERSION,
        models,
    };
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let mut whole = tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))?;
    whole.write_all(&serde_json::to_vec(&saved)?)?;
    whole.persist(file)?;
    Ok(())
}
