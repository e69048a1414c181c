//! Model files in the GGUF format: reading them, writing them, making random ones.
//!
//! Reads versions 2 and 3, little endian. The reader is made for hostile and half-downloaded files:
//! it never panics, never takes more memory than the file's own bytes justify, and its errors name
//! the file, the field and what is wrong with it.
//!
//! This room knows nothing of llama.cpp at run time; its tables are checked against it by the
//! integration test `tests/gguf.rs`. It decides nothing about what a model means: metadata is handed
//! on as it is.
//!
//! [`Gguf`] is one file, [`Model`] is a model in one file or in several parts, [`Writer`] makes files,
//! [`random`] makes whole models for tests and benchmarks.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod array;
mod error;
mod file_type;
mod metadata;
mod model;
mod parse;
pub mod random;
mod reader;
mod types;
mod writer;

#[cfg(test)]
mod tests;

pub use array::{Array, Element};
pub use error::{Error, Fault};
pub use file_type::file_type;
pub use metadata::{FromValue, Metadata, Value, ValueType};
pub use model::{Location, Model, SPLIT_KEYS, part_path};
pub use parse::{ALIGNMENT_LIMIT, HEADER_LIMIT};
pub use reader::{Gguf, Opened, Tensor};
pub use types::TensorType;
pub use writer::{TensorData, Writer};

/// The alignment of tensor data, in bytes, of a file that does not say otherwise.
pub const DEFAULT_ALIGNMENT: u32 = 32;

/// The magic number at the beginning of each file.
const MAGIC: [u8; 4] = *b"GGUF";
