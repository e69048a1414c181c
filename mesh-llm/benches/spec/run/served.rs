//! mesh-llm with the tiny model, alone or split over workers.

use std::path::PathBuf;

use llama_engine::server::options::STEP_DELAY_VARIABLE;

use super::case::Case;
use super::texts::{STREAMS, Text};
use super::variant::Variant;
use crate::lab::nodes::{HOST, Nodes};
use crate::lab::workers::Workers;
use crate::support::daemon::{Daemon, DaemonOptions, Variable};

/// Tokens of context of each stream, at least.
const CONTEXT: u32 = 1024;

/// Layers of the tiny model.
const LAYERS: u32 = 6;

/// The models.
#[derive(Debug)]
pub struct Models {
    /// It answers.
    pub target: PathBuf,
    /// It guesses.
    pub draft: PathBuf,
    /// It guesses wrong.
    pub hopeless: PathBuf,
}

/// Where daemons are started.
#[derive(Debug)]
pub struct Place<'a> {
    /// The machines.
    pub nodes: &'a Nodes,
    /// What runs on those that are no host.
    pub workers: &'a Workers,
    /// What is served.
    pub models: &'a Models,
    /// Milliseconds that a node's layers take longer for a step.
    pub step_ms: u64,
}

/// What makes a node's layers take so many milliseconds longer.
pub fn variables(step_ms: u64) -> Vec<Variable> {
    vec![(STEP_DELAY_VARIABLE, step_ms.to_string())]
}

impl Place<'_> {
    /// Starts a daemon on the host.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn serve(&self, case: &Case, variant: Variant) -> anyhow::Result<Daemon> {
        let Models {
            target,
            draft,
            hopeless,
        } = self.models;
        let draft = if case.text == Text::Random {
            hopeless
        } else {
            draft
        };
        let slots = STREAMS as u32;
        let mut options = DaemonOptions::new(target.clone(), CONTEXT * slots, slots);
        options.variables = variables(self.step_ms);
        options.more = vec!["--threads".into(), "1".into()];
        options.more.extend(variant.arguments(draft));
        if case.nodes > 1 {
            let share = LAYERS / case.nodes as u32;
            options
                .more
                .extend(self.workers.arguments(&vec![share; case.nodes]));
        }
        self.nodes.on(HOST, || Daemon::start(&options))
    }
}
