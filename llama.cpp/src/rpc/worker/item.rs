//! What waits in a queue.

use std::time::Instant;

use bytes::Bytes;

use super::account::Room;
use crate::rpc::graph::Tensor;
use crate::rpc::wire::{Command, Load, Step};

/// Something to do.
#[derive(Debug)]
pub(super) struct Item {
    /// When it came, on a clock that no two share a moment of,
    pub(super) since: u64,
    /// and on everybody's.
    pub(super) came: Instant,
    pub(super) step: Step,
    pub(super) command: Command,
    pub(super) payload: Bytes,
    /// Bytes that it holds while it waits.
    pub(super) held: usize,
    /// For them, until it is done.
    pub(super) _room: Room,
}

impl Item {
    /// Bytes that a command and its payload hold, at least about.
    pub(super) fn held(command: &Command, payload: &Bytes) -> usize {
        let load = |load: &Load| size_of::<Load>() + load.name.len();
        let more = match command {
            Command::Define { content, .. } => {
                let tensor =
                    |tensor: &Tensor| size_of::<Tensor>() + size_of::<Option<u32>>() * tensor.sources.len();
                content.tensors.iter().map(tensor).sum::<usize>() + size_of_val(&content.nodes[..])
            }
            Command::Load { weights, .. } => weights.iter().map(load).sum(),
            Command::Weight { weight, .. } => load(weight),
            _ => 0,
        };
        size_of::<Self>() + payload.len() + more
    }
}
