//! Models in several files.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::{Error, Gguf, Model, TensorType, Value, Writer};
use super::sample;

/// The sample model in three parts, of which the first holds no tensor.
fn parts() -> (tempfile::TempDir, Vec<PathBuf>) {
    let directory = tempfile::tempdir().unwrap();
    let parts = sample()
        .write_parts(directory.path().join("model"), &[0, 2, 1])
        .unwrap();
    (directory, parts)
}

/// Writes one part of its own.
fn write_part(path: &Path, split: &[(&str, u16)], tensors: &[&str]) {
    let mut writer = Writer::new();
    for &(key, value) in split {
        writer.set(key, Value::U16(value));
    }
    for &name in tensors {
        writer.tensor(name, [1], TensorType::F32, |out| out.write_all(&[0; 4]));
    }
    writer.write(path).unwrap();
}

fn message(path: &Path) -> String {
    Model::open(path).unwrap_err().to_string()
}

#[test]
fn a_single_file_is_a_model_of_one_part() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("any name.gguf");
    sample().write(&path).unwrap();
    let model = Model::open(&path).unwrap();
    assert_eq!(model.parts().len(), 1);
    assert_eq!(model.tensor_count(), 3);
    assert_eq!(model.file_bytes(), fs::metadata(&path).unwrap().len());
    assert_eq!(model.tensor("output.weight").unwrap().file, path);
    assert_eq!(model.tensor("none"), None);
}

#[test]
fn tensors_are_found_in_their_parts() {
    let (_directory, paths) = parts();
    let names: Vec<_> = paths.iter().map(|path| path.file_name().unwrap()).collect();
    assert_eq!(
        names,
        [
            "model-00001-of-00003.gguf",
            "model-00002-of-00003.gguf",
            "model-00003-of-00003.gguf"
        ]
    );
    let model = Model::open(&paths[0]).unwrap();
    assert_eq!(
        model.first().require::<&str>("general.architecture").unwrap(),
        "llama"
    );
    assert_eq!(model.tensor_count(), 3);
    assert_eq!(model.tensor_bytes(), 256 + 12 + 136);
    for (name, part, byte) in [
        ("token_embd.weight", 1, 1),
        ("output_norm.weight", 1, 2),
        ("output.weight", 2, 3),
    ] {
        let location = model.tensor(name).unwrap();
        assert_eq!((location.part, location.file), (part, paths[part].as_path()));
        let bytes = fs::read(location.file).unwrap();
        let data = &bytes[location.tensor.offset as usize..][..location.tensor.bytes as usize];
        assert!(data.iter().all(|&read| read == byte), "{name}");
    }
}

#[test]
fn missing_parts_are_named() {
    let (_directory, paths) = parts();
    fs::remove_file(&paths[2]).unwrap();
    assert_eq!(
        message(&paths[0]),
        format!(
            "{}: of this model's 3 parts, one is not there: download {}",
            paths[0].display(),
            paths[2].display()
        )
    );
    fs::remove_file(&paths[1]).unwrap();
    assert!(
        message(&paths[0]).contains("2 are not there"),
        "{}",
        message(&paths[0])
    );
}

#[test]
fn a_count_of_many_missing_parts_makes_no_endless_message() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model-00001-of-60000.gguf");
    write_part(&path, &[("split.no", 0), ("split.count", 60_000)], &[]);
    assert!(message(&path).ends_with("and 59994 more"), "{}", message(&path));
}

#[test]
fn a_later_part_asks_for_the_first() {
    let (_directory, paths) = parts();
    assert_eq!(
        message(&paths[1]),
        format!(
            "{}: is part 2 of a model in 3 parts: give its first part, {}",
            paths[1].display(),
            paths[0].display()
        )
    );
}

#[test]
fn a_renamed_first_part_is_recognised() {
    let (directory, paths) = parts();
    let renamed = directory.path().join("model.gguf");
    fs::rename(&paths[0], &renamed).unwrap();
    let message = message(&renamed);
    assert!(message.contains("must end in -00001-of-00003.gguf"), "{message}");
}

#[test]
fn a_damaged_part_is_named() {
    let (_directory, paths) = parts();
    let bytes = fs::read(&paths[1]).unwrap();
    fs::write(&paths[1], &bytes[..bytes.len() - 32]).unwrap();
    let message = message(&paths[0]);
    assert!(message.starts_with(paths[1].to_str().unwrap()), "{message}");
    assert!(message.contains("download it again"), "{message}");
}

#[test]
fn parts_of_another_model_or_in_another_order_are_refused() {
    let (_directory, paths) = parts();
    write_part(
        &paths[2],
        &[("split.no", 1), ("split.count", 3)],
        &["output.weight"],
    );
    assert!(message(&paths[0]).contains("says split.no = 1, but 2 is needed"));
    write_part(
        &paths[2],
        &[("split.no", 2), ("split.count", 4)],
        &["output.weight"],
    );
    assert!(message(&paths[0]).contains("says split.count = 4, but 3 is needed"));
    write_part(&paths[2], &[], &["output.weight"]);
    assert!(message(&paths[0]).ends_with("metadata `split.no` is missing"));
    write_part(&paths[2], &[("split.no", 2)], &["output.weight"]);
    assert!(
        Model::open(&paths[0]).is_ok(),
        "llama.cpp needs no split.count in further parts"
    );
}

#[test]
fn tensors_that_are_missing_or_there_twice_are_refused() {
    let (_directory, paths) = parts();
    write_part(&paths[2], &[("split.no", 2)], &["output_norm.weight"]);
    let Err(Error::TensorInTwoParts { file, other, tensor }) = Model::open(&paths[0]) else {
        panic!("{:?}", Model::open(&paths[0]));
    };
    assert_eq!((file, other), (paths[2].clone(), paths[1].clone()));
    assert_eq!(tensor, "output_norm.weight");
    write_part(&paths[2], &[("split.no", 2)], &["a", "b"]);
    assert!(message(&paths[0]).contains("split.tensors.count = 3, but the model's parts hold 4"));
}

#[test]
fn the_writer_divides_only_what_there_is() {
    let directory = tempfile::tempdir().unwrap();
    let prefix = directory.path().join("model");
    for parts in [&[][..], &[1, 1], &[2, 2], &[usize::MAX, 4]] {
        assert!(sample().write_parts(&prefix, parts).is_err(), "{parts:?}");
    }
    let only = sample().write_parts(&prefix, &[3]).unwrap();
    assert_eq!(only, [directory.path().join("model-00001-of-00001.gguf")]);
    assert_eq!(Model::open(&only[0]).unwrap().tensor_count(), 3);
}

#[test]
fn each_part_keeps_the_alignment() {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = sample();
    writer.set("general.alignment", 256u32);
    let paths = writer
        .write_parts(directory.path().join("model"), &[1, 1, 1])
        .unwrap();
    for path in paths {
        let gguf = Gguf::open(path).unwrap();
        assert_eq!(gguf.alignment(), 256);
        assert!(gguf.tensors().iter().all(|tensor| tensor.offset % 256 == 0));
    }
}
