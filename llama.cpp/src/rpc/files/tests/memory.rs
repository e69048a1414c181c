//! What is remembered of files, and when not.

use super::{identity, memory, model};
use crate::rpc::files::memory::MOST_RECORDS;
use crate::rpc::files::stamp::Stamp;
use crate::rpc::files::{Identity, Memory, WeightFile};
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

struct Disk {
    directory: tempfile::TempDir,
    model: PathBuf,
    file: PathBuf,
}

fn disk() -> Disk {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.gguf");
    model(1).write(&path).unwrap();
    Disk {
        model: path,
        file: directory.path().join("fingerprints.json"),
        directory,
    }
}

impl Disk {
    /// The model's identity, and whether it had to be sampled.
    fn identify(&self, memory: &Memory) -> (Identity, bool) {
        let weights = WeightFile::open(&self.model).unwrap();
        let identified = weights.identify_counted(memory).unwrap();
        memory.save();
        identified
    }
}

#[test]
fn what_was_computed_once_is_not_computed_again() {
    let disk = disk();
    let (first, sampled) = disk.identify(&memory(Some(&disk.file)));
    assert!(sampled);
    let again = memory(Some(&disk.file));
    assert_eq!(disk.identify(&again), (first, false));
    assert_eq!(disk.identify(&again), (first, false));
    // Another content under the same name.
    model(2).write(&disk.model).unwrap();
    let (other, sampled) = disk.identify(&again);
    assert!(sampled && other != first);
    assert_eq!(other, identity(&disk.model));
    assert_eq!(again.len(), 1);
}

#[test]
fn a_part_that_changed_is_another_model() {
    let directory = tempfile::tempdir().unwrap();
    let write = |salt| {
        let parts = model(salt).write_parts(directory.path().join("model"), &[0, 4, 1]);
        parts.unwrap()
    };
    let memory = memory(None);
    let parts = write(1);
    let first = WeightFile::open(&parts[0]).unwrap().identify(&memory).unwrap();
    let other = fs::read(&parts[1]).unwrap();
    let last = other.len() - 1;
    fs::write(&parts[1], [&other[..last], &[other[last] ^ 1]].concat()).unwrap();
    let changed = WeightFile::open(&parts[0]).unwrap().identify(&memory).unwrap();
    assert_eq!(changed.outline, first.outline);
    assert_ne!(changed.fingerprint, first.fingerprint);
}

#[test]
fn a_file_that_was_written_just_now_is_not_remembered() {
    let disk = disk();
    let memory = Memory::open(&disk.file);
    disk.identify(&memory);
    assert_eq!(memory.len(), 0);
    assert!(!disk.file.exists());
}

#[test]
fn a_memory_that_makes_no_sense_is_made_anew() {
    let disk = disk();
    let (expected, _) = disk.identify(&memory(Some(&disk.file)));
    let good = fs::read_to_string(&disk.file).unwrap();
    for bad in [
        String::new(),
        "{".to_owned(),
        "[]".to_owned(),
        good.replace("\"version\":1", "\"version\":0"),
        good[..good.len() / 2].to_owned(),
        r#"{"version":1,"models":{"/x":{"files":[],"outline":{},"used":0}}}"#.to_owned(),
    ] {
        fs::write(&disk.file, &bad).unwrap();
        let memory = memory(Some(&disk.file));
        assert_eq!(memory.len(), 0, "{bad}");
        assert_eq!(disk.identify(&memory), (expected, true));
        assert_eq!(super::memory(Some(&disk.file)).len(), 1);
    }
}

#[test]
fn where_nothing_can_be_written_it_works_all_the_same() {
    let disk = disk();
    let memory = memory(Some(Path::new("/nowhere/at/all.json")));
    assert!(disk.identify(&memory).1);
    assert!(!disk.identify(&memory).1);
}

#[test]
fn it_does_not_grow_for_ever() {
    let disk = disk();
    let (Identity { outline, .. }, _) = disk.identify(&memory(None));
    let stamp = Stamp::of(&fs::metadata(&disk.model).unwrap());
    let memory = memory(Some(&disk.file));
    for number in 0..MOST_RECORDS + 10 {
        memory.remember(&[(PathBuf::from(format!("/m/{number}")), stamp)], outline, None);
    }
    memory.save();
    assert_eq!(memory.len(), MOST_RECORDS);
    assert_eq!(super::memory(Some(&disk.file)).len(), MOST_RECORDS);
}

#[test]
fn several_writers_leave_a_whole_file() {
    let disk = disk();
    let (Identity { outline, .. }, _) = disk.identify(&memory(None));
    let stamp = Stamp::of(&fs::metadata(&disk.model).unwrap());
    thread::scope(|scope| {
        for writer in 0..4 {
            let disk = &disk;
            scope.spawn(move || {
                for round in 0..25 {
                    let memory = memory(Some(&disk.file));
                    let name = PathBuf::from(format!("/m/{writer}/{round}"));
                    memory.remember(&[(name.clone(), stamp)], outline, None);
                    memory.save();
                    assert!(memory.recall(&name, |_| Some(stamp)).is_some());
                }
            });
        }
    });
    let left = super::memory(Some(&disk.file)).len();
    assert!((1..=100).contains(&left), "{left}");
    // Nothing is left lying about.
    assert_eq!(fs::read_dir(disk.directory.path()).unwrap().count(), 2);
}
