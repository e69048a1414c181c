//! The command `rpc-server`: this machine's devices, offered to hosts that split a model over machines.

use super::report::Reporter;
use super::secret::{self, SecretError};
use super::settings::{self, Layer, Settings};
use super::start::{self, Ending};
use super::state::{Home, StateError};
use crate::exit::Exit;
use crate::models;
use crate::models::places::Places;
use llama_engine::rpc::dial::{Dialler, Secret};
use llama_engine::rpc::door::{BadDoor, DOOR_VARIABLE};
use llama_engine::rpc::worker::{self, Most, ServeError, ServeOptions};
use std::fs;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where hosts are expected, unless something else is said: beside the API, for this machine alone.
pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9338);

/// What is offered, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Where hosts come to; port 0 takes any free one.
    pub listen: SocketAddr,
    /// Most bytes that all hosts take together.
    pub most: Most,
    /// Where models are; none: where the daemon looks for them, too.
    pub model_dirs: Vec<PathBuf>,
    /// How much longer its layers take for a step than they would, for benches.
    pub step_delay: Duration,
}

/// Offers it until the process is ended from outside.
///
/// `flags` are what the command line says of what the daemon knows as well.
pub fn run(flags: Layer, offer: Offer) -> Exit {
    start::run(flags, None, |settings, reporter| {
        serve(settings, offer, reporter).map(|()| Exit::DONE)
    })
}

/// Writes to standard output what this machine computes with: the GPUs with these names or all of them, and the
/// processor, with so many threads.
pub fn list_devices(names: &[String], threads: Option<NonZeroU32>) -> Exit {
    match worker::list(names, threads.map(Into::into)) {
        Ok(()) => Exit::DONE,
        Err(error) => {
            // Whoever started this reads it, or nobody does.
            let _ = writeln!(io::stderr(), "mesh-llm: {error}; --help says what can be changed");
            Exit::CONFIGURATION
        }
    }
}

/// Why nothing is offered.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Settings(#[from] settings::Error),
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error(transparent)]
    Door(#[from] BadDoor),
    #[error("{0}; --help says what can be changed")]
    Serve(#[from] ServeError),
}

impl Ending for Error {
    fn exit(&self) -> Exit {
        match self {
            Error::Settings(error) => error.exit(),
            Error::State(_) => Exit::STATE,
            Error::Secret(error) => error.exit(),
            Error::Door(_) => Exit::CONFIGURATION,
            Error::Serve(ServeError::Devices(_)) => Exit::CONFIGURATION,
            Error::Serve(ServeError::Folders(_)) => Exit::FILE,
            Error::Serve(ServeError::Listen { .. }) => Exit::UNAVAILABLE,
        }
    }
}

fn serve(settings: &Settings, offer: Offer, reporter: &Reporter) -> Result<(), Error> {
    let home = Home::open(&settings.home)?;
    let (secret, made) = secret::find_or_make(settings.split.secret.as_ref(), &home)?;
    if let Some(path) = made {
        reporter.note(&format!(
            "made a secret, {path}: every machine of the split needs a copy of this file, at this place or as \
             --rpc-secret-file (of a worker: --secret-file)",
            path = path.display()
        ));
    }
    if let Some(warning) = warning(offer.listen) {
        tracing::warn!("{warning}");
    }
    let model_dirs = match offer.model_dirs {
        named if named.is_empty() => usual_folders(&settings.places, &home.models()),
        named => named,
    };
    tracing::debug!(?model_dirs, "models are looked for here");
    let secret = Secret::new(secret.as_bytes()).expect("it has sixteen characters at least");
    let door = std::env::var(DOOR_VARIABLE).ok();
    let door = door.map(|door| door.parse()).transpose()?;
    worker::serve(&ServeOptions {
        listen: offer.listen,
        dialler: Dialler { secret, door },
        devices: settings.engine.devices.clone(),
        most: offer.most,
        model_dirs,
        threads: settings.engine.threads.map(Into::into),
        memory_file: home.fingerprints()?,
        step_delay: offer.step_delay,
    })?;
    Ok(())
}

/// What whoever listens at this address should know.
fn warning(listen: SocketAddr) -> Option<String> {
    (!listen.ip().is_loopback()).then(|| {
        format!(
            "other machines can reach {}: they must know the secret, but what they send then is neither encrypted \
             nor protected against changes; listen there only in a network that you trust",
            listen.ip()
        )
    })
}

/// The folders where the daemon finds models, as far as they are there for this user; and the embedded
/// model, which a host may serve.
fn usual_folders(places: &Places, own: &Path) -> Vec<PathBuf> {
    if let Err(error) = models::embedded(own) {
        tracing::warn!(%error, "the embedded model cannot be offered");
    }
    let others = places.others.iter().map(|(_, folder)| folder);
    places
        .store
        .iter()
        .chain(others)
        .map(PathBuf::as_path)
        .chain([own])
        .filter(|folder| fs::read_dir(folder).is_ok())
        .map(Path::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::places::Keeper;

    #[test]
    fn only_who_listens_beyond_this_machine_is_warned() {
        assert!(!DEFAULT_LISTEN.ip().is_unspecified() && warning(DEFAULT_LISTEN).is_none());
        assert!(warning("[::1]:1".parse().unwrap()).is_none());
        for open in ["0.0.0.0:9338", "10.0.0.2:9338", "[::]:9338"] {
            assert!(warning(open.parse().unwrap()).unwrap().contains("encrypted"));
        }
    }

    #[test]
    fn folders_that_are_not_there_are_left_out() {
        let root = tempfile::tempdir().unwrap();
        let store = root.path().join("store");
        fs::create_dir(&store).unwrap();
        let places = Places {
            store: Some(store.clone()),
            others: vec![(Keeper::LmStudio, root.path().join("none"))],
        };
        let own = root.path().join("own");
        assert_eq!(usual_folders(&places, &own), [store, own.clone()]);
        assert_eq!(fs::read_dir(&own).unwrap().count(), 1, "the embedded model");
    }
}
