//! Who computes which layers, and where the head is. Pure.
//!
//! With one stream, a token takes the sum over the nodes of the bytes that they read for it divided by
//! the rate at which they read, and once round the ring. So the fastest memory is filled first, few
//! nodes are used, and one that only lengthens the ring stays out.

use std::time::Duration;

use thiserror::Error;

use crate::gguf;

/// Of what a node offers, what weights take if it can be helped: caches and buffers need the rest.
const FOR_WEIGHTS: f64 = 0.85;
/// Most nodes whose subsets are all tried; beyond, nodes are left out one by one.
const MOST_SUBSETS: usize = 12;
/// Bytes a second that a network carries: a gigabit. It is not measured, and decides nothing but between
/// arrangements that both have the head away from the host.
const NETWORK: f64 = 125e6;

/// `LLAMA_MAX_LAYERS`: llama.cpp aborts on more.
pub const MOST_LAYERS: u32 = 512;

/// What there is to compute, in bytes of weights that a token reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    /// Each layer.
    pub layers: Vec<u64>,
    /// The output layer.
    pub head: u64,
    /// Bytes of a token's logits.
    pub logits: u64,
}

impl Work {
    /// What a token of this model, of so many layers, reads.
    pub fn of(model: &gguf::Model, layers: u32) -> Self {
        let mut work = Self {
            layers: vec![0; layers as usize],
            head: 0,
            logits: 0,
        };
        let mut words = 0;
        let (mut own_output, mut embedding) = (None, 0);
        for tensor in model.tensors() {
            let (name, bytes) = (tensor.tensor.name.as_str(), tensor.tensor.bytes);
            let block = name.strip_prefix("blk.").and_then(|rest| rest.split('.').next());
            if let Some(layer) = block
                .and_then(|number| number.parse::<usize>().ok())
                .and_then(|number| work.layers.get_mut(number))
            {
                *layer += bytes;
            } else if name == "token_embd.weight" {
                (embedding, words) = (bytes, tensor.tensor.shape.get(1).copied().unwrap_or(0));
            } else if name == "output.weight" {
                own_output = Some(bytes);
            } else if name.starts_with("output") {
                work.head += bytes;
            }
        }
        // Embeddings are looked up, a row a token; as output matrix all of them are read.
        work.head += own_output.unwrap_or(embedding);
        work.logits = words * size_of::<f32>() as u64;
        work
    }
}

/// A node that could take layers; the host comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node {
    /// Bytes that it offers.
    pub bytes: u64,
    /// Bytes a second that it reads; 0 if unknown.
    pub bandwidth: u64,
    /// One way from the host to it.
    pub hop: Duration,
}

/// Where the output layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Head {
    /// On the host, where tokens are chosen: nothing of it crosses the network.
    Host,
    /// On this node, a worker and the last that computes: it sends the logits that are wanted.
    Worker(usize),
}

impl Head {
    /// Which node that is.
    pub fn node(self) -> usize {
        match self {
            Self::Host => 0,
            Self::Worker(node) => node,
        }
    }
}

/// Who computes what.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shares {
    /// Layers of each node.
    pub layers: Vec<u32>,
    /// Where the output layer is.
    pub head: Head,
}

impl Shares {
    /// Whether a node gets something to compute: layers, or the output layer away from the host.
    pub fn uses(&self, node: usize) -> bool {
        self.layers[node] > 0 || self.head == Head::Worker(node)
    }

    /// Bytes of weights of each node.
    pub fn weights(&self, work: &Work) -> Vec<u64> {
        let mut from = 0;
        let nodes = self.layers.iter().enumerate();
        nodes
            .map(|(node, layers)| {
                let until = from + *layers as usize;
                let layers: u64 = work.layers[from..until].iter().sum();
                from = until;
                layers + if self.head.node() == node { work.head } else { 0 }
            })
            .collect()
    }

    /// The same layers with the head on the last node that computes, if that is a worker.
    pub fn with_head_on_last_worker(&self) -> Option<Self> {
        let last = self.layers.iter().rposition(|layers| *layers > 0);
        last.filter(|last| *last > 0).map(|last| Self {
            layers: self.layers.clone(),
            head: Head::Worker(last),
        })
    }
}

/// It fits nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortage {
    /// Bytes of all layers and the head.
    pub needed: u64,
    /// Bytes that all nodes offer for them.
    pub offered: u64,
}

/// Shares that make no sense.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ShareFault {
    /// Too many or too few.
    #[error(
        "--tensor-split has {given} numbers, but there are {devices} devices: this machine first, then each worker's"
    )]
    Count {
        /// Numbers given.
        given: usize,
        /// Devices.
        devices: usize,
    },
    /// Nothing but zeros.
    #[error("--tensor-split gives no device any layers")]
    Nothing,
}

/// Layers for each device: `shares` as they are where their sum is the number of layers, else in
/// proportion to them.
///
/// # Errors
/// Where `shares` are not as many as `devices`, or all zero.
pub fn whole_layers(shares: &[u32], devices: usize, layers: u32) -> Result<Vec<u32>, ShareFault> {
    if shares.len() != devices {
        let given = shares.len();
        return Err(ShareFault::Count { given, devices });
    }
    let sum: u64 = shares.iter().map(|share| u64::from(*share)).sum();
    if sum == 0 {
        return Err(ShareFault::Nothing);
    }
    let mut given = 0;
    let mut before = 0;
    let layers = u64::from(layers);
    Ok(shares
        .iter()
        .map(|share| {
            given += u64::from(*share);
            let until = (given * layers + sum / 2) / sum;
            let own = until - before;
            before = until;
            own as u32
        })
        .collect())
}

/// The arrangement with which a token takes the least time, of all that fit. The head is on the host
/// wherever that can be.
///
/// # Errors
/// Where none fits.
pub fn best_shares(work: &Work, nodes: &[Node]) -> Result<Shares, Shortage> {
    let subsets = subsets(nodes);
    let best = |away: bool, share: f64| {
        arranged(work, nodes, &subsets, away, share)
            .min_by_key(|(time, shares)| {
                let count = shares.layers.iter().filter(|share| **share > 0).count();
                (*time, count)
            })
            .map(|(_, shares)| shares)
    };
    // What fits with room to spare is more likely to have room for all the rest.
    best(false, FOR_WEIGHTS)
        .or_else(|| best(false, 1.0))
        .or_else(|| best(true, FOR_WEIGHTS))
        .or_else(|| best(true, 1.0))
        .ok_or_else(|| Shortage {
            needed: work.layers.iter().sum::<u64>() + work.head,
            offered: nodes.iter().map(|node| node.bytes).sum(),
        })
}

/// The best arrangement of each set of nodes that hold the model with room to spare, and the time of a token; the head on
/// the host, or on the last worker. With less room on any node, the quickest of them is no quicker.
pub fn roomy_shares(work: &Work, nodes: &[Node], head_on_host: bool) -> Vec<(Duration, Shares)> {
    arranged(work, nodes, &subsets(nodes), !head_on_host, FOR_WEIGHTS).collect()
}

/// The best arrangement of each of these sets of nodes that hold the model with this share of what they offer.
fn arranged(
    work: &Work,
    nodes: &[Node],
    subsets: &[Vec<bool>],
    head_away: bool,
    share: f64,
) -> impl Iterator<Item = (Duration, Shares)> {
    let room: Vec<u64> = nodes.iter().map(|node| part_of(node.bytes, share)).collect();
    subsets.iter().filter_map(move |used| {
        let head = match used.iter().rposition(|used| *used).filter(|_| head_away) {
            None => Head::Host,
            Some(0) => return None,
            Some(last) => Head::Worker(last),
        };
        arrange(work, nodes, &room, used, head)
    })
}

fn part_of(bytes: u64, share: f64) -> u64 {
    (bytes as f64 * share) as u64
}

/// The sets of nodes that are tried: all, unless there are too many.
fn subsets(nodes: &[Node]) -> Vec<Vec<bool>> {
    if nodes.len() > MOST_SUBSETS {
        return fastest_first(nodes);
    }
    (1_u32..1 << nodes.len())
        .map(|subset| (0..nodes.len()).map(|node| subset >> node & 1 == 1).collect())
        .collect()
}

/// The fastest node, the two fastest, and so on.
fn fastest_first(nodes: &[Node]) -> Vec<Vec<bool>> {
    let mut order: Vec<usize> = (0..nodes.len()).collect();
    order.sort_by_key(|node| std::cmp::Reverse(nodes[*node].bandwidth));
    (1..=nodes.len())
        .map(|count| {
            (0..nodes.len())
                .map(|node| order[..count].contains(&node))
                .collect()
        })
        .collect()
}

/// The time of a token with just these nodes and the head there, and who computes what: as many layers
/// as possible where memory is fast. `None` where they do not hold the model.
fn arrange(
    work: &Work,
    nodes: &[Node],
    room: &[u64],
    used: &[bool],
    head: Head,
) -> Option<(Duration, Shares)> {
    let largest = work.layers.iter().copied().max().unwrap_or(0).max(1);
    let mut order: Vec<usize> = (0..nodes.len()).filter(|node| used[*node]).collect();
    order.sort_by_key(|node| (std::cmp::Reverse(nodes[*node].bandwidth), *node));
    let mut room = room.to_vec();
    room[head.node()] = room[head.node()].checked_sub(work.head)?;
    let mut layers = vec![0_u32; nodes.len()];
    let mut left = work.layers.len() as u64;
    for node in order {
        let fits = (room[node] / largest).min(left);
        layers[node] = fits as u32;
        left -= fits;
        // A node that is used gets something, or another subset is the same without it.
        if fits == 0 && head != Head::Worker(node) {
            return None;
        }
    }
    let shares = Shares { layers, head };
    (left == 0).then(|| (predict(work, nodes, &shares), shares))
}

/// How long a token takes.
pub fn predict(work: &Work, nodes: &[Node], shares: &Shares) -> Duration {
    // What is not known is taken for as fast as the others.
    let usual = nodes
        .iter()
        .map(|node| node.bandwidth)
        .find(|rate| *rate > 0)
        .unwrap_or(1);
    let rate = |node: &Node| if node.bandwidth > 0 { node.bandwidth } else { usual } as f64;
    let mut seconds = match shares.head {
        Head::Host => 0.0,
        Head::Worker(_) => work.logits as f64 / NETWORK,
    };
    let mut at = Duration::ZERO;
    for ((number, node), bytes) in nodes.iter().enumerate().zip(shares.weights(work)) {
        seconds += bytes as f64 / rate(node);
        if shares.uses(number) {
            seconds += way(at, node.hop).as_secs_f64();
            at = node.hop;
        }
    }
    Duration::from_secs_f64(seconds + at.as_secs_f64())
}

/// The way between two nodes that are so far from the host, which is as far from itself as nothing: at most that by the
/// host, at least what one of them is farther away; about half of the way by the host.
fn way(from: Duration, to: Duration) -> Duration {
    from.abs_diff(to).max((from + to) / 2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(gigabytes: u64, rate: u64, hop_ms: u64) -> Node {
        Node {
            bytes: gigabytes << 30,
            bandwidth: rate << 30,
            hop: Duration::from_millis(hop_ms),
        }
    }

    fn work(layers: usize, megabytes: u64) -> Work {
        Work {
            layers: vec![megabytes << 20; layers],
            head: 0,
            logits: 0,
        }
    }

    fn layers(work: &Work, nodes: &[Node]) -> Vec<u32> {
        let shares = best_shares(work, nodes).unwrap();
        assert_eq!(shares.head, Head::Host);
        shares.layers
    }

    #[test]
    fn a_model_that_fits_on_the_host_stays_there() {
        let nodes = [node(64, 50, 0), node(64, 50, 10)];
        assert_eq!(layers(&work(32, 200), &nodes), [32, 0]);
    }

    #[test]
    fn a_far_faster_worker_takes_all_that_fits() {
        let nodes = [node(16, 20, 0), node(8, 900, 1)];
        assert_eq!(layers(&work(32, 400), &nodes), [15, 17]);
    }

    #[test]
    fn a_node_that_only_slows_the_ring_stays_out() {
        let nodes = [node(8, 50, 0), node(16, 50, 5), node(16, 50, 40)];
        let shares = layers(&work(40, 400), &nodes);
        assert_eq!((shares[2], shares.iter().sum::<u32>()), (0, 40));
    }

    #[test]
    fn what_fits_nowhere_is_told_with_numbers() {
        let nodes = [node(8, 50, 0), node(8, 50, 5)];
        let shortage = best_shares(&work(80, 400), &nodes).unwrap_err();
        assert!(shortage.needed > shortage.offered);
    }

    /// A head of a gigabyte, and logits of 600 kB.
    fn with_head(layers: usize, megabytes: u64) -> Work {
        Work {
            head: 1 << 30,
            logits: 600_000,
            ..work(layers, megabytes)
        }
    }

    #[test]
    fn the_head_stays_with_a_host_that_has_just_room_for_it() {
        let nodes = [node(1, 5, 0), node(64, 500, 5), node(64, 500, 5)];
        let shares = best_shares(&with_head(100, 800), &nodes).unwrap();
        assert_eq!((shares.head, shares.layers), (Head::Host, vec![0, 81, 19]));
    }

    #[test]
    fn a_host_without_room_leaves_the_head_to_the_last_worker() {
        let mut nodes = [node(1, 5, 0), node(64, 500, 5), node(64, 500, 5)];
        nodes[0].bytes -= 1;
        let shares = best_shares(&with_head(80, 800), &nodes).unwrap();
        assert_eq!(shares.head, Head::Worker(2));
        // What the host has room for it computes where workers have not enough, and not otherwise.
        assert_eq!(shares.layers[0], 0);
        nodes[1].bytes = 0;
        let shares = best_shares(&with_head(81, 800), &nodes).unwrap();
        assert_eq!((shares.head, shares.layers), (Head::Worker(2), vec![1, 0, 80]));
        nodes[0].bytes = 0;
        assert!(best_shares(&with_head(81, 800), &nodes).is_err());
    }

    #[test]
    fn logits_that_cross_the_network_cost_time() {
        let nodes = [node(8, 50, 0), node(8, 50, 5)];
        let here = Shares {
            layers: vec![0, 4],
            head: Head::Host,
        };
        let there = here.with_head_on_last_worker().unwrap();
        let times = [&here, &there].map(|shares| predict(&with_head(4, 100), &nodes, shares));
        assert_eq!((times[1] - times[0]).as_micros(), 4800);
        assert_eq!(there.weights(&with_head(4, 100)), [0, (400 << 20) + (1 << 30)]);
        let alone = Shares {
            layers: vec![4, 0],
            head: Head::Host,
        };
        assert_eq!(alone.with_head_on_last_worker(), None);
    }

    #[test]
    fn a_node_that_is_left_out_never_lengthens_the_ring() {
        let hops = [1, 10, 3, 4].map(Duration::from_millis);
        for pair in hops.windows(2) {
            let through = way(Duration::ZERO, pair[0]) + way(pair[0], pair[1]) + pair[1];
            assert!(through >= pair[1] * 2 && through >= pair[0] * 2, "{through:?}");
        }
        assert_eq!(way(hops[0], hops[1]), Duration::from_millis(9));
        assert_eq!(way(hops[2], hops[3]), Duration::from_micros(3_500));
    }

    #[test]
    fn shares_are_layers_or_proportions() {
        assert_eq!(whole_layers(&[10, 14], 2, 24), Ok(vec![10, 14]));
        assert_eq!(whole_layers(&[1, 2], 2, 24), Ok(vec![8, 16]));
        assert_eq!(whole_layers(&[0, 1], 2, 5), Ok(vec![0, 5]));
        assert_eq!(whole_layers(&[0, 0], 2, 5), Err(ShareFault::Nothing));
        assert!(whole_layers(&[1], 2, 5).is_err());
    }

    fn few_nodes() -> impl Strategy<Value = Vec<Node>> {
        let node = (0_u64..40, 1_u64..5, 0_u64..30).prop_map(|(bytes, bandwidth, hop)| Node {
            bytes,
            bandwidth,
            hop: Duration::from_secs(hop),
        });
        prop::collection::vec(node, 1..6)
    }

    proptest! {
        #[test]
        fn less_room_makes_no_roomy_arrangement_quicker(
            nodes in few_nodes(),
            less in prop::collection::vec(0_u64..20, 6),
            head in 0_u64..9,
            head_on_host: bool,
        ) {
            let work = Work { layers: vec![5; 8], head, logits: 0 };
            let quickest = |nodes: &[Node]| {
                let times = roomy_shares(&work, nodes, head_on_host).into_iter().map(|(time, _)| time);
                times.min().unwrap_or(Duration::MAX)
            };
            let mut tighter = nodes.clone();
            for (node, less) in tighter.iter_mut().zip(less) {
                node.bytes = node.bytes.saturating_sub(less);
            }
            prop_assert!(quickest(&tighter).saturating_add(Duration::from_nanos(3)) >= quickest(&nodes));
        }

        #[test]
        fn every_layer_has_one_place(shares in prop::collection::vec(0_u32..100, 1..8), layers in 1_u32..200) {
            if let Ok(whole) = whole_layers(&shares, shares.len(), layers) {
                prop_assert_eq!(whole.iter().sum::<u32>(), layers);
                for (share, own) in shares.iter().zip(whole) {
                    prop_assert!(*share > 0 || own == 0);
                }
            }
        }

        #[test]
        fn the_best_fits_and_nothing_tried_is_faster(
            sizes in prop::collection::vec((1_u64..40, 1_u64..1000, 0_u64..80), 1..6),
            layers in 1_usize..60,
            megabytes in 10_u64..900,
        ) {
            let nodes: Vec<Node> = sizes.iter().map(|(bytes, rate, hop)| node(*bytes, *rate, *hop)).collect();
            let work = work(layers, megabytes);
            if let Ok(shares) = best_shares(&work, &nodes) {
                let alone = layers as u64 * (megabytes << 20);
                for (index, node) in nodes.iter().enumerate() {
                    if alone as f64 <= node.bytes as f64 * FOR_WEIGHTS {
                        let mut single = Shares { layers: vec![0; nodes.len()], head: Head::Host };
                        single.layers[index] = layers as u32;
                        prop_assert!(predict(&work, &nodes, &shares) <= predict(&work, &nodes, &single));
                    }
                }
            }
        }

        #[test]
        fn whatever_fits_is_found_and_the_head_is_with_the_host_where_it_can_be(
            rooms in prop::collection::vec(0_u64..60, 1..6),
            layers in 1_u64..40,
            layer in 1_u64..4,
            head in 0_u64..20,
        ) {
            let nodes: Vec<Node> = rooms.iter().map(|bytes| Node { bytes: *bytes, ..node(0, 1, 1) }).collect();
            let work = Work { layers: vec![layer; layers as usize], head, logits: 1 };
            // With the head on one of the first nodes, how many layers these hold.
            let held = |used: usize, with_head: usize| {
                let room = |node: usize| rooms[node].checked_sub(if node == with_head { head } else { 0 });
                (0..used).map(|node| room(node).map(|room| room / layer)).sum::<Option<u64>>()
            };
            let enough = |used, with_head| held(used, with_head).is_some_and(|held| held >= layers);
            let here = enough(rooms.len(), 0);
            let away = (1..rooms.len()).any(|last| enough(last + 1, last));
            match best_shares(&work, &nodes) {
                Ok(shares) => {
                    prop_assert_eq!(shares.layers.iter().map(|own| u64::from(*own)).sum::<u64>(), layers);
                    prop_assert_eq!(shares.head == Head::Host, here);
                    for (weights, room) in shares.weights(&work).into_iter().zip(&rooms) {
                        prop_assert!(weights <= *room);
                    }
                    if let Head::Worker(last) = shares.head {
                        prop_assert!(shares.layers[last + 1..].iter().all(|own| *own == 0));
                    }
                }
                Err(_) => prop_assert!(!here && !away),
            }
        }
    }
}
