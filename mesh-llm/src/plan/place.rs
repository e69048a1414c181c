//! Which machine serves which model, and which machines serve one together.
//!
//! [`plan`] is a function of what is known and of nothing else, so machines that know the same come to the same plan
//! without asking each other. What runs is part of what is known: plans change it only for a reason.
//!
//! - *One machine first.* A machine's own models come before what it lends: every machine that wants a model and has
//!   room for it serves a copy. Groups share what is left.
//! - *The smallest first*, so that most models are served; by name where they are as large. The first copy of
//!   each comes before a second one of any.
//! - *What runs stays* while it is possible, and comes before all that does not run yet. A group gives way only to a copy
//!   or to other machines with which a token takes at most four fifths of the time, and which have room to spare.
//! - *A round at a time.* What changes makes room for other changes, so the rules are applied to their own result until
//!   that stays (`round`).
//! - *What a group takes* of each machine is calculated when it is planned, by [`best_shares`] and with caches and buffers in
//!   proportion, and stays so while it runs: its host says how the plan divided the layers. A worker's
//!   [ledger](super::lease) says what was really lent.
//!
//! [`best_shares`]: llama_engine::rpc::plan::best_shares

mod demand;
mod group;
mod known;
mod round;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use known::Known;
use llama_engine::rpc::plan::{Gpus, Shares, Work};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// A machine of the mesh, by its key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MachineId(pub [u8; 32]);

impl fmt::Debug for MachineId {
    /// As short as everywhere: the first five bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..5].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What a machine is like.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Machine {
    /// Which one it is.
    pub id: MachineId,
    /// Bytes that it offers for models, all of them together.
    pub memory: u64,
    /// Bytes a second that it reads, its GPUs' not meant; 0 if unknown.
    pub bandwidth: u64,
    /// What of its memory is on GPUs. Models take that first.
    pub gpus: Gpus,
    /// What it speaks in a split: only machines with the same word can form a group. `None`: it takes no part.
    pub split: Option<String>,
}

/// How a model is to be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Wish {
    /// By one machine, if it fits on one.
    Whole,
    /// By several, even if it fits on one. It waits while there are none.
    Split,
}

/// That a machine was told to serve a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// The model's name. Wants of the same name are one: if any of them is to be split, all are.
    pub model: String,
    /// Who was told, has the file, and may be the host of a group.
    pub by: MachineId,
    /// What there is to compute.
    pub work: Work,
    /// Bytes of caches and buffers beside the weights, for all layers together.
    pub beside: u64,
    /// How it is to be served.
    pub wish: Wish,
    /// Whether the machine can serve it alone if it has the room: it may have found out that it cannot, whatever was
    /// reckoned.
    pub alone: bool,
}

/// Machines that serve a model together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group {
    /// Who answers requests.
    pub host: MachineId,
    /// Who computes for it, in the order of the layers. The last one may have the output layer and no other.
    pub workers: Vec<MachineId>,
    /// How their layers are planned, the host first. How its machines really divide them, a group finds out by itself.
    pub shares: Shares,
}

/// Who serves a model.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Placement {
    /// Each of these machines, by itself; in the order of their ids.
    Alone(Vec<MachineId>),
    /// These together.
    Split(Group),
    /// Nobody, for want of room.
    Waiting {
        /// Bytes that it needs.
        need: u64,
        /// The most that a host and those who could work for it have left. That may be `need` or more: layers are whole,
        /// and a model that is to be split needs somebody to share it with.
        have: u64,
    },
}

/// That a model is being served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// The model's name.
    pub model: String,
    /// By whom, as the host says. Several machines may say so of one model.
    pub placement: Placement,
}

/// What is known of a mesh. The order of the lists means nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct View {
    /// Who is there. Of two with one id, the lesser counts.
    pub machines: Vec<Machine>,
    /// What is wanted. By a machine that is not there, nothing is.
    pub wants: Vec<Want>,
    /// What is so at the moment.
    pub running: Vec<Running>,
    /// There and back between two machines, the smaller id first. Absent: unknown.
    pub round_trips: BTreeMap<(MachineId, MachineId), Duration>,
    /// The most that is borne between two machines of a group.
    pub most_round_trip: Duration,
    /// Bytes that a worker takes beside its layers: its process has to be somewhere, too.
    pub beside_worker: u64,
}

/// Who is to serve each model that a machine of the view wants.
///
/// The plan of a view in which that plan runs is the same plan.
pub fn plan(view: &View) -> BTreeMap<String, Placement> {
    let known = Known::new(view);
    let runs = round::Runs::new(
        view.running
            .iter()
            .map(|run| (run.model.as_str(), &run.placement)),
    );
    round::last(&known, &demand::models(view, &known), runs)
}
