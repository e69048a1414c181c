//! What can be wrong with a model file, in words for the person who has to put it right.

use std::io;
use std::path::PathBuf;

use super::TensorType;

/// Why a model file cannot be used. Each message names the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused to open or read the file.
    #[error("{}: cannot be read: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The operating system refused to create or write the file.
    #[error("{}: cannot be written: {source}", file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file's content is not a valid GGUF file, or not one of what was asked for.
    #[error("{}: {fault}", file.display())]
    Content {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        fault: Box<Fault>,
    },
    /// A model in several parts was opened at one that is not the first.
    #[error(
        "{}: is part {number} of a model in {count} parts: give its first part, {}",
        file.display(), first.display()
    )]
    NotFirstPart {
        /// The file that was opened.
        file: PathBuf,
        /// Which part it is, counted from one.
        number: u32,
        /// How many parts the model has.
        count: u32,
        /// What the first part is called.
        first: PathBuf,
    },
    /// The parts of a model are found by their names, and this name is not of that form.
    #[error(
        "{}: is part {number} of a model in {count} parts, so that its name must end in \
         -{number:05}-of-{count:05}.gguf, as it did where it came from: rename it",
        file.display()
    )]
    PartName {
        /// The file that was opened.
        file: PathBuf,
        /// Which part it is, counted from one.
        number: u32,
        /// How many parts the model has.
        count: u32,
    },
    /// Some parts of a model are not there.
    #[error(
        "{}: of this model's {count} parts, {} not there: download {}",
        file.display(),
        if missing.len() == 1 { "one is".to_owned() } else { format!("{} are", missing.len()) },
        list(missing)
    )]
    MissingParts {
        /// The first part.
        file: PathBuf,
        /// How many parts the model has.
        count: u32,
        /// The parts that are not there.
        missing: Vec<PathBuf>,
    },
    /// A part's metadata does not fit the first part.
    #[error(
        "{}: its metadata says {key} = {found}, but {expected} is needed beside the model's first \
         part, {}: these files are not of one model, or were renamed",
        file.display(), first.display()
    )]
    ForeignPart {
        /// The part that does not fit.
        file: PathBuf,
        /// The first part.
        first: PathBuf,
        /// The metadata key.
        key: &'static str,
        /// Its value.
        found: u64,
        /// The value that was needed.
        expected: u64,
    },
    /// Two parts hold a tensor of the same name.
    #[error("{}: holds tensor `{}`, which {} also holds", file.display(), shown(tensor), other.display())]
    TensorInTwoParts {
        /// The later part.
        file: PathBuf,
        /// The earlier part.
        other: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// The parts together do not hold as many tensors as the first one says.
    #[error(
        "{}: its metadata says split.tensors.count = {expected}, but the model's parts hold {found} \
         tensors: download them again",
        file.display()
    )]
    TensorTotal {
        /// The first part.
        file: PathBuf,
        /// How many tensors the parts hold.
        found: u64,
        /// How many the first part says.
        expected: u64,
    },
}

/// What is wrong with the content of one file, with the name of the field or tensor.
#[derive(Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The file is of another kind.
    #[error("is not a GGUF file: it begins with {}, not with \"GGUF\"", .0.escape_ascii())]
    Magic([u8; 4]),
    /// A version before 2: files of August 2023.
    #[error("is of GGUF version {0}, which llama.cpp no longer reads: convert the model again")]
    VersionTooOld(u32),
    /// A version after 3.
    #[error("is of GGUF version {0}, and this program knows 2 and 3: a newer mesh-llm may read it")]
    VersionTooNew(u32),
    /// A file for big-endian machines.
    #[error("is a big-endian GGUF file: download the model's usual, little-endian file")]
    BigEndian,
    /// The file ends too early.
    #[error(
        "ends after {file_bytes} bytes inside {place}, which needs {missing} more: it was not \
         downloaded completely or is damaged, download it again"
    )]
    Truncated {
        /// Where the reader was.
        place: String,
        /// The file's length in bytes.
        file_bytes: u64,
        /// How many more bytes were needed.
        missing: u64,
    },
    /// The file has become shorter since its length was asked for.
    #[error("became shorter than its {file_bytes} bytes while it was read: wait until nothing writes to it")]
    Shrunk {
        /// The file's length in bytes, at first.
        file_bytes: u64,
    },
    /// A count that no file of this length can hold, or that no model has.
    #[error(
        "its header claims {count} {what}, and at most {limit} are accepted in a file of {file_bytes} \
         bytes: it is damaged, download it again"
    )]
    Count {
        /// What is counted.
        what: &'static str,
        /// The count in the file.
        count: u64,
        /// The highest possible count.
        limit: u64,
        /// The file's length in bytes.
        file_bytes: u64,
    },
    /// What comes before the tensor data is longer than any model needs.
    #[error("{place} goes beyond the first {limit} bytes, where metadata and tensor table must end")]
    HeaderTooLong {
        /// Where the reader was.
        place: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// A key or name of no characters.
    #[error("{place} is empty")]
    Empty {
        /// The key or name.
        place: String,
    },
    /// A key or name that is longer than the format or ggml allow.
    #[error("{place} is {length} bytes long, and {limit} are allowed")]
    TooLong {
        /// The key or name.
        place: String,
        /// Its length in bytes.
        length: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// Text that is not UTF-8.
    #[error("{place} is not UTF-8 text")]
    NotUtf8 {
        /// The key, name or value.
        place: String,
    },
    /// A number that stands for no type of metadata.
    #[error("metadata `{}` is of type number {id}, which does not exist", shown(key))]
    UnknownValueType {
        /// The metadata key.
        key: String,
        /// The number.
        id: u32,
    },
    /// An array whose elements are arrays.
    #[error(
        "metadata `{}` is an array of arrays, which llama.cpp does not read",
        shown(key)
    )]
    NestedArray {
        /// The metadata key.
        key: String,
    },
    /// A metadata key that is there twice.
    #[error("metadata `{}` is there twice", shown(key))]
    DuplicateKey {
        /// The metadata key.
        key: String,
    },
    /// A tensor name that is there twice.
    #[error("tensor `{}` is there twice", shown(tensor))]
    DuplicateTensor {
        /// The tensor.
        tensor: String,
    },
    /// An alignment that is not a power of two.
    #[error("metadata `general.alignment` is {alignment}, which is not a power of two from 1 to {limit}")]
    Alignment {
        /// The alignment in bytes.
        alignment: u64,
        /// The highest alignment that is accepted, in bytes.
        limit: u64,
    },
    /// More dimensions than ggml knows.
    #[error(
        "tensor `{}` has {count} dimensions, and ggml knows at most {limit}",
        shown(tensor)
    )]
    Dimensions {
        /// The tensor.
        tensor: String,
        /// How many dimensions it has.
        count: u32,
        /// How many ggml knows.
        limit: u32,
    },
    /// A shape whose sizes multiply to more than can be counted.
    #[error("tensor `{}` has the impossible shape {shape:?}", shown(tensor))]
    Shape {
        /// The tensor.
        tensor: String,
        /// The sizes, innermost first.
        shape: Vec<u64>,
    },
    /// A number that stands for no format of tensors.
    #[error(
        "tensor `{}` is of type number {id}, which ggml does not know or has dropped: a newer \
         mesh-llm may read it, or another file of the model",
        shown(tensor)
    )]
    UnknownTensorType {
        /// The tensor.
        tensor: String,
        /// The number.
        id: u32,
    },
    /// Rows that are not whole blocks.
    #[error(
        "tensor `{}` has rows of {row} elements, and its type {format} stores blocks of {}", shown(tensor),
        format.block_elements()
    )]
    PartialBlock {
        /// The tensor.
        tensor: String,
        /// Elements in a row.
        row: u64,
        /// The format.
        format: TensorType,
    },
    /// Tensor data that does not begin where it may.
    #[error(
        "tensor `{}` begins at offset {offset}, which is not a multiple of {alignment}",
        shown(tensor)
    )]
    Misaligned {
        /// The tensor.
        tensor: String,
        /// The offset in the data section, in bytes.
        offset: u64,
        /// The alignment in bytes.
        alignment: u32,
    },
    /// Metadata that is needed and not there.
    #[error("metadata `{}` is missing", shown(key))]
    MissingKey {
        /// The metadata key.
        key: String,
    },
    /// Metadata of another type than is needed.
    #[error("metadata `{}` is {found}, and {expected} is needed", shown(key))]
    WrongType {
        /// The metadata key.
        key: String,
        /// The type in the file, or the value where the type would do.
        found: String,
        /// What is needed.
        expected: &'static str,
    },
    /// Tensor data handed to the writer was not as long as its shape says.
    #[error("tensor `{}` takes {expected} bytes, and {written} were given", shown(tensor))]
    DataLength {
        /// The tensor.
        tensor: String,
        /// What its shape and format take.
        expected: u64,
        /// What was given.
        written: u64,
    },
    /// The tensors cannot be divided as asked.
    #[error("{tensors} tensors cannot be divided into parts of {parts:?}")]
    Division {
        /// How many tensors there are.
        tensors: usize,
        /// How many tensors each part was to hold.
        parts: Vec<usize>,
    },
    /// A random model that cannot be.
    #[error("a random model cannot have {what}")]
    Specification {
        /// What it cannot have, and why.
        what: String,
    },
}

/// A key or name from a file, fit for a line of a log: short, and without control characters.
pub(super) fn shown(text: &str) -> String {
    const SHOWN_CHARACTERS: usize = 100;
    let mut characters = text.chars();
    let mut shown: String = characters
        .by_ref()
        .take(SHOWN_CHARACTERS)
        .flat_map(char::escape_debug)
        .collect();
    if characters.next().is_some() {
        shown.push('…');
    }
    shown
}

/// The first few names, so that a message stays readable.
fn list(files: &[PathBuf]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<String> = files
        .iter()
        .take(SHOWN)
        .map(|file| file.display().to_string())
        .collect();
    match files.len().checked_sub(SHOWN) {
        Some(more @ 1..) => format!("{} and {more} more", shown.join(", ")),
        _ => shown.join(", "),
    }
}

impl Fault {
    /// The fault as an error of this file.
    pub(super) fn of(self, file: impl Into<PathBuf>) -> Error {
        Error::Content {
            file: file.into(),
            fault: Box::new(self),
        }
    }
}
