//! Which bytes of a download are on the disk for certain: the file `NAME.part.json`.

use super::Error;
use super::facts::{Facts, Identity};
use rangemap::RangeSet;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

const VERSION: u32 = 1;

/// More is not a record of ours.
const MAX_BYTES: u64 = 1 << 20;

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    version: u32,
    bytes: u64,
    identity: Identity,
    /// Ranges, each from its first byte to the one after its last.
    durable: Vec<(u64, u64)>,
}

/// What is durable of the file that the facts are about: nothing, if the record is of another file,
/// or unreadable.
pub(super) fn read(path: &Path, facts: &Facts) -> Option<RangeSet<u64>> {
    let record = load(path)?;
    let same = record.bytes == facts.bytes && Some(&record.identity) == facts.identity.as_ref();
    same.then(|| record.durable.iter().map(|(start, end)| *start..*end).collect())
}

/// How many bytes are durable, and of how many, whatever file it is.
pub(super) fn progress(path: &Path) -> Option<(u64, u64)> {
    let record = load(path)?;
    let durable = record.durable.iter().map(|(start, end)| end - start).sum();
    Some((durable, record.bytes))
}

fn load(path: &Path) -> Option<Record> {
    let length = path.metadata().ok()?.len();
    let text = (length <= MAX_BYTES).then(|| std::fs::read(path).ok())??;
    let record: Record = serde_json::from_slice(&text).ok()?;
    let sound = |(start, end): &(u64, u64)| start < end && *end <= record.bytes;
    (record.version == VERSION && record.durable.iter().all(sound)).then_some(record)
}

/// Puts the record where the old one was, in one step. The bytes that it speaks of must have been
/// synchronised before.
pub(super) fn write(path: &Path, facts: &Facts, durable: &RangeSet<u64>) -> Result<(), Error> {
    let Some(identity) = facts.identity.clone() else {
        return Ok(());
    };
    let record = Record {
        version: VERSION,
        bytes: facts.bytes,
        identity,
        durable: durable.iter().map(|range| (range.start, range.end)).collect(),
    };
    let new = path.with_added_extension("new");
    let written = serde_json::to_vec(&record)
        .map_err(io::Error::from)
        .and_then(|text| {
            let mut file = File::create(&new)?;
            file.write_all(&text)?;
            file.sync_all()?;
            std::fs::rename(&new, path)
        });
    written.map_err(Error::disk(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            bytes: 100,
            sha256: None,
            identity: Some(Identity::Etag("\"a\"".to_owned())),
            ranges: true,
        }
    }

    #[test]
    fn a_record_counts_for_the_same_file_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.part.json");
        let durable: RangeSet<u64> = [0..10, 20..100].into_iter().collect();
        write(&path, &facts(), &durable).unwrap();
        assert_eq!(read(&path, &facts()), Some(durable));
        let longer = Facts {
            bytes: 101,
            ..facts()
        };
        let other = Facts {
            identity: Some(Identity::Etag("\"b\"".to_owned())),
            ..facts()
        };
        let nameless = Facts {
            identity: None,
            ..facts()
        };
        for facts in [longer, other, nameless] {
            assert_eq!(read(&path, &facts), None, "{facts:?}");
        }
    }

    #[test]
    fn nonsense_is_no_record() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.part.json");
        let text = |version, durable| {
            format!(
                r#"{{"version":{version},"bytes":100,"identity":{{"etag":"\"a\""}},"durable":{durable}}}"#
            )
        };
        std::fs::write(&path, text(1, "[[0,100]]")).unwrap();
        assert!(read(&path, &facts()).is_some());
        for nonsense in [
            String::new(),
            "{".to_owned(),
            text(2, "[[0,100]]"),
            text(1, "[[0,101]]"),
            text(1, "[[7,7]]"),
            text(1, "[[9,7]]"),
        ] {
            std::fs::write(&path, &nonsense).unwrap();
            assert_eq!(read(&path, &facts()), None, "{nonsense}");
        }
    }
}
