//! Reading tensors from files that may change.

use super::{memory, model};
use crate::gguf::{Gguf, TensorType};
use crate::rpc::files::{Error, Weight, WeightFile};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, SystemTime};

const LARGE: &str = "token_embd.weight";

fn written() -> (tempfile::TempDir, PathBuf, Vec<u8>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.gguf");
    model(1).write(&path).unwrap();
    let bytes = fs::read(&path).unwrap();
    // Long ago, so that any change gives another time.
    let file = File::options().append(true).open(&path).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(100))
        .unwrap();
    (directory, path, bytes)
}

#[test]
fn tensors_are_described_and_read_from_any_position() {
    let (_directory, path, bytes) = written();
    let weights = WeightFile::open(&path).unwrap();
    let weight = Weight {
        element: TensorType::F32,
        shape: &[64, 1024],
        bytes: 64 * 1024 * 4,
    };
    assert_eq!(weights.tensor(LARGE).unwrap(), weight);
    let begin = Gguf::open(&path).unwrap().tensor(LARGE).unwrap().offset as usize;
    weights.read_soon(LARGE);
    for (offset, length) in [(0, 1), (0, 262_144), (100, 5000), (262_143, 1), (262_144, 0)] {
        let mut read = vec![0; length];
        weights.read_into(LARGE, offset as u64, &mut read).unwrap();
        assert_eq!(read, bytes[begin + offset..begin + offset + length]);
    }
}

#[test]
fn what_is_not_there_is_refused() {
    let (_directory, path, _) = written();
    let weights = WeightFile::open(&path).unwrap();
    weights.read_soon("none");
    assert!(matches!(weights.tensor("none"), Err(Error::NoTensor { .. })));
    let mut byte = [0; 1];
    let error = weights.read_into("none", 0, &mut byte).unwrap_err();
    assert!(error.to_string().ends_with("has no tensor `none`"), "{error}");
    for offset in [262_144, u64::MAX] {
        let error = weights.read_into(LARGE, offset, &mut byte).unwrap_err();
        assert!(matches!(error, Error::Range { .. }), "{error}");
    }
}

#[test]
fn parts_are_read_by_several_threads_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let parts = model(3)
        .write_parts(directory.path().join("model"), &[0, 2, 2, 1])
        .unwrap();
    let weights = WeightFile::open(&parts[0]).unwrap();
    thread::scope(|scope| {
        for thread in 0..8u64 {
            let weights = &weights;
            scope.spawn(move || {
                for round in 0..200 {
                    let offset = (thread * 1009 + round * 131) % 260_000;
                    let mut read = [0; 64];
                    weights.read_into(LARGE, offset, &mut read).unwrap();
                    assert_eq!(read[0], (offset / 7) as u8 ^ 3);
                    let mut norm = [0; 32];
                    weights.read_into("blk.2.attn_norm.weight", 0, &mut norm).unwrap();
                    assert_eq!(norm, [2 ^ 3; 32]);
                }
            });
        }
    });
}

#[test]
fn a_file_that_was_written_to_is_an_error() {
    let (_directory, path, bytes) = written();
    let weights = WeightFile::open(&path).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(&[1], bytes.len() as u64 - 1).unwrap();
    let mut byte = [0; 1];
    let error = weights.read_into(LARGE, 0, &mut byte).unwrap_err();
    assert!(matches!(error, Error::Changed { .. }), "{error}");
    let error = weights.identify(&memory(None)).unwrap_err();
    assert!(matches!(error, Error::Changed { .. }), "{error}");
}

#[test]
fn a_file_that_was_cut_is_an_error() {
    let (_directory, path, bytes) = written();
    let weights = WeightFile::open(&path).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    file.set_len(bytes.len() as u64 / 2).unwrap();
    let error = weights.read_into(LARGE, 262_143, &mut [0; 1]).unwrap_err();
    assert!(matches!(error, Error::Changed { .. }), "{error}");
}

#[test]
fn a_name_that_leads_elsewhere_by_now_does_not_matter() {
    let (directory, path, bytes) = written();
    let weights = WeightFile::open(&path).unwrap();
    let other = directory.path().join("other");
    model(2).write(&other).unwrap();
    fs::rename(&other, &path).unwrap();
    let mut byte = [0; 1];
    weights.read_into(LARGE, 262_143, &mut byte).unwrap();
    assert_eq!(byte[0], bytes[bytes.len() - 1]);
    fs::remove_file(&path).unwrap();
    weights.read_into(LARGE, 0, &mut byte).unwrap();
}
