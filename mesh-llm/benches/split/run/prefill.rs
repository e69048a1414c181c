//! A long prompt, which nothing has seen before.

use super::CaseOf;
use super::contenders::{Contenders, TIME};
use crate::support::arguments::Arguments;
use crate::support::report::{Goal, Metric, Report};

/// Two nodes against one.
const GOAL: Goal = Goal::AtLeast(1.7);

/// Measures it.
pub fn measure(arguments: &Arguments, report: &mut Report, contenders: &mut Contenders, case: &CaseOf) {
    let tokens = arguments.amount(1000, 2000);
    let rounds = arguments.amount(1, 3);
    let measured = contenders.in_turn(report, &case.name, rounds, |engine, nodes| {
        engine.prefill(nodes, tokens)
    });
    let mut rows = report.case(&case.name);
    for (name, values) in measured.all() {
        rows.row(name, TIME, values);
    }
    if let Some(ratios) = measured.ours_to_solo(|ours, solo| solo / ours) {
        rows.row_with_goal("ours / solo", Metric::new("rate", "ratio"), &ratios, GOAL);
    }
}
