//! The secret that the machines of a split share, and where it is.

use super::settings::SecretSource;
use super::state::{Home, StateError};
use crate::exit::Exit;
#[cfg(feature = "engine")]
use crate::private_file;
use llama_engine::server::options::RPC_SECRET_VARIABLE;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Fewer characters could be guessed by whoever listens to a handshake and has time.
const LEAST_CHARACTERS: usize = 16;

/// A longer file is something else.
const MOST_BYTES: u64 = 4096;

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub(super) enum SecretError {
    /// Nobody has made one.
    #[error(
        "--rpc needs the secret that this machine and its workers share, and there is none yet: the first \
         `mesh-llm rpc-server` makes one, in the file rpc-secret of its MESH_LLM_HOME; copy that file to {} here, \
         or name it with --rpc-secret-file",
        path.display()
    )]
    None {
        /// Where it would be.
        path: PathBuf,
    },
    /// Its file cannot be read.
    #[error("the secret in {} cannot be read: {cause}; correct its path or its permissions", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        cause: io::Error,
    },
    /// It is too short, too long, or no text.
    #[error(
        "the secret in {place} {fault}: it needs {LEAST_CHARACTERS} characters at least; \
         `openssl rand -hex 32` makes a good one, which all machines of a split must have"
    )]
    Unfit {
        /// Where it is.
        place: String,
        /// What is wrong with it.
        fault: String,
    },
    /// It cannot be put into the state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// The system has no random numbers.
    #[cfg(feature = "engine")]
    #[error("choosing a secret failed: {0}")]
    Random(io::Error),
}

impl SecretError {
    /// How the process ends for this.
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::None { .. } | Self::Unfit { .. } => Exit::CONFIGURATION,
            Self::Unreadable { .. } => Exit::FILE,
            Self::State(_) => Exit::STATE,
            #[cfg(feature = "engine")]
            Self::Random(_) => Exit::UNEXPECTED,
        }
    }
}

/// The secret that was named, or else the one in the state directory; for hosts.
pub(super) fn find(source: Option<&SecretSource>, home: &Home) -> Result<String, SecretError> {
    if let Some(source) = source {
        return named(source);
    }
    let path = home.rpc_secret();
    match of_file(&path) {
        Err(SecretError::Unreadable { path, cause }) if cause.kind() == io::ErrorKind::NotFound => {
            Err(SecretError::None { path })
        }
        found => found,
    }
}

/// The same, but where there is none it is made; for workers. Also says where, if it was made now.
#[cfg(feature = "engine")]
pub(super) fn find_or_make(
    source: Option<&SecretSource>,
    home: &Home,
) -> Result<(String, Option<PathBuf>), SecretError> {
    match find(source, home) {
        Err(SecretError::None { path }) => {
            let made = make(&path)?;
            // Where another process was faster, its secret counts.
            Ok((of_file(&path)?, made.then_some(path)))
        }
        found => Ok((found?, None)),
    }
}

fn named(source: &SecretSource) -> Result<String, SecretError> {
    match source {
        SecretSource::File(path) => of_file(path),
        SecretSource::Variable(secret) => fit(&secret.0, || format!("the variable {RPC_SECRET_VARIABLE}")),
    }
}

fn of_file(path: &Path) -> Result<String, SecretError> {
    let unreadable = |cause| SecretError::Unreadable {
        path: path.to_owned(),
        cause,
    };
    let mut text = String::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(MOST_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(unreadable)?;
    fit(&text, || path.display().to_string())
}

/// The secret in a text, if it can be one.
fn fit(text: &str, place: impl FnOnce() -> String) -> Result<String, SecretError> {
    let secret = text.trim();
    let fault = match secret.chars().count() {
        0 => "is empty".to_owned(),
        1 => "has 1 character".to_owned(),
        short if short < LEAST_CHARACTERS => format!("has {short} characters"),
        _ if text.len() as u64 > MOST_BYTES => format!("is longer than {MOST_BYTES} bytes"),
        // It goes into lines and into the environment of a process.
        _ if secret.contains(char::is_control) => "is more than one line of text".to_owned(),
        _ => return Ok(secret.to_owned()),
    };
    Err(SecretError::Unfit {
        place: place(),
        fault,
    })
}

/// Makes a secret; whether it is there by now.
#[cfg(feature = "engine")]
fn make(path: &Path) -> Result<bool, SecretError> {
    let secret = random().map_err(SecretError::Random)?;
    let made = private_file::make(path, format!("{secret}\n").as_bytes());
    made.map_err(|cause| {
        let path = path.to_owned();
        StateError::Unusable { path, cause }.into()
    })
}

/// A word that nobody can guess.
pub(super) fn random() -> io::Result<String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(hexadecimal(&bytes))
}

/// Bytes as words that a variable of the environment can hold.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::settings::Hidden;

    fn home() -> (tempfile::TempDir, Home) {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(&folder.path().join("home")).unwrap();
        (folder, home)
    }

    #[cfg(all(unix, feature = "engine"))]
    #[test]
    fn it_is_made_once_and_only_its_owner_can_read_it() {
        use std::os::unix::fs::PermissionsExt;

        let (_folder, home) = home();
        assert!(matches!(find(None, &home), Err(SecretError::None { .. })));
        let (secret, made) = find_or_make(None, &home).unwrap();
        let path = made.unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(secret.len(), 64);
        assert!(secret.chars().all(|digit| digit.is_ascii_hexdigit()));
        assert_eq!(find_or_make(None, &home).unwrap(), (secret.clone(), None));
        assert_eq!(find(None, &home).unwrap(), secret);
        assert!(!make(&path).unwrap(), "another process's secret stays");
    }

    #[test]
    fn a_host_without_one_is_told_where_to_get_it() {
        let (_folder, home) = home();
        let error = find(None, &home).unwrap_err();
        assert_eq!(error.exit(), Exit::CONFIGURATION);
        let told = error.to_string();
        for words in [
            "mesh-llm rpc-server",
            "--rpc-secret-file",
            home.rpc_secret().to_str().unwrap(),
        ] {
            assert!(told.contains(words), "{told}");
        }
    }

    #[test]
    fn a_short_one_is_refused_and_not_shown() {
        let (folder, home) = home();
        let file = folder.path().join("s");
        for (text, fault) in [
            ("", "is empty"),
            (" \n", "is empty"),
            ("x", "has 1 character:"),
            ("  0123456789abcde\n", "has 15 characters"),
            ("0123456789abcdef\nsecond", "more than one line"),
        ] {
            std::fs::write(&file, text).unwrap();
            let error = find(Some(&SecretSource::File(file.clone())), &home).unwrap_err();
            let told = error.to_string();
            assert!(
                told.contains(fault) && told.contains(file.to_str().unwrap()),
                "{told}"
            );
            assert!(!told.contains("0123456789abcd"), "{told}");
        }
        std::fs::write(&file, " 0123456789abcdef\n").unwrap();
        let found = find(Some(&SecretSource::File(file.clone())), &home).unwrap();
        assert_eq!(found, "0123456789abcdef");
        std::fs::write(&file, "x".repeat(5000)).unwrap();
        assert!(find(Some(&SecretSource::File(file)), &home).is_err());
        let variable = SecretSource::Variable(Hidden("short".to_owned()));
        let told = find(Some(&variable), &home).unwrap_err().to_string();
        assert!(told.contains("MESH_LLM_RPC_SECRET has 5"), "{told}");
    }

    #[test]
    fn a_file_that_was_named_must_be_there() {
        let (_folder, home) = home();
        let error = find(Some(&SecretSource::File("/no/such".into())), &home).unwrap_err();
        assert_eq!(error.exit(), Exit::FILE);
        assert!(error.to_string().contains("/no/such"), "{error}");
    }
}
