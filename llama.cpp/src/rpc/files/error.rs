//! Why a model's weights cannot be had.

use crate::gguf;
use std::io;
use std::path::PathBuf;

/// Why a model's weights cannot be had from its files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The files are no model.
    #[error(transparent)]
    Model(#[from] gguf::Error),
    /// The operating system refused to read tensor data.
    #[error("{}: cannot be read: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A file was written to after its header was read: its weights may be another model's by now.
    #[error("{}: was changed while it was in use: load the model again", file.display())]
    Changed {
        /// The file.
        file: PathBuf,
    },
    /// There is no tensor of this name.
    #[error("{}: has no tensor `{tensor}`", file.display())]
    NoTensor {
        /// The model's first file.
        file: PathBuf,
        /// The name.
        tensor: String,
    },
    /// More was asked for than the tensor has.
    #[error("tensor `{tensor}` has {bytes} bytes: {length} bytes from byte {offset} on are not all in it")]
    Range {
        /// The tensor's name.
        tensor: String,
        /// How long its data is, in bytes.
        bytes: u64,
        /// Where the reading was to begin, in bytes from the beginning of the tensor.
        offset: u64,
        /// How many bytes were asked for.
        length: u64,
    },
    /// A model directory cannot be used.
    #[error("model directory {}: {source}", folder.display())]
    Folder {
        /// The directory.
        folder: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}
