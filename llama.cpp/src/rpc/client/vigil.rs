//! Whether a split gets on, and who keeps it from that: a node may answer pings and hang all the same. Pure.
//!
//! What counts is progress, not how long something takes: a slow machine computes a piece of a long prompt for
//! minutes, but an operation of it is done every now and then.

use std::time::{Duration, Instant};

use crate::rpc::dial::PING_EVERY;
use crate::rpc::wire::{Doing, HOST, NodeId, Standing};

/// How long a split may stand still while something is awaited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Where everybody tells of each small part of their work: one operation of a graph on a slow machine, or a
    /// mebibyte on a slow network.
    pub usual: Duration,
    /// Where a node does what tells nothing before its end. Workers themselves give up earlier.
    pub absorbed: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            usual: Duration::from_secs(30),
            absorbed: Duration::from_secs(660),
        }
    }
}

/// What is known of a node at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) node: NodeId,
    pub(super) doing: Doing,
    /// Commands that were sent to it.
    pub(super) sent: u64,
    /// Bytes of payloads that came from it.
    pub(super) brought: u64,
    /// It was asked for something that is not done by its queues: to begin, or to dial another.
    pub(super) owes: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Vigil {
    patience: Patience,
    seen: Vec<Seen>,
    looked: Option<Instant>,
    /// For how long nothing has changed.
    still: Duration,
}

impl Vigil {
    pub(super) fn new(patience: Patience) -> Self {
        Self {
            patience,
            seen: Vec::new(),
            looked: None,
            still: Duration::ZERO,
        }
    }

    /// A look at all nodes that are used; `awaited` says whether the host waits for anything. Which node the
    /// split hangs on, and for how long, if it does.
    pub(super) fn look(
        &mut self,
        now: Instant,
        awaited: bool,
        nodes: Vec<Seen>,
    ) -> Option<(NodeId, Duration)> {
        let looked = self.looked.replace(now);
        if !awaited || nodes != self.seen {
            self.still = Duration::ZERO;
            self.seen = nodes;
            return None;
        }
        // Whoever looks may have been kept from it, and then so was what came meanwhile.
        let passed = looked.map_or(Duration::ZERO, |looked| now.saturating_duration_since(looked));
        self.still += passed.min(2 * PING_EVERY);
        let absorbed = nodes.iter().any(|seen| seen.doing.standing == Standing::Absorbed);
        let patience = if absorbed {
            self.patience.absorbed
        } else {
            self.patience.usual
        };
        if self.still < patience {
            return None;
        }
        let culprit = nodes.iter().min_by_key(|seen| innocence(seen))?;
        Some((culprit.node, self.still))
    }
}

/// The least innocent is the one to blame; among equals the first, for others wait for it.
fn innocence(seen: &Seen) -> (u8, bool) {
    let has_work = seen.owes || seen.sent > seen.doing.done;
    let rank = match seen.doing.standing {
        Standing::Works | Standing::Absorbed => 0,
        // It has not so much as begun.
        Standing::Idle if has_work && seen.node != HOST => 1,
        Standing::Waits => 2,
        Standing::Idle => 3,
    };
    (rank, seen.node == HOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        usual: Duration::from_secs(30),
        absorbed: Duration::from_secs(660),
    };

    fn seen(node: u16, standing: Standing, progress: u64) -> Seen {
        Seen {
            node: NodeId(node),
            doing: Doing {
                standing,
                done: 5,
                progress,
            },
            sent: 8,
            brought: 0,
            owes: false,
        }
    }

    /// Looks at the same again and again, in time; after how long somebody is to blame, and who.
    fn blamed(nodes: &[Seen], awaited: bool, most: Duration) -> Option<(NodeId, Duration)> {
        let mut vigil = Vigil::new(PATIENCE);
        let begin = Instant::now();
        let mut passed = Duration::ZERO;
        while passed < most {
            if let Some((node, _)) = vigil.look(begin + passed, awaited, nodes.to_vec()) {
                return Some((node, passed));
            }
            passed += PING_EVERY;
        }
        None
    }

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn who_works_without_progress_is_to_blame_and_not_who_waits_for_it() {
        use Standing::{Absorbed, Idle, Waits, Works};
        let cases = [
            ([Waits, Works, Waits], 1),
            ([Waits, Waits, Works], 2),
            // One that says nothing of what it does.
            ([Waits, Idle, Waits], 1),
            ([Waits, Waits, Idle], 2),
            ([Works, Waits, Waits], 0),
            // A liar among those who wait for each other.
            ([Waits, Waits, Waits], 1),
            ([Waits, Absorbed, Idle], 1),
        ];
        for (standings, culprit) in cases {
            let nodes: Vec<Seen> = (0..)
                .zip(standings)
                .map(|(node, standing)| seen(node, standing, 7))
                .collect();
            let (node, passed) = blamed(&nodes, true, LONG).unwrap();
            assert_eq!(node, NodeId(culprit), "{standings:?}");
            let absorbed = standings.contains(&Absorbed);
            let patience = if absorbed {
                PATIENCE.absorbed
            } else {
                PATIENCE.usual
            };
            assert!(
                passed >= patience && passed < patience + 2 * PING_EVERY,
                "{standings:?}: {passed:?}"
            );
        }
    }

    #[test]
    fn one_that_has_done_all_is_not_to_blame_for_one_that_has_not() {
        let done = Seen {
            sent: 5,
            ..seen(1, Standing::Idle, 7)
        };
        let nodes = [seen(0, Standing::Waits, 3), done, seen(2, Standing::Idle, 1)];
        assert_eq!(blamed(&nodes, true, LONG).unwrap().0, NodeId(2));
        let owes = Seen {
            node: NodeId(2),
            owes: true,
            ..done
        };
        assert_eq!(blamed(&[done, owes], true, LONG).unwrap().0, NodeId(2));
    }

    #[test]
    fn nobody_is_to_blame_where_nothing_is_awaited() {
        assert_eq!(blamed(&[seen(1, Standing::Works, 7)], false, LONG), None);
    }

    #[test]
    fn a_node_that_gets_on_now_and_then_has_as_long_as_it_takes() {
        let mut vigil = Vigil::new(PATIENCE);
        let begin = Instant::now();
        // An operation each 29 s, for an hour.
        let mut passed = Duration::ZERO;
        while passed < LONG {
            let nodes = vec![seen(1, Standing::Works, passed.as_secs() / 29)];
            assert_eq!(vigil.look(begin + passed, true, nodes), None);
            passed += PING_EVERY;
        }
    }

    #[test]
    fn whoever_looks_late_counts_no_more_than_two_looks() {
        let mut vigil = Vigil::new(PATIENCE);
        let begin = Instant::now();
        for look in 0..20 {
            let nodes = vec![seen(1, Standing::Works, 7)];
            assert_eq!(vigil.look(begin + look * LONG, true, nodes), None);
        }
    }
}
