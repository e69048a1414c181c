//! Decoding: one stream, and eight.

use super::CaseOf;
use super::contenders::{Contenders, OURS, TIME, layers};
use super::engine::{Engine, STREAMS};
use super::served::Served;
use crate::lab::nodes::HOST;
use crate::support::arguments::Arguments;
use crate::support::models::BenchModel;
use crate::support::report::{Goal, Metric, Report};

const RATIO: Metric = Metric::new("ms_per_token", "ratio");
const RATE_RATIO: Metric = Metric::new("rate", "ratio");

/// Of the speed of a ring's slowest stage alone, eight streams are to have this share.
const OF_SLOWEST_STAGE: Goal = Goal::AtLeast(0.9);

/// What a longer round trip may leave of eight streams' speed.
const OF_SHORT_RTT: Goal = Goal::AtLeast(0.9);

/// Measures one stream.
pub fn one_stream(arguments: &Arguments, report: &mut Report, contenders: &mut Contenders, case: &CaseOf) {
    let tokens = arguments.amount(24, 64);
    let rounds = arguments.amount(2, 5);
    let measured = contenders.in_turn(report, &case.name, rounds, |engine, nodes| {
        engine.decode(nodes, 1, tokens)
    });
    let mut rows = report.case(&case.name);
    for (name, values) in measured.all() {
        rows.row(name, TIME, values);
    }
    let added = |most: f64| {
        (
            measured.ours_to_solo(|ours, solo| ours - solo),
            Goal::AtMost(most),
        )
    };
    match (case.nodes, case.rtt) {
        (2, 0) => {
            if let Some(ratios) = measured.ours_to_solo(|ours, solo| ours / solo) {
                rows.row_with_goal("ours / solo", RATIO, &ratios, Goal::AtMost(1.05));
            }
        }
        (2, 20) | (3, 20) => {
            // The ring itself is 20 ms, and 30 over three nodes.
            let (added, goal) = added(if case.nodes == 2 { 21.5 } else { 32.0 });
            if let Some(added) = added {
                rows.row_with_goal("ours - solo", TIME, &added, goal);
            }
        }
        _ => {}
    }
}

/// Measures eight streams, against the slowest stage alone as well.
///
/// # Errors
/// Where that stage cannot be measured.
pub fn eight_streams(
    arguments: &Arguments,
    report: &mut Report,
    contenders: &mut Contenders,
    case: &CaseOf,
) -> anyhow::Result<()> {
    let tokens = arguments.amount(16, 48);
    let rounds = arguments.amount(2, 5);
    let streams = STREAMS as usize;
    let measured = contenders.in_turn(report, &case.name, rounds, |engine, nodes| {
        engine.decode(nodes, streams, tokens)
    });
    let mut rows = report.case(&case.name);
    for (name, values) in measured.all() {
        rows.row(name, TIME, values);
    }
    let Some(ours) = measured.of(OURS) else {
        return Ok(());
    };
    if let Some(ratios) = measured.ours_to_solo(|ours, solo| solo / ours) {
        rows.row_with_goal("ours / solo", RATE_RATIO, &ratios, Goal::AtLeast(1.0));
    }
    if case.rtt == 20 {
        // The host's: with the head, its layers are a model of their own.
        let stage = BenchModel::HalfBillionCut(layers(case.nodes, HOST)[HOST]).path()?;
        let nodes = &contenders.nodes;
        let mut stage = Served::solo(nodes, &stage)?;
        let alone = (0..rounds)
            .map(|_| stage.decode(nodes, streams, tokens))
            .collect::<anyhow::Result<Vec<f64>>>()?;
        stage.stop()?;
        let ratios: Vec<f64> = alone.iter().zip(ours).map(|(alone, ours)| alone / ours).collect();
        rows.row("slowest stage alone", TIME, &alone);
        rows.row_with_goal("ours / slowest stage", RATE_RATIO, &ratios, OF_SLOWEST_STAGE);
    } else {
        // In the same run, so that nothing else differs.
        contenders.nodes.set_rtt(20);
        let short = contenders.in_turn(report, &case.name, rounds, |engine, nodes| {
            engine.decode(nodes, streams, tokens)
        });
        let ratios: Option<Vec<f64>> = short
            .of(OURS)
            .map(|short| short.iter().zip(ours).map(|(short, ours)| short / ours).collect());
        if let Some(ratios) = ratios {
            let mut rows = report.case(&case.name);
            rows.row_with_goal("ours / ours at 20 ms", RATE_RATIO, &ratios, OF_SHORT_RTT);
        }
    }
    Ok(())
}
