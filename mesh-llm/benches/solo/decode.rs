//! Decoding, against the bare loop: clients that stream from the daemon, and as many sequences in
//! a loop without clients.

use super::bare::{Bare, BareOptions, Work};
use crate::support::arguments::Arguments;
use crate::support::client::Answered;
use crate::support::daemon::{Daemon, DaemonOptions};
use crate::support::models::BenchModel;
use crate::support::report::{Goal, Metric, Report};
use crate::support::streams::{questions, rate, together};
use crate::support::variants::in_turn;

const RATE: Metric = Metric::new("rate", "tokens/s");
const LAST_TO_BEGIN: Metric = Metric::new("last stream's first token", "ms");
const RATIO: Metric = Metric::new("rate", "ratio");

/// The share of the bare loop's speed that is to be left.
const GOAL: Goal = Goal::AtLeast(0.97);

/// Tokens that all streams share.
const CONTEXT: u32 = 8192;

#[derive(Debug, Clone, Copy)]
enum Variant {
    Ours,
    Bare,
}

/// Measures all models and numbers of streams.
///
/// # Errors
/// Where an answer fails.
pub fn measure(arguments: &Arguments, report: &mut Report) -> anyhow::Result<()> {
    for (model, tokens) in [
        (BenchModel::HalfBillion, arguments.amount(64, 192)),
        (BenchModel::Tiny, arguments.amount(512, 768)),
    ] {
        for streams in [1, 8] {
            one(arguments, report, model, streams, tokens)?;
        }
    }
    Ok(())
}

fn one(
    arguments: &Arguments,
    report: &mut Report,
    model: BenchModel,
    streams: usize,
    tokens: usize,
) -> anyhow::Result<()> {
    let mut case = report.case(format!("decode {}, {streams} streams", model.name()));
    let slots = u32::try_from(streams)?;
    let path = model.path()?;
    let daemon = Daemon::start(&DaemonOptions::new(path.clone(), CONTEXT, slots))?;
    let mut bare = Bare::start(&BareOptions {
        model: path,
        context: CONTEXT,
        streams: slots,
    })?;

    let warm = together(&daemon.endpoint(), &questions(model, streams, 0, tokens / 4))?;
    let prompt_tokens = warm[0].usage().prompt_tokens;
    bare.run(Work::Decode {
        streams,
        prompt_tokens,
        tokens: tokens / 4,
    })?;

    let mut waits = Vec::new();
    let variants = [Variant::Ours, Variant::Bare];
    let rates = in_turn(
        variants,
        arguments.amount(3, 5),
        |variant, repetition| match variant {
            Variant::Ours => {
                let questions = questions(model, streams, repetition + 1, tokens);
                let answers = together(&daemon.endpoint(), &questions)?;
                waits.push(last_to_begin(&answers));
                Ok::<f64, anyhow::Error>(rate(&answers))
            }
            Variant::Bare => {
                let time = bare.run(Work::Decode {
                    streams,
                    prompt_tokens,
                    tokens,
                })?;
                Ok((streams * (tokens - 1)) as f64 / time.as_secs_f64())
            }
        },
    )?;
    let of = |select: fn(&[f64; 2]) -> f64| rates.iter().map(select).collect::<Vec<f64>>();
    case.row("bare llama_decode loop", RATE, &of(|[_, bare]| *bare));
    case.row("mesh-llm", RATE, &of(|[ours, _]| *ours));
    case.row_with_goal("mesh-llm / bare", RATIO, &of(|[ours, bare]| ours / bare), GOAL);
    case.row("mesh-llm", LAST_TO_BEGIN, &waits);
    daemon.stop()
}

/// Milliseconds until the last of all answers began.
fn last_to_begin(answers: &[Answered]) -> f64 {
    answers
        .iter()
        .map(|answer| answer.time_to_first().as_secs_f64() * 1e3)
        .fold(0.0, f64::max)
}
