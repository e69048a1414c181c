//! What a split needs before anything is loaded.

use super::secret::{self, SecretError};
use super::settings::SplitSettings;
use super::state::{Home, StateError};
use crate::exit::Exit;
use std::path::PathBuf;

/// A model's way over several machines; no workers: it stays on this one.
#[derive(Default)]
pub(super) struct Split {
    /// Where the workers listen, in the order of the layers.
    pub(super) workers: Vec<String>,
    /// What they want to be shown.
    pub(super) secret: Option<String>,
    /// Layers, or shares of them, of this machine and then of each worker; none: the engine chooses.
    pub(super) shares: Vec<u32>,
    /// Where fingerprints of models are remembered.
    pub(super) fingerprints: Option<PathBuf>,
}

/// Why there is no way.
#[derive(Debug, thiserror::Error)]
pub(super) enum SplitError {
    /// The workers' secret.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// There is nobody to share with.
    #[error(
        "--tensor-split divides a model among this machine and workers: name those with --rpc, or leave it out"
    )]
    NoWorkers,
    /// Somebody is left out.
    #[error(
        "--tensor-split has {shares} for {workers} and this machine: it needs a number for this machine and one for \
         each worker, 0 for who gets no layers"
    )]
    TooFew {
        /// How many numbers there are.
        shares: String,
        /// How many workers.
        workers: String,
    },
}

impl SplitError {
    /// How the process ends for this.
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Secret(error) => error.exit(),
            Self::State(_) => Exit::STATE,
            Self::NoWorkers | Self::TooFew { .. } => Exit::CONFIGURATION,
        }
    }
}

impl Split {
    /// What was said, completed and checked.
    pub(super) fn prepare(settings: &SplitSettings, home: &Home) -> Result<Split, SplitError> {
        let SplitSettings {
            workers,
            secret,
            shares,
        } = settings;
        check(shares, workers.len())?;
        // A secret is not looked for in vain: it may be there for an rpc-server on this machine.
        let (secret, fingerprints) = match workers.is_empty() {
            true => (None, None),
            false => {
                let secret = secret::find(secret.as_ref(), home)?;
                (Some(secret), Some(home.fingerprints()?))
            }
        };
        Ok(Split {
            workers: workers.iter().map(ToString::to_string).collect(),
            secret,
            shares: shares.clone(),
            fingerprints,
        })
    }
}

/// Whether everyone has a share. A worker with several devices has several.
fn check(shares: &[u32], workers: usize) -> Result<(), SplitError> {
    let counted = |count: usize, what: &str| match count {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    };
    match shares.len() {
        0 => Ok(()),
        _ if workers == 0 => Err(SplitError::NoWorkers),
        given if given <= workers => Err(SplitError::TooFew {
            shares: counted(given, "number"),
            workers: counted(workers, "worker"),
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_has_a_share() {
        for (shares, workers) in [
            (&[][..], 0),
            (&[], 2),
            (&[20, 4], 1),
            (&[0, 24], 1),
            (&[8, 8, 8], 1),
        ] {
            assert!(check(shares, workers).is_ok(), "{shares:?} {workers}");
        }
        let told = |shares: &[u32], workers| check(shares, workers).unwrap_err().to_string();
        assert!(told(&[1, 1], 0).contains("--rpc"));
        assert!(
            told(&[1, 1], 2).contains("2 numbers for 2 workers and this machine"),
            "{}",
            told(&[1, 1], 2)
        );
        assert!(told(&[1], 1).contains("1 number for 1 worker and"));
    }

    #[test]
    fn no_secret_is_needed_where_nobody_is_called() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::open(&folder.path().join("home")).unwrap();
        let settings = SplitSettings::default();
        assert!(Split::prepare(&settings, &home).unwrap().secret.is_none());
        let settings = SplitSettings {
            workers: vec!["a:1".parse().unwrap()],
            ..settings
        };
        assert!(matches!(
            Split::prepare(&settings, &home),
            Err(SplitError::Secret(SecretError::None { .. }))
        ));
    }
}
