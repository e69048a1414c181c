//! Any bytes: the GGUF reader refuses them, or what it says of them is true and survives being written
//! and read again.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use llama_engine::gguf::{Array, Element, Gguf, Writer};

/// Tensors may share bytes of the file, so that a small file could be written again as a large one.
const REWRITE_LIMIT_BYTES: u64 = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
    match Gguf::parse(Path::new("fuzz.gguf"), bytes) {
        Ok(gguf) => {
            look_at_everything(&gguf, bytes);
            write_and_read_again(&gguf, bytes);
        }
        Err(error) => assert!(error.to_string().starts_with("fuzz.gguf: ")),
    }
});

fn look_at_everything(gguf: &Gguf, bytes: &[u8]) {
    assert!(matches!(gguf.version(), 2 | 3));
    assert!(gguf.alignment().is_power_of_two());
    for (key, value) in gguf.metadata().iter() {
        assert_eq!(
            gguf.metadata().value(key).map(|found| found.value_type()),
            Some(value.value_type())
        );
        // Whether the type fits does not matter here.
        let _ = (gguf.get::<u32>(key), gguf.get::<i64>(key), gguf.get::<f32>(key));
        let _ = (gguf.get::<bool>(key), gguf.get::<&str>(key));
        if let Ok(Some(array)) = gguf.get::<&Array>(key) {
            look_at_array(array, bytes);
        }
    }
    for tensor in gguf.tensors() {
        assert!(tensor.offset >= gguf.data_offset());
        assert_eq!(tensor.offset % u64::from(gguf.alignment()), 0);
        assert!(tensor.offset + tensor.bytes <= bytes.len() as u64);
        assert_eq!(gguf.tensor(&tensor.name), Some(tensor));
    }
}

fn look_at_array(array: &Array, bytes: &[u8]) {
    assert!(array.len() <= bytes.len());
    assert_eq!(array.iter().count(), array.len());
    assert_eq!(
        array
            .strings()
            .is_some_and(|mut strings| strings.next().is_some()),
        { matches!(array.iter().next(), Some(Element::Text(_))) }
    );
    let _ = array.to_u32s();
}

fn write_and_read_again(gguf: &Gguf, bytes: &[u8]) {
    if gguf.tensors().iter().map(|tensor| tensor.bytes).sum::<u64>() > REWRITE_LIMIT_BYTES {
        return;
    }
    let mut writer = Writer::new();
    for (key, value) in gguf.metadata().iter() {
        writer.set(key, value.clone());
    }
    for tensor in gguf.tensors() {
        let data = &bytes[tensor.offset as usize..][..tensor.bytes as usize];
        writer.tensor(&tensor.name, tensor.shape.clone(), tensor.tensor_type, |out| {
            out.write_all(data)
        });
    }
    let written = writer.to_bytes().expect("what was read can be written");
    let again = Gguf::parse(Path::new("fuzz.gguf"), &written).expect("what was written can be read");
    // Compared as text, for a NaN is not equal to itself.
    assert_eq!(
        format!("{:?}", again.metadata()),
        format!("{:?}", gguf.metadata())
    );
    assert_eq!(again.tensors().len(), gguf.tensors().len());
    for (again, tensor) in again.tensors().iter().zip(gguf.tensors()) {
        assert_eq!((&again.name, &again.shape), (&tensor.name, &tensor.shape));
        assert_eq!(again.tensor_type, tensor.tensor_type);
        assert_eq!(
            written[again.offset as usize..][..again.bytes as usize],
            bytes[tensor.offset as usize..][..tensor.bytes as usize]
        );
    }
}
