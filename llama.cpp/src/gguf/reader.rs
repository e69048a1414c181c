//! One GGUF file: header, metadata and tensor table. Tensor data stays on disk.

use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use super::metadata::{self, FromValue, Metadata};
use super::parse::{Contents, Cursor, Problem};
use super::{Error, TensorType};

/// The header, metadata and tensor table of one file.
#[derive(Clone, PartialEq, Debug)]
pub struct Gguf {
    file: PathBuf,
    file_bytes: u64,
    contents: Contents,
}

/// A file whose header was read.
#[derive(Debug)]
pub struct Opened {
    /// The file. Its cursor is anywhere: read at positions.
    pub file: File,
    /// What the operating system said of it before the header was read.
    pub metadata: fs::Metadata,
}

/// An entry of the tensor table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tensor {
    /// The tensor's name, such as `blk.0.attn_q.weight`.
    pub name: String,
    /// The sizes of its dimensions, innermost first; at most four.
    pub shape: Vec<u64>,
    /// The format of its numbers.
    pub tensor_type: TensorType,
    /// Where its data begins, in bytes from the beginning of the file.
    pub offset: u64,
    /// How long its data is, in bytes.
    pub bytes: u64,
}

impl Gguf {
    /// Reads header, metadata and tensor table of a file, and checks them.
    ///
    /// # Errors
    ///
    /// [`Error::Read`] where the file cannot be read, [`Error::Content`] where it is damaged, cut
    /// short, or no model.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::open_and_keep(path.as_ref()).map(|(gguf, _)| gguf)
    }

    /// Like [`open`](Self::open), and hands over the file itself, for who reads tensors from the very
    /// file whose header this is, whatever its name leads to later.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_and_keep(path: &Path) -> Result<(Self, Opened), Error> {
        let read_error = |source| Error::Read {
            file: path.to_owned(),
            source,
        };
        // Before it is opened, which would wait for ever at a pipe that nobody writes to.
        if !fs::metadata(path).map_err(read_error)?.is_file() {
            return Err(read_error(io::Error::other(
                "is a directory or device, not a file",
            )));
        }
        // Plain reads: a file that shrinks while it is mapped would end the process.
        let file = File::open(path).map_err(read_error)?;
        let metadata = file.metadata().map_err(read_error)?;
        let gguf = Self::read(path, BufReader::with_capacity(1 << 18, &file), metadata.len())?;
        Ok((gguf, Opened { file, metadata }))
    }

    /// Like [`open`](Self::open), from bytes in memory that are the file of this name.
    ///
    /// # Errors
    ///
    /// [`Error::Content`], as [`open`](Self::open).
    pub fn parse(path: impl AsRef<Path>, bytes: &[u8]) -> Result<Self, Error> {
        Self::read(path.as_ref(), bytes, bytes.len() as u64)
    }

    /// Reads from `source` what a file of this length begins with.
    pub(super) fn read(path: &Path, source: impl Read, file_bytes: u64) -> Result<Self, Error> {
        let contents = Cursor::new(source, file_bytes)
            .contents()
            .map_err(|problem| match problem {
                Problem::Fault(fault) => fault.of(path),
                Problem::Io(source) => Error::Read {
                    file: path.to_owned(),
                    source,
                },
            })?;
        Ok(Self {
            file: path.to_owned(),
            file_bytes,
            contents,
        })
    }

    /// The file's name.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The file's length in bytes.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// The version of the format, 2 or 3.
    pub fn version(&self) -> u32 {
        self.contents.version
    }

    /// The alignment of tensor data, in bytes.
    pub fn alignment(&self) -> u32 {
        self.contents.alignment
    }

    /// Where tensor data begins, in bytes from the beginning of the file. In a file without tensors it
    /// may lie behind the end.
    pub fn data_offset(&self) -> u64 {
        self.contents.data_offset
    }

    /// The metadata.
    pub fn metadata(&self) -> &Metadata {
        &self.contents.metadata
    }

    /// The value of a metadata key, as [`Metadata::get`] has it.
    ///
    /// # Errors
    ///
    /// [`Error::Content`] where the value is of another type or does not fit.
    pub fn get<'a, T: FromValue<'a>>(&'a self, key: &str) -> Result<Option<T>, Error> {
        self.contents
            .metadata
            .get(key)
            .map_err(|fault| fault.of(&self.file))
    }

    /// The value of a metadata key that must be there, as [`Metadata::require`] has it.
    ///
    /// # Errors
    ///
    /// [`Error::Content`] where the key is not there, the value is of another type or does not fit.
    pub fn require<'a, T: FromValue<'a>>(&'a self, key: &str) -> Result<T, Error> {
        self.contents
            .metadata
            .require(key)
            .map_err(|fault| fault.of(&self.file))
    }

    /// The tensors, in the order of the file.
    pub fn tensors(&self) -> &[Tensor] {
        &self.contents.tensors
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        let tensors = &self.contents.tensors;
        metadata::find(&self.contents.by_name, name, |index| &tensors[index].name)
            .map(|index| &tensors[index])
    }
}
