//! How a file is told to be as it was.

use serde::{Deserialize, Serialize};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

/// What the operating system says of a file that changes when it is written to or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    /// The file's length in bytes.
    pub bytes: u64,
    /// When it was last written: seconds and nanoseconds since 1970.
    modified: (i64, i64),
    /// When anything about it was last changed, which nobody can set back as `cp -p` does with the above.
    changed: (i64, i64),
    device: u64,
    inode: u64,
}

impl Stamp {
    /// The stamp of a file of which the operating system says this.
    pub fn of(metadata: &fs::Metadata) -> Self {
        Self {
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }

    /// Which file of this machine it is, whatever its name.
    pub fn file(&self) -> (u64, u64) {
        (self.device, self.inode)
    }

    /// Whether the same file's content is what it was. Renaming, linking and deleting change nothing of
    /// a file that is open.
    pub fn same_content(&self, earlier: &Self) -> bool {
        (self.file(), self.bytes, self.modified) == (earlier.file(), earlier.bytes, earlier.modified)
    }

    /// Whether the file was last changed so long before `now` that another change would not get the
    /// same time: file systems count in steps of up to 2 s.
    pub fn is_settled(&self, now: SystemTime, settling: Duration) -> bool {
        let (seconds, nanoseconds) = self.changed.max(self.modified);
        let changed = Duration::new(
            u64::try_from(seconds).unwrap_or(0),
            u32::try_from(nanoseconds).unwrap_or(0),
        );
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        now.checked_sub(changed).is_some_and(|age| age >= settling)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_just_now_is_not_settled() {
        let stamp = Stamp {
            bytes: 1,
            modified: (100, 0),
            changed: (100, 500_000_000),
            device: 1,
            inode: 1,
        };
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let settling = Duration::from_secs(2);
        assert!(!stamp.is_settled(at(99), settling));
        assert!(!stamp.is_settled(at(102), settling));
        assert!(stamp.is_settled(at(103), settling));
    }
}
