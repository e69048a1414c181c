//! Keeps on disk what the hub says, beside it: who waits for a slow disk would seem dead to others.

use super::super::store::{Kept, Store};
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};

/// The task that writes.
#[derive(Debug)]
pub(super) struct Keeper {
    newest: watch::Sender<Option<Kept>>,
    writing: JoinHandle<()>,
}

impl Keeper {
    /// Begins.
    pub(super) fn start(store: Store) -> Self {
        let (newest, news) = watch::channel(None);
        Self {
            newest,
            writing: tokio::spawn(write(store, news)),
        }
    }

    /// Keeps this from now on, in the place of what was to be kept before.
    pub(super) fn keep(&self, kept: Kept) {
        self.newest.send_replace(Some(kept));
    }

    /// Waits until it is kept.
    pub(super) async fn finish(self) {
        drop(self.newest);
        // If it panicked, that was told.
        let _ = self.writing.await;
    }
}

/// Writes what is said, until nobody says anything any more: the last of it as well.
async fn write(mut store: Store, mut news: watch::Receiver<Option<Kept>>) {
    while news.changed().await.is_ok() {
        let Some(kept) = news.borrow_and_update().clone() else {
            continue;
        };
        let written = spawn_blocking(move || {
            let written = store.keep(kept);
            (store, written)
        });
        let Ok((back, written)) = written.await else {
            return;
        };
        store = back;
        if let Err(error) = written {
            tracing::warn!(%error, "what is known of the mesh cannot be kept: after a restart a new invite token may be needed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::core::Part;
    use super::super::super::id::{Boot, MeshId};
    use super::super::super::roster::Roster;
    use super::*;
    use iroh_base::SecretKey;

    #[tokio::test]
    async fn what_was_said_last_is_there_at_the_next_start() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(folder.path()).unwrap();
        let start = store.start(Part::Server, None).unwrap();
        let keeper = Keeper::start(store);
        // Beyond what a clock says.
        let last = start.boot.0 + 1_000_000_000;
        let other = Roster::new(MeshId(SecretKey::from_bytes(&[1; 32]).public()));
        for boot in last - 50..=last {
            let roster = if boot == last { &other } else { &start.roster };
            keeper.keep(kept(boot, roster));
        }
        keeper.finish().await;
        let next = Store::open(folder.path())
            .unwrap()
            .start(Part::Server, None)
            .unwrap();
        assert_eq!(next.boot, Boot(last + 1));
        assert_eq!(next.roster.mesh(), other.mesh());
    }

    #[test]
    fn what_could_not_be_written_is_written_the_next_time() {
        let outer = tempfile::tempdir().unwrap();
        let (folder, away) = (outer.path().join("mesh"), outer.path().join("away"));
        std::fs::create_dir(&folder).unwrap();
        let mut store = Store::open(&folder).unwrap();
        let start = store.start(Part::Server, None).unwrap();
        let later = kept(start.boot.0 + 1_000_000_000, &start.roster);
        std::fs::rename(&folder, &away).unwrap();
        assert!(store.keep(later.clone()).is_err());
        std::fs::rename(&away, &folder).unwrap();
        store.keep(later.clone()).unwrap();
        let next = Store::open(&folder).unwrap().start(Part::Server, None).unwrap();
        assert_eq!(next.boot, Boot(later.boot.0 + 1));
        assert!(folder.join("roster").exists());
    }

    fn kept(boot: u64, roster: &Roster) -> Kept {
        Kept {
            boot: Boot(boot),
            roster: roster.to_bytes(),
            certificate: None,
            contacts: Vec::new(),
        }
    }
}
