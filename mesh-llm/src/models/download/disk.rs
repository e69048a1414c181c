//! Files and folders of a download, and the room that they need.

use super::Error;
use fs4::FileExt;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Where a download keeps its things.
#[derive(Debug, Clone)]
pub(super) struct Paths {
    /// The bytes.
    pub(super) part: PathBuf,
    /// Which of them are durable.
    pub(super) record: PathBuf,
    /// Held while they change.
    pub(super) lock: PathBuf,
}

impl Paths {
    /// Those for a file that will have this path.
    pub(super) fn of(target: &Path) -> Self {
        let part = target.with_added_extension("part");
        Self {
            record: part.with_added_extension("json"),
            lock: part.with_added_extension("lock"),
            part,
        }
    }

    /// The folder of all of them.
    pub(super) fn folder(&self) -> &Path {
        self.part.parent().unwrap_or(Path::new("."))
    }
}

/// Refuses files that do not fit together into the folder, by their names and lengths. What is there
/// of them counts.
pub fn check_room(folder: &Path, files: &[(&str, u64)]) -> Result<(), Error> {
    let mut needed = 0u64;
    for (name, bytes) in files {
        let target = folder.join(name);
        if !target.is_file() {
            needed = needed.saturating_add(missing(&Paths::of(&target), *bytes)?);
        }
    }
    // The store is made by its first download.
    let there = folder.ancestors().find(|folder| folder.is_dir());
    check(there.unwrap_or(Path::new(".")), needed)
}

/// Refuses what does not fit.
pub(super) fn check_space(paths: &Paths, bytes: u64) -> Result<(), Error> {
    check(paths.folder(), missing(paths, bytes)?)
}

/// What the disk must still give to a file of this length.
fn missing(paths: &Paths, bytes: u64) -> Result<u64, Error> {
    let taken = match File::open(&paths.part).and_then(|file| file.allocated_size()) {
        Ok(taken) => taken,
        Err(error) if error.kind() == ErrorKind::NotFound => 0,
        Err(error) => return Err(Error::disk(&paths.part)(error)),
    };
    Ok(bytes.saturating_sub(taken))
}

fn check(folder: &Path, needed: u64) -> Result<(), Error> {
    if needed == 0 {
        return Ok(());
    }
    let free = fs4::available_space(folder).map_err(Error::disk(folder))?;
    match needed > free {
        true => Err(Error::Space {
            folder: folder.to_owned(),
            needed,
            free,
        }),
        false => Ok(()),
    }
}

/// Takes the room now rather than failing in the middle, and gives the file its length.
pub(super) fn reserve(file: &File, bytes: u64) -> io::Result<()> {
    // A file system that cannot reserve room can still have a file with holes.
    let unable = [ErrorKind::Unsupported, ErrorKind::InvalidInput];
    match file.allocate(bytes) {
        Err(error) if bytes > 0 && !unable.contains(&error.kind()) => Err(error),
        _ => file.set_len(bytes),
    }
}

/// Removes a file that may not be there.
pub(super) fn remove(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::disk(path)(error)),
        _ => Ok(()),
    }
}

/// Makes durable which names the folder has.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    // Elsewhere folders cannot be opened, and renames are durable without it.
    if cfg!(unix) {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_fit_alone_but_not_together_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("not/yet/there");
        let most = fs4::available_space(folder.path()).unwrap() / 10 * 6;
        check_room(&store, &[("a", most)]).unwrap();
        let error = check_room(&store, &[("a", most), ("b", most)]).unwrap_err();
        assert!(
            matches!(error, Error::Space { needed, .. } if needed == 2 * most),
            "{error}"
        );
        // One that is there needs nothing more.
        std::fs::create_dir_all(&store).unwrap();
        std::fs::write(store.join("a"), "whole").unwrap();
        check_room(&store, &[("a", most), ("b", most)]).unwrap();
    }
}
