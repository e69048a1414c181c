//! When each queue computed each step, on the host's clock.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::rpc::wire::{HOST, NodeId, Ran, Step};

/// Spans that are remembered until somebody takes them.
const MOST_SPANS: usize = 1 << 16;

/// A queue's work on a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The node.
    pub node: NodeId,
    /// Its queue.
    pub queue: u8,
    /// The step.
    pub step: Step,
    /// How long it waited for other steps.
    pub waited: Duration,
    /// Begin.
    pub begin: Instant,
    /// How long it took.
    pub time: Duration,
}

/// Collects spans; workers' clocks are set by pings: a pong was written half a round trip ago, and the
/// quickest pong knows that best.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    spans: Vec<Span>,
    clocks: HashMap<NodeId, (Duration, Instant)>,
}

impl Timeline {
    /// What a pong tells, whose ping was `sent`, if it is known; `now` is the node's clock in microseconds.
    pub(super) fn record(&mut self, node: NodeId, sent: Option<Instant>, now: u64, ran: &[Ran]) {
        let arrived = Instant::now();
        // From this process to itself no time passes. Of others an answer without a question says nothing.
        let own = (node == HOST).then_some(Duration::ZERO);
        if let Some(round_trip) = own.or(sent.map(|sent| arrived.saturating_duration_since(sent))) {
            self.set_clock(node, arrived, round_trip, now);
        }
        let Some((_, zero)) = self.clocks.get(&node).copied() else {
            return;
        };
        for ran in ran {
            if self.spans.len() >= MOST_SPANS {
                return;
            }
            self.spans.push(Span {
                node,
                queue: ran.queue,
                step: ran.step,
                waited: Duration::from_micros(ran.waited),
                begin: zero + Duration::from_micros(ran.begin),
                time: Duration::from_micros(ran.end.saturating_sub(ran.begin)),
            });
        }
    }

    /// Takes note of when a node's clock was at zero, unless that is known better.
    fn set_clock(&mut self, node: NodeId, arrived: Instant, round_trip: Duration, now: u64) {
        let known = self
            .clocks
            .get(&node)
            .is_some_and(|(best, _)| *best <= round_trip);
        let zero = (arrived - round_trip / 2).checked_sub(Duration::from_micros(now));
        if let Some(zero) = zero.filter(|_| !known) {
            self.clocks.insert(node, (round_trip, zero));
        }
    }

    pub(super) fn take(&mut self) -> Vec<Span> {
        std::mem::take(&mut self.spans)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_to_a_ping_sets_a_workers_clock() {
        let node = NodeId(1);
        let ran = |begin| Ran {
            queue: 0,
            step: Step(1),
            begin,
            end: begin + 10,
            waited: 3,
        };
        let mut timeline = Timeline::default();
        timeline.record(node, None, 0, &[ran(5)]);
        assert_eq!(timeline.take(), [], "nobody knows when that was");
        let sent = Instant::now();
        timeline.record(node, Some(sent), 2_000_000, &[ran(1_999_000)]);
        // An old number, or one that was never sent.
        timeline.record(node, None, 7, &[ran(1_999_000)]);
        let spans = timeline.take();
        assert_eq!(spans.len(), 2);
        assert_eq!(spans[0], spans[1]);
        let lag = sent.saturating_duration_since(spans[0].begin);
        assert!(lag <= Duration::from_millis(1) && spans[0].time == Duration::from_micros(10));
        assert_eq!(spans[0].waited, Duration::from_micros(3));
    }
}
