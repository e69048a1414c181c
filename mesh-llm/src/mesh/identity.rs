//! Who this node is: its key, on disk for as long as the node is meant to stay the same one.

use crate::mesh::id::NodeId;
use crate::private_file;
use iroh_base::SecretKey;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The file with the key, in the state directory: its 32 bytes, and nothing else.
pub const KEY_FILE: &str = "key";

/// The bytes of a secret key.
const KEY_BYTES: usize = 32;

/// A node's identity. Its `Debug` does not show the key.
#[derive(Debug, Clone)]
pub struct Identity {
    key: SecretKey,
}

/// Why this node does not know who it is.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file cannot be read.
    #[error(
        "this node's key in {} cannot be read: {cause}; correct its permissions, it must be yours alone",
        path.display()
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// There is none, and none can be made.
    #[error(
        "this node's key cannot be kept in {}: {cause}; set MESH_LLM_HOME to a folder that you can write to",
        path.display()
    )]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// Others can read it, and so could be this node.
    #[error(
        "this node's key in {path} is open to other users (mode {mode:03o}): if nobody else can have read it, run \
         chmod 600 on it; otherwise remove it, have this node kicked, and join the mesh again with a new invite token",
        path = path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It is not a key.
    #[error(
        "{} is not the key of a node: it has {}, and a key has {KEY_BYTES}; put the right file back, or remove this \
         one and join the mesh again with a new invite token",
        path.display(),
        length(*bytes)
    )]
    WrongLength {
        /// The file.
        path: PathBuf,
        /// So many bytes were read, one too many at most.
        bytes: usize,
    },
}

impl Identity {
    /// The identity that is kept in a folder; a new one, where there is none yet. One that is there is never changed.
    ///
    /// # Errors
    /// If the key cannot be read or kept, is open to other users, or is none.
    pub fn open(folder: &Path) -> Result<Self, IdentityError> {
        let path = folder.join(KEY_FILE);
        if let Some(identity) = Self::read(&path)? {
            return Ok(identity);
        }
        // Where another process was faster, its key counts.
        private_file::make(&path, &SecretKey::generate().to_bytes()).map_err(|cause| {
            IdentityError::Unwritable {
                path: path.clone(),
                cause,
            }
        })?;
        Self::read(&path)?.ok_or_else(|| IdentityError::Unreadable {
            path,
            cause: io::ErrorKind::NotFound.into(),
        })
    }

    /// The node's name.
    pub fn node(&self) -> NodeId {
        self.key.public()
    }

    /// The key that proves it.
    pub fn key(&self) -> &SecretKey {
        &self.key
    }

    /// The key that proves it, for whoever keeps it from here on.
    pub fn into_key(self) -> SecretKey {
        self.key
    }

    fn read(path: &Path) -> Result<Option<Self>, IdentityError> {
        let unreadable = |cause| IdentityError::Unreadable {
            path: path.to_owned(),
            cause,
        };
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(unreadable)?,
        };
        check_private(&file, path)?;
        let mut bytes = Vec::with_capacity(KEY_BYTES + 1);
        file.take(KEY_BYTES as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(unreadable)?;
        let key = SecretKey::try_from(bytes.as_slice()).map_err(|_| IdentityError::WrongLength {
            path: path.to_owned(),
            bytes: bytes.len(),
        })?;
        Ok(Some(Self { key }))
    }
}

/// Makes sure that nobody else can read a file.
#[cfg(unix)]
fn check_private(file: &File, path: &Path) -> Result<(), IdentityError> {
    use std::os::unix::fs::PermissionsExt;

    let metadata = file.metadata().map_err(|cause| IdentityError::Unreadable {
        path: path.to_owned(),
        cause,
    })?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(IdentityError::Exposed {
        path: path.to_owned(),
        mode,
    })
}

/// On Windows, files in a user's profile are private.
#[cfg(not(unix))]
fn check_private(_: &File, _: &Path) -> Result<(), IdentityError> {
    Ok(())
}

fn length(bytes: usize) -> String {
    match bytes {
        1 => "1 byte".to_owned(),
        long if long > KEY_BYTES => "more bytes".to_owned(),
        short => format!("{short} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    /// Writes a file as mesh-llm would, with these bytes.
    fn put(folder: &Path, bytes: &[u8]) -> PathBuf {
        let path = folder.join(KEY_FILE);
        let mut file = tempfile::NamedTempFile::new_in(folder).unwrap();
        file.write_all(bytes).unwrap();
        file.persist(&path).unwrap();
        path
    }

    #[test]
    fn a_node_stays_the_same_one() {
        let folder = folder();
        let first = Identity::open(folder.path()).unwrap();
        let second = Identity::open(folder.path()).unwrap();
        assert_eq!(first.node(), second.node());
        assert_eq!(
            fs::read(folder.path().join(KEY_FILE)).unwrap(),
            first.key().to_bytes()
        );
        let names: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(names.len(), 1, "nothing else is left behind");
    }

    #[test]
    fn two_nodes_differ() {
        let (one, other) = (folder(), folder());
        let node = |folder: &tempfile::TempDir| Identity::open(folder.path()).unwrap().node();
        assert_ne!(node(&one), node(&other));
    }

    #[test]
    fn a_key_that_is_there_is_never_replaced() {
        let folder = folder();
        let path = put(folder.path(), &[7; 32]);
        assert!(!private_file::make(&path, &SecretKey::generate().to_bytes()).unwrap());
        let identity = Identity::open(folder.path()).unwrap();
        assert_eq!(identity.into_key().to_bytes(), [7; 32]);
    }

    #[test]
    fn all_that_start_at_once_are_one_node() {
        let folder = folder();
        let nodes: Vec<NodeId> = std::thread::scope(|scope| {
            let open = || Identity::open(folder.path()).unwrap().node();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(nodes.iter().all(|node| *node == nodes[0]));
    }

    #[test]
    fn what_is_no_key_is_refused_and_left_alone() {
        let folder = folder();
        for (bytes, words) in [
            (0, "0 bytes"),
            (1, "1 byte,"),
            (31, "31 bytes"),
            (33, "more bytes"),
            (9000, "more bytes"),
        ] {
            let path = put(folder.path(), &vec![1; bytes]);
            let error = Identity::open(folder.path()).unwrap_err();
            assert!(matches!(error, IdentityError::WrongLength { .. }), "{error}");
            let told = error.to_string();
            assert!(
                told.contains(words) && told.contains(path.to_str().unwrap()),
                "{told}"
            );
            assert_eq!(fs::read(&path).unwrap().len(), bytes);
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_key_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt;

        let folder = folder();
        Identity::open(folder.path()).unwrap();
        let path = folder.path().join(KEY_FILE);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        for mode in [0o604, 0o640, 0o644, 0o620, 0o601, 0o777] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = Identity::open(folder.path()).unwrap_err();
            assert!(
                matches!(error, IdentityError::Exposed { mode: seen, .. } if seen == mode),
                "{error}"
            );
            let told = error.to_string();
            assert!(
                told.contains("chmod 600") && told.contains(&format!("{mode:03o}")),
                "{told}"
            );
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        Identity::open(folder.path()).unwrap();
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let error = Identity::open(Path::new("/no/such/folder")).unwrap_err();
        assert!(matches!(error, IdentityError::Unwritable { .. }));
        let told = error.to_string();
        assert!(
            told.contains("/no/such/folder/key") && told.contains("MESH_LLM_HOME"),
            "{told}"
        );
    }

    #[test]
    fn nothing_shows_the_key() {
        let folder = folder();
        put(folder.path(), &[0xab; 32]);
        let identity = Identity::open(folder.path()).unwrap();
        let shown = format!("{identity:?}");
        assert!(
            !shown.contains("171") && !shown.to_lowercase().contains("abab"),
            "{shown}"
        );
    }
}
