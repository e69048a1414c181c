//! Which machines serve a model together, and what each then takes.

use super::demand::Demand;
use super::known::{Known, MOST_BYTES};
use super::{Group, MachineId, Wish};
use llama_engine::rpc::plan::{Head, Node, Shares, Work, best_shares, filled_shares, predict, roomy_shares};
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
    let most = most_of_host(demand, wish);
    let found = circles.iter().filter_map(|circle| {
        let roomy = with_room(known, room, left, circle);
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
        let (arrangement, used) = divide(known, demand, most_of_host, left, &workers)?;
        if used == workers {
            return Some(arrangement);
        }
        workers = used;
    }
}

/// What a group that runs means, if what it takes is left. A group that divides the model as no plan does cannot be.
pub(super) fn kept(known: &Known, demand: &Demand, left: &Left, group: &Group) -> Option<Arrangement> {
    let room = demand.room.as_ref()?;
    if !divides(demand, room, group) {
        return None;
    }
    let found = arrangement(known, demand, room, group.clone());
    let fits = found.takes.iter().all(|(id, bytes)| *bytes <= left[id]);
    fits.then_some(found)
}

/// Whether a group's shares are of its machines and all layers, each worker has something, and the host no more than it may.
fn divides(demand: &Demand, room: &Work, group: &Group) -> bool {
    let Shares { layers, head } = &group.shares;
    let all = room.layers.len() as u64;
    let workers = group.workers.len();
    let most = bytes_of_host(room, most_of_host(demand, Wish::Whole));
    layers.len() == workers + 1
        && layers.iter().map(|layers| u64::from(*layers)).sum::<u64>() == all
        && (*head == Head::Host || *head == Head::Worker(workers))
        && (1..=workers).all(|worker| group.shares.uses(worker))
        && group.shares.weights(room)[0] <= most
}

/// All bytes of all machines.
pub(super) fn everything(known: &Known) -> Left {
    known.ids().map(|id| (id, known.memory(id))).collect()
}

/// Those of the workers that have room for a layer: others only hinder.
fn with_room(known: &Known, room: &Work, left: &Left, workers: &[MachineId]) -> Vec<MachineId> {
    // All are as large, and there is one at least.
    let layer = room.layers[0];
    let roomy = workers
        .iter()
        .copied()
        .filter(|id| known.has_room(left[id], layer));
    roomy.collect()
}

/// The machines of a group, the host first.
fn with_host(host: MachineId, workers: &[MachineId]) -> Vec<MachineId> {
    std::iter::once(host).chain(workers.iter().copied()).collect()
}

/// What a group means whose layers are those of the model. How long a token takes does not depend on what runs beside it.
fn arrangement(known: &Known, demand: &Demand, room: &Work, group: Group) -> Arrangement {
    let ids = with_host(group.host, &group.workers);
    let nodes = nodes(known, demand, room, &everything(known), &ids);
    let time = predict(room, &nodes, &group.shares);
    let beside = |id: &MachineId| {
        if *id == group.host {
            0
        } else {
            known.beside_worker()
        }
    };
    let takes = ids.iter().zip(group.shares.weights(room));
    let takes = takes
        .map(|(id, bytes)| (*id, bytes.saturating_add(beside(id))))
        .collect();
    Arrangement { group, time, takes }
}

/// Machines as nodes with what they have left for layers.
fn nodes(known: &Known, demand: &Demand, room: &Work, left: &Left, ids: &[MachineId]) -> Vec<Node> {
    let node = |id: &MachineId| demand.node_for(room, known.node(demand.by, *id, left[id]));
    ids.iter().map(node).collect()
}

/// What machines, the host first, offer for a division of the layers.
fn offers(
    known: &Known,
    demand: &Demand,
    room: &Work,
    most_of_host: Option<u64>,
    left: &Left,
    ids: &[MachineId],
) -> Vec<Node> {
    let mut nodes = nodes(known, demand, room, left, ids);
    nodes[0].bytes = nodes[0].bytes.min(bytes_of_host(room, most_of_host));
    nodes
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

/// Bytes that a host may have at most that may have so many layers.
fn bytes_of_host(room: &Work, layers: Option<u64>) -> u64 {
    let bytes = |layers: u64| layers.saturating_mul(room.layers[0]).saturating_add(room.head);
    layers.map_or(u64::MAX, bytes)
}

/// The quickest group of other machines than `than`, in which a token takes at most so long, with the machine that wants it
/// as its host. It leaves its machines room to spare, and its workers are some of the [`FEW`] quickest.
///
/// Every set of machines is tried, and whether one is good enough depends on its own room only. With more room a set may
/// come to need fewer of its machines, and be quicker; so that these never are those of `than` itself, a group must also
/// beat what they could do with all their memory. So where there is none with more room left there is none with less:
/// nothing that comes to run beside a group moves it.
pub(super) fn better(
    known: &Known,
    demand: &Demand,
    circles: &[Vec<MachineId>],
    wish: Wish,
    left: &Left,
    (than, most): (&Group, Duration),
) -> Option<Arrangement> {
    let room = demand.room.as_ref()?;
    let most_of_host = most_of_host(demand, wish);
    // Whether the host could have the output layer if nothing else ran.
    let head_on_host = known.memory(demand.by).min(bytes_of_host(room, most_of_host)) >= room.head;
    let (all, own_machines) = (everything(known), machines(than));
    let found = circles.iter().flat_map(|circle| {
        let few = &circle[..circle.len().min(FEW)];
        let own: Vec<MachineId> = few
            .iter()
            .copied()
            .filter(|id| than.workers.contains(id))
            .collect();
        let divided = |left: &Left, workers: &[MachineId]| {
            let ids = with_host(demand.by, &with_room(known, room, left, workers));
            let nodes = offers(known, demand, room, most_of_host, left, &ids);
            (roomy_shares(room, &nodes, head_on_host), ids)
        };
        let (own, _) = divided(&all, &own);
        let own = own.iter().map(|(time, _)| *time).min();
        let most = own.map_or(most, |own| most.min(own * 4 / 5));
        let (shares, ids) = divided(left, few);
        let quick = shares.into_iter().filter(move |(time, _)| *time <= most);
        let groups = quick.filter_map(move |(_, shares)| of_used(&ids, &shares));
        groups.filter(|group| machines(group) != own_machines)
    });
    let found = found.map(|group| arrangement(known, demand, room, group));
    found.min_by(|a, b| (a.time, &a.group).cmp(&(b.time, &b.group)))
}

/// The host of a group, and its workers in whatever order.
fn machines(group: &Group) -> (MachineId, BTreeSet<MachineId>) {
    (group.host, group.workers.iter().copied().collect())
}

/// The group of these machines, the host first, without those workers that get nothing; `None` if no worker does.
fn of_used(ids: &[MachineId], shares: &Shares) -> Option<Group> {
    let used: Vec<usize> = (1..ids.len()).filter(|index| shares.uses(*index)).collect();
    let head = match shares.head {
        Head::Host => Head::Host,
        Head::Worker(_) => Head::Worker(used.len()),
    };
    let layers = std::iter::once(0).chain(used.iter().copied());
    let layers = layers.map(|index| shares.layers[index]).collect();
    (!used.is_empty()).then(|| Group {
        host: ids[0],
        workers: used.iter().map(|index| ids[*index]).collect(),
        shares: Shares { layers, head },
    })
}

/// Whether a group could be there: what has become of its machines and the ways between them.
pub(super) fn is_possible(known: &Known, group: &Group) -> bool {
    let Group { host, workers, .. } = group;
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

/// Divides the layers among a host and its workers, and says which of the workers get something.
fn divide(
    known: &Known,
    demand: &Demand,
    most_of_host: Option<u64>,
    left: &Left,
    workers: &[MachineId],
) -> Option<(Arrangement, Vec<MachineId>)> {
    let room = demand.room.as_ref()?;
    let host = demand.by;
    let ids = with_host(host, workers);
    let nodes = offers(known, demand, room, most_of_host, left, &ids);
    let shares = if workers.len() <= SEVERAL {
        best_shares(room, &nodes).ok()?
    } else {
        filled_shares(room, &nodes)?
    };
    let used: Vec<MachineId> = (1..ids.len())
        .filter(|index| shares.uses(*index))
        .map(|index| ids[index])
        .collect();
    if used.is_empty() {
        return None;
    }
    let workers = workers.to_vec();
    let group = Group {
        host,
        workers,
        shares,
    };
    Some((arrangement(known, demand, room, group), used))
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
    candidates.sort_by_cached_key(|id| (demand.time_on(known.node(host, *id, known.memory(*id))), *id));
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
