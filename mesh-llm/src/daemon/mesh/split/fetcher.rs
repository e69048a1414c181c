//! Has this machine's disk hold the models that it is to compute with for others: once, from where those got them.

use super::super::super::download::model_with;
use super::super::super::report::Reporter;
use crate::mesh::PeerStream;
use crate::mesh::id::NodeId;
use crate::mesh::wire::{Fetch, Fetching};
use crate::models::fetch::{Phase, Progress};
use crate::models::origin::Origin;
use crate::models::reference::Reference;
use crate::models::{Library, Missing};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, sleep_until};

/// Models that are downloaded at once for others.
const MOST_AT_ONCE: usize = 2;

/// Where nothing has come for so long, the host goes on without.
const GIVE_UP_AFTER: Duration = Duration::from_secs(60);

/// How this machine comes by copies.
pub(in crate::daemon) struct Fetcher {
    library: Arc<Library>,
    reporter: Reporter,
    free: Semaphore,
    come: Arc<Notify>,
}

impl Fetcher {
    /// Fetches nothing yet. `come` is told when a model has come.
    pub(in crate::daemon) fn new(library: Arc<Library>, reporter: Reporter, come: Arc<Notify>) -> Self {
        Self {
            library,
            reporter,
            free: Semaphore::new(MOST_AT_ONCE),
            come,
        }
    }

    /// Has a copy of what a host asks for, and tells it how far that is. When the host goes, the download ends; what has come
    /// of it stays for the next time.
    pub(in crate::daemon) async fn serve(&self, host: NodeId, fetch: Fetch, mut stream: PeerStream) {
        let last = match self.have(host, &fetch, &mut stream).await {
            Some(Ok(())) => Fetching::Here,
            Some(Err(message)) => Fetching::Failed {
                message: short(message),
            },
            // Nobody listens any more.
            None => return,
        };
        if stream.tell(&last).await.is_ok() {
            // It goes once it has heard it.
            let _ = tokio::time::timeout(Duration::from_secs(5), stream.hear::<Fetching>()).await;
        }
    }

    /// None: the host has gone.
    async fn have(&self, host: NodeId, fetch: &Fetch, stream: &mut PeerStream) -> Option<Result<(), String>> {
        // Only what the hub has: by an address, others could have this machine ask anything of its own network.
        let Reference::Repository(repository) = Reference::read(&fetch.source, |_| false) else {
            return Some(Err("its host names no repository".to_owned()));
        };
        let (library, model, place) = (self.library.clone(), fetch.model.clone(), repository.clone());
        let here = tokio::task::spawn_blocking(move || library.copy_of(&model, &place).is_some());
        if here.await.unwrap_or_default() {
            return Some(Ok(()));
        }
        let Ok(_permit) = self.free.try_acquire() else {
            return Some(Err(format!("it downloads {MOST_AT_ONCE} models already")));
        };
        self.reporter.note(&format!(
            "{} wants to split {} with this machine, which reads its layers from its own copy of the file",
            host.fmt_short(),
            fetch.model
        ));
        let missing = Missing::Copy(Origin {
            repository,
            bytes: fetch.bytes,
        });
        let fetched = self.fetch(&missing, stream).await?;
        match &fetched {
            Ok(()) => self.come.notify_one(),
            Err(message) => self
                .reporter
                .note(&format!("{} was not downloaded: {message}", fetch.model)),
        }
        Some(fetched)
    }

    async fn fetch(&self, missing: &Missing, stream: &mut PeerStream) -> Option<Result<(), String>> {
        let (progress, mut changes) = watch::channel(Progress::default());
        let fetched = model_with(&self.library, missing, &self.reporter, |now| {
            progress.send_replace(now);
        });
        tokio::pin!(fetched);
        let mut last = Instant::now();
        let mut told = None;
        loop {
            let now = *changes.borrow_and_update();
            let percent = now.percent();
            if told != Some(percent) {
                told = Some(percent);
                stream.tell(&Fetching::UnderWay { percent }).await.ok()?;
            }
            // Another program of this user may download the same, and says nothing of how far that is.
            let may_stall = now.phase != Phase::Waiting;
            tokio::select! {
                model = &mut fetched => return Some(model.map(drop).map_err(|error| error.to_string())),
                Ok(()) = changes.changed() => last = Instant::now(),
                () = sleep_until(last + GIVE_UP_AFTER), if may_stall => {
                    return Some(Err(format!("nothing has come for {} s", GIVE_UP_AFTER.as_secs())));
                }
                // A host says nothing more until it goes.
                _ = stream.hear::<Fetching>() => return None,
            }
        }
    }
}

/// As much of a message as fits into an answer.
fn short(mut message: String) -> String {
    const MOST: usize = 500;
    message.truncate(message.floor_char_boundary(MOST));
    message
}
