//! What a member keeps on disk for its next start: its key, who belongs to the mesh, whom to call.
//!
//! All of it is in one folder, private to the user. A file is written beside its place and renamed, so that no
//! moment leaves half of one.

use super::core::{Part, Start};
use super::error::MeshError;
use super::id::{Boot, Contact, MeshId};
use super::identity::Identity;
use super::roster::{Roster, SignedAct};
use super::token::Token;
use iroh_base::SecretKey;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Who belongs to the mesh.
const ROSTER: &str = "roster";

/// The rest, as far as a start can do without it.
const MEMORY: &str = "memory";

/// The version of [`Memory`].
const MEMORY_VERSION: u8 = 1;

/// Why what was kept cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file or folder.
    #[error("{} cannot be used for what is known of the mesh: {cause}; correct its permissions, or set MESH_LLM_HOME to another folder", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// It says what makes no sense.
    #[error("{} is damaged: {cause}; remove it and join the mesh again with an invite token", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
}

/// What a run leaves to the next one.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    /// Its number: the next one has a greater one.
    pub(super) boot: Boot,
    /// Who belongs to the mesh, as [`Roster::to_bytes`] says it.
    pub(super) roster: Vec<u8>,
    /// What shows that this machine was let in, if the roster does not.
    pub(super) certificate: Option<SignedAct>,
    /// Whom to call.
    pub(super) contacts: Vec<Contact>,
}

/// What is kept beside key and roster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Memory {
    boot: u64,
    port: Option<u16>,
    certificate: Option<SignedAct>,
    contacts: Vec<Contact>,
}

/// The folder.
#[derive(Debug)]
pub(super) struct Store {
    folder: PathBuf,
    key: SecretKey,
    memory: Memory,
    /// The roster that was written last.
    roster: Vec<u8>,
}

impl Store {
    /// Opens it, and makes the key that this machine will be known by if there is none.
    pub(super) fn open(folder: &Path) -> Result<Store, MeshError> {
        let key = Identity::open(folder)?.into_key();
        let memory = match read(&folder.join(MEMORY))? {
            None => Memory::default(),
            Some(bytes) => memory(&folder.join(MEMORY), &bytes)?,
        };
        Ok(Store {
            folder: folder.to_owned(),
            key,
            memory,
            roster: Vec::new(),
        })
    }

    /// What this start begins with.
    pub(super) fn start(&mut self, part: Part, token: Option<Token>) -> Result<Start, MeshError> {
        let roster = self.roster(part, token.as_ref())?;
        let is_other = self
            .memory
            .certificate
            .as_ref()
            .is_some_and(|act| !act.is_genuine(roster.mesh()));
        if is_other {
            self.memory.certificate = None;
            self.memory.contacts.clear();
        }
        let mut contacts = self.memory.contacts.clone();
        contacts.extend(token.iter().flat_map(|token| token.grant().contacts.clone()));
        let boot = Boot(unix_millis().max(self.memory.boot + 1));
        self.memory.boot = boot.0;
        self.write_memory(&self.memory)?;
        Ok(Start {
            key: self.key.clone(),
            boot,
            roster,
            part,
            certificate: self.memory.certificate.clone(),
            token,
            contacts,
            // Different for each run of each node, which is all that it has to be.
            seed: boot.0 ^ u64::from_le_bytes(first_bytes(self.key.public().as_bytes())),
        })
    }

    /// Who belongs to the mesh, as far as this machine knows.
    fn roster(&self, part: Part, token: Option<&Token>) -> Result<Roster, MeshError> {
        let kept = self.kept_roster()?;
        let wanted = token.map(|token| token.grant().mesh);
        match (kept, wanted, part) {
            (Some(kept), None, _) => Ok(kept),
            (Some(kept), Some(mesh), _) if kept.mesh() == mesh => Ok(kept),
            (Some(kept), Some(mesh), _) => {
                let others = kept
                    .members()
                    .filter(|(node, _)| *node != self.key.public())
                    .count();
                match others {
                    // It founded a mesh that nobody ever joined.
                    0 => Ok(Roster::new(mesh)),
                    others => Err(MeshError::Elsewhere {
                        others,
                        folder: self.folder.clone(),
                    }),
                }
            }
            (None, Some(mesh), _) => Ok(Roster::new(mesh)),
            (None, None, Part::Server) => Ok(Roster::new(MeshId(self.key.public()))),
            (None, None, Part::Client) => Err(MeshError::NoMesh),
        }
    }

    fn kept_roster(&self) -> Result<Option<Roster>, StoreError> {
        let path = self.folder.join(ROSTER);
        let Some(bytes) = read(&path)? else {
            return Ok(None);
        };
        let roster = Roster::from_bytes(&bytes).map_err(|error| StoreError::Damaged {
            path,
            cause: error.to_string(),
        })?;
        Ok(Some(roster))
    }

    /// The UDP port of the last run.
    pub(super) fn last_port(&self) -> Option<u16> {
        self.memory.port
    }

    /// Keeps what has changed of it.
    pub(super) fn keep(&mut self, kept: Kept) -> Result<(), StoreError> {
        let memory = Memory {
            boot: kept.boot.0,
            port: self.memory.port,
            certificate: kept.certificate,
            contacts: kept.contacts,
        };
        if memory != self.memory {
            self.write_memory(&memory)?;
            self.memory = memory;
        }
        if kept.roster != self.roster {
            write(&self.folder.join(ROSTER), &kept.roster)?;
            self.roster = kept.roster;
        }
        Ok(())
    }

    /// Keeps the UDP port, so that others find this machine at the same place after its next start.
    pub(super) fn save_port(&mut self, port: u16) -> Result<(), StoreError> {
        self.memory.port = Some(port);
        self.write_memory(&self.memory)
    }

    fn write_memory(&self, memory: &Memory) -> Result<(), StoreError> {
        let path = self.folder.join(MEMORY);
        let bytes = postcard::to_extend(memory, vec![MEMORY_VERSION]);
        let bytes = bytes.map_err(|error| StoreError::Damaged {
            path: path.clone(),
            cause: error.to_string(),
        })?;
        write(&path, &bytes)
    }
}

fn memory(path: &Path, bytes: &[u8]) -> Result<Memory, StoreError> {
    let damaged = |cause: String| StoreError::Damaged {
        path: path.to_owned(),
        cause,
    };
    match bytes.split_first() {
        Some((&MEMORY_VERSION, rest)) => {
            postcard::from_bytes(rest).map_err(|error| damaged(error.to_string()))
        }
        Some((version, _)) => Err(damaged(format!(
            "it is of version {version}, which this program does not know"
        ))),
        None => Err(damaged("it is empty".to_owned())),
    }
}

fn first_bytes(key: &[u8; 32]) -> [u8; 8] {
    let mut first = [0; 8];
    first.copy_from_slice(&key[..8]);
    first
}

fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis().try_into().unwrap_or(u64::MAX)
}

fn file_error(path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    move |cause| StoreError::File {
        path: path.to_owned(),
        cause,
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(file_error(path)(error)),
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let written = tempfile::NamedTempFile::new_in(folder).and_then(|mut file| {
        file.write_all(bytes)?;
        file.as_file().sync_data()?;
        file.persist(path).map_err(|error| error.error)
    });
    written.map(|_| ()).map_err(file_error(path))
}
