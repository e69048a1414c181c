//! What crosses the network for each token, late in a long context.

use super::CaseOf;
use super::contenders::{Contenders, OURS};
use crate::support::arguments::Arguments;
use crate::support::report::{Goal, Metric, Report};

const BYTES: Metric = Metric::new("bytes_per_token_per_hop", "bytes");
const PACKETS: Metric = Metric::new("packets_per_token_per_hop", "packets");

/// Bytes of a hidden state: 896 numbers.
const HIDDEN_STATE: f64 = 896.0 * 4.0;

/// A hop may take that and a little more.
const GOAL: Goal = Goal::AtMost(1.2 * HIDDEN_STATE + 300.0);

/// Measures it. A ring of two nodes is two hops; so is llama.cpp's way to a server and back.
pub fn measure(arguments: &Arguments, report: &mut Report, contenders: &mut Contenders, case: &CaseOf) {
    let prompt = arguments.amount(2000, 8000);
    let tokens = 32;
    let hops = case.nodes as f64;
    let mut packets = Vec::new();
    let measured = contenders.splits_in_turn(report, &case.name, 1, |engine, nodes| {
        let traffic = engine.traffic(nodes, prompt, tokens)?;
        packets.push(traffic.packets / hops);
        Ok(traffic.payload / hops)
    });
    let mut rows = report.case(&case.name);
    // In the order of those that could be measured.
    for ((name, bytes), packets) in measured.all().zip(packets) {
        if name == OURS {
            rows.row_with_goal(name, BYTES, bytes, GOAL);
        } else {
            rows.row(name, BYTES, bytes);
        }
        rows.row(name, PACKETS, &[packets]);
    }
}
