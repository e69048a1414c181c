//! The bench itself: which cases there are, and in which order.

mod contenders;
mod decode;
mod engine;
mod loading;
mod prefill;
mod served;
mod stock;
mod traffic;

use clap::Parser;

use crate::netlab::NetLab;
use crate::support::arguments::Arguments;
use crate::support::report::Report;

/// Measures a split model against llama.cpp's own RPC and one node.
#[derive(Debug, Parser)]
#[command(name = "bench-split")]
struct Split {
    #[command(flatten)]
    shared: Arguments,
}

/// Numbers of nodes.
const NODES: [usize; 3] = [1, 2, 3];

/// Round-trip times in milliseconds.
const RTTS: [u64; 4] = [0, 5, 20, 80];

/// What is measured of a number of nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Decode,
    Streams,
    Prefill,
    Traffic,
    Load,
}

/// Of which the table has a part.
#[derive(Debug, Clone, PartialEq, Eq)]
struct CaseOf {
    kind: Kind,
    nodes: usize,
    rtt: u64,
    name: String,
}

/// All cases of so many nodes, in the order in which they are measured.
fn cases(nodes: usize) -> Vec<CaseOf> {
    let case = |kind, name: &str, rtt: u64| CaseOf {
        kind,
        nodes,
        rtt,
        name: format!("{name}-{nodes}-{rtt}"),
    };
    let mut cases = Vec::new();
    for rtt in RTTS {
        // Nothing is between one node.
        if nodes > 1 || rtt == 0 {
            cases.push(case(Kind::Decode, "decode", rtt));
        }
    }
    if nodes == 2 {
        cases.extend([20, 80].map(|rtt| case(Kind::Streams, "streams8", rtt)));
        cases.extend([0, 80].map(|rtt| case(Kind::Prefill, "prefill", rtt)));
        cases.push(CaseOf {
            name: "traffic-2".to_owned(),
            ..case(Kind::Traffic, "traffic", 0)
        });
        cases.push(case(Kind::Load, "load", 20));
    }
    cases
}

/// Measures what the command line names.
///
/// # Errors
/// Where this machine permits no netlab, or what is compared with cannot be measured.
pub fn main() -> anyhow::Result<()> {
    let arguments = Split::parse().shared;
    anyhow::ensure!(
        NetLab::available("bench-split"),
        "bench-split needs root, iproute2 and /dev/net/tun"
    );
    let all: Vec<CaseOf> = NODES.into_iter().flat_map(cases).collect();
    arguments.check_parts(&all.iter().map(|case| case.name.as_str()).collect::<Vec<_>>())?;
    let program = stock::program()?;
    let mut report = Report::default();
    report.remark_on_load();
    for nodes in NODES {
        let mut cases = cases(nodes);
        cases.retain(|case| arguments.wants_part(&case.name));
        if !cases.is_empty() {
            contenders::measure(&arguments, &mut report, &program, nodes, &cases)?;
        }
    }
    report.print();
    arguments
        .json
        .as_deref()
        .map_or(Ok(()), |path| report.write(path))
}
