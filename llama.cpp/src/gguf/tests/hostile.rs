//! Damaged, cut and hostile files give an error that says what is wrong, and never a panic.

use proptest::prelude::*;

use super::super::{Error, Fault, Gguf};
use super::{sample, sample_bytes};

/// The fault of a file that must be refused.
fn fault(bytes: &[u8]) -> Fault {
    match Gguf::parse("bad.gguf", bytes) {
        Err(Error::Content { file, fault }) => {
            assert_eq!(file.to_str(), Some("bad.gguf"));
            *fault
        }
        other => panic!("{other:?}"),
    }
}

/// A file's beginning, up to the counts.
fn header(tensors: u64, metadata: u64) -> Vec<u8> {
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    bytes.extend(tensors.to_le_bytes());
    bytes.extend(metadata.to_le_bytes());
    bytes
}

fn text(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

/// A file with one metadata entry of this type and value, and enough after it.
fn with_value(key: &str, type_id: u32, value: &[u8]) -> Vec<u8> {
    let mut bytes = header(0, 1);
    bytes.extend(text(key));
    bytes.extend(type_id.to_le_bytes());
    bytes.extend(value);
    bytes
}

/// A file with one tensor, whose table entry this is but for the name, and 1024 bytes after it.
fn with_tensor(dimensions: u32, shape: &[u64], type_id: u32, offset: u64) -> Vec<u8> {
    let mut bytes = header(1, 0);
    bytes.extend(text("a.weight"));
    bytes.extend(dimensions.to_le_bytes());
    bytes.extend(shape.iter().flat_map(|size| size.to_le_bytes()));
    bytes.extend(type_id.to_le_bytes());
    bytes.extend(offset.to_le_bytes());
    bytes.extend([0; 1024]);
    bytes
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let whole = sample_bytes();
    let data = Gguf::parse("a.gguf", &whole).unwrap();
    let last = data.tensors().last().unwrap();
    let end = (last.offset + last.bytes) as usize;
    for length in 0..end {
        let fault = fault(&whole[..length]);
        assert!(
            matches!(fault, Fault::Truncated { .. } | Fault::Count { .. }),
            "{length}: {fault}"
        );
        assert!(fault.to_string().contains("download it again"), "{fault}");
    }
    // Only the padding behind the last tensor may be missing.
    assert!(Gguf::parse("a.gguf", &whole[..end]).is_ok());
}

#[test]
fn a_half_downloaded_file_says_where_it_ends() {
    let whole = sample_bytes();
    let cut = Gguf::parse("a.gguf", &whole).unwrap().tensors()[2].offset + 100;
    assert_eq!(
        fault(&whole[..cut as usize]).to_string(),
        format!(
            "ends after {cut} bytes inside the data of tensor `output.weight`, which needs 36 more: it \
             was not downloaded completely or is damaged, download it again"
        )
    );
}

#[test]
fn a_file_that_shrinks_while_it_is_read_is_recognised() {
    let whole = sample_bytes();
    let error = Gguf::read("a.gguf".as_ref(), &whole[..100], whole.len() as u64).unwrap_err();
    let expected = "a.gguf: became shorter than its 1120 bytes while it was read";
    assert!(error.to_string().starts_with(expected), "{error}");
}

#[test]
fn other_files_are_recognised() {
    assert!(matches!(fault(b"PK\x03\x04 zip"), Fault::Magic(_)));
    assert!(
        fault(b"<htm")
            .to_string()
            .starts_with("is not a GGUF file: it begins with <htm,"),
        "{}",
        fault(b"<htm")
    );
    let version = |version: [u8; 4]| fault(&[b"GGUF".as_slice(), &version].concat());
    assert_eq!(version([1, 0, 0, 0]), Fault::VersionTooOld(1));
    assert_eq!(version([4, 0, 0, 0]), Fault::VersionTooNew(4));
    assert_eq!(version([0, 0, 0, 3]), Fault::BigEndian);
}

#[test]
fn directories_devices_and_missing_files_are_read_errors() {
    let directory = tempfile::tempdir().unwrap();
    assert!(matches!(Gguf::open(directory.path()), Err(Error::Read { .. })));
    #[cfg(unix)]
    assert!(matches!(Gguf::open("/dev/zero"), Err(Error::Read { .. })));
    let missing = directory.path().join("none.gguf");
    assert!(matches!(Gguf::open(missing), Err(Error::Read { .. })));
}

#[test]
fn counts_that_the_file_cannot_hold_are_refused() {
    let metadata = [header(0, 1 << 60), vec![0; 100]].concat();
    let found = fault(&metadata);
    assert!(
        matches!(found, Fault::Count { what: "metadata entries", count, limit: 7, .. } if count == 1 << 60),
        "{found:?}"
    );
    let tensors = [header(u64::MAX, 0), vec![0; 100]].concat();
    assert!(matches!(
        fault(&tensors),
        Fault::Count {
            what: "tensors",
            limit: 4,
            ..
        }
    ));
}

#[test]
fn lengths_beyond_the_file_are_refused_with_their_place() {
    let mut key = header(0, 1);
    key.extend((1u64 << 62).to_le_bytes());
    key.extend([0; 100]);
    assert!(
        fault(&key)
            .to_string()
            .contains("inside the key of metadata entry 0")
    );
    let string = with_value("general.name", 8, &u64::MAX.to_le_bytes());
    assert!(
        fault(&string)
            .to_string()
            .contains("inside metadata `general.name`")
    );
    let mut array = 10u32.to_le_bytes().to_vec();
    array.extend((u64::MAX / 4).to_le_bytes());
    let array = with_value("tokenizer.ggml.tokens", 9, &array);
    assert!(
        fault(&array)
            .to_string()
            .contains("inside metadata `tokenizer.ggml.tokens`")
    );
}

#[test]
fn a_huge_file_of_holes_takes_no_memory() {
    // What a sparse file costs its maker nothing to claim.
    let tebibyte = 1u64 << 40;
    let string = with_value("general.name", 8, &(1u64 << 39).to_le_bytes());
    let mut array = 8u32.to_le_bytes().to_vec();
    array.extend((1u64 << 36).to_le_bytes());
    let array = with_value("general.name", 9, &array);
    for bytes in [string, array] {
        let error = Gguf::read("a.gguf".as_ref(), bytes.as_slice(), tebibyte).unwrap_err();
        let expected = "a.gguf: metadata `general.name` goes beyond the first 268435456 bytes";
        assert!(error.to_string().starts_with(expected), "{error}");
    }
    for bytes in [header(1 << 20, 0), header(0, 1 << 20)] {
        let error = Gguf::read("a.gguf".as_ref(), bytes.as_slice(), tebibyte).unwrap_err();
        assert!(error.to_string().contains("its header claims 1048576"), "{error}");
    }
}

#[test]
fn names_and_keys_are_limited() {
    let long = with_value(&"k".repeat(1 << 16), 0, &[0]);
    assert!(matches!(
        fault(&long),
        Fault::TooLong {
            length: 65536,
            limit: 65535,
            ..
        }
    ));
    assert!(matches!(fault(&with_value("", 4, &[0; 8])), Fault::Empty { .. }));
    let mut name = header(1, 0);
    name.extend(text(&"n".repeat(64)));
    name.extend([0; 100]);
    assert!(matches!(
        fault(&name),
        Fault::TooLong {
            length: 64,
            limit: 63,
            ..
        }
    ));
}

#[test]
fn messages_are_short_and_free_of_control_characters() {
    let key = format!("a\n\u{1b}[31m{}", "b".repeat(1000));
    let message = fault(&with_value(&key, 13, &[0; 8])).to_string();
    assert!(message.starts_with("metadata `a\\n\\u{1b}[31mbbb"), "{message}");
    assert!(
        message.len() < 200 && !message.contains(char::is_control),
        "{message}"
    );
}

#[test]
fn text_must_be_utf8() {
    let mut value = 2u64.to_le_bytes().to_vec();
    value.extend([0xff, 0xfe]);
    assert_eq!(
        fault(&with_value("general.name", 8, &value)).to_string(),
        "metadata `general.name` is not UTF-8 text"
    );
}

#[test]
fn types_that_do_not_exist_and_nested_arrays_are_refused() {
    assert!(matches!(
        fault(&with_value("a", 13, &[0; 8])),
        Fault::UnknownValueType { id: 13, .. }
    ));
    let mut nested = 9u32.to_le_bytes().to_vec();
    nested.extend([0; 64]);
    assert_eq!(
        fault(&with_value("a", 9, &nested)),
        Fault::NestedArray { key: "a".to_owned() }
    );
    for id in [4, 31, 43, u32::MAX] {
        let found = fault(&with_tensor(1, &[32], id, 0));
        assert_eq!(
            found,
            Fault::UnknownTensorType {
                tensor: "a.weight".to_owned(),
                id
            }
        );
    }
}

#[test]
fn alignments_must_be_powers_of_two_of_a_sane_size() {
    for alignment in [0u32, 24, 1 << 21, u32::MAX] {
        let bytes = with_value("general.alignment", 4, &alignment.to_le_bytes());
        let found = fault(&bytes);
        assert!(
            matches!(found, Fault::Alignment { alignment: found, .. } if found == u64::from(alignment)),
            "{found:?}"
        );
    }
    let text = with_value("general.alignment", 8, &text("32"));
    assert!(matches!(fault(&text), Fault::WrongType { .. }));
}

#[test]
fn impossible_shapes_are_refused() {
    assert!(matches!(
        fault(&with_tensor(5, &[1; 5], 0, 0)),
        Fault::Dimensions { count: 5, .. }
    ));
    let large = 1u64 << 33;
    assert_eq!(
        fault(&with_tensor(2, &[large, large], 0, 0)).to_string(),
        "tensor `a.weight` has the impossible shape [8589934592, 8589934592]"
    );
    assert!(matches!(
        fault(&with_tensor(1, &[u64::MAX], 0, 0)),
        Fault::Shape { .. }
    ));
    assert_eq!(
        fault(&with_tensor(2, &[33, 2], 8, 0)).to_string(),
        "tensor `a.weight` has rows of 33 elements, and its type q8_0 stores blocks of 32"
    );
}

#[test]
fn data_must_be_aligned_and_inside_the_file() {
    assert!(matches!(
        fault(&with_tensor(1, &[1], 0, 8)),
        Fault::Misaligned {
            offset: 8,
            alignment: 32,
            ..
        }
    ));
    assert!(Gguf::parse("a.gguf", &with_tensor(1, &[4], 0, 64)).is_ok());
    for offset in [1024, 1 << 40, u64::MAX - 31] {
        let found = fault(&with_tensor(1, &[4], 0, offset));
        assert!(
            matches!(&found, Fault::Truncated { place, .. } if place == "the data of tensor `a.weight`"),
            "{found:?}"
        );
    }
}

#[test]
fn keys_and_tensors_that_are_there_twice_are_refused() {
    let entry = [text("a"), 0u32.to_le_bytes().to_vec(), vec![7]].concat();
    let bytes = [header(0, 2), entry.clone(), entry].concat();
    assert_eq!(fault(&bytes), Fault::DuplicateKey { key: "a".to_owned() });
    let entry = [text("t"), vec![0; 16]].concat();
    let bytes = [header(2, 0), entry.clone(), entry, vec![0; 64]].concat();
    assert_eq!(
        fault(&bytes),
        Fault::DuplicateTensor {
            tensor: "t".to_owned()
        }
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn flipped_bytes_never_panic(flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut bytes = sample().to_bytes().unwrap();
        for (index, byte) in flips {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(gguf) = Gguf::parse("a.gguf", &bytes) {
            for tensor in gguf.tensors() {
                prop_assert!(tensor.offset + tensor.bytes <= bytes.len() as u64);
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Gguf::parse("a.gguf", &[header(1, 1), bytes].concat());
    }
}
