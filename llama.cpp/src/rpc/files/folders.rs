//! The files in model directories that may be models.

use super::stamp::Stamp;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// How deep directories are looked into: the hub's cache needs five levels.
const MOST_LEVELS: u32 = 8;
/// Entries that are looked at in all; more are not a user's models.
pub(super) const MOST_ENTRIES: usize = 100_000;

/// The model files in some directories.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// Files whose name ends in `.gguf`, or is one of Ollama's, by name, and how they are.
    pub files: BTreeMap<PathBuf, Stamp>,
    /// Such names that are links out of all the directories, which are not followed.
    pub outside: usize,
    /// Whether there were more entries than are looked at.
    pub is_cut: bool,
}

/// Lists these directories, whose names must be without links, and those within them.
///
/// Links to files are followed where they lead to a place in any of these directories: the hub's cache has
/// each model as a link to a blob beside it. Links to directories are not followed, nor is anything looked
/// at whose name begins with a dot.
pub(super) fn list(folders: &[PathBuf], most_entries: usize) -> Listing {
    let mut walk = Walk {
        folders,
        left: most_entries,
        listing: Listing::default(),
    };
    for folder in folders {
        walk.folder(folder, MOST_LEVELS);
    }
    walk.listing
}

struct Walk<'a> {
    folders: &'a [PathBuf],
    left: usize,
    listing: Listing,
}

impl Walk<'_> {
    fn folder(&mut self, folder: &Path, levels: u32) {
        // Not readable, or gone: there is nothing to be found in it.
        let Ok(entries) = fs::read_dir(folder) else {
            return;
        };
        let mut folders = Vec::new();
        for entry in entries.flatten() {
            if self.left == 0 {
                self.listing.is_cut = true;
                return;
            }
            self.left -= 1;
            let path = entry.path();
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(path),
                Ok(kind) if is_gguf(&path) || is_blob(&path) => self.file(path, kind.is_symlink()),
                _ => {}
            }
        }
        if levels > 1 {
            folders.sort();
            for folder in folders {
                self.folder(&folder, levels - 1);
            }
        }
    }

    fn file(&mut self, path: PathBuf, is_link: bool) {
        if is_link {
            let Ok(target) = path.canonicalize() else {
                return;
            };
            if !self.folders.iter().any(|folder| target.starts_with(folder)) {
                self.listing.outside += 1;
                return;
            }
        }
        if let Ok(metadata) = fs::metadata(&path)
            && metadata.is_file()
        {
            self.listing.files.insert(path, Stamp::of(&metadata));
        }
    }
}

fn is_gguf(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
}

/// Whether it is called as Ollama calls its files, models among them: `blobs/sha256-` and the SHA-256.
fn is_blob(path: &Path) -> bool {
    let digest = path
        .file_name()
        .and_then(|name| name.to_str()?.strip_prefix("sha256-"));
    let in_store = path.parent().is_some_and(|folder| folder.ends_with("blobs"));
    in_store
        && digest.is_some_and(|digest| digest.len() == 64 && digest.bytes().all(|c| c.is_ascii_hexdigit()))
}
