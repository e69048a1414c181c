//! What mesh-llm takes when it does nothing: time to start, memory, disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::support::arguments::Arguments;
use crate::support::client::Question;
use crate::support::daemon::{BINARY, Daemon};
use crate::support::models::BenchModel;
use crate::support::report::{Goal, Metric, Report};

const MEMORY: Metric = Metric::new("memory", "MB");
const SIZE: Metric = Metric::new("size", "MB");

const GOAL_START_MS: Goal = Goal::AtMost(1000.0);
const GOAL_MEMORY_MB: Goal = Goal::AtMost(40.0);
const GOAL_BINARY_MB: Goal = Goal::AtMost(60.0);

/// Starts it several times, each with an empty home.
///
/// # Errors
/// Where it does not start.
pub fn measure(arguments: &Arguments, report: &mut Report) -> anyhow::Result<()> {
    let mut case = report.case("footprint, tiny");
    let (mut starts, mut daemons, mut children) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..arguments.amount(3, 10) {
        let begin = Instant::now();
        let daemon = Daemon::start_plainly("tiny")?;
        Question::new(BenchModel::Tiny, "Hello!", 1).answer(&daemon.endpoint())?;
        starts.push(begin.elapsed().as_secs_f64() * 1e3);
        let memory = daemon.memory()?;
        daemons.push(memory.daemon as f64 / 1e6);
        children.push(memory.child as f64 / 1e6);
        daemon.stop()?;
    }
    case.row_with_goal(
        "mesh-llm --model tiny",
        Metric::new("start to first answer", "ms"),
        &starts,
        GOAL_START_MS,
    );
    case.row_with_goal("daemon, idle", MEMORY, &daemons, GOAL_MEMORY_MB);
    case.row("child with tiny, idle", MEMORY, &children);
    case.row("binary as built here", SIZE, &[megabytes(Path::new(BINARY))?]);
    let released = released();
    if released.exists() {
        case.row_with_goal(
            "binary of `just dist`",
            SIZE,
            &[megabytes(&released)?],
            GOAL_BINARY_MB,
        );
    } else {
        report.remark("the size of a released binary is measured after `just dist`");
    }
    Ok(())
}

/// Where `just dist` puts the binary.
fn released() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .unwrap_or(Path::new("target"));
    target.join("dist/dist/mesh-llm")
}

fn megabytes(path: &Path) -> anyhow::Result<f64> {
    Ok(fs::metadata(path)?.len() as f64 / 1e6)
}
