//! One machine against bare llama.cpp: `just bench-solo [--quick] [--json FILE] [CASE]…`.
//!
//! Clients talk to the real binary over HTTP; what llama.cpp does alone is measured by this program
//! started once more with `--bare`, which runs [`bare`]'s loop in a process of its own. The cases are
//! `decode`, `latency`, `crowd`, `turn`, `beside`, `footprint`, `dialects`, `library` and
//! `download`.

#[path = "../support/mod.rs"]
mod support;

mod bare;
mod beside;
mod crowd;
mod decode;
mod dialects;
mod download;
mod footprint;
mod latency;
mod library;
mod turn;

use clap::Parser;

use bare::BareOptions;
use support::arguments::Arguments;
use support::report::Report;

/// Measures mesh-llm on this machine against bare llama.cpp.
#[derive(Debug, Parser)]
#[command(name = "bench-solo")]
struct Solo {
    #[command(flatten)]
    shared: Arguments,

    /// Runs the bare loop: what this program starts itself as.
    #[arg(long, hide = true, value_name = "JSON")]
    bare: Option<String>,
}

type Measure = fn(&Arguments, &mut Report) -> anyhow::Result<()>;

const CASES: [(&str, Measure); 9] = [
    ("decode", decode::measure),
    ("latency", latency::measure),
    ("crowd", crowd::measure),
    ("turn", turn::measure),
    ("beside", beside::measure),
    ("footprint", footprint::measure),
    ("dialects", dialects::measure),
    ("library", library::measure),
    ("download", download::measure),
];

fn main() -> anyhow::Result<()> {
    let solo = Solo::parse();
    if let Some(options) = solo.bare {
        let options: BareOptions = serde_json::from_str(&options)?;
        return bare::serve(&options);
    }
    let arguments = solo.shared;
    for case in &arguments.cases {
        let known = CASES.map(|(name, _)| name);
        anyhow::ensure!(
            known.contains(&case.as_str()),
            "there is no case {case}, but {}",
            known.join(", ")
        );
    }
    let mut report = Report::default();
    for (name, measure) in CASES {
        if arguments.wants(name) {
            measure(&arguments, &mut report)?;
        }
    }
    report.print();
    arguments
        .json
        .as_deref()
        .map_or(Ok(()), |path| report.write(path))
}
