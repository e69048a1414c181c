//! From a program's start to its use.

use super::RTT;
use super::machine::{Machine, Part, Start};
use crate::netlab::NetLab;
use crate::support::arguments::Arguments;
use crate::support::report::{Goal, Metric, Report};

const JOINED: Metric = Metric::new("start to joined", "ms");

/// A laptop is there before its user has found the other window.
const GOAL: Goal = Goal::AtMost(1e3);

/// Measures a client, from its start until its API lists the model of another machine, and a node, from its start until
/// both know each other.
///
/// # Errors
/// Where one does not join.
pub fn measure(arguments: &Arguments, report: &mut Report, name: &str) -> anyhow::Result<()> {
    let lab = NetLab::start(3)?;
    lab.set_rtt(RTT);
    let rounds = arguments.amount(3, 10);
    let (mut clients, mut nodes) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (first, token) = Machine::found(&lab, 0, "first", None)?;
        let client = Machine::start(&lab, Start::new(1, Part::Client, Some(&token)))?;
        let joined = client.until_models(&["first"])?;
        clients.push(joined.since(client.started()).as_secs_f64() * 1e3);
        let node = Machine::start(&lab, Start::new(2, Part::Serves("second"), Some(&token)))?;
        let joined = node.until_others(1)?.max(first.until_others(1)?);
        nodes.push(joined.since(node.started()).as_secs_f64() * 1e3);
    }
    let mut rows = report.case(name);
    rows.row_with_goal("client", JOINED, &clients, GOAL);
    rows.row_with_goal("node", JOINED, &nodes, GOAL);
    Ok(())
}
