//! Serves this machine's model as the plan says: alone, with machines of the mesh, or not for the time being.
//!
//! One task owns the engine and what others lend it; each arrangement is a phase of its own, which ends when the plan
//! says something else, or a machine that lends is gone.

mod copying;
mod phases;
mod running;

use super::mesh::split::Lent;
use super::mesh::{Directives, Machine};
use crate::engine::restarts::Restarts;
use crate::engine::{Launch, State, Wish, Wished};
use crate::mesh::Mesh;
use crate::mesh::id::NodeId;
use crate::mesh::state::GroupState;
use crate::models::Library;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::Instant;

/// What is told of where the model turned out not to fit, to be planned with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Shortage {
    /// The machine alone has no room for it, whatever was reckoned.
    pub(super) not_alone: bool,
    /// It takes so many bytes more than was reckoned.
    pub(super) more: u64,
}

/// What a model takes of this machine's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// It does not run.
    Nothing,
    /// It starts, and chooses its context by what is free.
    Unknown,
    /// So much.
    Bytes(u64),
}

impl Taken {
    /// Bytes that it takes, as far as that is known.
    fn at_least(self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Nothing | Self::Unknown => 0,
        }
    }

    /// Bytes that it may take.
    pub(super) fn at_most(self) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::Unknown => u64::MAX,
            Self::Bytes(bytes) => bytes,
        }
    }
}

/// Something of each model, by its name.
pub(super) type ByModel<T> = BTreeMap<String, T>;

/// Takes lines of the engine's log.
pub(super) type LogTo = Arc<dyn Fn(&[u8]) + Send + Sync>;

/// What a model that may be split over the mesh needs to be served.
pub(super) struct InMesh {
    /// The mesh.
    pub(super) mesh: Mesh,
    /// What the plan says of each model.
    pub(super) directives: watch::Receiver<Directives>,
    /// Whom this machine lends to.
    pub(super) lent: watch::Receiver<Vec<Lent>>,
    /// Told what a model takes that nobody asked for, and which is so in the way of others.
    pub(super) unasked: watch::Sender<Taken>,
    /// For which models one that nobody asked for makes room.
    pub(super) yields: watch::Receiver<BTreeSet<String>>,
    /// Told how many bytes each model takes here that this machine was told to serve.
    pub(super) own_bytes: watch::Sender<ByModel<u64>>,
    /// Told of the group that serves the model.
    pub(super) groups: watch::Sender<Vec<GroupState>>,
    /// Told where it does not fit.
    pub(super) shortages: watch::Sender<ByModel<Shortage>>,
    /// What this machine has for models, once that is known.
    pub(super) machine: watch::Receiver<Option<Machine>>,
    /// The model as its user asked for it; none: nobody did.
    pub(super) asked: Option<AskedFor>,
    /// Where fingerprints of models are remembered.
    pub(super) fingerprints: PathBuf,
    /// Where models are, and where others get them.
    pub(super) library: Arc<Library>,
}

/// A model that this machine was told to serve.
#[derive(Debug, Clone)]
pub(super) struct AskedFor {
    /// Bytes that it needs, as far as its header says.
    pub(super) bytes: u64,
    /// Whether it is to be split also where it fits.
    pub(super) is_spread: bool,
}

/// What is to be served.
pub(super) struct Service {
    /// How the engine is started where it is alone.
    pub(super) launch: Launch,
    /// The mesh; none: this machine is alone, or its user says with whom it splits the model.
    pub(super) in_mesh: Option<InMesh>,
    /// Told what becomes of it.
    pub(super) state: watch::Sender<State>,
    /// Where the engine's log goes.
    pub(super) log: LogTo,
}

/// A service that runs.
pub(super) struct Served {
    state: watch::Receiver<State>,
    task: Wished<bool>,
}

impl Served {
    /// Begins.
    pub(super) fn start(service: Service) -> Self {
        let state = service.state.subscribe();
        let task = Wished::start(|wishes| {
            let task = Task {
                service,
                wishes,
                restarts: Restarts::default(),
                last_epoch: 0,
                tight: 0,
                may_fit_later: false,
                was_lost: false,
                looked_for_copies: BTreeMap::new(),
            };
            task.run()
        });
        Self { state, task }
    }

    /// What becomes of the model.
    pub(super) fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// Ends the engine, which finishes what it does, unless `impatience` is over first; returns whether it was.
    pub(super) async fn stop(self, impatience: impl Future<Output = ()>) -> bool {
        let (cut, _) = self.task.end(impatience).await;
        cut.unwrap_or_default()
    }
}

/// What the service's task has.
struct Task {
    service: Service,
    wishes: watch::Receiver<Wish>,
    restarts: Restarts,
    last_epoch: u64,
    /// How often a worker had lent too little.
    tight: u32,
    /// Whether there may be room for a model that nobody asked for though there is none: it was served, or made room.
    may_fit_later: bool,
    /// Whether it was lost since it was ready: then it is not to wait for downloads.
    was_lost: bool,
    /// When was looked whether machines have a copy of the model.
    looked_for_copies: BTreeMap<NodeId, Instant>,
}
