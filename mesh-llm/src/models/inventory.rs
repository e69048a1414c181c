//! The models on this machine, with what their files say. What was read once is remembered by size
//! and time, in an index in the state directory.

use super::about::About;
use super::places::Places;
use super::scan::{Found, scan};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

/// The name of the index in the state directory.
pub const INDEX: &str = "models.json";

/// The form of the index; one of another form is made anew.
const VERSION: u32 = 1;

/// Threads that read headers: more than cores, as disks are waited for.
const READERS: usize = 8;

/// A model on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnDisk {
    /// Where it is and what it is called.
    pub found: Found,
    /// What its files say, or what is wrong with them.
    pub about: Result<About, String>,
}

impl OnDisk {
    /// The length of its files; of a damaged model, of the first.
    pub fn bytes(&self) -> u64 {
        self.about.as_ref().map_or(self.found.bytes, |about| about.bytes)
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Index {
    version: u32,
    models: BTreeMap<PathBuf, Remembered>,
}

/// What was read of a file, as it was then.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Remembered {
    bytes: u64,
    modified: Duration,
    about: About,
}

/// All models. Only those are opened that `index` does not know as they are.
pub fn inventory(places: &Places, index: Option<&Path>) -> Vec<OnDisk> {
    let found = scan(places);
    let known = index.map(load).unwrap_or_default();
    let remembered = |found: &Found| {
        known
            .models
            .get(&found.path)
            .filter(|model| model.bytes == found.bytes && model.modified == since_epoch(found.modified))
            // Of a split model, a part may be gone.
            .filter(|model| model.about.files[1..].iter().all(|file| file.exists()))
            .map(|model| model.about.clone())
    };
    let abouts: Vec<_> = found.iter().map(remembered).collect();
    let unknown: Vec<&Found> = found
        .iter()
        .zip(&abouts)
        .filter(|(_, about)| about.is_none())
        .map(|(found, _)| found)
        .collect();
    let mut read = read_all(&unknown).into_iter();
    let models: Vec<OnDisk> = found
        .iter()
        .cloned()
        .zip(abouts)
        .map(|(found, about)| {
            // One was read for each that was not known.
            let about = about.map(Ok).or_else(|| read.next());
            OnDisk {
                found,
                about: about.unwrap_or_else(|| Err("it was not read".to_owned())),
            }
        })
        .collect();
    if let Some(index) = index.filter(|_| !unknown.is_empty() || known.models.len() != models.len()) {
        // It saves time and nothing else.
        if let Err(error) = save(index, &models) {
            tracing::debug!(%error, index = %index.display(), "the index of models was not written");
        }
    }
    models
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// Reads headers, in the order of `files`.
fn read_all(files: &[&Found]) -> Vec<Result<About, String>> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut read = Vec::new();
        while let Some(found) = {
            let index = next.fetch_add(1, Ordering::Relaxed);
            files.get(index).map(|found| (index, found))
        } {
            let (index, found) = found;
            read.push((index, About::read(&found.path).map_err(|error| error.to_string())));
        }
        read
    };
    let mut read: Vec<_> = thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS.min(files.len())).map(|_| scope.spawn(work)).collect();
        readers
            .into_iter()
            .flat_map(|reader| reader.join().unwrap_or_default())
            .collect()
    });
    read.sort_by_key(|(index, _)| *index);
    read.into_iter().map(|(_, about)| about).collect()
}

fn load(path: &Path) -> Index {
    let index: Option<Index> = fs::read(path)
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok());
    index
        .filter(|index| index.version == VERSION)
        .filter(|index| index.models.values().all(|model| !model.about.files.is_empty()))
        .unwrap_or_default()
}

/// Writes the index so that nobody ever reads a part of it.
fn save(path: &Path, models: &[OnDisk]) -> std::io::Result<()> {
    let models = models.iter().filter_map(|model| {
        let remembered = Remembered {
            bytes: model.found.bytes,
            modified: since_epoch(model.found.modified),
            about: model.about.clone().ok()?,
        };
        Some((model.found.path.clone(), remembered))
    });
    let index = Index {
        version: VERSION,
        models: models.collect(),
    };
    let mut file = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(Path::new(".")))?;
    file.write_all(&serde_json::to_vec(&index)?)?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TINY: &[u8] = include_bytes!("../../assets/mesh-tiny.gguf");

    struct Disk(tempfile::TempDir);

    impl Disk {
        fn inventory(&self) -> Vec<OnDisk> {
            let places = Places {
                store: Some(self.0.path().join("store")),
                others: Vec::new(),
            };
            inventory(&places, Some(&self.0.path().join(INDEX)))
        }

        fn index(&self) -> Index {
            load(&self.0.path().join(INDEX))
        }
    }

    fn disk() -> Disk {
        let root = tempfile::tempdir().unwrap();
        let store = root.path().join("store");
        fs::create_dir(&store).unwrap();
        fs::write(store.join("a.gguf"), TINY).unwrap();
        fs::write(store.join("broken.gguf"), &TINY[..2000]).unwrap();
        Disk(root)
    }

    #[test]
    fn what_was_read_once_is_not_read_again() {
        let disk = disk();
        let first = disk.inventory();
        assert_eq!(first[0].about.as_ref().unwrap().architecture, "llama");
        assert!(first[1].about.is_err());
        assert_eq!(disk.index().models.len(), 1);
        // What the index says is believed as long as size and time are the same.
        let index = disk.0.path().join(INDEX);
        let text = fs::read_to_string(&index)
            .unwrap()
            .replace("\"llama\"", "\"other\"");
        fs::write(&index, text).unwrap();
        assert_eq!(disk.inventory()[0].about.as_ref().unwrap().architecture, "other");
        let file = fs::File::options()
            .append(true)
            .open(&first[0].found.path)
            .unwrap();
        file.set_modified(SystemTime::now() + Duration::from_secs(9))
            .unwrap();
        assert_eq!(disk.inventory()[0].about.as_ref().unwrap().architecture, "llama");
    }

    #[test]
    fn an_index_that_makes_no_sense_is_made_anew() {
        let disk = disk();
        let expected = disk.inventory();
        for text in ["", "{", r#"{"version":0,"models":{}}"#, "[]"] {
            fs::write(disk.0.path().join(INDEX), text).unwrap();
            assert_eq!(disk.inventory(), expected);
            assert_eq!(disk.index().models.len(), 1, "{text}");
        }
    }
}
