//! The state directory: private to the user, with a folder in it for each daemon that runs.

use sha2::{Digest, Sha256};
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The secret that the machines of a split share.
const RPC_SECRET: &str = "rpc-secret";

/// The folder of an rpc-server, the only one that it writes to once strangers can send it anything.
const WORKER: &str = "worker";

/// What it remembers of models.
const FINGERPRINTS: &str = "fingerprints.json";

/// This machine's key, and what it knows of its mesh.
const MESH: &str = "mesh";

/// Locked by the daemon that is this machine's part in its mesh.
const MESH_LOCK: &str = "mesh.lock";

/// What this program puts into the state directory.
const OWN_ENTRIES: [&str; 12] = [
    "config.toml",
    "catalog.tsv",
    MESH,
    MESH_LOCK,
    "models",
    "models.json",
    "remembered.json",
    "remembered.lock",
    RPC_SECRET,
    "run",
    "slots",
    WORKER,
];

/// The file in a daemon's folder that is locked for as long as the daemon lives.
const LOCK: &str = "lock";

/// The file that is locked while folders are made and removed.
const FOLDERS_LOCK: &str = ".lock";

/// Characters of a folder's name.
const NAME_LENGTH: usize = 8;

/// The longest name in a daemon's folder.
const LONGEST_ENTRY: usize = "llama-server.sock".len();

/// A Unix socket's path has at most 107 bytes on Linux, 103 on macOS and the BSDs.
const MAX_SOCKET_PATH_BYTES: usize = 103;

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A folder or file in it cannot be made.
    #[error("{} cannot be used for mesh-llm's files: {cause}; set MESH_LLM_HOME to a folder that you can write to", path.display())]
    Unusable {
        /// The folder or file.
        path: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
    /// It is another user's.
    #[error("{} belongs to another user; set MESH_LLM_HOME to a folder of your own", path.display())]
    NotOurs {
        /// The folder.
        path: PathBuf,
    },
    /// It holds other things, and others may read them.
    #[error("{} is open to other users and holds other files; set MESH_LLM_HOME to a folder that only mesh-llm uses, or run chmod 700 on it", path.display())]
    Open {
        /// The folder.
        path: PathBuf,
    },
}

fn unusable(path: &Path) -> impl FnOnce(io::Error) -> StateError {
    move |cause| StateError::Unusable {
        path: path.to_owned(),
        cause,
    }
}

/// The state directory.
#[derive(Debug)]
pub(super) struct Home {
    path: PathBuf,
}

impl Home {
    /// Makes it, or makes sure that it is private.
    pub(super) fn open(path: &Path) -> Result<Home, StateError> {
        make_private(path)?;
        Ok(Home {
            path: path.to_owned(),
        })
    }

    /// Where the daemon keeps models of its own.
    pub(super) fn models(&self) -> PathBuf {
        self.path.join("models")
    }

    /// Where this machine's key is, and what it knows of its mesh, in a folder that is made here.
    pub(super) fn mesh(&self) -> Result<PathBuf, StateError> {
        let folder = self.path.join(MESH);
        make_private(&folder)?;
        Ok(folder)
    }

    /// Makes this daemon the one that is this machine's part in its mesh, for as long as what is returned lives. None:
    /// another one is.
    pub(super) fn lock_mesh(&self) -> Result<Option<File>, StateError> {
        let path = self.path.join(MESH_LOCK);
        let lock = open_lock(&path)?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(lock)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(cause)) => Err(unusable(&path)(cause)),
        }
    }

    /// Where the secret is that the machines of a split share, unless another place was named.
    pub(super) fn rpc_secret(&self) -> PathBuf {
        self.path.join(RPC_SECRET)
    }

    /// Where the machines of a split keep what they computed of models, in a folder that is made here.
    pub(super) fn fingerprints(&self) -> Result<PathBuf, StateError> {
        let folder = self.path.join(WORKER);
        make_private(&folder)?;
        Ok(folder.join(FINGERPRINTS))
    }

    /// Makes a folder for this daemon and removes those of dead ones.
    pub(super) fn run_folder(&self) -> Result<RunFolder, StateError> {
        let usual = self.path.join("run");
        if fits(&usual) {
            make_private(&usual)?;
            return RunFolder::new(&usual);
        }
        let short = short_folder(&self.path);
        make_private(&short)?;
        RunFolder::new(&short)
    }

    /// The folders of the daemons that run with the state directory at `path`, which need not be there.
    pub(super) fn running(path: &Path) -> Vec<PathBuf> {
        let usual = path.join("run");
        let all = if fits(&usual) { usual } else { short_folder(path) };
        folders(&all).filter(|folder| is_alive(folder)).collect()
    }
}

/// Whether sockets can be in a folder of this one.
fn fits(folder: &Path) -> bool {
    let bytes = folder.as_os_str().len() + NAME_LENGTH + LONGEST_ENTRY + 2;
    bytes <= MAX_SOCKET_PATH_BYTES && folder.to_str().is_some()
}

/// A folder with a short path, for sockets of the state directory at `home`, which has a long one. Each
/// has its own: who looks for a daemon is not to find that of another.
fn short_folder(home: &Path) -> PathBuf {
    let digest = Sha256::digest(home.as_os_str().as_encoded_bytes());
    let digest: String = digest[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    let name = format!("mesh-llm-{digest}");
    match std::env::var_os("XDG_RUNTIME_DIR").map(|folder| PathBuf::from(folder).join(name)) {
        Some(folder) if folder.is_absolute() && fits(&folder) => folder,
        _ => std::env::temp_dir().join(format!("mesh-llm-{}-{digest}", user_id())),
    }
}

#[cfg(unix)]
fn user_id() -> u32 {
    rustix::process::geteuid().as_raw()
}

#[cfg(not(unix))]
fn user_id() -> u32 {
    0
}

/// Makes a folder that only this user can enter, or makes sure that it is one.
#[cfg(unix)]
fn make_private(path: &Path) -> Result<(), StateError> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};

    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(unusable(path))?;
    let metadata = path.metadata().map_err(unusable(path))?;
    if metadata.uid() != user_id() {
        return Err(StateError::NotOurs {
            path: path.to_owned(),
        });
    }
    if metadata.mode() & 0o077 == 0 {
        return Ok(());
    }
    // Whoever points MESH_LLM_HOME at a folder full of other things does not want it closed.
    if !holds_only_own_entries(path).map_err(unusable(path))? {
        return Err(StateError::Open {
            path: path.to_owned(),
        });
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map_err(unusable(path))
}

/// Makes a folder; on Windows, those in a user's profile are private already.
#[cfg(not(unix))]
fn make_private(path: &Path) -> Result<(), StateError> {
    fs::create_dir_all(path).map_err(unusable(path))
}

#[cfg(unix)]
fn holds_only_own_entries(folder: &Path) -> io::Result<bool> {
    for entry in folder.read_dir()? {
        if !OWN_ENTRIES
            .iter()
            .any(|own| entry.as_ref().is_ok_and(|entry| entry.file_name() == *own))
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The folder of a daemon that runs; it is removed when this is dropped.
#[derive(Debug)]
pub(super) struct RunFolder {
    // Dropped in this order: the folder is locked until it is gone.
    folder: TempDir,
    _lock: File,
}

impl RunFolder {
    fn new(all: &Path) -> Result<RunFolder, StateError> {
        // Held to the end of this function: a folder without a locked file in it is a dead one.
        let folders_lock = open_lock(&all.join(FOLDERS_LOCK))?;
        folders_lock.lock().map_err(unusable(all))?;
        remove_dead(all);
        let mut folder = tempfile::Builder::new();
        folder.prefix("").rand_bytes(NAME_LENGTH);
        #[cfg(unix)]
        folder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700));
        let folder = folder.tempdir_in(all).map_err(unusable(all))?;
        let lock = open_lock(&folder.path().join(LOCK))?;
        lock.lock().map_err(unusable(folder.path()))?;
        Ok(RunFolder { folder, _lock: lock })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }
}

fn open_lock(path: &Path) -> Result<File, StateError> {
    File::options()
        .create(true)
        .write(true)
        .truncate(false)
        .open(path)
        .map_err(unusable(path))
}

/// What may be folders of daemons.
fn folders(all: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = all.read_dir().into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir())
}

/// Whether the daemon lives that made this folder.
fn is_alive(folder: &Path) -> bool {
    File::open(folder.join(LOCK)).is_ok_and(|lock| matches!(lock.try_lock(), Err(TryLockError::WouldBlock)))
}

/// Waits until the daemon has ended that made this folder. It is gone before its lock is.
pub(super) fn await_end(folder: &Path) -> io::Result<()> {
    match File::open(folder.join(LOCK)) {
        Ok(lock) => lock.lock_shared(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes the folders of daemons that were killed. What cannot be removed is in nobody's way.
fn remove_dead(all: &Path) {
    for folder in folders(all).filter(|folder| !is_alive(folder)) {
        tracing::debug!(folder = %folder.display(), "removing what a killed daemon left");
        if let Err(error) = fs::remove_dir_all(&folder) {
            tracing::warn!(folder = %folder.display(), %error, "left by a killed daemon, cannot be removed");
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_state_directory_is_private_even_if_it_was_not() {
        let root = tempfile::tempdir().unwrap();
        let new = root.path().join("a/b");
        Home::open(&new).unwrap();
        assert_eq!(mode(&new), 0o700);
        fs::write(new.join("config.toml"), "").unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
        Home::open(&new).unwrap();
        assert_eq!(mode(&new), 0o700);
    }

    #[test]
    fn a_folder_that_others_use_is_left_as_it_is() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("letter.txt"), "").unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(Home::open(root.path()), Err(StateError::Open { .. })));
        assert_eq!(mode(root.path()), 0o755);
    }

    #[test]
    fn folders_of_the_living_stay_and_those_of_the_dead_go() {
        let root = tempfile::tempdir().unwrap();
        let home = Home::open(&root.path().join("home")).unwrap();
        let first = home.run_folder().unwrap();
        let run = first.path().parent().unwrap().to_owned();
        assert_eq!(mode(first.path()), 0o700);
        // As a killed daemon leaves it: with a lock that nobody holds, or before there was one.
        for dead in ["dead", "unborn"] {
            fs::create_dir(run.join(dead)).unwrap();
        }
        fs::write(run.join("dead").join(LOCK), "").unwrap();
        fs::write(run.join("dead").join("llama-server.sock"), "").unwrap();
        let second = home.run_folder().unwrap();
        assert!(first.path().exists() && second.path().exists());
        assert_ne!(first.path(), second.path());
        assert!(!run.join("dead").exists() && !run.join("unborn").exists());
        let path = first.path().to_owned();
        drop(first);
        assert!(!path.exists());
    }

    #[test]
    fn those_that_run_are_found_by_their_state_directory() {
        let root = tempfile::tempdir().unwrap();
        assert!(Home::running(&root.path().join("none")).is_empty());
        let paths = ["a".to_owned(), "x".repeat(120), "y".repeat(120)].map(|name| root.path().join(name));
        for path in &paths {
            let home = Home::open(path).unwrap();
            let first = home.run_folder().unwrap();
            let second = home.run_folder().unwrap();
            fs::create_dir(first.path().parent().unwrap().join("dead")).unwrap();
            let mut running = Home::running(path);
            running.sort();
            let mut expected = [first.path().to_owned(), second.path().to_owned()];
            expected.sort();
            assert_eq!(running, expected);
            drop((first, second));
            assert!(Home::running(path).is_empty());
        }
    }

    #[test]
    fn the_end_of_a_daemon_is_waited_for() {
        let root = tempfile::tempdir().unwrap();
        let folder = Home::open(root.path()).unwrap().run_folder().unwrap();
        let path = folder.path().to_owned();
        let (begun, has_begun) = std::sync::mpsc::channel();
        let waiting = std::thread::spawn(move || {
            begun.send(()).unwrap();
            await_end(&path).unwrap();
            path.exists()
        });
        has_begun.recv().unwrap();
        assert!(!waiting.is_finished());
        drop(folder);
        assert!(!waiting.join().unwrap());
    }

    #[test]
    fn sockets_have_a_path_that_is_short_enough() {
        let root = tempfile::tempdir().unwrap();
        let home = Home::open(&root.path().join("x".repeat(120))).unwrap();
        let folder = home.run_folder().unwrap();
        let socket = folder.path().join("llama-server.sock");
        assert!(
            socket.as_os_str().len() <= MAX_SOCKET_PATH_BYTES,
            "{}",
            socket.display()
        );
        std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let short = Home::open(&root.path().join("home")).unwrap();
        let socket = short.run_folder().unwrap().path().join("llama-server.sock");
        assert!(socket.starts_with(root.path()));
    }
}
