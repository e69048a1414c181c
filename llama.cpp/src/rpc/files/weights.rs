//! A model's files, open for reading tensors.

use super::digest::{self, Hasher, SAMPLE_BYTES, Sample};
use super::fingerprint::{Fingerprint, Hash, Identity, Outline};
use super::stamp::Stamp;
use super::{Error, Memory};
use crate::gguf::{Location, Model, Opened, Tensor, TensorType};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// What is read at once while the disk already reads the next: small enough that copying and reading
/// overlap, large enough for a disk's full rate.
const CHUNK_BYTES: usize = 4 << 20;

/// A model in one file or in parts, whose tensors' bytes can be read, by any number of threads at once.
///
/// The files stay open, and what is read is what the header that was read belongs to: a file that was
/// written to since is an error.
#[derive(Debug)]
pub struct WeightFile {
    model: Model,
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    file: File,
    stamp: Stamp,
}

/// What a tensor is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weight<'a> {
    /// The format of its numbers.
    pub element: TensorType,
    /// The sizes of its dimensions, innermost first; at most four.
    pub shape: &'a [u64],
    /// How long its data is, in bytes.
    pub bytes: u64,
}

impl WeightFile {
    /// Opens a model, given its only file or its first part, and keeps all its files open.
    ///
    /// # Errors
    ///
    /// As [`Model::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let (model, files) = Model::open_and_keep(path.as_ref())?;
        let part = |Opened { file, metadata }| Part {
            file,
            stamp: Stamp::of(&metadata),
        };
        Ok(Self {
            model,
            parts: files.into_iter().map(part).collect(),
        })
    }

    /// Metadata and tensor table.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The model's only file or first part.
    pub fn path(&self) -> &Path {
        self.model.first().file()
    }

    /// What the tensor of this name is like.
    ///
    /// # Errors
    ///
    /// [`Error::NoTensor`].
    pub fn tensor(&self, name: &str) -> Result<Weight<'_>, Error> {
        let tensor = self.locate(name)?.tensor;
        Ok(Weight {
            element: tensor.tensor_type,
            shape: &tensor.shape,
            bytes: tensor.bytes,
        })
    }

    /// Fills `into` with a tensor's bytes, from `offset` bytes behind its beginning on. The disk is asked
    /// ahead for what follows in the same tensor.
    ///
    /// # Errors
    ///
    /// [`Error::NoTensor`], [`Error::Range`] where the tensor does not have so many bytes there,
    /// [`Error::Read`], and [`Error::Changed`], after which nothing in `into` is to be used.
    pub fn read_into(&self, name: &str, offset: u64, into: &mut [u8]) -> Result<(), Error> {
        let location = self.locate(name)?;
        let tensor = location.tensor;
        let length = into.len() as u64;
        if offset.checked_add(length).is_none_or(|end| end > tensor.bytes) {
            return Err(Error::Range {
                tensor: tensor.name.clone(),
                bytes: tensor.bytes,
                offset,
                length,
            });
        }
        let end = tensor.offset + tensor.bytes;
        let mut position = tensor.offset + offset;
        for chunk in into.chunks_mut(CHUNK_BYTES) {
            let next = position + chunk.len() as u64;
            self.parts[location.part].advise(next, end.min(next + CHUNK_BYTES as u64));
            self.read(location.part, position, chunk)?;
            position = next;
        }
        // Afterwards: the time of a change is noted before the change itself is made.
        self.check(location.part)
    }

    /// Tells the disk that this tensor is read soon. Returns at once; does nothing where there is no such
    /// tensor or no such service.
    pub fn read_soon(&self, name: &str) {
        if let Some(Location { part, tensor, .. }) = self.model.tensor(name) {
            self.parts[part].advise(tensor.offset, tensor.offset + tensor.bytes);
        }
    }

    /// What the model's tensor table is like.
    pub fn outline(&self) -> Outline {
        let tensors: Vec<&Tensor> = self.model.tensors().map(|location| location.tensor).collect();
        Outline {
            // The reader limits them to far less.
            tensors: tensors.len() as u32,
            tensor_bytes: tensors
                .iter()
                .fold(0, |sum, tensor| tensor.bytes.saturating_add(sum)),
            table: digest::table_hash(&tensors),
        }
    }

    /// Which model this is, from memory if the files are as they were. Reads at most 160 pieces of 4 KiB
    /// otherwise. Whoever asked saves the memory.
    ///
    /// # Errors
    ///
    /// [`Error::Read`] and [`Error::Changed`].
    pub fn identify(&self, memory: &Memory) -> Result<Identity, Error> {
        self.identify_counted(memory).map(|(identity, _)| identity)
    }

    /// Which model this is, and whether its data had to be sampled for that.
    pub(super) fn identify_counted(&self, memory: &Memory) -> Result<(Identity, bool), Error> {
        let files = self.stamps();
        let outline = self.outline();
        let known = memory
            .recall(self.path(), |file| {
                files
                    .iter()
                    .find(|(path, _)| path == file)
                    .map(|(_, stamp)| *stamp)
            })
            .filter(|known| known.outline == outline)
            .and_then(|known| known.fingerprint);
        let fingerprint = match known {
            Some(fingerprint) => fingerprint,
            None => self.sample(&outline.table)?,
        };
        memory.remember(&files, outline, Some(fingerprint));
        let identity = Identity { fingerprint, outline };
        Ok((identity, known.is_none()))
    }

    /// The files and their stamps, in their order.
    pub(super) fn stamps(&self) -> Vec<(PathBuf, Stamp)> {
        let paths = self.model.parts().iter().map(|part| part.file().to_owned());
        paths.zip(self.parts.iter().map(|part| part.stamp)).collect()
    }

    /// The fingerprint, from the files.
    fn sample(&self, table: &Hash) -> Result<Fingerprint, Error> {
        let metadata = digest::metadata_hash(self.model.metadata());
        let tensors: Vec<Location<'_>> = self.model.tensors().collect();
        let lengths: Vec<u64> = tensors.iter().map(|location| location.tensor.bytes).collect();
        let samples = digest::samples(&digest::seed(&metadata, table), &lengths);
        let place = |sample: &Sample| {
            let Location { part, tensor, .. } = tensors[sample.tensor];
            (part, tensor.offset + sample.offset)
        };
        // All at once, so that the disk works on many of them at a time.
        for sample in &samples {
            let (part, position) = place(sample);
            self.parts[part].advise(position, position + sample.bytes);
        }
        let mut buffer = [0; SAMPLE_BYTES as usize];
        let mut hasher = Hasher::new("model");
        hasher.bytes(&metadata);
        hasher.bytes(table);
        hasher.u64(samples.len() as u64);
        for sample in &samples {
            let (part, position) = place(sample);
            // No sample is longer than the buffer.
            let piece = &mut buffer[..sample.bytes as usize];
            self.read(part, position, piece)?;
            hasher.u64(sample.tensor as u64);
            hasher.u64(sample.offset);
            hasher.bytes(piece);
        }
        for part in 0..self.parts.len() {
            self.check(part)?;
        }
        Ok(Fingerprint::new(&hasher.end()))
    }

    fn locate(&self, name: &str) -> Result<Location<'_>, Error> {
        self.model.tensor(name).ok_or_else(|| Error::NoTensor {
            file: self.path().to_owned(),
            tensor: name.to_owned(),
        })
    }

    fn read(&self, part: usize, position: u64, into: &mut [u8]) -> Result<(), Error> {
        self.parts[part]
            .file
            .read_exact_at(into, position)
            .map_err(|source| self.read_error(part, source))
    }

    /// Whether a part is still what it was when its header was read.
    fn check(&self, part: usize) -> Result<(), Error> {
        let Part { file, stamp } = &self.parts[part];
        let metadata = file.metadata().map_err(|source| self.read_error(part, source))?;
        if Stamp::of(&metadata).same_content(stamp) {
            return Ok(());
        }
        Err(Error::Changed {
            file: self.model.parts()[part].file().to_owned(),
        })
    }

    fn read_error(&self, part: usize, source: std::io::Error) -> Error {
        let file = self.model.parts()[part].file().to_owned();
        // The header's claims were checked against the file's length, so it has been cut since.
        if source.kind() == std::io::ErrorKind::UnexpectedEof {
            return Error::Changed { file };
        }
        Error::Read { file, source }
    }
}

impl Part {
    /// Tells the disk that this stretch of the file is read soon. It is advice: nothing comes of it where
    /// it is not taken.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn advise(&self, from: u64, to: u64) {
        if let Some(length) = std::num::NonZeroU64::new(to.saturating_sub(from)) {
            let _ = rustix::fs::fadvise(&self.file, from, Some(length), rustix::fs::Advice::WillNeed);
        }
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    fn advise(&self, _from: u64, _to: u64) {}
}
