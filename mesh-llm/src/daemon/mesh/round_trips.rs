//! How far other machines are, as this one says: what every packet measures wavers, and each news goes to everybody.

use crate::mesh::core::View;
use crate::mesh::id::NodeId;
use crate::mesh::state::RoundTrip;
use std::collections::{BTreeMap, VecDeque};

/// Looks of which the shortest round trip counts: whatever keeps a packet waiting only adds to it.
const LOOKS: usize = 10;

/// A round trip that differs by less than this is no news, whatever it is.
const LEAST_NEWS_MICROS: u32 = 1_000;

/// One that differs by half, and by more than this, is told at once; others wait until there is one, or it is time.
const GREAT_NEWS_MICROS: u32 = 5_000;

/// Looks after which small news are told, if there are any.
const TELL_AFTER: u32 = 60;

/// What was measured of one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Measured {
    micros: u32,
    relayed: bool,
}

/// What was measured lately, and said of it.
#[derive(Debug, Default)]
pub(super) struct RoundTrips {
    /// The shortest of each look, the newest last.
    looks: VecDeque<BTreeMap<NodeId, Measured>>,
    said: Vec<RoundTrip>,
    /// Looks since something was said anew.
    since: u32,
}

impl RoundTrips {
    /// Begins another look.
    pub(super) fn next(&mut self) {
        self.since = self.since.saturating_add(1);
        self.looks.push_back(BTreeMap::new());
        if self.looks.len() > LOOKS {
            self.looks.pop_front();
        }
    }

    /// How far the others are, the nearest first. What was said is said again until it is clearly wrong.
    pub(super) fn say(&mut self, view: &View) -> Vec<RoundTrip> {
        let measured = view.nodes.iter().filter_map(|seen| {
            let path = seen.path?;
            let measured = Measured {
                micros: u32::try_from(path.rtt.as_micros()).unwrap_or(u32::MAX),
                relayed: path.relayed,
            };
            Some((seen.state.node, measured))
        });
        let now: BTreeMap<NodeId, u32> = measured
            .map(|(node, measured)| (node, self.shortest(node, measured)))
            .collect();
        let said: BTreeMap<NodeId, u32> = self.said.iter().map(|trip| (trip.node, trip.micros)).collect();
        let is_news = |node: &NodeId, least: u32, part: u32| match (said.get(node), now[node]) {
            (Some(before), now) => before.abs_diff(now) > (before / part).max(least),
            (None, _) => true,
        };
        let is_time = self.since >= TELL_AFTER
            || said.keys().any(|node| !now.contains_key(node))
            || now.keys().any(|node| is_news(node, GREAT_NEWS_MICROS, 2));
        let mut told = now.clone();
        for (node, micros) in &mut told {
            if let Some(before) = said.get(node)
                && !(is_time && is_news(node, LEAST_NEWS_MICROS, 4))
            {
                *micros = *before;
            }
        }
        if told != said {
            self.since = 0;
            let trips = told.into_iter().map(|(node, micros)| RoundTrip { node, micros });
            self.said = trips.collect();
            self.said.sort_by_key(|trip| (trip.micros, trip.node));
        }
        self.said.clone()
    }

    /// The shortest round trip of late on a path of the same kind, with what was measured now.
    fn shortest(&mut self, node: NodeId, now: Measured) -> u32 {
        if self.looks.is_empty() {
            self.next();
        }
        for look in &mut self.looks {
            // Through a relay it is another way.
            if look
                .get(&node)
                .is_some_and(|before| before.relayed != now.relayed)
            {
                look.remove(&node);
            }
        }
        if let Some(look) = self.looks.back_mut() {
            let kept = look.entry(node).or_insert(now);
            kept.micros = kept.micros.min(now.micros);
        }
        let looks = self.looks.iter().filter_map(|look| look.get(&node));
        looks.map(|look| look.micros).min().unwrap_or(now.micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::core::{Path, Seen};
    use crate::mesh::id::{Boot, MeshId, Role};
    use crate::mesh::state::NodeState;
    use std::time::Duration;

    fn node(number: u8) -> NodeId {
        iroh_base::SecretKey::from_bytes(&[number; 32]).public()
    }

    /// Nodes with the round trips that are measured to them; 0: none.
    fn view(micros: &[(u8, u64)], relayed: bool) -> View {
        let seen = |(number, micros): &(u8, u64)| Seen {
            state: NodeState::bare(node(*number), Boot(1), 1),
            path: (*micros > 0).then(|| Path {
                rtt: Duration::from_micros(*micros),
                relayed,
            }),
        };
        View {
            mesh: MeshId(node(1)),
            me: node(1),
            role: Some(Role::Node),
            nodes: micros.iter().map(seen).collect(),
            clients: Vec::new(),
        }
    }

    fn trip(number: u8, micros: u32) -> RoundTrip {
        RoundTrip {
            node: node(number),
            micros,
        }
    }

    #[test]
    fn only_a_clear_change_of_a_round_trip_is_news() {
        let mut trips = RoundTrips::default();
        let said = trips.say(&view(&[(2, 40_000), (3, 500), (4, 0)], false));
        assert_eq!(
            said,
            [trip(3, 500), trip(2, 40_000)],
            "who was measured, the nearest first"
        );
        assert_eq!(trips.say(&view(&[(2, 31_000), (3, 400)], false)), said);
        let other = trips.say(&view(&[(2, 19_000), (3, 300)], false));
        assert_eq!(other, [trip(3, 500), trip(2, 19_000)]);
        assert_eq!(
            trips.say(&view(&[(3, 500)], false)),
            [trip(3, 500)],
            "who is gone is told"
        );
    }

    #[test]
    fn a_small_change_is_told_after_a_while_or_with_a_great_one() {
        let mut trips = RoundTrips::default();
        let said = trips.say(&view(&[(2, 40_000), (3, 40_000)], false));
        for _ in 1..TELL_AFTER {
            trips.next();
            assert_eq!(trips.say(&view(&[(2, 29_000), (3, 40_000)], false)), said);
        }
        trips.next();
        let news = trips.say(&view(&[(2, 29_000), (3, 40_000)], false));
        assert_eq!(news, [trip(2, 29_000), trip(3, 40_000)]);
        let great = trips.say(&view(&[(2, 21_000), (3, 2_000)], false));
        assert_eq!(great, [trip(3, 2_000), trip(2, 21_000)]);
    }

    #[test]
    fn a_longer_way_is_news_once_no_packet_was_quicker_for_a_while() {
        let mut trips = RoundTrips::default();
        assert_eq!(trips.say(&view(&[(2, 10_000)], false)), [trip(2, 10_000)]);
        for _ in 1..LOOKS {
            trips.next();
            assert_eq!(trips.say(&view(&[(2, 90_000)], false)), [trip(2, 10_000)]);
        }
        trips.next();
        assert_eq!(trips.say(&view(&[(2, 90_000)], false)), [trip(2, 90_000)]);
        assert_eq!(
            trips.say(&view(&[(2, 10_000)], false)),
            [trip(2, 10_000)],
            "a shorter one is at once"
        );
    }

    #[test]
    fn a_way_by_a_relay_is_not_taken_for_as_short_as_the_direct_one_was() {
        let mut trips = RoundTrips::default();
        trips.say(&view(&[(2, 10_000)], false));
        assert_eq!(trips.say(&view(&[(2, 90_000)], true)), [trip(2, 90_000)]);
    }
}
