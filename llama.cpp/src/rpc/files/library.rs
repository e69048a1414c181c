//! Finds the model of an identity in directories.

use super::fingerprint::{Identity, Outline};
use super::folders::{self, Listing};
use super::memory::{Known, Memory};
use super::{Error, WeightFile};
use crate::gguf::{ALIGNMENT_LIMIT, HEADER_LIMIT, part_path};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// The models in the directories of this machine's user, found by what they are and never by name.
#[derive(Debug)]
pub struct Library {
    folders: Vec<PathBuf>,
    memory: Memory,
    /// One search at a time: several at once for the same models would read the same files.
    searching: Mutex<()>,
}

/// What came of a search.
#[derive(Debug)]
pub struct Search {
    /// The model, open, if it is there.
    pub found: Option<WeightFile>,
    /// How it went.
    pub tally: Tally,
}

/// How a search went, for the log.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    /// Files with a name of model files.
    pub files: usize,
    /// Models whose headers were read: the one that was remembered, or those of which nothing was and whose
    /// length fits.
    pub opened: usize,
    /// Models whose tensor data was sampled.
    pub sampled: usize,
    /// Models that could not be read, or were changed meanwhile.
    pub failed: usize,
    /// Names that are links out of the model directories, which are not followed.
    pub outside: usize,
    /// Whether the directories hold more entries than are looked at.
    pub is_cut: bool,
}

impl Library {
    /// The models in these directories. They must exist; what is in them is looked at when a model is
    /// searched.
    ///
    /// # Errors
    ///
    /// [`Error::Folder`] for the first that is not a directory or cannot be read.
    pub fn new<P: AsRef<Path>>(folders: impl IntoIterator<Item = P>, memory: Memory) -> Result<Self, Error> {
        let real = |folder: P| {
            let folder = folder.as_ref();
            let read = folder.canonicalize().and_then(|real| {
                std::fs::read_dir(&real)?;
                Ok(real)
            });
            read.map_err(|source| Error::Folder {
                folder: folder.to_owned(),
                source,
            })
        };
        Ok(Self {
            folders: folders.into_iter().map(real).collect::<Result<_, _>>()?,
            memory,
            searching: Mutex::new(()),
        })
    }

    /// The directories, without links.
    pub fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    /// What is remembered of models.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The model that `wanted`, which may come from anybody, says. Models whose data do not add up to the
    /// right length are not opened, those with another tensor table are not sampled, and what is
    /// remembered is not read again. A model that cannot be read is passed over.
    pub fn find(&self, wanted: &Identity) -> Search {
        let _one = self.searching.lock();
        let listing = folders::list(&self.folders, folders::MOST_ENTRIES);
        let tally = Tally {
            files: listing.files.len(),
            outside: listing.outside,
            is_cut: listing.is_cut,
            ..Tally::default()
        };
        let mut search = Search { found: None, tally };
        let mut unknown = Vec::new();
        for path in listing.files.keys() {
            match self.recall(&listing, path) {
                Some(known) if known.outline != wanted.outline => {}
                Some(known) if known.fingerprint == Some(wanted.fingerprint) => {
                    search.look_at(path, wanted, &listing, &self.memory);
                }
                Some(known) if known.fingerprint.is_some() => {}
                _ if fits(&listing, path, &wanted.outline) => unknown.push(path),
                _ => {}
            }
            if search.found.is_some() {
                break;
            }
        }
        let mut seen = HashSet::new();
        for path in unknown {
            // Of one file under several names, one is enough.
            if search.found.is_none() && seen.insert(listing.files[path].file()) {
                search.look_at(path, wanted, &listing, &self.memory);
            }
        }
        self.memory.save();
        search
    }

    fn recall(&self, listing: &Listing, path: &Path) -> Option<Known> {
        self.memory.recall(path, |file| listing.files.get(file).copied())
    }
}

impl Search {
    /// Opens a model, and keeps it if it is the one.
    fn look_at(&mut self, path: &Path, wanted: &Identity, listing: &Listing, memory: &Memory) {
        match self.identify(path, wanted, listing, memory) {
            Ok(found) => self.found = found,
            Err(error) => {
                self.tally.failed += 1;
                tracing::debug!(%error, "a file was passed over in search of a model");
            }
        }
    }

    fn identify(
        &mut self,
        path: &Path,
        wanted: &Identity,
        listing: &Listing,
        memory: &Memory,
    ) -> Result<Option<WeightFile>, Error> {
        self.tally.opened += 1;
        let model = WeightFile::open(path)?;
        let files = model.stamps();
        // Each part must be one of the directories' own, as it was when they were listed.
        if let Some((file, _)) = files
            .iter()
            .find(|(file, stamp)| listing.files.get(file) != Some(stamp))
        {
            return Err(Error::Changed { file: file.clone() });
        }
        let outline = model.outline();
        if outline != wanted.outline {
            memory.remember(&files, outline, None);
            return Ok(None);
        }
        let (identity, sampled) = model.identify_counted(memory)?;
        self.tally.sampled += usize::from(sampled);
        Ok((identity == *wanted).then_some(model))
    }
}

/// Whether a file, alone or with the parts that its name says, can be a model with this outline by length.
fn fits(listing: &Listing, path: &Path, outline: &Outline) -> bool {
    let alone = listing.files.get(path).map(|stamp| stamp.bytes);
    let together = parts(path).and_then(|(prefix, count)| {
        (1..=count).try_fold(0u64, |sum, number| {
            let part = listing.files.get(&part_path(&prefix, number, count))?;
            sum.checked_add(part.bytes)
        })
    });
    // Each part has a header, and each tensor may be padded.
    let room = |parts: u32| {
        u64::from(parts)
            .saturating_mul(HEADER_LIMIT)
            .saturating_add(u64::from(outline.tensors).saturating_mul(ALIGNMENT_LIMIT.into()))
            .saturating_add(outline.tensor_bytes)
    };
    let within = |bytes: u64, parts| (outline.tensor_bytes..=room(parts)).contains(&bytes);
    // A name can be one of a part although the file is a whole model.
    alone.is_some_and(|bytes| within(bytes, 1))
        || parts(path)
            .zip(together)
            .is_some_and(|((_, count), bytes)| within(bytes, count))
}

/// What comes before `-00001-of-00003.gguf` in such a name, and the number of parts.
fn parts(path: &Path) -> Option<(PathBuf, u32)> {
    let stem = path.file_name()?.to_str()?.strip_suffix(".gguf")?;
    let (prefix, count) = stem.rsplit_once("-of-")?;
    let prefix = prefix.strip_suffix("-00001")?;
    let count = Some(count).filter(|count| count.len() == 5)?.parse().ok()?;
    Some((path.with_file_name(prefix), count))
}
