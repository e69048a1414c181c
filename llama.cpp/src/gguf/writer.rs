//! Writing GGUF files.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::error::shown;
use super::metadata::{Metadata, Value};
use super::model::{SPLIT_COUNT, SPLIT_NUMBER, SPLIT_TENSORS, part_path};
use super::parse::{self, DIMENSION_LIMIT, NAME_LIMIT};
use super::{DEFAULT_ALIGNMENT, Error, Fault, MAGIC, TensorType};

/// The version of the format that is written.
const VERSION: u32 = 3;
const ALIGNMENT_KEY: &str = "general.alignment";

/// Writes a tensor's data. It may be asked to do so more than once.
pub type TensorData<'a> = Box<dyn Fn(&mut dyn Write) -> io::Result<()> + 'a>;

/// Makes GGUF files of version 3: one, or the parts of a model.
///
/// Tensor data is asked for when its turn comes, so that a model need not be in memory.
#[derive(Default)]
pub struct Writer<'a> {
    metadata: Vec<(String, Value)>,
    tensors: Vec<Pending<'a>>,
}

struct Pending<'a> {
    name: String,
    shape: Vec<u64>,
    tensor_type: TensorType,
    data: TensorData<'a>,
}

/// What one file is to hold, checked.
struct Plan<'a> {
    header: Vec<u8>,
    alignment: u64,
    tensors: Vec<(&'a Pending<'a>, u64)>,
}

impl<'a> Writer<'a> {
    /// A file without metadata and tensors.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a metadata entry. `general.alignment`, a power of two in bytes, sets the alignment of
    /// tensor data.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<Value>) -> &mut Self {
        self.metadata.push((key.into(), value.into()));
        self
    }

    /// Appends a tensor, whose dimensions' sizes are given innermost first.
    pub fn tensor(
        &mut self,
        name: impl Into<String>,
        shape: impl Into<Vec<u64>>,
        tensor_type: TensorType,
        data: impl Fn(&mut dyn Write) -> io::Result<()> + 'a,
    ) -> &mut Self {
        self.tensors.push(Pending {
            name: name.into(),
            shape: shape.into(),
            tensor_type,
            data: Box::new(data),
        });
        self
    }

    /// Writes the file. It gets its name only once it is complete.
    ///
    /// # Errors
    ///
    /// [`Error::Content`] where the reader would refuse such a file or a tensor's data is not as long
    /// as its shape says, [`Error::Write`] where the disk refuses.
    pub fn write(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let path = path.as_ref();
        plan(&self.metadata, &self.tensors)
            .map_err(|fault| fault.of(path))?
            .write(path)
    }

    /// The file's bytes, for files that fit into memory.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write), with an empty file name.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        let path = Path::new("");
        plan(&self.metadata, &self.tensors)
            .map_err(|fault| fault.of(path))?
            .write_to(path, &mut bytes)?;
        Ok(bytes)
    }

    /// Writes the model in parts `PREFIX-00001-of-0000N.gguf`, of which each holds the next so many
    /// tensors; the first one may hold none. Returns the parts' names.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write), and where `tensors_per_part` does not sum up to all tensors.
    pub fn write_parts(
        &self,
        prefix: impl AsRef<Path>,
        tensors_per_part: &[usize],
    ) -> Result<Vec<PathBuf>, Error> {
        let prefix = prefix.as_ref();
        let division = || Fault::Division {
            tensors: self.tensors.len(),
            parts: tensors_per_part.to_vec(),
        };
        let count = u16::try_from(tensors_per_part.len()).map_err(|_| division().of(prefix))?;
        let total: Option<usize> = tensors_per_part
            .iter()
            .try_fold(0usize, |sum, &part| sum.checked_add(part));
        if count == 0 || total != Some(self.tensors.len()) {
            return Err(division().of(prefix));
        }
        let mut paths = Vec::new();
        let mut rest = self.tensors.as_slice();
        for (number, &length) in (0..count).zip(tensors_per_part) {
            let (tensors, later) = rest.split_at(length);
            rest = later;
            let path = part_path(prefix, u32::from(number) + 1, count.into());
            plan(&self.part_metadata(number, count), tensors)
                .map_err(|fault| fault.of(&path))?
                .write(&path)?;
            paths.push(path);
        }
        Ok(paths)
    }

    /// The metadata of a part: all in the first one, and what belongs to the division in each.
    fn part_metadata(&self, number: u16, count: u16) -> Vec<(String, Value)> {
        let mut metadata: Vec<(String, Value)> = self
            .metadata
            .iter()
            .filter(|(key, _)| number == 0 || key == ALIGNMENT_KEY)
            .cloned()
            .collect();
        // These types are the ones of llama.cpp's own tool, which also reads them so.
        metadata.push((SPLIT_NUMBER.to_owned(), Value::U16(number)));
        metadata.push((SPLIT_COUNT.to_owned(), Value::U16(count)));
        metadata.push((
            SPLIT_TENSORS.to_owned(),
            Value::I32(i32::try_from(self.tensors.len()).unwrap_or(i32::MAX)),
        ));
        metadata
    }
}

/// Checks what a file is to hold and lays it out.
fn plan<'a>(metadata: &[(String, Value)], tensors: &'a [Pending<'a>]) -> Result<Plan<'a>, Fault> {
    let checked = Metadata::new(metadata.to_vec())?;
    let alignment = checked.get::<u32>(ALIGNMENT_KEY)?.unwrap_or(DEFAULT_ALIGNMENT);
    parse::check_alignment(alignment)?;
    super::metadata::sorted_index(tensors.iter().map(|tensor| tensor.name.as_str())).map_err(|tensor| {
        Fault::DuplicateTensor {
            tensor: tensor.to_owned(),
        }
    })?;

    let mut header = MAGIC.to_vec();
    header.extend_from_slice(&VERSION.to_le_bytes());
    put_u64(&mut header, tensors.len() as u64);
    put_u64(&mut header, metadata.len() as u64);
    for (key, value) in checked.iter() {
        if key.is_empty() {
            return Err(Fault::Empty {
                place: "a metadata key".to_owned(),
            });
        }
        put_text(&mut header, key.as_bytes());
        header.extend_from_slice(&value.value_type().id().to_le_bytes());
        put_value(&mut header, value);
    }
    let mut planned = Vec::new();
    let mut offset = 0u64;
    for tensor in tensors {
        let bytes = check_tensor(tensor)?;
        put_text(&mut header, tensor.name.as_bytes());
        // At most four, says the check.
        header.extend_from_slice(&(tensor.shape.len() as u32).to_le_bytes());
        for &size in &tensor.shape {
            put_u64(&mut header, size);
        }
        header.extend_from_slice(&tensor.tensor_type.id().to_le_bytes());
        put_u64(&mut header, offset);
        planned.push((tensor, bytes));
        offset = bytes
            .checked_next_multiple_of(alignment.into())
            .and_then(|padded| offset.checked_add(padded))
            .ok_or_else(|| Fault::Shape {
                tensor: tensor.name.clone(),
                shape: tensor.shape.clone(),
            })?;
    }
    Ok(Plan {
        header,
        alignment: alignment.into(),
        tensors: planned,
    })
}

/// Checks a tensor as the reader would, and computes its size in bytes.
fn check_tensor(tensor: &Pending<'_>) -> Result<u64, Fault> {
    let name = &tensor.name;
    if name.is_empty() {
        return Err(Fault::Empty {
            place: "a tensor's name".to_owned(),
        });
    }
    if name.len() as u64 > NAME_LIMIT {
        return Err(Fault::TooLong {
            place: format!("the tensor name `{}`", shown(name)),
            length: name.len() as u64,
            limit: NAME_LIMIT,
        });
    }
    if tensor.shape.len() > DIMENSION_LIMIT as usize {
        return Err(Fault::Dimensions {
            tensor: name.clone(),
            count: u32::try_from(tensor.shape.len()).unwrap_or(u32::MAX),
            limit: DIMENSION_LIMIT,
        });
    }
    parse::tensor(name.clone(), tensor.shape.clone(), tensor.tensor_type, 0).map(|checked| checked.bytes)
}

impl Plan<'_> {
    fn write(&self, path: &Path) -> Result<(), Error> {
        let write_error = |source| Error::Write {
            file: path.to_owned(),
            source,
        };
        // The process's number, so that two who make the same file do not write into one another's.
        let mut partial = path.as_os_str().to_owned();
        partial.push(format!(".{}.partial", std::process::id()));
        let partial = PathBuf::from(partial);
        let written = File::create(&partial).map_err(write_error).and_then(|file| {
            let mut out = BufWriter::with_capacity(1 << 18, file);
            self.write_to(path, &mut out)?;
            out.flush().map_err(write_error)?;
            fs::rename(&partial, path).map_err(write_error)
        });
        if written.is_err() {
            // The first error is the one to report.
            let _ = fs::remove_file(&partial);
        }
        written
    }

    fn write_to(&self, path: &Path, out: &mut dyn Write) -> Result<(), Error> {
        let write_error = |source| Error::Write {
            file: path.to_owned(),
            source,
        };
        let mut counted = Counted { out, written: 0 };
        counted.write_all(&self.header).map_err(write_error)?;
        for &(tensor, bytes) in &self.tensors {
            counted.pad(self.alignment).map_err(write_error)?;
            let begin = counted.written;
            (tensor.data)(&mut counted).map_err(write_error)?;
            let written = counted.written - begin;
            if written != bytes {
                return Err(Fault::DataLength {
                    tensor: tensor.name.clone(),
                    expected: bytes,
                    written,
                }
                .of(path));
            }
        }
        counted.pad(self.alignment).map_err(write_error)
    }
}

/// Counts what is written.
struct Counted<'a> {
    out: &'a mut dyn Write,
    written: u64,
}

impl Counted<'_> {
    fn pad(&mut self, alignment: u64) -> io::Result<()> {
        let padding = self.written.next_multiple_of(alignment) - self.written;
        io::copy(&mut io::Read::take(io::repeat(0), padding), self)?;
        Ok(())
    }
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    put_u64(out, text.len() as u64);
    out.extend_from_slice(text);
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(value) => out.push(*value),
        Value::I8(value) => out.extend_from_slice(&value.to_le_bytes()),
        Value::U16(value) => out.extend_from_slice(&value.to_le_bytes()),
        Value::I16(value) => out.extend_from_slice(&value.to_le_bytes()),
        Value::U32(value) => out.extend_from_slice(&value.to_le_bytes()),
        Value::I32(value) => out.extend_from_slice(&value.to_le_bytes()),
        Value::U64(value) => out.extend_from_slice(&value.to_le_bytes()),
        Value::I64(value) => out.extend_from_slice(&value.to_le_bytes()),
        Value::F32(value) => out.extend_from_slice(&value.to_le_bytes()),
        Value::F64(value) => out.extend_from_slice(&value.to_le_bytes()),
        Value::Bool(value) => out.push(u8::from(*value)),
        Value::String(text) => put_text(out, text.as_bytes()),
        Value::Array(array) => {
            out.extend_from_slice(&array.element_type().id().to_le_bytes());
            put_u64(out, array.len() as u64);
            out.extend_from_slice(array.bytes());
        }
    }
}
