//! Downloads a model: which files of where, one after the other, into the store.

use super::download::{self, Fetched, Progress as FileProgress, Settings, Source};
use super::library::{Library, Missing, Model, file_model};
use super::memory::Memory;
use super::origin::Origin;
use super::quantization::{self, RepositoryFile, Unpicked, Variant};
use super::reference::{MAIN, Pick, Repository};
use super::{Choice, Names, file};
use crate::exit::Exit;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tokio::sync::watch;

pub use super::download::Phase;

/// How far a download is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// What is being done.
    pub phase: Phase,
    /// Of all files.
    pub done_bytes: u64,
    /// Of all files; 0 until it is known.
    pub total_bytes: u64,
}

impl Progress {
    /// 0 to 100, once the size is known.
    pub fn percent(&self) -> Option<u8> {
        let percent = (u128::from(self.done_bytes) * 100).checked_div(u128::from(self.total_bytes))?;
        Some(percent.min(100) as u8)
    }
}

/// Why a model was not downloaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no folder to download to.
    #[error(transparent)]
    Model(#[from] super::Error),
    /// A file did not come.
    #[error(transparent)]
    Download(#[from] download::Error),
    /// The repository has no model.
    #[error("{repository} has no GGUF file: look for a repository whose name ends in -GGUF")]
    NoModels {
        /// The repository.
        repository: String,
    },
    /// The repository has no such model.
    #[error("{repository} is not there; its repository has {there}")]
    NotThere {
        /// What was asked for.
        repository: String,
        /// What there is.
        there: Names,
    },
    /// A file of that name came from elsewhere.
    #[error("{} came from {origin}, not from {wanted}: rename it, or remove it with `mesh-llm models rm`, and try again", path.display())]
    Namesake {
        /// The file.
        path: PathBuf,
        /// Where it came from.
        origin: String,
        /// Where it was to come from.
        wanted: String,
    },
    /// The repository's model is another than that of which a copy is wanted.
    #[error(
        "{repository} has {there} bytes, and the file that is served has {wanted}, so it is another one: copy that file here \
         by hand"
    )]
    Differs {
        /// What was asked for.
        repository: String,
        /// Bytes of its files.
        there: u64,
        /// Bytes of those that it is to be the same as.
        wanted: u64,
    },
    /// Another file has the name.
    #[error("{} is another file of that name: rename it, or remove it with `mesh-llm models rm`", path.display())]
    InTheWay {
        /// The file.
        path: PathBuf,
    },
    /// The repository has several models of that kind.
    #[error("{repository} may mean {models}: name one of these files behind the repository")]
    Several {
        /// What was asked for.
        repository: String,
        /// What may be meant.
        models: Names,
    },
}

impl Error {
    /// How the process ends for this.
    pub fn exit(&self) -> Exit {
        match self {
            Error::Model(error) => error.exit(),
            Error::Download(error) => error.exit(),
            Error::NoModels { .. }
            | Error::NotThere { .. }
            | Error::Differs { .. }
            | Error::InTheWay { .. }
            | Error::Several { .. }
            | Error::Namesake { .. } => Exit::FILE,
        }
    }
}

/// A file to download.
struct Wanted {
    source: Source,
    file_name: String,
    /// Its length, where that is known beforehand.
    bytes: Option<u64>,
}

/// The files to download.
struct Plan {
    files: Vec<Wanted>,
    /// Of all files, about; 0 where that is not known.
    bytes: u64,
    /// A repository or an address.
    origin: String,
}

/// Downloads a model into the library's store; `progress` is told how far it is.
///
/// # Errors
/// Where the files cannot be had, with what to do.
pub async fn fetch(
    library: &Library,
    missing: &Missing,
    settings: &Settings,
    progress: &watch::Sender<Progress>,
) -> Result<Model, Error> {
    let store = library.places.store.clone().ok_or(super::Error::NoStore)?;
    let plan = plan(missing, settings).await?;
    let memory = library.memory();
    // Before the first of them is downloaded, for hours perhaps.
    let origins = memory.origins();
    for file in &plan.files {
        let path = store.join(&file.file_name);
        refuse_namesake(&path, &plan.origin, &origins)?;
        let length = path.metadata().ok().map(|metadata| metadata.len());
        if matches!(missing, Missing::Copy(_)) && length.is_some_and(|length| Some(length) != file.bytes) {
            return Err(Error::InTheWay { path });
        }
    }
    let known = plan.files.iter();
    let lengths: Vec<_> = known
        .filter_map(|file| Some((file.file_name.as_str(), file.bytes?)))
        .collect();
    download::check_room(&store, &lengths)?;
    let mut first = None;
    let mut before = 0;
    for wanted in &plan.files {
        let fetched = one(settings, wanted, &store, |file| {
            // Of files of a catalog the size is known about, until all have been asked for.
            let total = plan.bytes.max(before + file.total_bytes);
            progress.send_replace(Progress {
                phase: file.phase,
                done_bytes: before + file.done_bytes,
                total_bytes: if plan.files.len() == 1 {
                    file.total_bytes
                } else {
                    total
                },
            });
        })
        .await?;
        if fetched.is_new {
            keep(&fetched, &plan.origin, &memory)?;
        }
        before += fetched.path.metadata().map_or(0, |metadata| metadata.len());
        first.get_or_insert(fetched.path);
    }
    // A plan has a file at least.
    Ok(file_model(&first.unwrap_or_default(), Choice::Named)?)
}

/// Takes note of a file that came; what is no model goes, or it would be taken for one the next time.
fn keep(fetched: &Fetched, origin: &str, memory: &Memory) -> Result<(), Error> {
    if let Err(error) = file::check(&fetched.path) {
        if let Err(error) = std::fs::remove_file(&fetched.path) {
            tracing::warn!(%error, path = %fetched.path.display(), "a file that is no model stays");
        }
        return Err(error.into());
    }
    memory.came_from(&fetched.path, origin);
    if let Some(digest) = &fetched.sha256 {
        memory.has_digest(&fetched.path, digest);
    }
    Ok(())
}

/// Refuses to take a file for one of the same name from elsewhere.
fn refuse_namesake(path: &Path, wanted: &str, origins: &BTreeMap<PathBuf, String>) -> Result<(), Error> {
    match origins.get(path) {
        Some(origin) if origin != wanted && path.exists() => Err(Error::Namesake {
            path: path.to_owned(),
            origin: origin.clone(),
            wanted: wanted.to_owned(),
        }),
        _ => Ok(()),
    }
}

/// Downloads one file, telling of its progress.
async fn one(
    settings: &Settings,
    wanted: &Wanted,
    store: &Path,
    mut tell: impl FnMut(FileProgress),
) -> Result<Fetched, Error> {
    let (sender, mut receiver) = watch::channel(FileProgress::default());
    let fetched = download::fetch(settings, &wanted.source, store, &wanted.file_name, sender);
    tokio::pin!(fetched);
    loop {
        tokio::select! {
            fetched = &mut fetched => {
                tell(*receiver.borrow());
                return Ok(fetched?);
            }
            Ok(()) = receiver.changed() => tell(*receiver.borrow_and_update()),
        }
    }
}

async fn plan(missing: &Missing, settings: &Settings) -> Result<Plan, Error> {
    match missing {
        Missing::Url { url, file_name } => Ok(Plan {
            files: vec![Wanted {
                source: Source::Url(url.clone()),
                file_name: file_name.clone(),
                bytes: None,
            }],
            bytes: 0,
            origin: url.clone(),
        }),
        Missing::Known(entry) => {
            let (repository, files) = match &entry.source {
                Some(source) => (source.repository.clone(), source.files.as_slice()),
                None => (String::new(), &[][..]),
            };
            let repository = Repository {
                name: repository,
                revision: MAIN.to_owned(),
                pick: Pick::Usual,
            };
            let lengths = match files {
                // Of a single file the length is known as soon as it is asked for.
                [] | [_] => BTreeMap::new(),
                _ => lengths(&repository, settings).await,
            };
            let files = files
                .iter()
                .map(|path| (path.clone(), lengths.get(path).copied()));
            Ok(of_repository(&repository, files, entry.bytes))
        }
        Missing::Repository(repository) => {
            let variant = variant(repository, settings).await?;
            Ok(of_variant(repository, &variant))
        }
        Missing::Copy(Origin { repository, bytes }) => {
            let variant = variant(repository, settings).await?;
            if variant.bytes() != *bytes {
                return Err(Error::Differs {
                    repository: repository.to_string(),
                    there: variant.bytes(),
                    wanted: *bytes,
                });
            }
            Ok(of_variant(repository, &variant))
        }
    }
}

/// A plan for a repository's model.
fn of_variant(repository: &Repository, variant: &Variant) -> Plan {
    let files = variant.files.iter();
    let files = files.map(|file| (file.path.clone(), Some(file.bytes)));
    of_repository(repository, files, variant.bytes())
}

/// A plan for these paths in a repository, with their lengths where they are known.
fn of_repository(
    repository: &Repository,
    files: impl Iterator<Item = (String, Option<u64>)>,
    bytes: u64,
) -> Plan {
    let wanted = |(path, bytes): (String, Option<u64>)| Wanted {
        // The store is flat.
        file_name: path.rsplit('/').next().unwrap_or(&path).to_owned(),
        source: Source::HuggingFace {
            repo: repository.name.clone(),
            revision: repository.revision.clone(),
            file: path,
        },
        bytes,
    };
    Plan {
        files: files.map(wanted).collect(),
        bytes,
        origin: repository.origin(),
    }
}

/// The lengths of a repository's files; none where they cannot be had, as only a warning depends on them.
async fn lengths(repository: &Repository, settings: &Settings) -> BTreeMap<String, u64> {
    match download::list(settings, &repository.name, &repository.revision).await {
        Ok(files) => files.into_iter().map(|file| (file.name, file.bytes)).collect(),
        Err(error) => {
            tracing::debug!(%error, "the files' lengths are not known beforehand");
            BTreeMap::new()
        }
    }
}

async fn variant(repository: &Repository, settings: &Settings) -> Result<Variant, Error> {
    let files = download::list(settings, &repository.name, &repository.revision).await?;
    let files: Vec<RepositoryFile> = files
        .into_iter()
        .map(|file| RepositoryFile {
            path: file.name,
            bytes: file.bytes,
        })
        .collect();
    quantization::pick(&files, &repository.pick).map_err(|unpicked| match unpicked {
        Unpicked::NoModels => Error::NoModels {
            repository: repository.name.clone(),
        },
        Unpicked::NotThere(there) => Error::NotThere {
            repository: repository.to_string(),
            there: Names(there),
        },
        Unpicked::Several(models) => Error::Several {
            repository: match repository.pick {
                Pick::Usual => repository.name.clone(),
                _ => repository.to_string(),
            },
            models: Names(models),
        },
    })
}
