//! Five hundred models in a store: found and read, and found again by the index.

use std::fs;
use std::time::Instant;

use anyhow::ensure;
use mesh_llm::models::inventory::{INDEX, inventory};
use mesh_llm::models::places::Places;

use crate::support::arguments::Arguments;
use crate::support::models::BenchModel;
use crate::support::report::{Goal, Metric, Report};

const MODELS: usize = 500;
const TIME: Metric = Metric::new("time", "ms");
const GOAL_COLD_MS: Goal = Goal::AtMost(1000.0);
const GOAL_INDEX_MS: Goal = Goal::AtMost(20.0);

/// Bytes of a file: its header and no weights, which nobody reads; the rest is a hole.
const HEADER_BYTES: usize = 1 << 20;

/// Lists a store without an index, and with one.
///
/// # Errors
/// Where files cannot be written, or models are not found.
pub fn measure(arguments: &Arguments, report: &mut Report) -> anyhow::Result<()> {
    let mut case = report.case(format!("a store of {MODELS} models"));
    let folder = tempfile::tempdir()?;
    let store = folder.path().join("store");
    fs::create_dir(&store)?;
    let model = fs::read(BenchModel::Tiny.path()?)?;
    for number in 0..MODELS {
        let path = store.join(format!("model-{number:03}-Q8_0.gguf"));
        fs::write(&path, &model[..HEADER_BYTES.min(model.len())])?;
        fs::File::options()
            .write(true)
            .open(&path)?
            .set_len(model.len() as u64)?;
    }
    let places = Places {
        store: Some(store),
        others: Vec::new(),
    };
    let index = folder.path().join(INDEX);
    let (mut cold, mut warm) = (Vec::new(), Vec::new());
    for _ in 0..arguments.amount(3, 10) {
        fs::remove_file(&index).ok();
        for times in [&mut cold, &mut warm] {
            let begin = Instant::now();
            let models = inventory(&places, Some(&index));
            times.push(begin.elapsed().as_secs_f64() * 1e3);
            let sound = models.iter().filter(|model| model.about.is_ok()).count();
            ensure!(sound == MODELS, "{sound} of {MODELS} models are sound");
        }
    }
    case.row_with_goal("without index", TIME, &cold, GOAL_COLD_MS);
    case.row_with_goal("with index", TIME, &warm, GOAL_INDEX_MS);
    Ok(())
}
