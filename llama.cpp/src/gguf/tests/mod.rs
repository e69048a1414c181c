//! The reader, the writer and models in parts, together.

mod hostile;
mod parts;
mod round_trip;

use super::{Array, TensorType, Value, Writer};

/// A small file with a value of each type and tensors of several formats.
fn sample() -> Writer<'static> {
    let mut writer = Writer::new();
    writer
        .set("general.architecture", "llama")
        .set("sample.u8", 1u8)
        .set("sample.i8", -1i8)
        .set("sample.u16", 2u16)
        .set("sample.i16", -2i16)
        .set("sample.u32", 3u32)
        .set("sample.i32", -3i32)
        .set("sample.f32", 0.5f32)
        .set("sample.bool", true)
        .set("sample.u64", 4u64)
        .set("sample.i64", -4i64)
        .set("sample.f64", 0.25f64)
        .set("sample.words", Array::of_strings(["one", "", "three"]))
        .set("sample.numbers", Array::of_i32([1, -2, 3]))
        .set("sample.empty", Value::Array(Array::of_u32([])));
    writer
        .tensor("token_embd.weight", [32, 2], TensorType::F32, |out| {
            out.write_all(&[1; 256])
        })
        .tensor("output_norm.weight", [3], TensorType::F32, |out| {
            out.write_all(&[2; 12])
        })
        .tensor("output.weight", [64, 2], TensorType::Q8_0, |out| {
            out.write_all(&[3; 136])
        });
    writer
}

fn sample_bytes() -> Vec<u8> {
    sample().to_bytes().unwrap()
}
