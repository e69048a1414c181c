//! The bench itself: which cases are measured, and in which order.

mod case;
mod hopeless;
mod measure;
mod rows;
mod served;
mod texts;
mod variant;

use clap::Parser;

use crate::lab::nodes::Nodes;
use crate::lab::workers::Workers;
use crate::netlab::NetLab;
use crate::support::arguments::Arguments;
use crate::support::models::BenchModel;
use crate::support::report::Report;
use case::Case;
use served::{Models, Place, variables};
use variant::Variant;

/// Measures what guessing ahead gains.
#[derive(Debug, Parser)]
#[command(name = "bench-spec")]
struct Spec {
    #[command(flatten)]
    shared: Arguments,

    /// Measures fixed settings as well, and the policy against the best of them
    #[arg(long)]
    fixed: bool,
}

/// Measures what the command line names.
///
/// # Errors
/// Where this machine permits no netlab, or no worker starts.
pub fn main() -> anyhow::Result<()> {
    let Spec { shared, fixed } = Spec::parse();
    anyhow::ensure!(
        NetLab::available("bench-spec"),
        "bench-spec needs root, iproute2 and /dev/net/tun"
    );
    let mut cases = case::all();
    let names: Vec<String> = cases.iter().map(Case::name).collect();
    shared.check_parts(&names.iter().map(String::as_str).collect::<Vec<_>>())?;
    if shared.cases.is_empty() {
        cases.retain(|case| !shared.quick || case.is_quick());
    } else {
        cases.retain(|case| shared.wants_part(&case.name()));
    }

    let folder = tempfile::Builder::new().prefix("bench-spec").tempdir()?;
    let models = Models {
        target: BenchModel::Tiny.path()?,
        draft: BenchModel::TinyDraft.path()?,
        hopeless: hopeless::make(&BenchModel::TinyDraft.path()?, folder.path())?,
    };
    let mut report = Report::default();
    report.remark_on_load();
    for place in cases.chunk_by(|one, next| (one.nodes, one.step_ms) == (next.nodes, next.step_ms)) {
        let Case { nodes, step_ms, .. } = place[0];
        let nodes = Nodes::start(nodes)?;
        nodes.set_rtt(0);
        let workers = Workers::start(&nodes, &models.target, &variables(step_ms))?;
        let place_of = Place {
            nodes: &nodes,
            workers: &workers,
            models: &models,
            step_ms,
        };
        for case in place {
            nodes.set_rtt(case.rtt);
            let variants = Variant::all(fixed, case.nodes);
            let measured = measure::in_turn(&shared, &mut report, &place_of, case, &variants);
            rows::write(&mut report, case, &measured);
        }
    }
    report.print();
    shared.json.as_deref().map_or(Ok(()), |path| report.write(path))
}
