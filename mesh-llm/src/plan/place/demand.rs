//! What is wanted, and what it takes.

use super::known::{Known, MOST_BYTES};
use super::{MachineId, View, Want, Wish};
use llama_engine::rpc::plan::{Gpus, Head, Node, Shares, Work, predict};
use std::collections::BTreeMap;
use std::time::Duration;

/// Layers of a model that can be split; one with more is no model.
const MOST_LAYERS: usize = 4096;

/// A model that is wanted.
pub(super) struct Model<'a> {
    pub(super) name: &'a str,
    /// To be split if any of those who want it says so.
    pub(super) wish: Wish,
    /// By whom: each has a file, and settings, of its own.
    pub(super) demands: BTreeMap<MachineId, Demand<'a>>,
}

impl Model<'_> {
    /// Bytes that it needs wherever it is: models are placed in this order.
    fn need(&self) -> u64 {
        self.demands.values().map(|demand| demand.need).max().unwrap_or(0)
    }
}

/// What a machine wants to serve.
pub(super) struct Demand<'a> {
    pub(super) by: MachineId,
    /// Whether its machine can serve it alone.
    pub(super) alone: bool,
    /// What a token reads.
    pub(super) work: &'a Work,
    /// Bytes of everything.
    pub(super) need: u64,
    /// What nodes need room for: the work with caches and buffers in proportion to the weights, and all layers as large as
    /// the largest, as [`best_shares`](llama_engine::rpc::plan::best_shares) counts them. `None` if it cannot be divided.
    pub(super) room: Option<Work>,
}

impl<'a> Demand<'a> {
    fn new(want: &'a Want) -> Self {
        let Work { layers, head, logits } = &want.work;
        let weights = layers.iter().map(|layer| u128::from(*layer)).sum::<u128>() + u128::from(*head);
        let need = weights + u128::from(want.beside);
        // Rounded up, so that the parts have room for the whole.
        let with_beside = |bytes: u64| {
            let share = (u128::from(bytes) * u128::from(want.beside)).div_ceil(weights.max(1));
            u128::from(bytes) + share
        };
        let layer = with_beside(layers.iter().copied().max().unwrap_or(0).max(1));
        let room = layer
            .saturating_mul(layers.len() as u128)
            .saturating_add(with_beside(*head));
        let divisible = room <= u128::from(MOST_BYTES) && (1..=MOST_LAYERS).contains(&layers.len());
        Self {
            by: want.by,
            alone: want.alone,
            work: &want.work,
            need: u64::try_from(need).unwrap_or(u64::MAX),
            room: divisible.then(|| Work {
                layers: vec![layer as u64; layers.len()],
                head: with_beside(*head) as u64,
                logits: *logits,
            }),
        }
    }

    /// A node as groups count it: it reads all of `room` in the time that it takes for all of the work. So groups are chosen
    /// and compared by one measure.
    pub(super) fn node_for(&self, room: &Work, node: Node) -> Node {
        let total = |work: &Work| {
            work.layers.iter().map(|layer| u128::from(*layer)).sum::<u128>() + u128::from(work.head)
        };
        let scaled = |bandwidth: u64| {
            let bandwidth = u128::from(bandwidth).saturating_mul(total(room)) / total(self.work).max(1);
            u64::try_from(bandwidth).unwrap_or(u64::MAX).max(1)
        };
        let gpus = match node.gpus.bandwidth {
            0 => node.gpus,
            rate => Gpus {
                bandwidth: scaled(rate),
                ..node.gpus
            },
        };
        Node {
            bandwidth: scaled(node.bandwidth),
            gpus,
            ..node
        }
    }

    /// How long a token takes on one node that has it all.
    pub(super) fn time_on(&self, node: Node) -> Duration {
        let layers = vec![self.work.layers.len() as u32];
        let head = Head::Host;
        predict(self.work, &[node], &Shares { layers, head })
    }

    /// How long a token takes if its machine serves it alone.
    pub(super) fn time_alone(&self, known: &Known) -> Duration {
        self.time_on(known.node(self.by, self.by, known.memory(self.by)))
    }
}

/// What a machine wants more, where it says two things of one model: the one that is harder to serve counts.
fn weight(want: &Want) -> impl Ord {
    let Work { layers, head, logits } = &want.work;
    (
        Demand::new(want).need,
        !want.alone,
        want.beside,
        layers.clone(),
        *head,
        *logits,
    )
}

/// All models that a machine of the view wants, in the order in which they are placed.
pub(super) fn models<'a>(view: &'a View, known: &Known) -> Vec<Model<'a>> {
    let mut wants: BTreeMap<&str, BTreeMap<MachineId, &Want>> = BTreeMap::new();
    let mut wishes: BTreeMap<&str, Wish> = BTreeMap::new();
    for want in &view.wants {
        if !known.has(want.by) {
            continue;
        }
        let wish = wishes.entry(&want.model).or_insert(want.wish);
        *wish = want.wish.max(*wish);
        let by = wants.entry(&want.model).or_default();
        let chosen = by.entry(want.by).or_insert(want);
        if weight(want) > weight(chosen) {
            *chosen = want;
        }
    }
    let mut models: Vec<Model> = wants
        .into_iter()
        .map(|(name, by)| Model {
            name,
            wish: wishes[name],
            demands: by.into_iter().map(|(id, want)| (id, Demand::new(want))).collect(),
        })
        .collect();
    models.sort_by_key(|model| (model.need(), model.name));
    models
}
