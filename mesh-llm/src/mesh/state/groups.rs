//! What a node says of models that are split over machines: what it can do, wants, does, and how far others are.

use super::bounded;
use super::{NodeState, cut, is_text};
use crate::mesh::id::NodeId;
use serde::{Deserialize, Serialize};

/// Wanted models in a state.
pub const MAX_WANTS: usize = 8;

/// Groups in a state.
pub const MAX_GROUPS: usize = 4;

/// Workers of a group: llama.cpp takes no more devices.
pub const MAX_WORKERS: usize = 15;

/// Machines of a group.
pub const MAX_MACHINES: usize = MAX_WORKERS + 1;

/// Round trips in a state.
pub const MAX_ROUND_TRIPS: usize = 64;

/// A node's part in models that are split over machines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitPart {
    /// What it speaks in a split: only those who speak the same understand each other.
    pub speaks: String,
    /// Bytes a second that it reads of its memory; 0 if that is not known.
    pub bandwidth: u64,
    /// How far others may be with whom it takes part, in microseconds there and back.
    pub most_round_trip_micros: u64,
}

/// A model that a node is to serve, and has the file of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantState {
    /// Its name in the API.
    pub model: String,
    /// Its layers.
    pub layers: u32,
    /// Bytes of all of them together.
    pub layer_bytes: u64,
    /// Bytes of the output layer.
    pub head_bytes: u64,
    /// Bytes of a token's logits.
    pub logits_bytes: u64,
    /// Bytes of caches and buffers beside the weights.
    pub beside_bytes: u64,
    /// Whether it is to be split also where it fits on one machine.
    pub is_split: bool,
    /// Whether the node has found that it cannot serve it alone, whatever it needs by these numbers.
    pub is_too_large: bool,
    /// Whether the node took it on by itself, as somebody else wants it.
    pub is_adopted: bool,
}

impl WantState {
    /// Bytes that it needs, wherever it is served.
    pub fn bytes(&self) -> u64 {
        let weights = self.layer_bytes.saturating_add(self.head_bytes);
        weights.saturating_add(self.beside_bytes)
    }
}

/// A model that a node serves with others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupState {
    /// Its name in the API.
    pub model: String,
    /// Which group of this model it is: later ones have greater numbers.
    pub epoch: u64,
    /// Layers that the node itself computes; 0 before that is known.
    pub own_layers: u32,
    /// The others, in the order of the layers.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_WORKERS>")]
    pub workers: Vec<GroupWorker>,
    /// Layers that the plan gave each machine, this node first: what the group takes of them, as all reckon.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_MACHINES>")]
    pub planned: Vec<u32>,
    /// Which of these machines the plan gave the output layer.
    pub planned_head: u32,
}

/// A worker of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupWorker {
    /// Who.
    pub node: NodeId,
    /// Layers that it computes; 0 before that is known.
    pub layers: u32,
}

/// How far another node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoundTrip {
    /// Which.
    pub node: NodeId,
    /// There and back, in microseconds.
    pub micros: u32,
}

/// Keeps of it as much as may be sent.
pub(super) fn fit(state: &mut NodeState) {
    if let Some(split) = &mut state.split {
        split.speaks = cut(&split.speaks);
    }
    state.wants.retain(|want| is_text(&want.model));
    state.wants.truncate(MAX_WANTS);
    state.groups.retain(|group| is_text(&group.model));
    state.groups.truncate(MAX_GROUPS);
    for group in &mut state.groups {
        group.workers.truncate(MAX_WORKERS);
        group.planned.truncate(MAX_MACHINES);
    }
    state.round_trips.truncate(MAX_ROUND_TRIPS);
}

/// The texts in it.
pub(super) fn texts(state: &NodeState) -> impl Iterator<Item = &str> {
    let split = state.split.iter().map(|split| split.speaks.as_str());
    let wants = state.wants.iter().map(|want| want.model.as_str());
    let groups = state.groups.iter().map(|group| group.model.as_str());
    split.chain(wants).chain(groups)
}
