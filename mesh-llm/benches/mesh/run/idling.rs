//! What it costs that nodes know each other.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::RTT;
use super::machine::{Machine, Part, Start};
use crate::netlab::NetLab;
use crate::relay::Relay;
use crate::support::arguments::Arguments;
use crate::support::report::{Metric, Report};

const SENT: Metric = Metric::new("sent by each node, idle", "bytes/s");
const PACKETS: Metric = Metric::new("sent by each node, idle", "packets/s");
const BUSY: Metric = Metric::new("CPU of each daemon, idle", "% of a core");

/// After everybody has met everybody, until all have told each other all.
const SETTLES: Duration = Duration::from_secs(5);

/// What the kernel counts time of processes in, for programs.
const TICKS_A_SECOND: f64 = 100.0;

/// Measures so many nodes as the case's name says, without a relay and with one that they don't need.
///
/// # Errors
/// Where they do not find each other.
pub fn measure(arguments: &Arguments, report: &mut Report, name: &str) -> anyhow::Result<()> {
    let count = name
        .rsplit('-')
        .next()
        .context("the name has a number")?
        .parse()?;
    for (variant, is_relayed) in [("no relay", false), ("a relay nearby", true)] {
        // The last host is the relay's.
        let lab = NetLab::start(count + 1)?;
        lab.set_rtt(RTT);
        let relay = is_relayed.then(|| Relay::start(&lab, count)).transpose()?;
        let measured = idle(arguments, &lab, count, relay.as_ref())?;
        let mut rows = report.case(name);
        rows.row(variant, SENT, &measured.bytes);
        rows.row(variant, PACKETS, &measured.packets);
        rows.row(variant, BUSY, &measured.busy);
    }
    Ok(())
}

/// A value for each node.
#[derive(Debug, Default)]
struct Measured {
    bytes: Vec<f64>,
    packets: Vec<f64>,
    busy: Vec<f64>,
}

fn idle(
    arguments: &Arguments,
    lab: &NetLab,
    count: usize,
    relay: Option<&Relay>,
) -> anyhow::Result<Measured> {
    let (first, token) = Machine::found(lab, 0, "same", relay)?;
    let mut machines = vec![first];
    for host in 1..count {
        let start = Start {
            relay,
            ..Start::new(host, Part::Serves("same"), Some(&token))
        };
        let machine = Machine::start(lab, start)?;
        // One after the other: all at once they would wait for a core, and be thought dead.
        machine.until_others(host)?;
        machines.push(machine);
    }
    for machine in &machines {
        machine.until_others(count - 1)?;
    }
    thread::sleep(SETTLES);
    let sent = |host: usize| {
        let mut all = crate::netlab::Traffic::default();
        for to in 0..=count {
            all += lab.traffic(host, to);
        }
        all
    };
    let before: Vec<_> = (0..count).map(sent).collect();
    let busy_before = busy(&machines)?;
    let began = Instant::now();
    thread::sleep(Duration::from_secs(arguments.amount(10, 30)));
    let seconds = began.elapsed().as_secs_f64();
    let mut measured = Measured::default();
    for (host, before) in before.into_iter().enumerate() {
        let sent = sent(host) - before;
        measured.bytes.push(sent.bytes as f64 / seconds);
        measured.packets.push(sent.packets as f64 / seconds);
    }
    for (after, before) in busy(&machines)?.into_iter().zip(busy_before) {
        measured.busy.push((after - before) / seconds * 100.0);
    }
    Ok(measured)
}

/// Seconds that each daemon has computed so far; its engine is another process.
fn busy(machines: &[Machine<'_>]) -> anyhow::Result<Vec<f64>> {
    let seconds = |machine: &Machine<'_>| {
        let stat = fs::read_to_string(format!("/proc/{}/stat", machine.process()))?;
        // The program's name may have spaces and ends with the last parenthesis.
        let (_, fields) = stat.rsplit_once(')').context("no name in stat")?;
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks: f64 = ticks.map(|ticks| ticks.parse::<f64>().unwrap_or(0.0)).sum();
        anyhow::Ok(ticks / TICKS_A_SECOND)
    };
    machines.iter().map(seconds).collect()
}
