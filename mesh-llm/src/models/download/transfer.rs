//! Brings what is missing of a file, over several connections.

use super::facts::{Facts, Same, Sha256};
use super::http::Failure;
use super::part::Part;
use super::remote::Remote;
use super::{Error, Phase, Progress, blocking, digest};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};

/// How often progress is told.
const TICK: Duration = Duration::from_millis(100);

/// How often what is written is made durable: what a crash can cost.
const CHECKPOINT: Duration = Duration::from_secs(1);

/// How an attempt ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Every byte is written.
    Complete,
    /// The server has another file now.
    Changed,
}

/// How a connection ended.
enum End {
    /// There is nothing left to bring.
    Done,
    Changed,
    /// The attempts were used up; others may do better.
    GaveUp(Error),
    Failed(Error),
    /// Nobody wants the rest.
    Stopped,
}

/// One attempt at a file.
#[derive(Debug, Clone)]
pub(super) struct Transfer {
    remote: Remote,
    facts: Facts,
    part: Arc<Part>,
    connections: usize,
}

/// Ends the hashing when nobody waits for it any more.
struct Abandon(Arc<Part>);

impl Drop for Abandon {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

impl Transfer {
    pub(super) fn new(remote: &Remote, facts: &Facts, part: Arc<Part>, connections: usize) -> Self {
        let connections = if facts.ranges { connections.max(1) } else { 1 };
        Self {
            remote: remote.clone(),
            facts: facts.clone(),
            part,
            connections,
        }
    }

    /// Brings what is missing and hashes all, if there is a hash to compare with. However it ends,
    /// what was written is durable and recorded; dropped, all but the last second of it is.
    pub(super) async fn run(
        self,
        progress: &watch::Sender<Progress>,
    ) -> Result<(Outcome, Option<Sha256>), Error> {
        let _abandon = Abandon(self.part.clone());
        let digest = self.facts.sha256.map(|_| {
            let part = self.part.clone();
            tokio::spawn(blocking(move || digest::follow(&part)))
        });
        let outcome = self.watched(self.bring_all(), progress).await;
        self.part.close();
        let part = self.part.clone();
        let recorded = blocking(move || part.checkpoint()).await;
        let outcome = outcome?;
        recorded?;
        if outcome == Outcome::Changed {
            return Ok((outcome, None));
        }
        let hashed = match digest {
            Some(digest) => self.verified(digest, progress).await?,
            None => None,
        };
        Ok((outcome, hashed))
    }

    /// Does the work; meanwhile progress is told, and what was written is made durable.
    async fn watched(
        &self,
        work: impl Future<Output = Result<Outcome, Error>>,
        progress: &watch::Sender<Progress>,
    ) -> Result<Outcome, Error> {
        tokio::pin!(work);
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut checkpoint: Option<JoinHandle<_>> = None;
        let mut next = Instant::now() + CHECKPOINT;
        loop {
            tokio::select! {
                outcome = &mut work => return outcome,
                _ = ticks.tick() => {}
            }
            self.tell(progress, Phase::Downloading, self.part.written_bytes());
            if checkpoint.as_ref().is_some_and(JoinHandle::is_finished) {
                if let Some(finished) = checkpoint.take() {
                    joined(finished).await?;
                }
                next = Instant::now() + CHECKPOINT;
            }
            if checkpoint.is_none() && Instant::now() >= next {
                let part = self.part.clone();
                checkpoint = Some(tokio::spawn(blocking(move || part.checkpoint())));
            }
        }
    }

    /// Waits for the hash of what came last.
    async fn verified(
        &self,
        mut digest: JoinHandle<Result<Option<Sha256>, Error>>,
        progress: &watch::Sender<Progress>,
    ) -> Result<Option<Sha256>, Error> {
        loop {
            self.tell(progress, Phase::Verifying, self.part.hashed_bytes());
            tokio::select! {
                digest = &mut digest => return flattened(digest),
                () = tokio::time::sleep(TICK) => {}
            }
        }
    }

    fn tell(&self, progress: &watch::Sender<Progress>, phase: Phase, done_bytes: u64) {
        progress.send_replace(Progress {
            done_bytes,
            total_bytes: self.facts.bytes,
            phase,
        });
    }

    /// Connections work until nothing is left. One that gives up leaves its piece to the others; when
    /// all have, there is another round if the last one brought anything.
    async fn bring_all(&self) -> Result<Outcome, Error> {
        loop {
            let before = self.part.claimed_bytes();
            let mut last = None;
            for end in self.round().await? {
                match end {
                    End::Done | End::Stopped => {}
                    End::Changed => return Ok(Outcome::Changed),
                    End::GaveUp(error) => last = Some(error),
                    End::Failed(error) => return Err(error),
                }
            }
            let now = self.part.claimed_bytes();
            match last {
                _ if now == self.facts.bytes => return Ok(Outcome::Complete),
                Some(error) if now == before => return Err(error),
                _ => {}
            }
        }
    }

    /// Lets all connections work and says how they ended. The first that ends the download ends the
    /// others; afterwards none of them writes any more.
    async fn round(&self) -> Result<Vec<End>, Error> {
        // Dropped, whether here or with the whole download, it ends them.
        let (stop, stopped) = watch::channel(());
        let mut stop = Some(stop);
        let mut connections = JoinSet::new();
        for _ in 0..self.connections {
            let (transfer, stopped) = (self.apart()?, stopped.clone());
            connections.spawn_blocking(move || transfer.connection_here(stopped));
        }
        let mut ends = Vec::new();
        while let Some(end) = connections.join_next().await {
            let end = end.unwrap_or_else(|error| End::Failed(interrupted(&error)));
            if matches!(end, End::Changed | End::Failed(_)) {
                stop = None;
            }
            ends.push(end);
        }
        drop(stop);
        Ok(ends)
    }

    /// The same, over connections of its own.
    fn apart(&self) -> Result<Self, Error> {
        Ok(Self {
            remote: self.remote.apart()?,
            ..self.clone()
        })
    }

    /// Works as one connection on the calling thread: what is read there is written there, while the
    /// processor still has it at hand. Handing each piece from thread to thread halved the rate.
    fn connection_here(&self, mut stopped: watch::Receiver<()>) -> End {
        let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return End::Failed(interrupted(&error)),
        };
        let end = runtime.block_on(async {
            tokio::select! {
                end = self.connection() => end,
                _ = stopped.changed() => End::Stopped,
            }
        });
        // Whoever still looks up a name is not waited for.
        runtime.shutdown_background();
        end
    }

    /// Brings one piece after another.
    async fn connection(&self) -> End {
        while let Some(piece) = self.part.claim(self.connections as u64) {
            let mut at = piece.start;
            let end = self.piece(&piece, &mut at).await;
            self.part.give_back(at..piece.end);
            if let Some(end) = end {
                return end;
            }
        }
        End::Done
    }

    /// Brings one piece, in as many attempts as it takes while each brings something.
    async fn piece(&self, piece: &Range<u64>, at: &mut u64) -> Option<End> {
        let patience = self.remote.client().patience;
        let mut delays = patience.delays();
        let mut furthest = *at;
        while *at < piece.end {
            if !self.facts.ranges && self.facts.identity.is_none() {
                // It all comes again, and nothing says that it is what came before.
                *at = piece.start;
            }
            let failure = match self.bring(at, piece.end).await {
                Ok(end @ Some(_)) => return end,
                Ok(None) => return None,
                Err(failure) => failure,
            };
            if *at > furthest {
                furthest = *at;
                delays = patience.delays();
            }
            match failure.delay(delays.next()) {
                Some(delay) => {
                    tracing::debug!(?failure, ?delay, at = *at, "a connection tries again");
                    tokio::time::sleep(delay).await;
                }
                None if failure.passes() => return Some(End::GaveUp(failure.into_error())),
                None => return Some(End::Failed(failure.into_error())),
            }
        }
        None
    }

    /// Brings bytes over one request.
    async fn bring(&self, at: &mut u64, end: u64) -> Result<Option<End>, Failure> {
        let range = self.facts.ranges.then_some(*at..end);
        let mut answer = self.remote.open(range.clone(), self.facts.condition()).await?;
        let mut offset = match self.facts.same(&answer, range.as_ref())? {
            Same::From(offset) => offset,
            Same::Changed => return Ok(Some(End::Changed)),
        };
        while *at < end {
            let Some(mut bytes) = self.remote.piece(&mut answer).await? else {
                let cause = format!("the answer ended {} bytes early", end - *at);
                return Err(Failure::again(super::http::broken(&answer.url, cause)));
            };
            // Of a server without ranges, what is there already comes again.
            let known = (*at - offset).min(bytes.len() as u64);
            offset += bytes.len() as u64;
            let _ = bytes.split_to(known as usize);
            bytes.truncate(usize::try_from(end - *at).unwrap_or(usize::MAX));
            if bytes.is_empty() {
                continue;
            }
            self.part.write(*at, &bytes).map_err(Failure::Final)?;
            *at += bytes.len() as u64;
        }
        Ok(None)
    }
}

async fn joined<T>(task: JoinHandle<Result<T, Error>>) -> Result<T, Error> {
    flattened(task.await)
}

fn flattened<T>(ended: Result<Result<T, Error>, tokio::task::JoinError>) -> Result<T, Error> {
    ended.unwrap_or_else(|error| Err(interrupted(&error)))
}

fn interrupted(error: &impl ToString) -> Error {
    Error::Interrupted {
        cause: error.to_string(),
    }
}
