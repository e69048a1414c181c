//! Joins the parts by which this machine's model is split over the mesh, and by which it lends to others.

use super::super::report::Reporter;
use super::super::serving::{AskedFor, ByModel, InMesh, Shortage, Taken};
use super::super::settings::Settings;
use super::machine::Machine;
use super::placing::{self, Directives};
use super::split::{LaunchFor, Lender, LenderEvent, Lent};
use crate::engine::{Program, WorkerLaunch};
use crate::mesh::state::{GroupState, SplitPart};
use crate::mesh::{Mesh, Offer};
use crate::models::Library;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// Requests of other machines that may wait to be looked at.
const ASKED: usize = 64;

/// What goes between this machine's models and the mesh; clones are the same.
#[derive(Clone)]
pub(super) struct Lending {
    mesh: Mesh,
    directives: watch::Receiver<Directives>,
    lent: watch::Receiver<Vec<Lent>>,
    unasked: watch::Sender<Taken>,
    yields: watch::Sender<BTreeSet<String>>,
    withdraws: watch::Sender<bool>,
    own_bytes: watch::Sender<ByModel<u64>>,
    groups: watch::Sender<Vec<GroupState>>,
    shortages: watch::Sender<ByModel<Shortage>>,
    machine: watch::Receiver<Option<Machine>>,
}

/// Where others' requests go that are no exchanges with a model.
pub(super) struct Inbox {
    events: mpsc::Sender<LenderEvent>,
    inbox: mpsc::Receiver<LenderEvent>,
}

impl Inbox {
    /// An empty one.
    pub(super) fn new() -> Self {
        let (events, inbox) = mpsc::channel(ASKED);
        Self { events, inbox }
    }

    /// Puts something in.
    pub(super) fn sender(&self) -> mpsc::Sender<LenderEvent> {
        self.events.clone()
    }
}

/// What the parts are told, and tell.
pub(super) struct Ends {
    /// Told what this machine does in splits, once that is known.
    pub(super) split: watch::Sender<Option<SplitPart>>,
    /// Told of the groups that serve models.
    pub(super) groups: watch::Sender<Vec<GroupState>>,
    /// Told where a model does not fit.
    pub(super) shortages: watch::Sender<ByModel<Shortage>>,
    /// What this machine offers.
    pub(super) offered: watch::Receiver<Offer>,
}

impl Lending {
    /// Begins to lend, if this machine has a program for that, and to follow the plan.
    pub(super) fn start(
        settings: &Settings,
        (mesh, inbox): (Mesh, Inbox),
        program: Option<&Program>,
        machine: watch::Receiver<Option<Machine>>,
        ends: Ends,
        reporter: &Reporter,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let (directive, directives) = watch::channel(Directives::new());
        tasks.spawn(placing::follow(mesh.clone(), ends.offered, directive));
        let (lent, lents) = watch::channel(Vec::new());
        let (unasked, unasked_taken) = watch::channel(Taken::Nothing);
        let (yields, _) = watch::channel(BTreeSet::new());
        let (withdraws, withdrawing) = watch::channel(false);
        let (own_bytes, own) = watch::channel(ByModel::new());
        if let Some(program) = program {
            let engine = settings.engine.clone();
            let (program, log, verbose) = (program.clone(), settings.log, settings.verbose);
            let threads = engine.threads.map(Into::into);
            let launch = move |machine: Machine| -> LaunchFor {
                Arc::new(move |secret, door, max_together| WorkerLaunch {
                    program: program.clone(),
                    secret,
                    door,
                    max_memory: machine.host,
                    max_vram: machine.gpus().offered_bytes,
                    max_together,
                    devices: machine.lent_devices(),
                    threads,
                    log,
                    verbose,
                })
            };
            let reporter = reporter.clone();
            let (of_mesh, mut known) = (mesh.clone(), machine.clone());
            tasks.spawn(async move {
                let known = known.wait_for(Option::is_some).await;
                // Else the daemon ends.
                let Some(machine) = known.ok().and_then(|known| known.clone()) else {
                    return;
                };
                let lender = Lender {
                    mesh: of_mesh,
                    memory: machine.memory().offered_bytes,
                    launch: launch(machine),
                    log: Arc::new(move |line| reporter.engine_log(line)),
                    own,
                    unasked: unasked_taken,
                    lent,
                };
                lender.run(inbox.events, inbox.inbox).await;
            });
            tasks.spawn(take_part(
                settings.mesh.most_round_trip,
                machine.clone(),
                ends.split,
                withdrawing,
            ));
        }
        Self {
            mesh,
            directives,
            lent: lents,
            unasked,
            yields,
            withdraws,
            own_bytes,
            groups: ends.groups,
            shortages: ends.shortages,
            machine,
        }
    }

    /// The mesh that it is in.
    pub(super) fn mesh(&self) -> Mesh {
        self.mesh.clone()
    }

    /// To whom this machine lends.
    pub(super) fn lent(&self) -> watch::Receiver<Vec<Lent>> {
        self.lent.clone()
    }

    /// Takes no part in splits any more: hosts of groups go on with others, once they have answered what they were asked.
    pub(super) fn withdraw(&self) {
        self.withdraws.send_replace(true);
    }

    /// Waits until nothing is lent.
    pub(super) async fn is_back(&self) {
        // The lender has ended: so has what was lent.
        let _ = self.lent().wait_for(Vec::is_empty).await;
    }

    /// Has the model that nobody asked for make room for others.
    pub(super) fn room(&self) -> MadeRoom {
        MadeRoom {
            yields: self.yields.clone(),
            unasked: self.unasked.subscribe(),
        }
    }

    /// What it takes to serve a model in the mesh; none `asked`: a model that nobody asked for.
    pub(super) fn in_mesh(
        &self,
        asked: Option<AskedFor>,
        fingerprints: PathBuf,
        library: Arc<Library>,
    ) -> InMesh {
        InMesh {
            mesh: self.mesh.clone(),
            directives: self.directives.clone(),
            lent: self.lent.clone(),
            unasked: self.unasked.clone(),
            yields: self.yields.subscribe(),
            own_bytes: self.own_bytes.clone(),
            groups: self.groups.clone(),
            shortages: self.shortages.clone(),
            machine: self.machine.clone(),
            asked,
            fingerprints,
            library,
        }
    }
}

/// Room that the model which nobody asked for makes for one that somebody wants.
pub(super) struct MadeRoom {
    yields: watch::Sender<BTreeSet<String>>,
    unasked: watch::Receiver<Taken>,
}

impl MadeRoom {
    /// The models for which there is, or is being made.
    pub(super) fn made_for(&self) -> BTreeSet<String> {
        self.yields.borrow().clone()
    }

    /// Makes room for this one, which waits for that; whether it was not so before.
    pub(super) fn make_for(&self, model: &str) -> bool {
        self.yields
            .send_if_modified(|models| models.insert(model.to_owned()))
    }

    /// What the model takes that nobody asked for.
    pub(super) fn unasked(&self) -> Taken {
        *self.unasked.borrow()
    }

    /// This one needs none: when none does, the model that nobody asked for comes back.
    pub(super) fn take_back(&self, model: &str) {
        self.yields.send_if_modified(|models| models.remove(model));
    }
}

/// Says what this machine does in splits, once it was measured, until it withdraws.
async fn take_part(
    most_round_trip: Duration,
    mut machine: watch::Receiver<Option<Machine>>,
    split: watch::Sender<Option<SplitPart>>,
    mut withdraws: watch::Receiver<bool>,
) {
    let bandwidth = |machine: &Option<Machine>| machine.as_ref().and_then(|machine| machine.bandwidth);
    let measured = machine.wait_for(|machine| bandwidth(machine).is_some()).await;
    let Some(bandwidth) = measured.ok().and_then(|machine| bandwidth(&machine)) else {
        // The daemon ends.
        return;
    };
    split.send_replace(speaks().map(|speaks| SplitPart {
        speaks,
        bandwidth,
        most_round_trip_micros: u64::try_from(most_round_trip.as_micros()).unwrap_or(u64::MAX),
    }));
    // Whoever could withdraw is gone: so is the mesh.
    let _ = withdraws.wait_for(|withdraws| *withdraws).await;
    split.send_replace(None);
}

/// What this machine speaks in a split.
#[cfg(feature = "engine")]
fn speaks() -> Option<String> {
    use llama_engine::{llama, rpc::wire::PROTOCOL};
    Some(format!("{PROTOCOL}/{}", llama::VERSION))
}

/// Which version a program elsewhere has, nobody knows.
#[cfg(not(feature = "engine"))]
fn speaks() -> Option<String> {
    None
}
