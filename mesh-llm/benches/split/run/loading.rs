//! From the start of a host to its first answer, with a file that the machine's memory has already.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, Instant};

use super::CaseOf;
use super::contenders::{OURS, SOLO, layers, stock};
use super::served::Served;
use super::stock::Spread;
use crate::lab::nodes::{HOST, Nodes};
use crate::lab::workers::Workers;
use crate::support::arguments::Arguments;
use crate::support::report::{Goal, Metric, Report};

const TIME: Metric = Metric::new("load", "ms");
const BYTES: Metric = Metric::new("load", "bytes");

/// Ours against solo, in milliseconds.
const GOAL_TIME: Goal = Goal::AtMost(400.0);

/// A second load of the same model, in milliseconds, against reading its file.
const GOAL_AGAIN: Goal = Goal::AtMost(300.0);

/// Over the network.
const GOAL_BYTES: Goal = Goal::AtMost(1e6);

/// Bytes that are asked of the file at once.
const READ_AT_ONCE: usize = 16 << 20;

/// Milliseconds, and bytes that crossed the network.
struct Load {
    time: f64,
    bytes: f64,
}

/// Measures hosts of each kind, started in turn; workers stay.
///
/// # Errors
/// Where what is compared with does not start.
pub fn measure(
    arguments: &Arguments,
    report: &mut Report,
    program: &Path,
    model: &Path,
    case: &CaseOf,
) -> anyhow::Result<()> {
    let nodes = Nodes::start(case.nodes)?;
    nodes.set_rtt(case.rtt);
    let (mut solo, mut stocks, mut split) = (Vec::new(), Vec::new(), Vec::new());
    let mut workers = Workers::start(&nodes, model, &[]).map_err(|error| format!("{error:#}"));
    for _ in 0..arguments.amount(1, 3) {
        solo.push(one(&nodes, || {
            let served = Served::solo(&nodes, model)?;
            let time = served.started();
            served.stop()?;
            Ok(time)
        })?);
        stocks.push(one(&nodes, || {
            Ok(stock(program, &nodes, model, Spread::HostAndServers)?.loaded())
        })?);
        if let Ok(started) = &workers {
            match over(&nodes, model, started) {
                Ok(load) => split.push(load),
                Err(error) => workers = Err(format!("{error:#}")),
            }
        }
    }
    // The workers know the model by now.
    let (mut again, mut beyond) = (Vec::new(), Vec::new());
    for _ in 0..arguments.amount(1, 3) {
        if let Ok(started) = &workers {
            let read = nodes.on(HOST, || read(model))?.as_secs_f64() * 1e3;
            match over(&nodes, model, started) {
                Ok(load) => {
                    again.push(load.time);
                    beyond.push(load.time - read);
                }
                Err(error) => workers = Err(format!("{error:#}")),
            }
        }
    }
    let mut rows = report.case(&case.name);
    let times = |loads: &[Load]| loads.iter().map(|load| load.time).collect::<Vec<f64>>();
    let bytes = |loads: &[Load]| loads.iter().map(|load| load.bytes).collect::<Vec<f64>>();
    rows.row(SOLO, TIME, &times(&solo));
    rows.row(Spread::HostAndServers.name(), TIME, &times(&stocks));
    rows.row(Spread::HostAndServers.name(), BYTES, &bytes(&stocks));
    if let Err(reason) = workers {
        report.failed(&case.name, OURS, &reason);
    } else {
        let added: Vec<f64> = split
            .iter()
            .zip(&solo)
            .map(|(ours, solo)| ours.time - solo.time)
            .collect();
        rows.row(OURS, TIME, &times(&split));
        rows.row_with_goal("ours - solo", TIME, &added, GOAL_TIME);
        rows.row_with_goal(OURS, BYTES, &bytes(&split), GOAL_BYTES);
        rows.row("ours again", TIME, &again);
        rows.row_with_goal("ours again - read", TIME, &beyond, GOAL_AGAIN);
    }
    Ok(())
}

/// Ours over workers that stay.
fn over(nodes: &Nodes, model: &Path, workers: &Workers) -> anyhow::Result<Load> {
    one(nodes, || {
        let served = Served::split(nodes, model, workers, &layers(nodes.count(), HOST))?;
        let time = served.started();
        served.stop()?;
        Ok(time)
    })
}

/// How long it takes to read all of a file.
fn read(model: &Path) -> io::Result<Duration> {
    let began = Instant::now();
    let mut file = File::open(model)?;
    let mut bytes = vec![0; READ_AT_ONCE];
    while file.read(&mut bytes)? > 0 {}
    Ok(began.elapsed())
}

fn one(nodes: &Nodes, load: impl FnOnce() -> anyhow::Result<Duration>) -> anyhow::Result<Load> {
    let before = nodes.traffic();
    let time = load()?;
    Ok(Load {
        time: time.as_secs_f64() * 1e3,
        bytes: (nodes.traffic() - before).payload as f64,
    })
}
