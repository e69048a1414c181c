//! What is written is read back.

use proptest::prelude::*;

use super::super::{Array, Error, Fault, Gguf, TensorType, Value, ValueType, Writer};
use super::{sample, sample_bytes};

/// What a writer was given for a tensor.
#[derive(Clone, Debug)]
struct Given {
    name: String,
    shape: Vec<u64>,
    tensor_type: TensorType,
    data: Vec<u8>,
}

fn write(metadata: &[(String, Value)], tensors: &[Given]) -> Result<Vec<u8>, Error> {
    let mut writer = Writer::new();
    for (key, value) in metadata {
        writer.set(key, value.clone());
    }
    for tensor in tensors {
        writer.tensor(&tensor.name, tensor.shape.clone(), tensor.tensor_type, |out| {
            out.write_all(&tensor.data)
        });
    }
    writer.to_bytes()
}

fn array() -> impl Strategy<Value = Array> {
    prop_oneof![
        prop::collection::vec(any::<u32>(), 0..9).prop_map(Array::of_u32),
        prop::collection::vec(any::<i32>(), 0..9).prop_map(Array::of_i32),
        prop::collection::vec(any::<f32>(), 0..9).prop_map(Array::of_f32),
        prop::collection::vec(any::<bool>(), 0..9).prop_map(Array::of_bools),
        prop::collection::vec(any::<Vec<u8>>(), 0..9).prop_map(Array::of_strings),
        prop::collection::vec(any::<[u8; 8]>(), 0..9)
            .prop_map(|words| { Array::from_bytes(ValueType::I64, words.len(), words.into_flattened()) }),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u8>().prop_map(Value::from),
        any::<i8>().prop_map(Value::from),
        any::<u16>().prop_map(Value::from),
        any::<i16>().prop_map(Value::from),
        any::<u32>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f32>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        array().prop_map(Value::from),
    ]
}

/// Entries with distinct keys, and sometimes an alignment.
fn metadata() -> impl Strategy<Value = Vec<(String, Value)>> {
    let entries = prop::collection::btree_map("[a-z]{1,3}\\.\\PC{0,9}", value(), 0..12);
    (entries, prop::option::of(0u32..8)).prop_map(|(entries, alignment)| {
        let mut metadata: Vec<(String, Value)> = entries.into_iter().collect();
        if let Some(power) = alignment {
            let at = metadata.len() / 2;
            metadata.insert(at, ("general.alignment".to_owned(), Value::U32(1 << power)));
        }
        metadata
    })
}

fn tensors() -> impl Strategy<Value = Vec<Given>> {
    let shape = prop::collection::vec(0u64..4, 0..5);
    let tensor = (shape, prop::sample::select(TensorType::ALL), any::<u8>());
    prop::collection::btree_map("\\PC{1,15}", tensor, 0..6).prop_map(|tensors| {
        let given = |(name, (mut shape, tensor_type, byte)): (String, (Vec<u64>, TensorType, u8))| {
            if let Some(row) = shape.first_mut() {
                *row *= tensor_type.block_elements();
            } else if tensor_type.block_elements() > 1 {
                shape.push(tensor_type.block_elements());
            }
            let elements: u64 = shape.iter().product();
            let bytes = elements / tensor_type.block_elements() * tensor_type.block_bytes();
            Given {
                name,
                shape,
                tensor_type,
                data: vec![byte; bytes as usize],
            }
        };
        tensors.into_iter().map(given).collect()
    })
}

proptest! {
    #[test]
    fn anything_written_is_read_back_equal(metadata in metadata(), tensors in tensors()) {
        let bytes = write(&metadata, &tensors).unwrap();
        let gguf = Gguf::parse("a.gguf", &bytes).unwrap();
        let read: Vec<(String, Value)> = gguf
            .metadata()
            .iter()
            .map(|(key, value)| (key.to_owned(), value.clone()))
            .collect();
        prop_assert_eq!(read, metadata);
        prop_assert_eq!(gguf.tensors().len(), tensors.len());
        for (read, given) in gguf.tensors().iter().zip(&tensors) {
            prop_assert_eq!(&read.name, &given.name);
            prop_assert_eq!(&read.shape, &given.shape);
            prop_assert_eq!(read.tensor_type, given.tensor_type);
            prop_assert_eq!(read.offset % u64::from(gguf.alignment()), 0);
            let data = &bytes[read.offset as usize..][..read.bytes as usize];
            prop_assert_eq!(data, given.data.as_slice());
            prop_assert_eq!(gguf.tensor(&given.name), Some(read));
        }
    }
}

#[test]
fn a_file_on_disk_is_read_like_its_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.gguf");
    sample().write(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(bytes, sample_bytes());
    assert_eq!(Gguf::open(&path).unwrap(), Gguf::parse(&path, &bytes).unwrap());
    let files = std::fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(files, 1, "the partial file is gone");
}

#[test]
fn version_2_is_read_like_version_3() {
    let mut bytes = sample_bytes();
    let newer = Gguf::parse("a.gguf", &bytes).unwrap();
    bytes[4] = 2;
    let older = Gguf::parse("a.gguf", &bytes).unwrap();
    assert_eq!((newer.version(), older.version()), (3, 2));
    assert_eq!(newer.tensors(), older.tensors());
    assert_eq!(newer.metadata(), older.metadata());
}

#[test]
fn typed_values_are_read_through_the_file() {
    let gguf = Gguf::parse("dir/a.gguf", &sample_bytes()).unwrap();
    assert_eq!(gguf.require::<&str>("general.architecture").unwrap(), "llama");
    assert_eq!(gguf.get::<u32>("sample.u16").unwrap(), Some(2));
    assert_eq!(gguf.get::<f32>("sample.f64").unwrap(), Some(0.25));
    assert_eq!(gguf.get::<bool>("sample.none").unwrap(), None);
    let words = gguf.require::<&Array>("sample.words").unwrap();
    assert_eq!(
        words.strings().unwrap().collect::<Vec<_>>(),
        [&b"one"[..], b"", b"three"]
    );
    assert_eq!(
        gguf.require::<u32>("sample.none").unwrap_err().to_string(),
        "dir/a.gguf: metadata `sample.none` is missing"
    );
}

/// The fault of a file that the writer must refuse.
fn refused(fill: impl FnOnce(&mut Writer<'_>)) -> Fault {
    let mut writer = Writer::new();
    fill(&mut writer);
    match writer.to_bytes() {
        Err(Error::Content { fault, .. }) => *fault,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_writer_refuses_what_the_reader_would() {
    let nothing = |_: &mut dyn std::io::Write| Ok(());
    let twice = refused(|writer| {
        writer.set("a", 1u8).set("a", 2u8);
    });
    assert!(matches!(twice, Fault::DuplicateKey { .. }));
    let twice = refused(|writer| {
        writer.tensor("a", [0], TensorType::F32, nothing);
        writer.tensor("a", [0], TensorType::F32, nothing);
    });
    assert!(matches!(twice, Fault::DuplicateTensor { .. }));
    let odd = refused(|writer| {
        writer.set("general.alignment", 24u32);
    });
    assert!(matches!(odd, Fault::Alignment { alignment: 24, .. }));
    let empty = refused(|writer| {
        writer.set("", 24u32);
    });
    assert!(matches!(empty, Fault::Empty { .. }));
    let long = refused(|writer| {
        writer.tensor("a".repeat(64), [0], TensorType::F32, nothing);
    });
    assert!(matches!(long, Fault::TooLong { length: 64, .. }));
    let deep = refused(|writer| {
        writer.tensor("a", [0; 5], TensorType::F32, nothing);
    });
    assert!(matches!(deep, Fault::Dimensions { count: 5, .. }));
    let partial = refused(|writer| {
        writer.tensor("a", [33], TensorType::Q8_0, nothing);
    });
    assert!(matches!(partial, Fault::PartialBlock { row: 33, .. }));
}

#[test]
fn the_writer_refuses_data_that_is_not_as_long_as_its_shape_says() {
    let short = refused(|writer| {
        writer.tensor("a", [4], TensorType::F32, |out| out.write_all(&[0; 15]));
    });
    assert_eq!(short.to_string(), "tensor `a` takes 16 bytes, and 15 were given");
}

#[test]
fn a_file_that_cannot_be_finished_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.gguf");
    let mut writer = Writer::new();
    writer.tensor("a", [4], TensorType::F32, |_| {
        Err(std::io::Error::other("no data"))
    });
    let error = writer.write(&path).unwrap_err().to_string();
    assert_eq!(error, format!("{}: cannot be written: no data", path.display()));
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}
