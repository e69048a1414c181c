//! Who computes which layers. Pure.
//!
//! With one stream, a token takes the sum over the nodes of the bytes that they read for it divided by
//! the rate at which they read, and once round the ring. So the fastest memory is filled first, few
//! nodes are used, and one that only lengthens the ring stays out.

use std::time::Duration;

use thiserror::Error;

/// Of what a node offers, what weights may take: caches and buffers need the rest.
const FOR_WEIGHTS: f64 = 0.85;
/// Most nodes whose subsets are all tried; beyond, nodes are left out one by one.
const MOST_SUBSETS: usize = 12;

/// What there is to compute, in bytes of weights that a token reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    /// Each layer.
    pub layers: Vec<u64>,
    /// The output layer and all that the host keeps.
    pub output: u64,
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

/// It fits nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortage {
    /// Bytes of all layers.
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

/// The layers of each node with which a token takes the least time, of all that fit.
///
/// # Errors
/// Where none fits.
pub fn best_shares(work: &Work, nodes: &[Node]) -> Result<Vec<u32>, Shortage> {
    let subsets: Vec<Vec<bool>> = if nodes.len() <= MOST_SUBSETS {
        (1_u32..1 << nodes.len())
            .map(|subset| (0..nodes.len()).map(|node| subset >> node & 1 == 1).collect())
            .collect()
    } else {
        fastest_first(nodes)
    };
    let arranged = subsets
        .into_iter()
        .filter_map(|used| arrange(work, nodes, &used))
        .min_by_key(|(time, shares)| {
            let count = shares.iter().filter(|share| **share > 0).count();
            (*time, count)
        });
    arranged.map(|(_, shares)| shares).ok_or_else(|| Shortage {
        needed: work.layers.iter().sum(),
        offered: nodes.iter().map(for_weights).sum(),
    })
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

fn for_weights(node: &Node) -> u64 {
    (node.bytes as f64 * FOR_WEIGHTS) as u64
}

/// The time of a token with just these nodes, and their layers: as many as possible where memory is
/// fast. `None` where they do not hold the model.
fn arrange(work: &Work, nodes: &[Node], used: &[bool]) -> Option<(Duration, Vec<u32>)> {
    let largest = work.layers.iter().copied().max().unwrap_or(0).max(1);
    let count = work.layers.len() as u64;
    let mut order: Vec<usize> = (0..nodes.len()).filter(|node| used[*node]).collect();
    order.sort_by_key(|node| (std::cmp::Reverse(nodes[*node].bandwidth), *node));
    let mut shares = vec![0_u32; nodes.len()];
    let mut left = count;
    for node in order {
        let fits = (for_weights(&nodes[node]) / largest).min(left);
        shares[node] = fits as u32;
        left -= fits;
        // A node that is used gets something, or another subset is the same without it.
        if fits == 0 {
            return None;
        }
    }
    (left == 0).then(|| (predict(work, nodes, &shares), shares))
}

/// How long a token takes.
pub fn predict(work: &Work, nodes: &[Node], shares: &[u32]) -> Duration {
    // What is not known is taken for as fast as the others.
    let usual = nodes
        .iter()
        .map(|node| node.bandwidth)
        .find(|rate| *rate > 0)
        .unwrap_or(1);
    let rate = |node: &Node| if node.bandwidth > 0 { node.bandwidth } else { usual } as f64;
    let mut seconds = nodes.first().map_or(0.0, |host| work.output as f64 / rate(host));
    let mut from = 0;
    let mut at = Duration::ZERO;
    for (node, share) in nodes.iter().zip(shares) {
        let until = from + *share as usize;
        let bytes: u64 = work.layers[from..until].iter().sum();
        seconds += bytes as f64 / rate(node);
        if *share > 0 {
            // Between two workers the way is at most that by the host, and about half of it.
            seconds += ((at + node.hop) / if at.is_zero() { 1 } else { 2 }).as_secs_f64();
            at = node.hop;
        }
        from = until;
    }
    Duration::from_secs_f64(seconds + at.as_secs_f64())
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
            output: 0,
        }
    }

    #[test]
    fn a_model_that_fits_on_the_host_stays_there() {
        let nodes = [node(64, 50, 0), node(64, 50, 10)];
        assert_eq!(best_shares(&work(32, 200), &nodes), Ok(vec![32, 0]));
    }

    #[test]
    fn a_far_faster_worker_takes_all_that_fits() {
        let nodes = [node(16, 20, 0), node(8, 900, 1)];
        assert_eq!(best_shares(&work(32, 400), &nodes), Ok(vec![15, 17]));
    }

    #[test]
    fn a_node_that_only_slows_the_ring_stays_out() {
        let nodes = [node(8, 50, 0), node(16, 50, 5), node(16, 50, 40)];
        let shares = best_shares(&work(40, 400), &nodes).unwrap();
        assert_eq!((shares[2], shares.iter().sum::<u32>()), (0, 40));
    }

    #[test]
    fn what_fits_nowhere_is_told_with_numbers() {
        let nodes = [node(8, 50, 0), node(8, 50, 5)];
        let shortage = best_shares(&work(80, 400), &nodes).unwrap_err();
        assert!(shortage.needed > shortage.offered);
    }

    #[test]
    fn shares_are_layers_or_proportions() {
        assert_eq!(whole_layers(&[10, 14], 2, 24), Ok(vec![10, 14]));
        assert_eq!(whole_layers(&[1, 2], 2, 24), Ok(vec![8, 16]));
        assert_eq!(whole_layers(&[0, 1], 2, 5), Ok(vec![0, 5]));
        assert_eq!(whole_layers(&[0, 0], 2, 5), Err(ShareFault::Nothing));
        assert!(whole_layers(&[1], 2, 5).is_err());
    }

    proptest! {
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
                prop_assert_eq!(shares.iter().sum::<u32>() as usize, layers);
                for (node, share) in nodes.iter().zip(&shares) {
                    prop_assert!(u64::from(*share) * (megabytes << 20) <= node.bytes);
                }
                let alone = u64::from(shares.iter().sum::<u32>()) * (megabytes << 20);
                for (index, node) in nodes.iter().enumerate() {
                    if alone <= for_weights(node) {
                        let mut single = vec![0; nodes.len()];
                        single[index] = layers as u32;
                        prop_assert!(predict(&work, &nodes, &shares) <= predict(&work, &nodes, &single));
                    }
                }
            }
        }
    }
}
