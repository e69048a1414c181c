//! A long prompt beside a running stream: how much of its speed the stream keeps.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use anyhow::Context;

use crate::support::arguments::Arguments;
use crate::support::client::{Answered, Question};
use crate::support::clock::Moment;
use crate::support::daemon::{Daemon, DaemonOptions};
use crate::support::http::Endpoint;
use crate::support::models::BenchModel;
use crate::support::prompts;
use crate::support::report::{Goal, Metric, Report};

const GOAL: Goal = Goal::AtLeast(0.5);

/// More than are ever generated: the stream is broken off.
const STREAM_TOKENS: usize = 4096;

const MODEL: BenchModel = BenchModel::HalfBillion;

/// What one long prompt did.
#[derive(Debug, Clone, Copy)]
struct Effect {
    /// The stream's tokens a second before it came.
    before: f64,
    /// While it was computed.
    during: f64,
    /// The longest wait for a token meanwhile, in milliseconds.
    longest_pause: f64,
    /// Tokens a second of the prompt.
    prefill: f64,
}

/// Measures several long prompts, each beside a stream of its own.
///
/// # Errors
/// Where an answer fails.
pub fn measure(arguments: &Arguments, report: &mut Report) -> anyhow::Result<()> {
    let words = arguments.amount(400, 3000);
    let mut case = report.case(format!("prompt of {words} words beside a stream, 0.5B"));
    let daemon = Daemon::start(&DaemonOptions::new(MODEL.path()?, 16384, 4))?;
    let endpoint = daemon.endpoint();
    let alone = Question::new(MODEL, &prompts::text(999, words), 1).answer(&endpoint)?;
    let alone_rate = alone.usage().prompt_tokens as f64 / alone.time_to_first().as_secs_f64();
    let mut effects = Vec::new();
    for repetition in 0..arguments.amount(2, 5) {
        effects.push(one(&endpoint, words, arguments.amount(32, 96), repetition)?);
    }
    let of = |select: fn(&Effect) -> f64| effects.iter().map(select).collect::<Vec<f64>>();
    case.row(
        "stream",
        Metric::new("rate before", "tokens/s"),
        &of(|effect| effect.before),
    );
    case.row(
        "stream",
        Metric::new("rate during", "tokens/s"),
        &of(|effect| effect.during),
    );
    case.row_with_goal(
        "stream",
        Metric::new("rate during / before", "ratio"),
        &of(|effect| effect.during / effect.before),
        GOAL,
    );
    case.row(
        "stream",
        Metric::new("longest pause during", "ms"),
        &of(|effect| effect.longest_pause),
    );
    case.row("prompt", Metric::new("rate alone", "tokens/s"), &[alone_rate]);
    case.row(
        "prompt",
        Metric::new("rate beside the stream", "tokens/s"),
        &of(|effect| effect.prefill),
    );
    daemon.stop()
}

fn one(endpoint: &Endpoint, words: usize, tokens_before: usize, repetition: usize) -> anyhow::Result<Effect> {
    let ends = AtomicBool::new(false);
    let (sender, tokens) = channel();
    thread::scope(|scope| {
        let question = Question::new(MODEL, &prompts::text(repetition, 12), STREAM_TOKENS);
        let ends = &ends;
        let stream = scope.spawn(move || follow(&question, endpoint, ends, &sender));
        let measured = beside(endpoint, words, tokens_before, repetition, &tokens);
        ends.store(true, Ordering::Relaxed);
        let times = stream.join().expect("the stream's client panicked")?;
        let (begin, end, prompt_tokens) = measured?;
        let before: Vec<Moment> = times.iter().copied().filter(|time| *time <= begin).collect();
        // The token before the prompt came is where the first wait beside it begins.
        let during: Vec<Moment> = times
            .iter()
            .copied()
            .filter(|time| *time <= end)
            .skip(before.len().saturating_sub(1))
            .collect();
        let pauses = during
            .windows(2)
            .map(|pair| pair[1].since(pair[0]).as_secs_f64() * 1e3);
        Ok(Effect {
            before: rate(&before)?,
            during: rate(&during)?,
            longest_pause: pauses.fold(0.0, f64::max),
            prefill: prompt_tokens as f64 / end.since(begin).as_secs_f64(),
        })
    })
}

/// Lets the stream run for some tokens, then asks; when that was, when the answer began, and how long
/// the prompt was.
fn beside(
    endpoint: &Endpoint,
    words: usize,
    tokens_before: usize,
    repetition: usize,
    tokens: &Receiver<()>,
) -> anyhow::Result<(Moment, Moment, usize)> {
    for _ in 0..tokens_before {
        tokens.recv().context("the stream ended")?;
    }
    let answered: Answered =
        Question::new(MODEL, &prompts::text(100 + repetition, words), 1).answer(endpoint)?;
    Ok((answered.sent, answered.first(), answered.usage().prompt_tokens))
}

/// Reads a stream until it is to end; when each event came. Tells of each.
fn follow(
    question: &Question,
    endpoint: &Endpoint,
    ends: &AtomicBool,
    sender: &Sender<()>,
) -> anyhow::Result<Vec<Moment>> {
    let mut stream = question.ask(endpoint, None)?;
    let mut times = Vec::with_capacity(STREAM_TOKENS);
    while !ends.load(Ordering::Relaxed) && stream.next()?.is_some() {
        times.push(Moment::now());
        // Nobody may be listening any more.
        let _ = sender.send(());
    }
    Ok(times)
}

/// Tokens a second of some times, a token each.
fn rate(times: &[Moment]) -> anyhow::Result<f64> {
    let (first, last) = times.first().zip(times.last()).context("no token came")?;
    Ok((times.len() - 1) as f64 / last.since(*first).as_secs_f64())
}
