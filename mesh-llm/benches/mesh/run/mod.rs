//! The bench itself: which cases there are, and in which order.

mod asking;
mod dying;
mod idling;
mod joining;
mod machine;
mod splitting;
mod wait;

use std::time::Duration;

use clap::Parser;

use crate::netlab::NetLab;
use crate::support::arguments::Arguments;
use crate::support::report::Report;

/// Measures how machines join and leave, ask each other, and what it costs that they know each other.
#[derive(Debug, Parser)]
#[command(name = "bench-mesh")]
struct Mesh {
    #[command(flatten)]
    shared: Arguments,
}

/// Between all machines, but where nothing crosses the network in time.
const RTT: Duration = Duration::from_millis(20);

/// Numbers of nodes that do nothing.
const IDLE: [usize; 3] = [2, 5, 20];

/// How a case is measured.
type Measure = fn(&Arguments, &mut Report, &str) -> anyhow::Result<()>;

/// Measures what the command line names.
///
/// # Errors
/// Where this machine permits no netlab, or a case cannot be measured at all.
pub fn main() -> anyhow::Result<()> {
    let arguments = Mesh::parse().shared;
    anyhow::ensure!(
        NetLab::available("bench-mesh"),
        "bench-mesh needs root, iproute2 and /dev/net/tun"
    );
    let mut cases: Vec<(String, Measure)> = vec![
        ("join-20".to_owned(), joining::measure),
        ("death-3".to_owned(), dying::measure),
        ("ask-20".to_owned(), asking::measure),
        ("split-0".to_owned(), splitting::measure),
        ("split-20".to_owned(), splitting::measure),
    ];
    let idle = IDLE.map(|nodes| (format!("idle-{nodes}"), idling::measure as Measure));
    cases.extend(idle);
    arguments.check_parts(&cases.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>())?;
    let mut report = Report::default();
    report.remark_on_load();
    for (name, measure) in cases {
        // Starting the most nodes takes longest.
        let is_too_long = arguments.quick && name == format!("idle-{}", IDLE[IDLE.len() - 1]);
        if arguments.wants_part(&name) && !is_too_long {
            // The others are measured all the same.
            if let Err(error) = measure(&arguments, &mut report, &name) {
                report.failed(&name, "mesh", &format!("{error:#}"));
            }
        }
    }
    report.print();
    arguments
        .json
        .as_deref()
        .map_or(Ok(()), |path| report.write(path))
}
