//! The bytes of a GGUF file, from the first to the end of the tensor table. Everything that they claim is
//! checked here, against the file's length first.

use std::fmt;
use std::io::{self, Read};

use super::array::Array;
use super::error::shown;
use super::metadata::{self, Metadata, Value, ValueType};
use super::types::{self, ShapeFault};
use super::{DEFAULT_ALIGNMENT, Fault, MAGIC, Tensor, TensorType};

/// Where metadata and tensor table must end, in bytes from the beginning of the file: the largest
/// vocabularies of today take 20 MB.
pub const HEADER_LIMIT: u64 = 256 << 20;
/// How many metadata entries a file may have; models of today have below 100.
const METADATA_LIMIT: u64 = 1 << 16;
/// How many tensors a file may have; models of today have below 5,000.
const TENSOR_LIMIT: u64 = 1 << 18;
/// How long a metadata key may be in bytes, by the format's definition.
const KEY_LIMIT: u64 = (1 << 16) - 1;
/// How long a tensor's name may be in bytes, by ggml's `GGML_MAX_NAME`.
pub(super) const NAME_LIMIT: u64 = 63;
/// How many dimensions a tensor may have, by ggml's `GGML_MAX_DIMS`.
pub(super) const DIMENSION_LIMIT: u32 = 4;
/// The highest alignment in bytes; files of today use 32.
pub const ALIGNMENT_LIMIT: u32 = 1 << 20;
/// The least that a metadata entry takes: length, one byte of key, type, one byte of value.
const METADATA_LEAST_BYTES: u64 = 8 + 1 + 4 + 1;
/// The least that an entry of the tensor table takes: length, one byte of name, dimension count, type,
/// offset.
const TENSOR_LEAST_BYTES: u64 = 8 + 1 + 4 + 4 + 8;

/// What a file says, checked.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Contents {
    pub(super) version: u32,
    pub(super) metadata: Metadata,
    pub(super) tensors: Vec<Tensor>,
    /// The positions in `tensors`, sorted by name.
    pub(super) by_name: Vec<u32>,
    pub(super) alignment: u32,
    pub(super) data_offset: u64,
}

/// Where in a file the reader is, for error messages.
#[derive(Clone, Copy)]
enum Place<'a> {
    Header,
    Key(u64),
    Value(&'a str),
    TensorName(u64),
    TensorEntry(&'a str),
    TensorData(&'a str),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header => write!(f, "the header"),
            Self::Key(index) => write!(f, "the key of metadata entry {index}"),
            Self::Value(key) => write!(f, "metadata `{}`", shown(key)),
            Self::TensorName(index) => write!(f, "the name of tensor {index}"),
            Self::TensorEntry(name) => write!(f, "the table entry of tensor `{}`", shown(name)),
            Self::TensorData(name) => write!(f, "the data of tensor `{}`", shown(name)),
        }
    }
}

/// A fault of the file, or of the disk that it is on.
pub(super) enum Problem {
    Fault(Fault),
    Io(io::Error),
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Reads a file from front to back and knows how much of it is left.
pub(super) struct Cursor<R> {
    source: R,
    position: u64,
    file_bytes: u64,
}

impl<R: Read> Cursor<R> {
    /// At the beginning of a file of this length.
    pub(super) fn new(source: R, file_bytes: u64) -> Self {
        Self {
            source,
            position: 0,
            file_bytes,
        }
    }

    pub(super) fn contents(mut self) -> Result<Contents, Problem> {
        let version = self.version()?;
        let tensor_count = self.count("tensors", TENSOR_LEAST_BYTES, TENSOR_LIMIT)?;
        let metadata_count = self.count("metadata entries", METADATA_LEAST_BYTES, METADATA_LIMIT)?;
        // No capacity is reserved for counts: memory grows with what is really there.
        let mut entries = Vec::new();
        for index in 0..metadata_count {
            entries.push(self.metadata_entry(index)?);
        }
        let metadata = Metadata::new(entries)?;
        let alignment = alignment(&metadata)?;
        let mut tensors = Vec::new();
        for index in 0..tensor_count {
            tensors.push(self.tensor(index, alignment)?);
        }
        let by_name =
            metadata::sorted_index(tensors.iter().map(|tensor| tensor.name.as_str())).map_err(|tensor| {
                Fault::DuplicateTensor {
                    tensor: tensor.to_owned(),
                }
            })?;
        let data_offset = self.position.next_multiple_of(alignment.into());
        for tensor in &mut tensors {
            place(tensor, data_offset, self.file_bytes)?;
        }
        Ok(Contents {
            version,
            metadata,
            tensors,
            by_name,
            alignment,
            data_offset,
        })
    }

    fn version(&mut self) -> Result<u32, Problem> {
        let magic: [u8; 4] = self.array(Place::Header)?;
        if magic != MAGIC {
            return Err(Fault::Magic(magic).into());
        }
        let version = self.u32(Place::Header)?;
        match version {
            2 | 3 => Ok(version),
            0 | 1 => Err(Fault::VersionTooOld(version).into()),
            swapped if swapped & 0xffff == 0 => Err(Fault::BigEndian.into()),
            _ => Err(Fault::VersionTooNew(version).into()),
        }
    }

    fn count(&mut self, what: &'static str, least: u64, limit: u64) -> Result<u64, Problem> {
        let count = self.u64(Place::Header)?;
        let limit = limit.min(self.remaining() / least);
        if count > limit {
            return Err(Fault::Count {
                what,
                count,
                limit,
                file_bytes: self.file_bytes,
            }
            .into());
        }
        Ok(count)
    }

    fn metadata_entry(&mut self, index: u64) -> Result<(String, Value), Problem> {
        let key = self.name(Place::Key(index), KEY_LIMIT)?;
        let place = Place::Value(&key);
        let value = match self.value_type(&key)? {
            ValueType::U8 => Value::U8(u8::from_le_bytes(self.array(place)?)),
            ValueType::I8 => Value::I8(i8::from_le_bytes(self.array(place)?)),
            ValueType::U16 => Value::U16(u16::from_le_bytes(self.array(place)?)),
            ValueType::I16 => Value::I16(i16::from_le_bytes(self.array(place)?)),
            ValueType::U32 => Value::U32(self.u32(place)?),
            ValueType::I32 => Value::I32(i32::from_le_bytes(self.array(place)?)),
            ValueType::F32 => Value::F32(f32::from_le_bytes(self.array(place)?)),
            ValueType::Bool => Value::Bool(self.array(place)? != [0u8]),
            ValueType::U64 => Value::U64(self.u64(place)?),
            ValueType::I64 => Value::I64(i64::from_le_bytes(self.array(place)?)),
            ValueType::F64 => Value::F64(f64::from_le_bytes(self.array(place)?)),
            ValueType::String => {
                let length = self.u64(place)?;
                Value::String(self.text(place, length)?)
            }
            ValueType::Array => Value::Array(self.metadata_array(&key)?),
        };
        Ok((key, value))
    }

    fn value_type(&mut self, key: &str) -> Result<ValueType, Problem> {
        let id = self.u32(Place::Value(key))?;
        ValueType::from_id(id).ok_or_else(|| {
            Fault::UnknownValueType {
                key: key.to_owned(),
                id,
            }
            .into()
        })
    }

    fn metadata_array(&mut self, key: &str) -> Result<Array, Problem> {
        let place = Place::Value(key);
        let element_type = self.value_type(key)?;
        if element_type == ValueType::Array {
            return Err(Fault::NestedArray { key: key.to_owned() }.into());
        }
        let length = self.u64(place)?;
        let least = length.saturating_mul(element_type.least_bytes());
        self.check_room(place, least)?;
        let mut bytes = Vec::new();
        if element_type == ValueType::String {
            for _ in 0..length {
                let string = self.u64(place)?;
                bytes.extend_from_slice(&string.to_le_bytes());
                self.append(place, string, &mut bytes)?;
            }
        } else {
            self.append(place, least, &mut bytes)?;
        }
        // It fits, since `check_room` has found that so many elements are in the file's first part.
        Ok(Array::from_bytes(element_type, length as usize, bytes))
    }

    fn tensor(&mut self, index: u64, alignment: u32) -> Result<Tensor, Problem> {
        let name = self.name(Place::TensorName(index), NAME_LIMIT)?;
        let place = Place::TensorEntry(&name);
        let dimensions = self.u32(place)?;
        if dimensions > DIMENSION_LIMIT {
            return Err(Fault::Dimensions {
                tensor: name,
                count: dimensions,
                limit: DIMENSION_LIMIT,
            }
            .into());
        }
        let shape = (0..dimensions)
            .map(|_| self.u64(place))
            .collect::<Result<Vec<u64>, Problem>>()?;
        let id = self.u32(place)?;
        let Some(tensor_type) = TensorType::from_id(id) else {
            return Err(Fault::UnknownTensorType { tensor: name, id }.into());
        };
        let offset = self.u64(place)?;
        if !offset.is_multiple_of(alignment.into()) {
            return Err(Fault::Misaligned {
                tensor: name,
                offset,
                alignment,
            }
            .into());
        }
        Ok(tensor(name, shape, tensor_type, offset)?)
    }

    /// A key or a name: a string that is not empty.
    fn name(&mut self, place: Place<'_>, limit: u64) -> Result<String, Problem> {
        let length = self.u64(place)?;
        if length == 0 {
            return Err(Fault::Empty {
                place: place.to_string(),
            }
            .into());
        }
        // Before the limit, since a length beyond the file's end is rather a damaged file.
        self.check_room(place, length)?;
        if length > limit {
            return Err(Fault::TooLong {
                place: place.to_string(),
                length,
                limit,
            }
            .into());
        }
        self.text(place, length)
    }

    fn text(&mut self, place: Place<'_>, length: u64) -> Result<String, Problem> {
        let mut bytes = Vec::new();
        self.append(place, length, &mut bytes)?;
        String::from_utf8(bytes).map_err(|_| {
            Fault::NotUtf8 {
                place: place.to_string(),
            }
            .into()
        })
    }

    fn u32(&mut self, place: Place<'_>) -> Result<u32, Problem> {
        self.array(place).map(u32::from_le_bytes)
    }

    fn u64(&mut self, place: Place<'_>) -> Result<u64, Problem> {
        self.array(place).map(u64::from_le_bytes)
    }

    fn array<const N: usize>(&mut self, place: Place<'_>) -> Result<[u8; N], Problem> {
        let mut bytes = [0; N];
        self.fill(place, &mut bytes)?;
        Ok(bytes)
    }

    /// Reads `length` bytes and appends them to `bytes`.
    fn append(&mut self, place: Place<'_>, length: u64, bytes: &mut Vec<u8>) -> Result<(), Problem> {
        self.check_room(place, length)?;
        let begin = bytes.len();
        // It fits: `check_room` allows no more than HEADER_LIMIT, and no more than the file has.
        bytes.resize(begin + length as usize, 0);
        self.fill(place, &mut bytes[begin..])
    }

    fn fill(&mut self, place: Place<'_>, bytes: &mut [u8]) -> Result<(), Problem> {
        let length = bytes.len() as u64;
        self.check_room(place, length)?;
        self.source.read_exact(bytes).map_err(|error| {
            if error.kind() == io::ErrorKind::UnexpectedEof {
                Fault::Shrunk {
                    file_bytes: self.file_bytes,
                }
                .into()
            } else {
                Problem::Io(error)
            }
        })?;
        self.position += length;
        Ok(())
    }

    fn check_room(&self, place: Place<'_>, length: u64) -> Result<(), Fault> {
        if length > self.remaining() {
            return Err(self.truncated(place, length - self.remaining()));
        }
        if length > HEADER_LIMIT - self.position {
            return Err(Fault::HeaderTooLong {
                place: place.to_string(),
                limit: HEADER_LIMIT,
            });
        }
        Ok(())
    }

    fn truncated(&self, place: Place<'_>, missing: u64) -> Fault {
        Fault::Truncated {
            place: place.to_string(),
            file_bytes: self.file_bytes,
            missing,
        }
    }

    fn remaining(&self) -> u64 {
        self.file_bytes - self.position
    }
}

/// The alignment that the metadata asks for.
fn alignment(metadata: &Metadata) -> Result<u32, Fault> {
    let alignment = metadata
        .get::<u32>("general.alignment")?
        .unwrap_or(DEFAULT_ALIGNMENT);
    check_alignment(alignment)?;
    Ok(alignment)
}

pub(super) fn check_alignment(alignment: u32) -> Result<(), Fault> {
    if !alignment.is_power_of_two() || alignment > ALIGNMENT_LIMIT {
        return Err(Fault::Alignment {
            alignment: alignment.into(),
            limit: ALIGNMENT_LIMIT.into(),
        });
    }
    Ok(())
}

/// A tensor of this shape and format, whose size is computed.
pub(super) fn tensor(
    name: String,
    shape: Vec<u64>,
    tensor_type: TensorType,
    offset: u64,
) -> Result<Tensor, Fault> {
    match types::byte_size(&shape, tensor_type) {
        Ok(bytes) => Ok(Tensor {
            name,
            shape,
            tensor_type,
            offset,
            bytes,
        }),
        Err(ShapeFault::TooLarge) => Err(Fault::Shape { tensor: name, shape }),
        Err(ShapeFault::PartialBlock) => Err(Fault::PartialBlock {
            tensor: name,
            row: shape.first().copied().unwrap_or(1),
            format: tensor_type,
        }),
    }
}

/// Turns the tensor's offset, relative to the data section so far, into one in the file, and checks that
/// its data is inside the file.
fn place(tensor: &mut Tensor, data_offset: u64, file_bytes: u64) -> Result<(), Fault> {
    let offset = tensor.offset.saturating_add(data_offset);
    let end = offset.saturating_add(tensor.bytes);
    if end > file_bytes {
        return Err(Fault::Truncated {
            place: Place::TensorData(&tensor.name).to_string(),
            file_bytes,
            missing: end - file_bytes,
        });
    }
    tensor.offset = offset;
    Ok(())
}
