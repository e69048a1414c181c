//! Why there is no model to serve.

use super::choice::TINY;
use crate::exit::Exit;
use std::fmt;
use std::path::PathBuf;

/// Names that may have been meant, in a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names(pub Vec<String>);

/// Names that an error lists; more help nobody.
const MAX_NAMES: usize = 12;

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0[..self.0.len().min(MAX_NAMES)].join(", "))?;
        match self.0.len().saturating_sub(MAX_NAMES) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// Why there is no model to serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name is not known.
    #[error(
        "there is no model `{name}`: it is no file, no name of the catalog (`mesh-llm download` lists it) and none on disk{}; give --model a name of these, org/repo of Hugging Face, a URL, a path, or `{TINY}`",
        on_disk(there)
    )]
    UnknownName {
        /// The words.
        name: String,
        /// What is on disk.
        there: Names,
    },
    /// Nothing on disk has such a name.
    #[error(
        "no model on disk is called `{name}`{}; `mesh-llm models` lists them",
        on_disk(there)
    )]
    NotOnDisk {
        /// The words.
        name: String,
        /// What is on disk.
        there: Names,
    },
    /// The name may mean several models.
    #[error("`{name}` may mean {models}: write more of the name")]
    Ambiguous {
        /// The words.
        name: String,
        /// What may be meant.
        models: Names,
    },
    /// The model is in the catalog, but nobody knows where its files are.
    #[error("{name} is in the catalog without a place to fetch it from: download its GGUF files by hand and give --model the path of the first, or add a row for it to {}", catalog.display())]
    NoSource {
        /// The model.
        name: String,
        /// The user's table.
        catalog: PathBuf,
    },
    /// A URL leads to something else.
    #[error("{url} does not end in the name of a .gguf file: give --model the URL of the file itself")]
    NotAModelUrl {
        /// The URL.
        url: String,
    },
    /// There is no folder to download to.
    #[error("there is no folder for downloads: set MESH_LLM_MODELS to one")]
    NoStore,
    /// The user's table of models is wrong.
    #[error(transparent)]
    Catalog(#[from] super::catalog::Error),
    /// The file cannot be opened or read.
    #[error("the model {} cannot be read: {cause}; check the path and its permissions", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        cause: std::io::Error,
    },
    /// The path leads to something that is not a file.
    #[error("the model {} is not a file; give --model a file that ends in .gguf", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The file is something else.
    #[error("{} is not a GGUF file: it {what}; download it again, or convert the model to GGUF first", path.display())]
    NotGguf {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        what: &'static str,
    },
    /// The file is a later part of a split model.
    #[error("{} is not the first part of its model; name {}", path.display(), first.display())]
    NotTheFirstPart {
        /// The file.
        path: PathBuf,
        /// The part to name.
        first: PathBuf,
    },
    /// The embedded model could not be put on disk.
    #[error("the embedded model cannot be written to {}: {cause}; free space there, or set MESH_LLM_HOME to a folder that you can write to", path.display())]
    Unwritable {
        /// Where to.
        path: PathBuf,
        /// Why not.
        cause: std::io::Error,
    },
}

fn on_disk(there: &Names) -> String {
    if there.0.is_empty() {
        String::new()
    } else {
        format!(", where there is {there}")
    }
}

impl Error {
    /// How the process ends for this.
    pub fn exit(&self) -> Exit {
        match self {
            Error::UnknownName { .. }
            | Error::Ambiguous { .. }
            | Error::NotOnDisk { .. }
            | Error::NoSource { .. }
            | Error::NotAModelUrl { .. }
            | Error::Unreadable { .. }
            | Error::NotAFile { .. } => Exit::FILE,
            Error::NotGguf { .. } | Error::NotTheFirstPart { .. } => Exit::MODEL,
            Error::Catalog(_) | Error::NoStore => Exit::CONFIGURATION,
            Error::Unwritable { .. } => Exit::STATE,
        }
    }
}
