//! Slots' caches on disk, so that the chats of before a restart need no new prefill.
//!
//! A file is a header, which says what model, build and tokens it is of, and llama.cpp's bytes,
//! with a checksum over all: what is torn, damaged or of something else is passed over. Files are
//! within a number of bytes; the one used longest ago goes.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crc32fast::Hasher;
use serde::{Deserialize, Serialize};

use crate::llama::Token;

/// The first bytes of a file; the number changes with the form.
const MAGIC: [u8; 8] = *b"MESHKV01";

/// The longest header: one with ten million tokens.
const MOST_HEADER_BYTES: u32 = 100 << 20;

/// The ending of files' names.
const ENDING: &str = "slot";

/// What the name of a file begins with that is being written.
const UNFINISHED: &str = ".saving-";

/// A file that has been written for so long was left by a process that was killed.
const LEFT_AFTER: Duration = Duration::from_secs(600);

/// Fewer tokens are computed as fast as they are read.
const LEAST_TOKENS: usize = 64;

/// Where caches are kept, and whose.
#[derive(Debug, Clone)]
pub struct SlotFiles {
    folder: PathBuf,
    most_bytes: u64,
    /// Tells model, build and kind of cache.
    identity: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    identity: String,
    tokens: Vec<Token>,
    state_bytes: u64,
}

/// A slot's cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// What it is the cache of.
    pub tokens: Vec<Token>,
    /// llama.cpp's bytes.
    pub state: Vec<u8>,
}

impl SlotFiles {
    /// Files in `folder`, of at most so many bytes together.
    pub fn new(folder: PathBuf, most_bytes: u64, identity: String) -> Self {
        Self {
            folder,
            most_bytes,
            identity,
        }
    }

    /// The most bytes of all files together.
    pub fn most_bytes(&self) -> u64 {
        self.most_bytes
    }

    /// Whether a cache of so many tokens is worth a file.
    pub fn is_worthwhile(tokens: usize) -> bool {
        tokens >= LEAST_TOKENS
    }

    /// Writes a cache; the same tokens' file is replaced. Files that it makes one too many go.
    ///
    /// # Errors
    /// Where the disk does not take it.
    pub fn save(&self, tokens: &[Token], state: &[u8]) -> io::Result<()> {
        let header = serde_json::to_vec(&Header {
            identity: self.identity.clone(),
            tokens: tokens.to_owned(),
            state_bytes: state.len() as u64,
        })?;
        let header_length = u32::try_from(header.len()).map_err(io::Error::other)?;
        let length = (MAGIC.len() + 4 + header.len() + state.len() + 4) as u64;
        if length > self.most_bytes || header_length > MOST_HEADER_BYTES {
            return Ok(());
        }
        fs::create_dir_all(&self.folder)?;
        let mut name = Hasher::new();
        name.update(&header);
        let path = self.folder.join(format!(
            "{:08x}-{}.{ENDING}",
            name.clone().finalize(),
            tokens.len()
        ));
        self.make_room(length, &path)?;
        let mut checksum = Hasher::new();
        self.remove_leftovers();
        let mut file = tempfile::Builder::new()
            .prefix(UNFINISHED)
            .tempfile_in(&self.folder)?;
        for bytes in [&MAGIC[..], &header_length.to_le_bytes(), &header, state] {
            checksum.update(bytes);
            file.write_all(bytes)?;
        }
        file.write_all(&checksum.finalize().to_le_bytes())?;
        file.as_file().sync_data()?;
        file.persist(path)?;
        Ok(())
    }

    /// The caches of this model and build, the newest first. Each is read when it is asked for.
    pub fn load(&self) -> impl Iterator<Item = Saved> {
        self.files().into_iter().rev().filter_map(|(_, _, path)| {
            let saved = self.read(&path);
            if saved.is_none() {
                tracing::debug!(path = %path.display(), "a saved slot is of something else, or damaged");
            }
            saved
        })
    }

    /// Removes those used longest ago, until there is room for so many bytes more.
    fn make_room(&self, bytes: u64, replaced: &Path) -> io::Result<()> {
        let files: Vec<_> = self
            .files()
            .into_iter()
            .filter(|(_, _, path)| path != replaced)
            .collect();
        let mut all: u64 = files.iter().map(|(_, length, _)| length).sum();
        for (_, length, path) in files {
            if all + bytes <= self.most_bytes {
                break;
            }
            match fs::remove_file(path) {
                // Another process may have been before.
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => all -= length,
            }
        }
        Ok(())
    }

    /// Removes what processes left that were killed while they saved.
    fn remove_leftovers(&self) {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(UNFINISHED)) {
            let age = entry.metadata().and_then(|metadata| metadata.modified());
            let is_old = age.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > LEFT_AFTER));
            // What cannot be removed is in nobody's way but the disk's.
            let _ = is_old.then(|| fs::remove_file(entry.path()));
        }
    }

    /// All files with their times and lengths, the oldest first.
    fn files(&self) -> Vec<(SystemTime, u64, PathBuf)> {
        let Ok(entries) = fs::read_dir(&self.folder) else {
            return Vec::new();
        };
        let mut files: Vec<_> = entries
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                let metadata = path.metadata().ok()?;
                let ours = path.extension().is_some_and(|ending| ending == ENDING);
                ours.then(|| {
                    (
                        metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                        metadata.len(),
                        path,
                    )
                })
            })
            .collect();
        files.sort();
        files
    }

    fn read(&self, path: &Path) -> Option<Saved> {
        let file = File::open(path).ok()?;
        let length = file.metadata().ok()?.len();
        let mut file = Checked {
            from: BufReader::with_capacity(1 << 20, file),
            checksum: Hasher::new(),
        };
        let mut magic = [0; MAGIC.len()];
        file.read_exact(&mut magic).ok()?;
        let header_length = u32::from_le_bytes(file.number().ok()?);
        if magic != MAGIC || header_length > MOST_HEADER_BYTES || u64::from(header_length) > length {
            return None;
        }
        let mut header = vec![0; header_length as usize];
        file.read_exact(&mut header).ok()?;
        let header: Header = serde_json::from_slice(&header).ok()?;
        let expected = MAGIC.len() as u64 + 4 + u64::from(header_length) + header.state_bytes + 4;
        if header.identity != self.identity || expected != length {
            return None;
        }
        // No longer than the file, so that memory is taken for what is there.
        let mut state = vec![0; usize::try_from(header.state_bytes).ok()?];
        file.read_exact(&mut state).ok()?;
        let checksum = file.checksum.clone().finalize();
        (u32::from_le_bytes(file.number().ok()?) == checksum).then_some(Saved {
            tokens: header.tokens,
            state,
        })
    }
}

/// Reads, and sums up what it read.
struct Checked<R> {
    from: R,
    checksum: Hasher,
}

impl<R: Read> Checked<R> {
    fn read_exact(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.from.read_exact(bytes)?;
        self.checksum.update(bytes);
        Ok(())
    }

    fn number(&mut self) -> io::Result<[u8; 4]> {
        let mut number = [0; 4];
        self.read_exact(&mut number)?;
        Ok(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn files(folder: &Path, most_bytes: u64, identity: &str) -> SlotFiles {
        SlotFiles::new(folder.to_owned(), most_bytes, identity.to_owned())
    }

    fn tokens(of: &SlotFiles) -> Vec<Vec<Token>> {
        of.load().map(|saved| saved.tokens).collect()
    }

    #[test]
    fn what_was_saved_is_loaded_the_newest_first_and_only_by_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let ours = files(folder.path(), 1 << 20, "ours");
        for (seconds, tokens) in [(1, [1, 2]), (2, [3, 4])] {
            ours.save(&tokens, b"state").unwrap();
            let written = ours.files().into_iter().max().unwrap().2;
            let file = File::options().append(true).open(written).unwrap();
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            file.set_modified(time).unwrap();
        }
        ours.save(&[3, 4], b"other").unwrap();
        assert_eq!(tokens(&ours), [[3, 4], [1, 2]]);
        assert_eq!(ours.load().next().unwrap().state, b"other");
        assert_eq!(
            tokens(&files(folder.path(), 1 << 20, "other build")),
            Vec::<Vec<Token>>::new()
        );
    }

    #[test]
    fn the_oldest_goes_where_there_is_no_room() {
        let folder = tempfile::tempdir().unwrap();
        let state = [7; 1000];
        for number in 0..10 {
            let ours = files(folder.path(), 3500, "ours");
            ours.save(&[number; 3], &state).unwrap();
            let all: u64 = ours.files().iter().map(|(_, length, _)| length).sum();
            assert!(all <= 3500);
        }
        assert_eq!(tokens(&files(folder.path(), 3500, "ours")).len(), 3);
        files(folder.path(), 500, "ours").save(&[1], &state).unwrap();
        assert_eq!(
            tokens(&files(folder.path(), 3500, "ours")).len(),
            3,
            "what never fits removes nothing"
        );
    }

    #[test]
    fn what_a_killed_process_left_goes() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (
            folder.path().join(".saving-old"),
            folder.path().join(".saving-new"),
        );
        for path in [&old, &new] {
            fs::write(path, "half").unwrap();
        }
        let file = File::options().append(true).open(&old).unwrap();
        file.set_modified(SystemTime::now() - 2 * LEFT_AFTER).unwrap();
        files(folder.path(), 1 << 20, "ours")
            .save(&[1], b"state")
            .unwrap();
        assert!(!old.exists() && new.exists());
    }

    proptest! {
        #[test]
        fn a_torn_or_damaged_file_is_passed_over(
            state in prop::collection::vec(any::<u8>(), 1..300),
            cut in any::<prop::sample::Index>(),
            flip in any::<prop::sample::Index>(),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let ours = files(folder.path(), 1 << 20, "ours");
            ours.save(&[1, 2, 3], &state).unwrap();
            let path = ours.files().remove(0).2;
            let bytes = fs::read(&path).unwrap();
            fs::write(&path, &bytes[..cut.index(bytes.len())]).unwrap();
            prop_assert_eq!(ours.load().count(), 0);
            let mut damaged = bytes.clone();
            damaged[flip.index(bytes.len())] ^= 1;
            fs::write(&path, damaged).unwrap();
            prop_assert_eq!(ours.load().count(), 0);
            fs::write(&path, bytes).unwrap();
            prop_assert_eq!(ours.load().count(), 1);
        }
    }
}
