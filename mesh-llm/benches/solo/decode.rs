//! Decoding, against the bare loop: clients that stream from the daemon, and as many sequences in
//! a loop without clients.

use super::bare::{Bare, BareOptions, Work};
use super::prompts;
use crate::support::arguments::Arguments;
use crate::support::client::{Answered, Question};
use crate::support::clock::Moment;
use crate::support::daemon::{Daemon, DaemonOptions};
use crate::support::http::Endpoint;
use crate::support::models::BenchModel;
use crate::support::report::{Goal, Report};
use crate::support::variants::in_turn;

/// The share of the bare loop's speed that is to be left.
const GOAL: Goal = Goal::AtLeast(0.97);

/// Tokens that all streams share.
const CONTEXT: u32 = 8192;

/// Words of a prompt.
const PROMPT_WORDS: usize = 12;

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
    let daemon = Daemon::start(&DaemonOptions {
        model: path.clone(),
        context: CONTEXT,
        slots,
        queue: slots,
        variables: Vec::new(),
    })?;
    let mut bare = Bare::start(&BareOptions {
        model: path,
        context: CONTEXT,
        streams: slots,
    })?;

    let warm = together(&daemon.endpoint(), model, streams, 0, tokens / 4)?;
    let prompt_tokens = warm[0].usage().prompt_tokens;
    bare.run(Work::Decode {
        streams,
        prompt_tokens,
        tokens: tokens / 4,
    })?;

    let repetitions = arguments.amount(3, 5);
    let rates = in_turn(
        [Variant::Ours, Variant::Bare],
        repetitions,
        |variant, repetition| match variant {
            Variant::Ours => {
                let answers = together(&daemon.endpoint(), model, streams, repetition + 1, tokens)?;
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
    case.row(
        "bare llama_decode loop",
        "rate",
        "tokens/s",
        &of(|[_, bare]| *bare),
    );
    case.row("mesh-llm", "rate", "tokens/s", &of(|[ours, _]| *ours));
    case.row_with_goal(
        "mesh-llm / bare",
        "rate",
        "ratio",
        &of(|[ours, bare]| ours / bare),
        GOAL,
    );
    daemon.stop()
}

/// Asks in so many threads at once.
///
/// # Errors
/// The first that a thread met.
pub fn together(
    endpoint: &Endpoint,
    model: BenchModel,
    streams: usize,
    seed: usize,
    tokens: usize,
) -> anyhow::Result<Vec<Answered>> {
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..streams)
            .map(|stream| {
                let question = Question::new(
                    model,
                    &prompts::text(seed * streams + stream, PROMPT_WORDS),
                    tokens,
                );
                scope.spawn(move || question.answer(endpoint))
            })
            .collect();
        clients
            .into_iter()
            .map(|client| client.join().expect("a client panicked"))
            .collect()
    })
}

/// Tokens a second of all answers, while all of them ran.
fn rate(answers: &[Answered]) -> f64 {
    let all_began = answers
        .iter()
        .map(Answered::first)
        .max()
        .unwrap_or_else(Moment::now);
    let one_ended = answers.iter().map(Answered::last).min().unwrap_or(all_began);
    let tokens: f64 = answers
        .iter()
        .map(|answer| answer.tokens_between(all_began, one_ended))
        .sum();
    tokens / one_ended.since(all_began).as_secs_f64()
}
