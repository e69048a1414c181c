//! The file that bytes are written to, before it has its name.

use super::disk::{Paths, check_space, remove, reserve, sync_folder};
use super::facts::Facts;
use super::lock::Lock;
use super::{Error, record};
use rangemap::RangeSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A request asks for no less, or the time between requests would count.
const MIN_PIECE: u64 = 4 << 20;

/// Nor for more: what arrives out of order is hashed late.
const MAX_PIECE: u64 = 64 << 20;

/// A file that is being downloaded. While anything of it is in use, the lock is held.
#[derive(Debug)]
pub(super) struct Part {
    paths: Paths,
    facts: Facts,
    file: File,
    state: Mutex<State>,
    changed: Condvar,
    /// The length of what was durable last; held while that grows.
    recorded: Mutex<u64>,
    _lock: Arc<Lock>,
}

#[derive(Debug, Default)]
struct State {
    written: RangeSet<u64>,
    /// Written, or on its way to be.
    claimed: RangeSet<u64>,
    hashed: u64,
    /// Nothing more will be written.
    closed: bool,
    /// Nobody wants the hash any more.
    abandoned: bool,
}

impl Part {
    /// Continues what an earlier attempt left, if it was of the same file, or begins; either way there
    /// is room on the disk afterwards.
    pub(super) fn open(paths: Paths, facts: &Facts, lock: Arc<Lock>) -> Result<Self, Error> {
        let length = paths.part.metadata().map(|metadata| metadata.len()).ok();
        let durable = match record::read(&paths.record, facts) {
            Some(durable) if length == Some(facts.bytes) => durable,
            _ => {
                // The record first, for good: what follows must never be taken for durable.
                remove(&paths.record)?;
                sync_folder(paths.folder()).map_err(Error::disk(paths.folder()))?;
                remove(&paths.part)?;
                RangeSet::new()
            }
        };
        check_space(&paths, facts.bytes)?;
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&paths.part);
        let file = file.map_err(Error::disk(&paths.part))?;
        reserve(&file, facts.bytes).map_err(Error::disk(&paths.part))?;
        Ok(Self {
            paths,
            facts: facts.clone(),
            file,
            recorded: Mutex::new(length_of(&durable)),
            state: Mutex::new(State {
                claimed: durable.clone(),
                written: durable,
                ..State::default()
            }),
            changed: Condvar::new(),
            _lock: lock,
        })
    }

    /// Writes bytes that were claimed to where they belong. Several threads may do so at once.
    pub(super) fn write(&self, at: u64, bytes: &[u8]) -> Result<(), Error> {
        write_at(&self.file, at, bytes).map_err(Error::disk(&self.paths.part))?;
        let mut state = self.state();
        state.written.insert(at..at + bytes.len() as u64);
        self.changed.notify_all();
        Ok(())
    }

    /// Nothing more will be written.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.changed.notify_all();
    }

    /// Takes the next bytes to download, for one of so many connections; what is left at the end is
    /// cut smaller, so that they finish together.
    pub(super) fn claim(&self, connections: u64) -> Option<Range<u64>> {
        let mut state = self.state();
        let all = 0..self.facts.bytes;
        let gap = state.claimed.gaps(&all).next()?;
        let piece = if self.facts.ranges {
            let left = self.facts.bytes - length_of(&state.claimed);
            let size = (left / (2 * connections.max(1))).clamp(MIN_PIECE, MAX_PIECE);
            gap.start..gap.end.min(gap.start + size)
        } else {
            // The server starts at the first byte whatever is asked.
            gap.start..all.end
        };
        state.claimed.insert(piece.clone());
        Some(piece)
    }

    /// Gives bytes back that could not be downloaded.
    pub(super) fn give_back(&self, piece: Range<u64>) {
        if !piece.is_empty() {
            self.state().claimed.remove(piece);
        }
    }

    /// How many bytes are written, or about to be.
    pub(super) fn claimed_bytes(&self) -> u64 {
        length_of(&self.state().claimed)
    }

    /// How many bytes are written.
    pub(super) fn written_bytes(&self) -> u64 {
        length_of(&self.state().written)
    }

    /// How many bytes, from the first, are hashed.
    pub(super) fn hashed_bytes(&self) -> u64 {
        self.state().hashed
    }

    /// Says how many are hashed and waits until there are more, from the first without a gap; returns
    /// how many there are, or None if no more will come.
    pub(super) fn wait_beyond(&self, hashed: u64) -> Option<u64> {
        let mut state = self.state();
        state.hashed = hashed;
        loop {
            let whole = prefix(&state.written);
            let hopeless = state.closed && whole < self.facts.bytes;
            if state.abandoned || hopeless || hashed == self.facts.bytes {
                return None;
            }
            if whole > hashed {
                return Some(whole);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Nobody will ask for the hash.
    pub(super) fn abandon(&self) {
        self.state().abandoned = true;
        self.changed.notify_all();
    }

    /// Makes durable what is written by now, then records it. Blocks.
    pub(super) fn checkpoint(&self) -> Result<(), Error> {
        let mut recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        let written = self.state().written.clone();
        let length = length_of(&written);
        if length == *recorded {
            return Ok(());
        }
        self.file.sync_data().map_err(Error::disk(&self.paths.part))?;
        record::write(&self.paths.record, &self.facts, &written)?;
        *recorded = length;
        Ok(())
    }

    /// Throws everything away.
    pub(super) fn discard(&self) -> Result<(), Error> {
        remove(&self.paths.record)?;
        remove(&self.paths.part)
    }

    /// The bytes, to read.
    pub(super) fn path(&self) -> &Path {
        &self.paths.part
    }

    /// The file's length once it is whole.
    pub(super) fn bytes(&self) -> u64 {
        self.facts.bytes
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(unix)]
fn write_at(file: &File, at: u64, bytes: &[u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, at)
}

#[cfg(windows)]
fn write_at(file: &File, mut at: u64, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_write(file, bytes, at)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => {
                at += written as u64;
                bytes = &bytes[written..];
            }
        }
    }
    Ok(())
}

fn length_of(ranges: &RangeSet<u64>) -> u64 {
    ranges.iter().map(|range| range.end - range.start).sum()
}

fn prefix(ranges: &RangeSet<u64>) -> u64 {
    ranges.get(&0).map_or(0, |range| range.end)
}

#[cfg(test)]
mod tests {
    use super::super::facts::Identity;
    use super::*;
    use proptest::prelude::*;

    fn facts(bytes: u64, ranges: bool) -> Facts {
        Facts {
            bytes,
            sha256: None,
            identity: Some(Identity::Etag("\"a\"".to_owned())),
            ranges,
        }
    }

    fn open(folder: &Path, facts: &Facts) -> Result<Part, Error> {
        let paths = Paths::of(&folder.join("m.gguf"));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let lock = runtime.block_on(Lock::acquire(&paths.lock, || ())).unwrap();
        Part::open(paths, facts, Arc::new(lock))
    }

    /// Lets bytes arrive at these places, in this order.
    fn arrive(part: &Part, places: &[(u64, u64)]) {
        for (start, end) in places {
            part.write(*start, &vec![1; (end - start) as usize]).unwrap();
        }
    }

    #[test]
    fn only_what_was_recorded_is_trusted() {
        let folder = tempfile::tempdir().unwrap();
        let facts = facts(100, true);
        let part = open(folder.path(), &facts).unwrap();
        arrive(&part, &[(0, 10), (50, 60)]);
        part.checkpoint().unwrap();
        arrive(&part, &[(10, 20)]);
        drop(part);
        let part = open(folder.path(), &facts).unwrap();
        assert_eq!(part.written_bytes(), 20);
        assert_eq!(part.claim(1), Some(10..50));
        drop(part);
        // A part that is shorter than the record says is not the one that it was written for.
        File::options()
            .write(true)
            .open(folder.path().join("m.gguf.part"))
            .unwrap()
            .set_len(60)
            .unwrap();
        assert_eq!(open(folder.path(), &facts).unwrap().written_bytes(), 0);
    }

    #[test]
    fn another_file_starts_over() {
        let folder = tempfile::tempdir().unwrap();
        let part = open(folder.path(), &facts(100, true)).unwrap();
        arrive(&part, &[(0, 100)]);
        part.checkpoint().unwrap();
        drop(part);
        let other = Facts {
            identity: Some(Identity::Etag("\"b\"".to_owned())),
            ..facts(100, true)
        };
        assert_eq!(open(folder.path(), &other).unwrap().written_bytes(), 0);
        assert_eq!(
            std::fs::read(folder.path().join("m.gguf.part")).unwrap(),
            [0; 100]
        );
        assert_eq!(open(folder.path(), &facts(100, true)).unwrap().written_bytes(), 0);
    }

    #[test]
    fn what_does_not_fit_is_refused_with_numbers_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let error = open(folder.path(), &facts(1 << 60, true)).unwrap_err();
        let Error::Space { needed, free, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!(*needed, 1 << 60);
        assert!(error.to_string().contains(&free.to_string()), "{error}");
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn without_ranges_one_connection_gets_everything() {
        let folder = tempfile::tempdir().unwrap();
        let part = open(folder.path(), &facts(1 << 30, false)).unwrap();
        assert_eq!(part.claim(4), Some(0..1 << 30));
        assert_eq!(part.claim(4), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_byte_is_claimed_once(
            bytes in 0u64..(2 << 30),
            connections in 1u64..9,
            fates in prop::collection::vec(0u64..101, 0..20),
        ) {
            let folder = tempfile::tempdir().unwrap();
            // Of the file only its holes are on the disk.
            let part = open(folder.path(), &facts(bytes, true)).unwrap();
            let (mut brought, mut fates) = (RangeSet::new(), fates.into_iter());
            while let Some(piece) = part.claim(connections) {
                prop_assert!(!piece.is_empty() && piece.end - piece.start <= MAX_PIECE);
                // Part of it arrives, the rest is given back.
                let percent = fates.next().unwrap_or(100);
                let end = piece.start + (piece.end - piece.start) * percent / 100;
                part.give_back(end..piece.end);
                if end > piece.start {
                    prop_assert!(!brought.overlaps(&(piece.start..end)));
                    brought.insert(piece.start..end);
                }
            }
            prop_assert_eq!(length_of(&brought), bytes);
        }
    }
}
