//! mesh-llm, measured through its API: alone, or split over workers.

use std::ffi::OsString;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::engine::{CONTEXT, Engine, PerToken, STREAMS};
use crate::lab::nodes::{HOST, Nodes};
use crate::lab::workers::Workers;
use crate::support::client::{Answered, LONGEST_SILENCE, Question};
use crate::support::daemon::{Daemon, DaemonOptions};
use crate::support::models::BenchModel;
use crate::support::prompts;
use crate::support::streams::{questions, rate, together};

/// Tokens that the template adds to a prompt, about.
const TEMPLATE_TOKENS: usize = 20;

/// A daemon on the host.
#[derive(Debug)]
pub struct Served {
    daemon: Daemon,
    started: Duration,
    /// Questions so far: each is another one, so that no cache helps.
    asked: usize,
}

impl Served {
    /// Starts one that computes everything itself.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn solo(nodes: &Nodes, model: &Path) -> anyhow::Result<Self> {
        Self::start(nodes, model, Vec::new())
    }

    /// Starts one over workers, with so many layers for each node in order; the head is the host's.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn split(nodes: &Nodes, model: &Path, workers: &Workers, layers: &[u32]) -> anyhow::Result<Self> {
        Self::start(nodes, model, workers.arguments(layers))
    }

    fn start(nodes: &Nodes, model: &Path, more: Vec<OsString>) -> anyhow::Result<Self> {
        let mut options = DaemonOptions::new(model.to_owned(), CONTEXT, STREAMS);
        options.more = more;
        options.more.extend(["--threads".into(), "1".into()]);
        // What guessing gains is `bench-spec`'s.
        options.more.extend(["--speculate".into(), "off".into()]);
        let began = Instant::now();
        let daemon = nodes.on(HOST, || Daemon::start(&options))?;
        Ok(Self {
            daemon,
            started: began.elapsed(),
            asked: 0,
        })
    }

    /// How long it took until it answered requests.
    pub fn started(&self) -> Duration {
        self.started
    }

    /// Ends it in order.
    ///
    /// # Errors
    /// Where it ended in disorder.
    pub fn stop(self) -> anyhow::Result<()> {
        self.daemon.stop()
    }

    /// A prompt of about so many tokens, and an answer of so many.
    fn question(&mut self, prompt_tokens: usize, tokens: usize) -> Question {
        self.asked += 1;
        let words = prompt_tokens.saturating_sub(TEMPLATE_TOKENS);
        Question::new(BenchModel::HalfBillion, &prompts::text(self.asked, words), tokens)
    }
}

impl Engine for Served {
    fn decode(&mut self, nodes: &Nodes, streams: usize, tokens: usize) -> anyhow::Result<f64> {
        self.asked += 1;
        let questions = questions(BenchModel::HalfBillion, streams, self.asked, tokens + 1);
        let endpoint = self.daemon.endpoint();
        let answers = nodes.as_client(|| together(&endpoint, &questions))?;
        Ok(1e3 / rate(&answers))
    }

    fn prefill(&mut self, nodes: &Nodes, tokens: usize) -> anyhow::Result<f64> {
        let question = self.question(tokens, 1);
        let endpoint = self.daemon.endpoint();
        let answered = nodes.as_client(|| question.answer(&endpoint))?;
        let usage = answered.usage();
        let computed = usage.prompt_tokens - usage.prompt_tokens_details.cached_tokens;
        Ok(answered.time_to_first().as_secs_f64() * 1e3 / computed as f64)
    }

    fn traffic(&mut self, nodes: &Nodes, prompt_tokens: usize, tokens: usize) -> anyhow::Result<PerToken> {
        // Those of the first tokens are not counted: their graph is sent.
        let skipped = 4;
        let question = self.question(prompt_tokens, skipped + tokens + 1);
        let endpoint = self.daemon.endpoint();
        nodes.as_client(|| {
            let mut stream = question.ask(&endpoint, Some(LONGEST_SILENCE))?;
            let mut answered = Answered::new(stream.sent());
            let mut ends = None;
            while let Some(event) = stream.next()? {
                answered.add(&event)?;
                if answered.pieces.len() > skipped {
                    let (_, last) = ends.get_or_insert_with(|| {
                        let before = (nodes.traffic(), answered.pieces.len());
                        (before, before)
                    });
                    if answered.pieces.len() > last.1 {
                        *last = (nodes.traffic(), answered.pieces.len());
                    }
                }
            }
            let (first, last) = ends.context("the answer was too short")?;
            // A piece may hold several tokens.
            let tokens_a_piece = answered.usage().completion_tokens as f64 / answered.pieces.len() as f64;
            Ok(PerToken::of(
                last.0 - first.0,
                (last.1 - first.1) as f64 * tokens_a_piece,
            ))
        })
    }
}
