//! Downloads a model, and tells how far it is: the user, and clients of the API that wait for it.

use super::report::Reporter;
use crate::engine::State;
use crate::models::fetch::{self, Phase, Progress};
use crate::models::{Library, Missing, Model, download};
use indicatif::{DecimalBytes, HumanDuration, ProgressBar, ProgressDrawTarget};
use llama_engine::server::options::LogFormat;
use std::time::Duration;
use tokio::sync::watch;

/// A log is told of a download every so many percent.
const LOG_STEP_PERCENT: u8 = 5;

/// Downloads the model that is to be served.
pub(super) async fn to_serve(
    library: &Library,
    missing: &Missing,
    state: &watch::Sender<State>,
    reporter: &Reporter,
) -> Result<Model, fetch::Error> {
    let model = missing.name();
    model_with(library, missing, reporter, |now| {
        state.send_replace(State::Downloading {
            model: model.clone(),
            percent: now.percent(),
            by: Vec::new(),
        });
    })
    .await
}

/// Downloads a model; `tell` is called with how far it is.
pub(super) async fn model_with(
    library: &Library,
    missing: &Missing,
    reporter: &Reporter,
    tell: impl Fn(Progress),
) -> Result<Model, fetch::Error> {
    let settings = download::Settings::from_env(&|name| std::env::var_os(name));
    let (progress, mut changes) = watch::channel(Progress::default());
    let mut report = Report::new(reporter, missing.name());
    tell(Progress::default());
    let fetched = fetch::fetch(library, missing, &settings, &progress);
    tokio::pin!(fetched);
    loop {
        tokio::select! {
            model = &mut fetched => {
                if let Ok(model) = &model {
                    report.done(model);
                }
                return model;
            }
            Ok(()) = changes.changed() => {
                let now = *changes.borrow_and_update();
                tell(now);
                report.progress(now);
            }
        }
    }
}

/// Tells the user of one download.
struct Report<'a> {
    reporter: &'a Reporter,
    model: String,
    /// Never drawn: it reckons rate and time left.
    pace: ProgressBar,
    told_step: Option<u8>,
    told_phase: Option<Phase>,
}

impl<'a> Report<'a> {
    fn new(reporter: &'a Reporter, model: String) -> Self {
        Self {
            reporter,
            model,
            pace: ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden()),
            told_step: None,
            told_phase: None,
        }
    }

    fn progress(&mut self, now: Progress) {
        let Some(percent) = now.percent() else {
            return;
        };
        if self.pace.length().is_none() {
            // What an earlier try left behind says nothing of the rate.
            self.pace.set_position(now.done_bytes);
            self.pace.reset_eta();
        }
        self.pace.set_length(now.total_bytes);
        self.pace.set_position(now.done_bytes);
        let new_phase = self.told_phase.replace(now.phase) != Some(now.phase);
        let terminal = self.reporter.is_terminal();
        let step = percent / LOG_STEP_PERCENT;
        if terminal {
            self.reporter.passing(&self.sentence(now, percent));
        } else if new_phase || self.told_step.is_none_or(|told| told < step) {
            self.told_step = Some(step);
            match self.reporter.format() {
                LogFormat::Text => self.reporter.note(&self.sentence(now, percent)),
                LogFormat::Json => tracing::info!(
                    model = self.model,
                    percent,
                    done_bytes = now.done_bytes,
                    total_bytes = now.total_bytes,
                    bytes_per_second = self.pace.per_sec() as u64,
                    "{}",
                    words(now.phase)
                ),
            }
        }
    }

    fn sentence(&self, now: Progress, percent: u8) -> String {
        let (model, words) = (&self.model, words(now.phase));
        let total = DecimalBytes(now.total_bytes);
        let mut sentence = format!("{words} {model}: {percent} % of {total}");
        let rate = self.pace.per_sec();
        if now.phase == Phase::Downloading && rate >= 1.0 {
            let left = Duration::from_secs(self.pace.eta().as_secs());
            let (rate, left) = (DecimalBytes(rate as u64), HumanDuration(left));
            sentence.push_str(&format!(", {rate}/s, {left} left"));
        }
        sentence
    }

    fn done(&self, model: &Model) {
        let path = model.path.display();
        match self.reporter.format() {
            LogFormat::Text => self.reporter.note(&format!("{} is in {path}", self.model)),
            LogFormat::Json => tracing::info!(model = self.model, path = %path, "downloaded"),
        }
    }
}

fn words(phase: Phase) -> &'static str {
    match phase {
        Phase::Checking => "asking for",
        Phase::Downloading => "downloading",
        Phase::Verifying => "checking",
        Phase::Waiting => "waiting for another mesh-llm that downloads",
    }
}
