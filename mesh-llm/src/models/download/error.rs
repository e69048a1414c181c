//! What goes wrong with downloads, and what to do about it.

use super::facts::Sha256;
use crate::exit::Exit;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Names that an error lists at most.
const MAX_NAMES: usize = 20;

/// Why a file could not be downloaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Downloads are switched off.
    #[error(
        "{what} is not on disk, and HF_HUB_OFFLINE forbids downloads; unset it, or use a model that is on disk"
    )]
    Offline {
        /// What was wanted.
        what: String,
    },
    /// The server cannot be reached.
    #[error("no connection to {host}: {cause}; check the network, and HTTPS_PROXY if there is a proxy")]
    NoConnection {
        /// The server.
        host: String,
        /// Why not.
        cause: String,
    },
    /// Connections kept breaking off, or brought nothing.
    #[error(
        "the download of {url} broke off again and again: {cause}; start it again to continue where it stopped"
    )]
    Broken {
        /// What was downloaded.
        url: String,
        /// What happened last.
        cause: String,
    },
    /// The server does not want requests now.
    #[error("{host} is busy (status {status}); try again {}, the download continues where it stopped", when(*after))]
    Busy {
        /// The server.
        host: String,
        /// 429 or one of 5xx.
        status: u16,
        /// What it asked for.
        after: Option<Duration>,
    },
    /// The repository's licence has to be accepted first.
    #[error("{repo} is gated: accept its licence at {page}, then {}", match has_token {
        true => "try again (the token in HF_TOKEN must belong to the account that accepted it)",
        false => "set HF_TOKEN to a token of that account",
    })]
    Gated {
        /// The repository.
        repo: String,
        /// Where the licence is.
        page: String,
        /// Whether a token was shown.
        has_token: bool,
    },
    /// The token is not good.
    #[error(
        "{host} does not accept the token: make a new one at {page} and set HF_TOKEN to it, or unset HF_TOKEN for public models"
    )]
    BadToken {
        /// The server.
        host: String,
        /// Where tokens are made.
        page: String,
    },
    /// There is no such repository, or not for this account.
    #[error("there is no repository {repo} at {host}: check its name{}", match has_token {
        true => "; if it is private, HF_TOKEN must be of an account that may read it",
        false => "; if it is private, set HF_TOKEN",
    })]
    NoRepository {
        /// The repository.
        repo: String,
        /// The hub.
        host: String,
        /// Whether a token was shown.
        has_token: bool,
    },
    /// There is no such branch, tag or commit.
    #[error("{repo} has no revision {revision}{known}")]
    NoRevision {
        /// The repository.
        repo: String,
        /// What was wanted.
        revision: String,
        /// What there is.
        known: Names,
    },
    /// There is no such file.
    #[error("{repo} has no file {file} at revision {revision}{known}")]
    NoFile {
        /// The repository.
        repo: String,
        /// Its revision.
        revision: String,
        /// What was wanted.
        file: String,
        /// What there is.
        known: Names,
    },
    /// There is nothing at a plain address.
    #[error("there is nothing at {url} (status {status}); check the address")]
    NotFound {
        /// The address.
        url: String,
        /// 404 or 410.
        status: u16,
    },
    /// A plain address is not for everyone.
    #[error(
        "{url} may not be read ({said}); use an account or an address that may, or download it by hand and give --model its path"
    )]
    Forbidden {
        /// The address.
        url: String,
        /// By the server.
        said: String,
    },
    /// The server answered something else.
    #[error("{url} was answered with {what}; check the address, and HF_ENDPOINT if it is set")]
    Unexpected {
        /// The address.
        url: String,
        /// With what.
        what: String,
    },
    /// An address cannot be used.
    #[error("{url} is not an address to download from: {cause}; give one that begins with https://")]
    Address {
        /// The words.
        url: String,
        /// Why not.
        cause: String,
    },
    /// The file would leave the folder.
    #[error("`{name}` is not a name for a file; give a relative path without `..`")]
    Name {
        /// The name.
        name: String,
    },
    /// The server says two different lengths.
    #[error(
        "{url} should have {expected} bytes and has {found}; nothing was kept: try again, or tell the file's owner"
    )]
    WrongLength {
        /// The address.
        url: String,
        /// By the repository.
        expected: u64,
        /// By the server that stores the file.
        found: u64,
    },
    /// The bytes are not the file's.
    #[error(
        "{url} arrived with SHA-256 {found} instead of {expected}; it was thrown away: try again, and if that does not help, look at the proxy or tell the file's owner"
    )]
    WrongHash {
        /// The address.
        url: String,
        /// By the server.
        expected: Sha256,
        /// Of the bytes.
        found: Sha256,
    },
    /// The file changed while it was downloaded, again and again.
    #[error("{url} changes while it is downloaded; try again later, or name a commit as the revision")]
    Unstable {
        /// The address.
        url: String,
    },
    /// The disk is too small.
    #[error("{} has {free} bytes free and the download needs {needed} more; free {} bytes there, or choose a smaller file", folder.display(), needed.saturating_sub(*free))]
    Space {
        /// Where to.
        folder: PathBuf,
        /// What is missing of the file.
        needed: u64,
        /// What the disk has.
        free: u64,
    },
    /// The disk does not do what it should.
    #[error("{} cannot be written: {cause}; check the disk and the folder's permissions", path.display())]
    Disk {
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        cause: io::Error,
    },
    /// The program ends.
    #[error("the download was interrupted ({cause}); start it again to continue where it stopped")]
    Interrupted {
        /// By what.
        cause: String,
    },
}

impl Error {
    /// An error of the disk at `path`.
    pub(super) fn disk(path: &Path) -> impl Fn(io::Error) -> Error {
        move |cause| Error::Disk {
            path: path.to_owned(),
            cause,
        }
    }

    /// How the process ends for this.
    pub fn exit(&self) -> Exit {
        match self {
            Error::Disk { .. } | Error::Space { .. } => Exit::STATE,
            Error::Address { .. } => Exit::CONFIGURATION,
            Error::NoConnection { .. } | Error::Broken { .. } | Error::Busy { .. } => Exit::UNAVAILABLE,
            Error::Interrupted { .. } => Exit::UNEXPECTED,
            _ => Exit::FILE,
        }
    }
}

/// Names that exist, for one that does not; displayed as the rest of a sentence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names(pub Vec<String>);

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, name) in self.0.iter().take(MAX_NAMES).enumerate() {
            write!(f, "{}{name}", if index == 0 { "; there is " } else { ", " })?;
        }
        match self.0.len().saturating_sub(MAX_NAMES) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

fn when(after: Option<Duration>) -> String {
    match after {
        Some(after) => format!("in {} seconds", after.as_secs().max(1)),
        None => "in some minutes".to_owned(),
    }
}
