//! Which place answers a request, where several serve its model.
//!
//! A conversation goes back to where its beginning is in the KV cache; new ones go where the least waits.
//! A place that failed is the last to be asked again for a while.

use lru::LruCache;
use sha2::{Digest, Sha256};
use std::cmp::Ordering;
use std::collections::HashMap;
use std::hash::Hash;
use std::num::NonZeroUsize;
use std::time::Duration;

/// Conversations whose place is remembered: a mesh's slots hold far fewer.
const MOST_SESSIONS: NonZeroUsize = NonZeroUsize::new(16_384).expect("it is not 0");

/// How long a place that failed once is the last to be asked.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// How long it is at most, however often it failed.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How long after its pause a failure is forgotten without an answer: the place may not exist any more.
const FORGET_AFTER: Duration = Duration::from_secs(600);

/// A place that serves the model of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate<P> {
    /// Who it is.
    pub place: P,
    /// Requests that it serves at once; 0 counts as 1.
    pub slots: u32,
    /// Of those, how many are in use.
    pub busy: u32,
    /// Requests that wait for a slot.
    pub waiting: u32,
    /// The time to it and back; none is this machine.
    pub rtt: Option<Duration>,
}

impl<P> Candidate<P> {
    /// Whether a request would be served without waiting.
    fn is_free(&self) -> bool {
        self.waiting == 0 && self.busy < self.slots.max(1)
    }

    /// Requests for each slot, exactly: two different fractions of 32-bit numbers are 2^-64 apart or more.
    fn load(&self) -> u128 {
        let requests = u128::from(self.busy) + u128::from(self.waiting);
        (requests << 64) / u128::from(self.slots.max(1))
    }
}

/// A conversation: requests with the same key have the same beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionKey(u64);

impl SessionKey {
    /// The conversation that the client calls `name`, with this model.
    pub fn named(model: &str, name: &[u8]) -> Self {
        Self::of(b"name", model, [name])
    }

    /// The conversation that begins with these messages, with this model. Messages count as they are
    /// written: a client writes what it has sent before in the same way again.
    pub fn begun<'a>(model: &str, messages: impl IntoIterator<Item = &'a [u8]>) -> Self {
        Self::of(b"begun", model, messages)
    }

    /// Each part's length goes before it, so that no two lists of parts are the same bytes.
    fn of<'a>(kind: &[u8], model: &str, parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut digest = Sha256::new();
        let mut add = |part: &[u8]| {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        };
        add(kind);
        add(model.as_bytes());
        parts.into_iter().for_each(add);
        let [a, b, c, d, e, f, g, h, ..] = <[u8; 32]>::from(digest.finalize());
        Self(u64::from_le_bytes([a, b, c, d, e, f, g, h]))
    }
}

/// What is remembered from one request to the next. Times are since any moment, the same for all calls.
#[derive(Debug)]
pub struct Routing<P> {
    sessions: LruCache<SessionKey, P>,
    failures: HashMap<P, Failure>,
}

#[derive(Debug, Clone, Copy)]
struct Failure {
    /// The place is among the last until then.
    until: Duration,
    /// How long that was.
    pause: Duration,
}

impl<P> Default for Routing<P>
where
    P: Clone + Ord + Hash,
{
    fn default() -> Self {
        Self {
            sessions: LruCache::new(MOST_SESSIONS),
            failures: HashMap::new(),
        }
    }
}

impl<P> Routing<P>
where
    P: Clone + Ord + Hash,
{
    /// All places, in the order in which they are to be tried: the session's own unless it is full while
    /// another is free; then by requests for each slot, then by time to it (this machine first), then by
    /// place. Those that failed lately come last, in the same order.
    pub fn order(
        &mut self,
        now: Duration,
        session: Option<SessionKey>,
        candidates: &[Candidate<P>],
    ) -> Vec<P> {
        let failed = |candidate: &Candidate<P>| {
            let failure = self.failures.get(&candidate.place);
            failure.is_some_and(|failure| now < failure.until)
        };
        let own = session.and_then(|session| self.sessions.get(&session));
        let another_is_free = candidates
            .iter()
            .any(|candidate| Some(&candidate.place) != own && candidate.is_free() && !failed(candidate));
        let is_own = |candidate: &Candidate<P>| {
            Some(&candidate.place) == own && (candidate.is_free() || !another_is_free)
        };
        let mut ranked: Vec<_> = candidates
            .iter()
            .map(|candidate| (failed(candidate), !is_own(candidate), candidate))
            .collect();
        ranked.sort_by(|(a_failed, a_other, a), (b_failed, b_other, b)| {
            (a_failed, a_other)
                .cmp(&(b_failed, b_other))
                .then_with(|| compare(a, b))
        });
        let places = ranked
            .into_iter()
            .map(|(_, _, candidate)| candidate.place.clone());
        places.collect()
    }

    /// The place has answered, for this session: it lives, and has the session in its cache.
    pub fn answered(&mut self, session: Option<SessionKey>, place: P) {
        self.failures.remove(&place);
        if let Some(session) = session {
            self.sessions.put(session, place);
        }
    }

    /// The place could not be asked, or gave no answer.
    pub fn failed(&mut self, now: Duration, place: P) {
        self.failures
            .retain(|_, failure| now < failure.until.saturating_add(FORGET_AFTER));
        let before = self.failures.get(&place).copied();
        let pause = match before {
            // Requests that were under way together fail together: that is one failure.
            Some(failure) if now < failure.until => return,
            Some(failure) => (failure.pause * 2).min(LONGEST_PAUSE),
            None => FIRST_PAUSE,
        };
        let until = now.saturating_add(pause);
        self.failures.insert(place, Failure { until, pause });
    }
}

/// Of two places that are neither a session's own nor failed.
fn compare<P: Ord>(a: &Candidate<P>, b: &Candidate<P>) -> Ordering {
    // No RTT is less than any.
    (a.load(), a.rtt, &a.place).cmp(&(b.load(), b.rtt, &b.place))
}

#[cfg(test)]
mod tests;
