//! When each queue computed each step, on the host's clock.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::rpc::wire::{NodeId, Ran, Step};

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
    /// What a pong tells, whose ping was `sent`; `now` is the worker's clock in microseconds.
    pub(super) fn record(&mut self, node: NodeId, sent: Option<Instant>, now: u64, ran: &[Ran]) {
        let arrived = Instant::now();
        let round_trip = sent.map_or(Duration::ZERO, |sent| arrived - sent);
        // When the worker's clock was at zero.
        let zero = (arrived - round_trip / 2).checked_sub(Duration::from_micros(now));
        let clock = self.clocks.get(&node).copied();
        let zero = match (clock, zero) {
            (Some((best, zero)), _) if best <= round_trip => zero,
            (_, Some(zero)) => {
                self.clocks.insert(node, (round_trip, zero));
                zero
            }
            _ => return,
        };
        for ran in ran {
            if self.spans.len() >= MOST_SPANS {
                return;
            }
            self.spans.push(Span {
                node,
                queue: ran.queue,
                step: ran.step,
                begin: zero + Duration::from_micros(ran.begin),
                time: Duration::from_micros(ran.end.saturating_sub(ran.begin)),
            });
        }
    }

    pub(super) fn take(&mut self) -> Vec<Span> {
        std::mem::take(&mut self.spans)
    }
}
