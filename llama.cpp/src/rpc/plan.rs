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
    /// Bytes that it offers, its GPUs' included.
    pub bytes: u64,
    /// Bytes a second that it reads of them, its GPUs' not meant; 0 if unknown.
    pub bandwidth: u64,
    /// What of it is on GPUs.
    pub gpus: Gpus,
    /// One way from the host to it.
    pub hop: Duration,
}

/// GPUs of a node, all of them together; none by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gpus {
    /// Bytes of the node's that are on them.
    pub bytes: u64,
    /// Bytes a second that one of them reads; 0 if unknown.
    pub bandwidth: u64,
}

/// What a node has for weights. A layer that lies in both parts of it counts for the slower one.
#[derive(Debug, Clone, Copy)]
struct Memory {
    bytes: u64,
    /// Bytes of it that are read most quickly.
    quick: u64,
    /// Bytes a second of these, and of the rest; 0 if unknown.
    bandwidth: [u64; 2],
}

impl Node {
    /// Bytes a second that its quickest memory gives; 0 if unknown.
    fn best_bandwidth(&self) -> u64 {
        match self.gpus.bytes {
            0 => self.bandwidth,
            _ => self.bandwidth.max(self.gpus.bandwidth),
        }
    }

    /// This share of its memory.
    fn memory(&self, share: f64) -> Memory {
        let on_gpus = self.gpus.bytes.min(self.bytes);
        let [bytes, of_gpus, own] =
            [self.bytes, on_gpus, self.bytes - on_gpus].map(|bytes| part_of(bytes, share));
        let (quick, bandwidth) = match (on_gpus, self.gpus.bandwidth) {
            (0, _) => (bytes, [self.bandwidth; 2]),
            // Not known, but no slower.
            (_, 0) => (of_gpus, [self.bandwidth; 2]),
            (_, rate) if rate >= self.bandwidth => (of_gpus, [rate, self.bandwidth]),
            (_, rate) => (own, [self.bandwidth, rate]),
        };
        Memory {
            bytes,
            quick,
            bandwidth,
        }
    }
}

impl Memory {
    /// Takes room for something, and says at which rate that is read; `None` where there is not enough.
    fn take(&mut self, bytes: u64) -> Option<u64> {
        self.bytes = self.bytes.checked_sub(bytes)?;
        if bytes <= self.quick {
            self.quick -= bytes;
            return Some(self.bandwidth[0]);
        }
        self.quick = self.quick.min(self.bytes);
        Some(self.bandwidth[1])
    }

    /// Layers of such a size that fit into its quick part, and all that fit.
    fn layers(&self, largest: u64) -> (u64, u64) {
        (self.quick / largest, self.bytes / largest)
    }
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
    #[error("--tensor-split has {given} numbers, but there are {devices} devices")]
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
    let subsets = subsets(work, nodes);
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
    arranged(work, nodes, &subsets(work, nodes), !head_on_host, FOR_WEIGHTS).collect()
}

/// The best arrangement of each of these sets of nodes that hold the model with this share of what they offer.
fn arranged(
    work: &Work,
    nodes: &[Node],
    subsets: &[Vec<bool>],
    head_away: bool,
    share: f64,
) -> impl Iterator<Item = (Duration, Shares)> {
    let memories: Vec<Memory> = nodes.iter().map(|node| node.memory(share)).collect();
    subsets.iter().filter_map(move |used| {
        let head = match used.iter().rposition(|used| *used).filter(|_| head_away) {
            None => Head::Host,
            Some(0) => return None,
            Some(last) => Head::Worker(last),
        };
        arrange(work, nodes, &memories, used, head)
    })
}

fn part_of(bytes: u64, share: f64) -> u64 {
    (bytes as f64 * share) as u64
}

/// The sets of nodes that are tried, of those that could hold something: all, unless there are too many.
fn subsets(work: &Work, nodes: &[Node]) -> Vec<Vec<bool>> {
    let layer = largest(work);
    let holds = |node: &usize| {
        let bytes = nodes[*node].bytes;
        bytes >= layer || (*node > 0 && work.head > 0 && bytes >= work.head)
    };
    let mut of_use: Vec<usize> = (0..nodes.len()).filter(holds).collect();
    let set = |used: &[usize]| (0..nodes.len()).map(|node| used.contains(&node)).collect();
    if of_use.len() <= MOST_SUBSETS {
        let some = |subset: u32| -> Vec<usize> {
            let places = of_use.iter().enumerate();
            let chosen = places.filter(|(place, _)| subset >> place & 1 == 1);
            chosen.map(|(_, node)| *node).collect()
        };
        return (1_u32..1 << of_use.len())
            .map(|subset| set(&some(subset)))
            .collect();
    }
    // The fastest node, the two fastest, and so on.
    of_use.sort_by_key(|node| std::cmp::Reverse(nodes[*node].best_bandwidth()));
    (1..=of_use.len()).map(|count| set(&of_use[..count])).collect()
}

/// The time of a token with just these nodes and the head there, and who computes what: as many layers
/// as possible where memory is fast. `None` where they do not hold the model.
fn arrange(
    work: &Work,
    nodes: &[Node],
    memories: &[Memory],
    used: &[bool],
    head: Head,
) -> Option<(Duration, Shares)> {
    let layers = filled(work, memories, used, head)?;
    // A node that is used gets something, or another subset is the same without it.
    let is_idle = |node: usize| used[node] && layers[node] == 0 && head != Head::Worker(node);
    if (0..nodes.len()).any(is_idle) {
        return None;
    }
    let shares = Shares { layers, head };
    Some((time(work, nodes, memories, &shares), shares))
}

/// As many layers as possible on those of these nodes that read most, the head being there. For more nodes than
/// [`best_shares`] tries all sets of. `None` where they do not hold the model.
pub fn filled_shares(work: &Work, nodes: &[Node]) -> Option<Shares> {
    let memories: Vec<Memory> = nodes.iter().map(|node| node.memory(1.0)).collect();
    let with_head = |head: Head| {
        let layers = filled(work, &memories, &vec![true; nodes.len()], head)?;
        Some(Shares { layers, head })
    };
    with_head(Head::Host).or_else(|| with_head(Head::Worker(nodes.len() - 1)))
}

/// Layers of each node: as many as possible where memory is fast. `None` where they do not hold the model.
fn filled(work: &Work, memories: &[Memory], used: &[bool], head: Head) -> Option<Vec<u32>> {
    let mut memories = memories.to_vec();
    memories[head.node()].take(work.head)?;
    let of_used = (0..memories.len()).filter(|node| used[*node]);
    let mut order: Vec<(u64, usize, u64)> = of_used
        .flat_map(|node| {
            let (quick, all) = memories[node].layers(largest(work));
            let [first, second] = memories[node].bandwidth;
            [(first, node, quick), (second, node, all - quick)]
        })
        .collect();
    order.sort_by_key(|(rate, node, _)| (std::cmp::Reverse(*rate), *node));
    let mut layers = vec![0_u32; memories.len()];
    let mut left = work.layers.len() as u64;
    for (_, node, room) in order {
        let fits = room.min(left);
        layers[node] += fits as u32;
        left -= fits;
    }
    (left == 0).then_some(layers)
}

fn largest(work: &Work) -> u64 {
    work.layers.iter().copied().max().unwrap_or(0).max(1)
}

/// How long a token takes.
pub fn predict(work: &Work, nodes: &[Node], shares: &Shares) -> Duration {
    let memories: Vec<Memory> = nodes.iter().map(|node| node.memory(1.0)).collect();
    time(work, nodes, &memories, shares)
}

/// How long a token takes where nodes have these memories. Each fills the quick part first.
fn time(work: &Work, nodes: &[Node], memories: &[Memory], shares: &Shares) -> Duration {
    // What is not known is taken for as fast as the others.
    let mut rates = memories.iter().flat_map(|memory| memory.bandwidth);
    let usual = rates.find(|rate| *rate > 0).unwrap_or(1);
    let seconds_for = |bytes: u64, rate: u64| bytes as f64 / if rate > 0 { rate } else { usual } as f64;
    let mut seconds = match shares.head {
        Head::Host => 0.0,
        Head::Worker(_) => work.logits as f64 / NETWORK,
    };
    let mut at = Duration::ZERO;
    let mut from = 0;
    for (number, node) in nodes.iter().enumerate() {
        let mut memory = memories[number];
        if shares.head.node() == number {
            let rate = memory.take(work.head).unwrap_or(memory.bandwidth[1]);
            seconds += seconds_for(work.head, rate);
        }
        let layers = &work.layers[from..from + shares.layers[number] as usize];
        from += layers.len();
        let (quick, _) = memory.layers(largest(work));
        let quick = usize::try_from(quick).unwrap_or(usize::MAX).min(layers.len());
        let (quick, slow) = layers.split_at(quick);
        seconds += seconds_for(quick.iter().sum(), memory.bandwidth[0]);
        seconds += seconds_for(slow.iter().sum(), memory.bandwidth[1]);
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
            gpus: Gpus::default(),
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

    /// Of a node's memory, so many gigabytes are on GPUs, which read so many a second.
    fn on_gpus(node: Node, gigabytes: u64, rate: u64) -> Node {
        let gpus = Gpus {
            bytes: gigabytes << 30,
            bandwidth: rate << 30,
        };
        Node { gpus, ..node }
    }

    #[test]
    fn gpus_of_all_nodes_come_before_the_rest_of_any() {
        let with_gpu = on_gpus(node(64, 50, 0), 16, 900);
        let worker = on_gpus(node(64, 50, 1), 16, 900);
        // A GPU holds 15 of them with room to spare; what is left is quickest here.
        assert_eq!(layers(&work(32, 900), &[with_gpu, worker]), [17, 15]);
        // Far away, it would take longer than this machine's own memory.
        let far = Node {
            hop: Duration::from_secs(1),
            ..worker
        };
        assert_eq!(layers(&work(32, 900), &[with_gpu, far]), [32, 0]);
    }

    #[test]
    fn what_a_gpu_does_not_hold_is_read_more_slowly() {
        let seconds = |layers: u32, gpu: u64| {
            let shares = Shares {
                layers: vec![layers],
                head: Head::Host,
            };
            let node = on_gpus(node(64, 10, 0), gpu, 100);
            predict(&work(layers as usize, 1024), &[node], &shares).as_secs_f64()
        };
        assert_eq!((seconds(10, 0), seconds(10, 10)), (1.0, 0.1));
        assert_eq!(seconds(10, 5), 0.55);
        // Layers are whole, and memory that is not there reads nothing.
        let half = on_gpus(node(0, 10, 0), 64, 100);
        let shares = Shares {
            layers: vec![10],
            head: Head::Host,
        };
        assert_eq!(predict(&work(10, 1024), &[half], &shares).as_secs_f64(), 1.0);
    }

    #[test]
    fn many_full_nodes_keep_nothing_from_others_that_have_room() {
        let mut nodes = vec![node(0, 900, 0); 14];
        nodes.extend([node(20, 50, 1), node(20, 40, 1)]);
        let shares = layers(&work(30, 1024), &nodes);
        assert_eq!(shares[14..], [17, 13]);
    }

    #[test]
    fn a_gpu_that_is_slower_than_the_memory_comes_last() {
        let nodes = [on_gpus(node(20, 50, 0), 10, 5), node(20, 40, 0)];
        assert_eq!(layers(&work(16, 1024), &nodes), [8, 8]);
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
        let gpus = (0_u64..40, 0_u64..9).prop_map(|(bytes, bandwidth)| Gpus { bytes, bandwidth });
        let node = (0_u64..40, 1_u64..5, gpus, 0_u64..30).prop_map(|(bytes, bandwidth, gpus, hop)| Node {
            bytes,
            bandwidth,
            gpus,
            hop: Duration::from_secs(hop),
        });
        prop::collection::vec(node, 1..6)
    }

    proptest! {
        #[test]
        fn less_room_makes_no_roomy_arrangement_quicker(
            nodes in few_nodes(),
            less in prop::collection::vec((0_u64..20, prop::bool::ANY), 6),
            head in 0_u64..9,
            head_on_host: bool,
        ) {
            let work = Work { layers: vec![5; 8], head, logits: 0 };
            let quickest = |nodes: &[Node]| {
                let times = roomy_shares(&work, nodes, head_on_host).into_iter().map(|(time, _)| time);
                times.min().unwrap_or(Duration::MAX)
            };
            let mut tighter = nodes.clone();
            for (node, (less, of_gpus)) in tighter.iter_mut().zip(less) {
                node.gpus.bytes = node.gpus.bytes.min(node.bytes);
                node.bytes = node.bytes.saturating_sub(less);
                // GPUs are used first.
                if of_gpus {
                    node.gpus.bytes = node.gpus.bytes.saturating_sub(less);
                }
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
