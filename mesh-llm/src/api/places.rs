//! The places that may answer a request, and what is remembered of them.

use super::error::no_model;
use super::own::Own;
use super::remote::{Remote, RemoteModel, Remotes};
use crate::dialects::Problem;
use crate::engine::{Serving, Upstream};
use crate::plan::route::{Candidate, Routing, SessionKey};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The RTT of a node that nobody has measured yet: it is not this machine, and any other may be nearer.
const UNMEASURED: Duration = Duration::MAX;

/// Where requests are answered.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Place {
    /// By this machine's own engine.
    Own,
    /// By the node with this id.
    Node(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Own => f.write_str("this machine"),
            Place::Node(id) => write!(f, "node {id}"),
        }
    }
}

/// The way to a place.
#[derive(Debug)]
pub(super) struct Way {
    candidate: Candidate<Place>,
    /// Takes the request there.
    pub(super) upstream: Upstream,
}

impl Way {
    /// Where it leads.
    pub(super) fn place(&self) -> &Place {
        &self.candidate.place
    }

    fn to_own(serving: Serving) -> Self {
        Self::new(Place::Own, serving.ready.slots, [0, 0], None, serving.upstream)
    }

    fn to_node(remote: &Remote, model: &RemoteModel) -> Self {
        Self::new(
            Place::Node(remote.node.clone()),
            model.slots,
            [model.busy, model.waiting],
            Some(remote.rtt.unwrap_or(UNMEASURED)),
            model.upstream.clone(),
        )
    }

    /// A place's own word of its load is late, or there is none: it has at least what it was sent from here.
    fn new(
        place: Place,
        slots: u32,
        [busy, waiting]: [u32; 2],
        rtt: Option<Duration>,
        upstream: Upstream,
    ) -> Self {
        let sent = u32::try_from(upstream.in_flight()).unwrap_or(u32::MAX);
        let requests = busy.saturating_add(waiting).max(sent);
        let busy = busy.max(requests.min(slots));
        let candidate = Candidate {
            place,
            slots,
            busy,
            waiting: requests.saturating_sub(busy),
            rtt,
        };
        Self { candidate, upstream }
    }
}

/// The ways to every place that serves `model`. Where the request names none, the own engine answers with
/// what it has, else each node with its first model.
///
/// # Errors
/// Where there is no such place: because the own engine is not ready, whose model this may be, or because
/// nobody has that model.
pub(super) fn ways(own: &Own, remotes: &Remotes, model: Option<&str>) -> Result<Vec<Way>, Problem> {
    let serving = own.serving();
    let Some(model) = model else {
        let first = |remote| Some(Way::to_node(remote, remote.models.first()?));
        return Ok(match serving {
            Ok(serving) => vec![Way::to_own(serving)],
            Err(_) => remotes.iter().filter_map(first).collect(),
        });
    };
    let here = serving.as_ref().ok().filter(|serving| serving.model == model);
    let there = remotes.iter().filter_map(|remote| {
        let found = remote.models.iter().find(|served| served.name == model)?;
        Some(Way::to_node(remote, found))
    });
    let ways: Vec<_> = here.cloned().map(Way::to_own).into_iter().chain(there).collect();
    if ways.is_empty() {
        return Err(absent(own, remotes, model));
    }
    Ok(ways)
}

/// Why a model is served nowhere.
pub(super) fn absent(own: &Own, remotes: &Remotes, model: &str) -> Problem {
    match own.serving() {
        Err(not_ready) if !own.is_none() => not_ready.problem(),
        serving => {
            let mut names: Vec<_> = remotes.models().map(|model| model.name.clone()).collect();
            names.extend(serving.ok().map(|serving| serving.model));
            names.sort_unstable();
            names.dedup();
            no_model(model, &names)
        }
    }
}

/// What is remembered of places from one request to the next; clones share it.
#[derive(Debug, Clone)]
pub(super) struct Routes {
    routing: Arc<Mutex<Routing<Place>>>,
    since: Instant,
}

impl Default for Routes {
    fn default() -> Self {
        Self {
            routing: Arc::default(),
            since: Instant::now(),
        }
    }
}

impl Routes {
    /// Puts the best way first.
    pub(super) fn sort(&self, session: Option<SessionKey>, mut ways: Vec<Way>) -> Vec<Way> {
        let candidates: Vec<_> = ways.iter().map(|way| way.candidate.clone()).collect();
        let order = self.routing().order(self.since.elapsed(), session, &candidates);
        ways.sort_by_cached_key(|way| order.iter().position(|place| place == way.place()));
        ways
    }

    /// The place has answered.
    pub(super) fn answered(&self, session: Option<SessionKey>, place: &Place) {
        self.routing().answered(session, place.clone());
    }

    /// The place gave no answer.
    pub(super) fn failed(&self, place: &Place) {
        self.routing().failed(self.since.elapsed(), place.clone());
    }

    fn routing(&self) -> MutexGuard<'_, Routing<Place>> {
        // No change stops half-way.
        self.routing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use llama_engine::server::options::Listen;

    fn way(busy: u32, waiting: u32) -> Candidate<Place> {
        let upstream = Upstream::new(Listen::Unix("nowhere".into()), None);
        let remote = Remote {
            node: "n".into(),
            name: "N".into(),
            rtt: None,
            models: vec![RemoteModel {
                name: "m".into(),
                slots: 4,
                busy,
                waiting,
                context: 1,
                upstream,
            }],
        };
        Way::to_node(&remote, &remote.models[0]).candidate
    }

    #[test]
    fn a_node_s_own_word_of_its_load_counts_where_it_is_the_greater() {
        let candidate = way(3, 0);
        assert_eq!((candidate.busy, candidate.waiting), (3, 0));
        let candidate = way(4, 2);
        assert_eq!((candidate.busy, candidate.waiting), (4, 2));
    }

    #[test]
    fn a_node_that_nobody_measured_is_not_taken_for_this_machine() {
        assert_eq!(way(0, 0).rtt, Some(UNMEASURED));
    }
}
