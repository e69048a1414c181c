//! Which machines serve a model together, and what each then takes.

use super::demand::Demand;
use super::known::{Known, MOST_BYTES};
use super::{Group, MachineId, Wish};
use llama_engine::rpc::plan::{Head, Node, Shares, Work, best_shares, predict};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Machines among which the workers of one host are looked for: those that would be quickest by themselves. llama.cpp takes
/// no more devices than these and the two of a host.
const MOST_CANDIDATES: usize = 13;
/// Of machines near each other, so many of the quickest are tried first, in all combinations: more only if these have
/// not the room.
const FEW: usize = 7;
/// Most workers of which all combinations are tried. Beyond, as many of the quickest are taken as are needed.
const SEVERAL: usize = 11;

/// Bytes that each machine has left.
pub(super) type Left = BTreeMap<MachineId, u64>;

/// A group, and what it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Arrangement {
    pub(super) group: Group,
    /// How long a token takes.
    pub(super) time: Duration,
    /// Bytes that it takes of its machines, the host first.
    pub(super) takes: Vec<(MachineId, u64)>,
}

/// The quickest group with the machine that wants it as its host.
pub(super) fn best(
    known: &Known,
    demand: &Demand,
    circles: &[Vec<MachineId>],
    wish: Wish,
    left: &Left,
) -> Option<Arrangement> {
    let room = demand.room.as_ref()?;
    // All are as large, and there is one at least.
    let layer = room.layers[0];
    let most = most_of_host(demand, wish);
    let found = circles.iter().filter_map(|circle| {
        // Who has no room for a layer only hinders.
        let roomy: Vec<MachineId> = circle.iter().copied().filter(|id| left[id] >= layer).collect();
        let counts = [FEW, SEVERAL, roomy.len()].map(|count| count.min(roomy.len()));
        counts
            .iter()
            .find_map(|count| settled(known, demand, most, left, roomy[..*count].to_vec()))
    });
    found.min_by(|a, b| (a.time, &a.group).cmp(&(b.time, &b.group)))
}

/// The group of those of `workers` that get something: the same as if the others had never been asked.
fn settled(
    known: &Known,
    demand: &Demand,
    most_of_host: Option<u64>,
    left: &Left,
    mut workers: Vec<MachineId>,
) -> Option<Arrangement> {
    loop {
        let (arrangement, used) = divide(known, demand, most_of_host, left, &BTreeSet::new(), &workers)?;
        if used == workers {
            return Some(arrangement);
        }
        workers = used;
    }
}

/// What a group that runs means with what is left. How it divides its layers is not known: as well as it can, but where
/// its host has come to have room for all of them, that is not how it began. Of machines that are `spared` no more is taken
/// than must be.
pub(super) fn kept(
    known: &Known,
    demand: &Demand,
    wish: Wish,
    left: &Left,
    spared: &BTreeSet<MachineId>,
    group: &Group,
) -> Option<Arrangement> {
    let layers = demand.room.as_ref()?.layers.len() as u64;
    let most = [most_of_host(demand, wish), Some(layers / 2), Some(layers - 1)];
    let mut divided = most
        .into_iter()
        .filter_map(|most| divide(known, demand, most, left, spared, &group.workers));
    divided.next().map(|(arrangement, _)| arrangement)
}

/// Layers that a host may have at most: half of them where they are to be shared, not all where it found out that it has
/// not the room.
fn most_of_host(demand: &Demand, wish: Wish) -> Option<u64> {
    let layers = demand.work.layers.len() as u64;
    match wish {
        Wish::Whole if demand.alone => None,
        Wish::Whole => Some(layers.saturating_sub(1)),
        Wish::Split => Some(layers / 2),
    }
}

/// Whether a group could be there: what has become of its machines and the ways between them.
pub(super) fn is_possible(known: &Known, group: &Group) -> bool {
    let Group { host, workers } = group;
    let distinct = |index: usize| !workers[..index].contains(&workers[index]);
    !workers.is_empty()
        && workers.len() <= MOST_CANDIDATES
        && workers.iter().enumerate().all(|(index, worker)| {
            let earlier = workers[..index].iter();
            worker != host
                && distinct(index)
                && known.understand(*host, *worker)
                && !known.too_far(*host, *worker)
                && !earlier.copied().any(|other| known.too_far(other, *worker))
        })
}

/// Divides the layers among a host and its workers, and says which of the workers get something. What is
/// spared comes last.
fn divide(
    known: &Known,
    demand: &Demand,
    most_of_host: Option<u64>,
    left: &Left,
    spared: &BTreeSet<MachineId>,
    workers: &[MachineId],
) -> Option<(Arrangement, Vec<MachineId>)> {
    let room = demand.room.as_ref()?;
    let host = demand.by;
    let ids: Vec<MachineId> = std::iter::once(host).chain(workers.iter().copied()).collect();
    let mut nodes: Vec<Node> = ids
        .iter()
        .map(|id| demand.node_for(room, known.node(host, *id, left[id])))
        .collect();
    if let Some(layers) = most_of_host {
        let most = layers.saturating_mul(room.layers[0]).saturating_add(room.head);
        nodes[0].bytes = nodes[0].bytes.min(most);
    }
    let shares = if workers.len() <= SEVERAL && spared.is_empty() {
        best_shares(room, &nodes).ok()?
    } else {
        // As if what is spared were slow.
        let rate = |(id, node): (&MachineId, &Node)| if spared.contains(id) { 1 } else { node.bandwidth };
        let rates: Vec<u64> = ids.iter().zip(&nodes).map(rate).collect();
        filled(room, &nodes, &rates)?
    };
    let used = |index: usize| shares.layers[index] > 0 || shares.head == Head::Worker(index);
    let used: Vec<MachineId> = (1..ids.len())
        .filter(|index| used(*index))
        .map(|index| ids[index])
        .collect();
    if used.is_empty() {
        return None;
    }
    let takes = ids.iter().copied().zip(shares.weights(room)).collect();
    let group = Group {
        host,
        workers: workers.to_vec(),
    };
    let time = predict(room, &nodes, &shares);
    Some((Arrangement { group, time, takes }, used))
}

/// As many layers as possible on the nodes of the greatest rates, where there are too many nodes to try more, or some are
/// to be spared.
fn filled(work: &Work, nodes: &[Node], rates: &[u64]) -> Option<Shares> {
    let mut order: Vec<usize> = (0..nodes.len()).collect();
    order.sort_by_key(|node| (Reverse(rates[*node]), *node));
    let with_head = |head: Head| {
        let mut room: Vec<u64> = nodes.iter().map(|node| node.bytes).collect();
        room[head.node()] = room[head.node()].checked_sub(work.head)?;
        let mut layers = vec![0_u32; nodes.len()];
        let mut left = work.layers.len() as u64;
        for node in &order {
            let fits = (room[*node] / work.layers[0]).min(left);
            layers[*node] = fits as u32;
            left -= fits;
        }
        (left == 0).then_some(Shares { layers, head })
    };
    with_head(Head::Host).or_else(|| with_head(Head::Worker(nodes.len() - 1)))
}

/// Machines that could work for the one that wants a model, in sets that are near each other throughout, the
/// quickest first. Each machine is in one of them at least. They depend on nothing but what machines are like, so
/// that less room never makes a group possible.
pub(super) fn circles(known: &Known, demand: &Demand) -> Vec<Vec<MachineId>> {
    let host = demand.by;
    if demand.need > MOST_BYTES {
        return Vec::new();
    }
    let reached = known.ids().filter(|id| known.reaches(host, *id));
    let mut candidates: Vec<MachineId> = reached.collect();
    candidates.sort_by_cached_key(|id| (demand.time_on(known.node(host, *id, 0)), *id));
    candidates.truncate(MOST_CANDIDATES);
    let mut circles: Vec<Vec<MachineId>> = Vec::new();
    for seed in &candidates {
        if circles.iter().any(|circle| circle.contains(seed)) {
            continue;
        }
        let mut circle = vec![*seed];
        for other in &candidates {
            if other != seed && circle.iter().all(|member| known.near(host, *member, *other)) {
                circle.push(*other);
            }
        }
        circle.sort_by_key(|id| candidates.iter().position(|candidate| candidate == id));
        circles.push(circle);
    }
    circles
}
