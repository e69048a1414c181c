//! Has this machine's disk hold the models that it is to compute with for others: once, from where those got them.

use super::super::super::download::model_with;
use super::super::super::report::Reporter;
use crate::mesh::id::NodeId;
use crate::mesh::wire::{Fetch, Fetching};
use crate::mesh::{Offer, PeerStream, readable};
use crate::models::fetch::Progress;
use crate::models::origin::Origin;
use crate::models::reference::Reference;
use crate::models::{Library, Missing};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{Instant, interval, sleep_until, timeout};

/// Models that are downloaded at once for others.
const MOST_AT_ONCE: usize = 2;

/// Where less than [`LEAST_BYTES`] have come for so long, the host goes on without.
const GIVE_UP_AFTER: Duration = Duration::from_secs(60);

/// Fewer are as good as none: of a large model, they would take weeks.
const LEAST_BYTES: u64 = 1 << 20;

/// How often a host hears that it goes on.
const TELL_EVERY: Duration = Duration::from_secs(20);

/// How this machine comes by copies.
pub(in crate::daemon) struct Fetcher {
    library: Arc<Library>,
    offered: watch::Receiver<Offer>,
    reporter: Reporter,
    free: Semaphore,
    come: Arc<Notify>,
}

impl Fetcher {
    /// Fetches nothing yet. `offered` says whether this machine computes for others; `come` is told when a model has come.
    pub(in crate::daemon) fn new(
        library: Arc<Library>,
        offered: watch::Receiver<Offer>,
        reporter: Reporter,
        come: Arc<Notify>,
    ) -> Self {
        Self {
            library,
            offered,
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
                message: message.to_owned(),
            },
            // Nobody listens any more.
            None => return,
        };
        if stream.tell(&last).await.is_ok() {
            // It goes once it has heard it.
            let _ = timeout(Duration::from_secs(5), stream.hear::<Fetching>()).await;
        }
    }

    /// None: the host has gone. What went wrong is told in full to this machine's user only: it may be about repositories that
    /// nobody else may see.
    async fn have(
        &self,
        host: NodeId,
        fetch: &Fetch,
        stream: &mut PeerStream,
    ) -> Option<Result<(), &'static str>> {
        let model = readable(&fetch.model);
        // Only what the hub has: by an address, others could have this machine ask anything of its own network.
        let Reference::Repository(repository) = Reference::read(&fetch.source, |_| false) else {
            return Some(Err("its host names no repository"));
        };
        if model != fetch.model || !self.library.may_be(&model, &repository) {
            return Some(Err("its host names a file that is not called as the model is"));
        }
        if self.offered.borrow().split.is_none() {
            return Some(Err("it does not compute for others"));
        }
        let origin = Origin {
            repository,
            bytes: fetch.bytes,
        };
        let (library, name, wanted) = (self.library.clone(), model.clone(), origin.clone());
        let here = tokio::task::spawn_blocking(move || library.has_copy(&name, &wanted));
        if here.await.unwrap_or_default() {
            return Some(Ok(()));
        }
        let Ok(_permit) = self.free.try_acquire() else {
            return Some(Err("it downloads enough for others already"));
        };
        self.reporter.note(&format!(
            "{} wants to split {model} with this machine, which reads its layers from its own copy of the file",
            host.fmt_short()
        ));
        match self.fetch(&Missing::Copy(origin), stream).await? {
            Ok(()) => {
                self.come.notify_one();
                Some(Ok(()))
            }
            Err(message) => {
                self.reporter
                    .note(&format!("{model} was not downloaded: {message}"));
                Some(Err("its download failed: it says why itself"))
            }
        }
    }

    async fn fetch(&self, missing: &Missing, stream: &mut PeerStream) -> Option<Result<(), String>> {
        let (progress, mut changes) = watch::channel(Progress::default());
        let fetched = model_with(&self.library, missing, &self.reporter, |now| {
            progress.send_replace(now);
        });
        tokio::pin!(fetched);
        let mut tell = interval(TELL_EVERY);
        // What came last that is worth waiting for more, and when.
        let mut last = (Progress::default(), Instant::now());
        let mut told = None;
        loop {
            let now = *changes.borrow_and_update();
            let has_come = now.done_bytes >= last.0.done_bytes.saturating_add(LEAST_BYTES);
            if has_come || now.phase != last.0.phase {
                last = (now, Instant::now());
            }
            if told != Some(now.percent()) {
                told = Some(now.percent());
                tell.reset_immediately();
            }
            tokio::select! {
                model = &mut fetched => return Some(model.map(drop).map_err(|error| error.to_string())),
                Ok(()) = changes.changed() => {}
                _ = tell.tick() => {
                    let percent = now.percent();
                    stream.tell(&Fetching::UnderWay { percent }).await.ok()?;
                }
                () = sleep_until(last.1 + GIVE_UP_AFTER) => {
                    let seconds = GIVE_UP_AFTER.as_secs();
                    return Some(Err(format!("next to nothing has come for {seconds} s")));
                }
                // A host says nothing more until it goes.
                _ = stream.hear::<Fetching>() => return None,
            }
        }
    }
}
