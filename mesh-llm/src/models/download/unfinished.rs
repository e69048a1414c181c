//! Downloads that did not come to their end: finding them, and throwing them away.

use super::disk::{self, Paths};
use super::lock::Lock;
use super::{Error, record};
use fs4::FileExt;
use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

/// A download that has not come to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// The path that the file will have.
    pub target: PathBuf,
    /// Where its bytes are until then.
    pub part: PathBuf,
    /// How many bytes are there for certain.
    pub done_bytes: u64,
    /// The file's length, where that is known.
    pub total_bytes: Option<u64>,
    /// What it takes of the disk: room for all is reserved at the start.
    pub taken_bytes: u64,
    /// Whether a process works on it.
    pub is_running: bool,
}

/// The unfinished downloads of a folder, by name.
pub fn unfinished(folder: &Path) -> Vec<Unfinished> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let targets: BTreeSet<PathBuf> = entries.filter_map(|entry| target_of(&entry.path())).collect();
    targets.iter().map(|target| look(target)).collect()
}

/// Throws away what there is of a file. Returns false, and does nothing, while a process downloads it.
///
/// # Errors
/// Where the disk does not let go of it.
pub fn discard(target: &Path) -> Result<bool, Error> {
    let paths = Paths::of(target);
    let Some(_lock) = Lock::attempt(&paths.lock).map_err(Error::disk(&paths.lock))? else {
        return Ok(false);
    };
    // The record first, for good: bytes of a later attempt must never be taken for those it names.
    disk::remove(&paths.record)?;
    disk::sync_folder(paths.folder()).map_err(Error::disk(paths.folder()))?;
    disk::remove(&paths.part)?;
    Ok(true)
}

/// The file that a part, or its record, is of.
fn target_of(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let target = name
        .strip_suffix(".part")
        .or_else(|| name.strip_suffix(".part.json"))?;
    (!target.is_empty()).then(|| path.with_file_name(target))
}

fn look(target: &Path) -> Unfinished {
    let paths = Paths::of(target);
    let (done_bytes, total_bytes) = record::progress(&paths.record).unzip();
    let taken = File::open(&paths.part).and_then(|file| file.allocated_size());
    Unfinished {
        is_running: is_held(&paths.lock),
        target: target.to_owned(),
        done_bytes: done_bytes.unwrap_or(0),
        total_bytes,
        taken_bytes: taken.unwrap_or(0),
        part: paths.part,
    }
}

/// Whether a process holds the lock. A free one is held here for a moment, which nobody minds: whoever
/// wants it looks again.
fn is_held(lock: &Path) -> bool {
    let tried = File::open(lock).map(|file| file.try_lock());
    matches!(tried, Ok(Err(TryLockError::WouldBlock)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a download leaves that is killed after so many bytes.
    fn leave(folder: &Path, name: &str, done: u64, total: u64) {
        let record =
            format!(r#"{{"version":1,"bytes":{total},"identity":{{"etag":"a"}},"durable":[[0,{done}]]}}"#);
        fs::write(folder.join(format!("{name}.part.json")), record).unwrap();
        let part = File::create(folder.join(format!("{name}.part"))).unwrap();
        part.set_len(total).unwrap();
        fs::write(folder.join(format!("{name}.part.lock")), "").unwrap();
    }

    #[test]
    fn what_is_left_is_found_and_goes_for_good() {
        let folder = tempfile::tempdir().unwrap();
        leave(folder.path(), "a.gguf", 30, 100);
        fs::write(folder.path().join("b.gguf.part"), "x").unwrap();
        fs::write(folder.path().join("c.gguf"), "whole").unwrap();
        let found = unfinished(folder.path());
        let seen: Vec<_> = found
            .iter()
            .map(|left| {
                (
                    left.target.as_path(),
                    left.done_bytes,
                    left.total_bytes,
                    left.is_running,
                )
            })
            .collect();
        let (a, b) = (folder.path().join("a.gguf"), folder.path().join("b.gguf"));
        assert_eq!(
            seen,
            [(a.as_path(), 30, Some(100), false), (b.as_path(), 0, None, false)]
        );
        assert!(discard(&a).unwrap() && discard(&b).unwrap());
        let left = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 1, "only the whole file");
    }

    #[test]
    fn what_a_process_downloads_stays() {
        let folder = tempfile::tempdir().unwrap();
        leave(folder.path(), "a.gguf", 30, 100);
        let target = folder.path().join("a.gguf");
        let lock = Lock::attempt(&Paths::of(&target).lock).unwrap().unwrap();
        assert!(unfinished(folder.path())[0].is_running);
        assert!(!discard(&target).unwrap());
        drop(lock);
        assert_eq!(unfinished(folder.path())[0].done_bytes, 30);
        assert!(discard(&target).unwrap());
    }
}
