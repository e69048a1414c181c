//! What is remembered of models from one start to the next: the last one served, and where downloads
//! came from. All of it can be lost without harm.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The file in the state directory.
pub const FILE_NAME: &str = "remembered.json";

/// The memory in a state directory.
#[derive(Debug, Clone)]
pub struct Memory {
    path: PathBuf,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Remembered {
    /// The model that was served last.
    last_used: Option<PathBuf>,
    /// The repositories that files came from.
    origins: BTreeMap<PathBuf, String>,
    /// The SHA-256 of files that were checked when they came.
    digests: BTreeMap<PathBuf, Digest>,
}

/// The SHA-256 of a file as it was at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Digest {
    sha256: String,
    bytes: u64,
    modified: Option<SystemTime>,
}

impl Digest {
    /// That of a file as it is now.
    fn new(file: &Path, sha256: &str) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            sha256: sha256.to_owned(),
            bytes: metadata.len(),
            modified: metadata.modified().ok(),
        })
    }

    /// Whether the file is the one that it was taken of; another may have its name.
    fn is_of(&self, file: &Path) -> bool {
        Self::new(file, &self.sha256).is_ok_and(|now| now == *self)
    }
}

impl Memory {
    /// That of a state directory.
    pub(super) fn at(state: &Path) -> Self {
        Self {
            path: state.join(FILE_NAME),
        }
    }

    /// The model that was served last.
    pub fn last_used(&self) -> Option<PathBuf> {
        self.load().last_used
    }

    /// The repositories that files came from.
    pub fn origins(&self) -> BTreeMap<PathBuf, String> {
        self.load().origins
    }

    /// The SHA-256 of files that were checked when they came, and were not written to since.
    pub fn digests(&self) -> BTreeMap<PathBuf, String> {
        let digests = self.load().digests.into_iter();
        digests
            .filter(|(file, digest)| digest.is_of(file))
            .map(|(file, digest)| (file, digest.sha256))
            .collect()
    }

    /// Remembers which model is served.
    pub fn used(&self, model: &Path) {
        let model = std::path::absolute(model).unwrap_or_else(|_| model.to_owned());
        self.change(|remembered| remembered.last_used = Some(model));
    }

    /// Remembers where a file came from.
    pub fn came_from(&self, file: &Path, repository: &str) {
        self.change(|remembered| {
            remembered.origins.insert(file.to_owned(), repository.to_owned());
        });
    }

    /// Remembers the SHA-256 of a file that came whole.
    pub fn has_digest(&self, file: &Path, sha256: &str) {
        let Ok(digest) = Digest::new(file, sha256) else {
            return;
        };
        self.change(|remembered| {
            remembered.digests.insert(file.to_owned(), digest);
        });
    }

    fn load(&self) -> Remembered {
        let text = fs::read(&self.path).ok();
        text.and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default()
    }

    fn change(&self, change: impl FnOnce(&mut Remembered)) {
        // Another mesh-llm may be about to write, too. Without a lock, one of both may be lost.
        let lock = File::options()
            .create(true)
            .write(true)
            .truncate(false)
            .open(self.path.with_extension("lock"));
        let _locked = lock.and_then(|file| file.lock().map(|()| file));
        let mut remembered = self.load();
        change(&mut remembered);
        remembered.origins.retain(|file, _| file.exists());
        remembered.digests.retain(|file, digest| digest.is_of(file));
        if let Err(error) = self.save(&remembered) {
            tracing::debug!(%error, path = %self.path.display(), "nothing was remembered");
        }
    }

    fn save(&self, remembered: &Remembered) -> io::Result<()> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(&serde_json::to_vec(remembered)?)?;
        file.persist(&self.path)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_remembered_and_what_is_gone_is_forgotten() {
        let root = tempfile::tempdir().unwrap();
        let memory = Memory::at(root.path());
        assert_eq!(memory.last_used(), None);
        let (kept, gone) = (root.path().join("kept.gguf"), root.path().join("gone.gguf"));
        fs::write(&kept, "").unwrap();
        memory.came_from(&gone, "org/gone");
        memory.came_from(&kept, "org/kept");
        memory.used(&kept);
        assert_eq!(memory.last_used(), Some(kept.clone()));
        assert_eq!(memory.origins(), BTreeMap::from([(kept, "org/kept".to_owned())]));
        fs::write(root.path().join(FILE_NAME), "{").unwrap();
        assert_eq!(memory.last_used(), None);
    }
}
