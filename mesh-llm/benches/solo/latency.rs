//! From the moment that the child has chosen a token to its bytes at a client: through the daemon,
//! and directly from the child's socket. The difference is the daemon's share.

use anyhow::ensure;

use crate::support::arguments::Arguments;
use crate::support::client::{Answered, Question};
use crate::support::daemon::{Daemon, DaemonOptions};
use crate::support::models::BenchModel;
use crate::support::report::{Goal, Metric, Report};
use crate::support::statistics::percentile;
use crate::support::streams::{questions, together};
use crate::support::variants::in_turn;

const P50: Metric = Metric::new("p50", "ms");
const P99: Metric = Metric::new("p99", "ms");

const GOAL_MEDIAN_MS: Goal = Goal::AtMost(0.3);
const GOAL_P99_MS: Goal = Goal::AtMost(2.0);
const GOAL_SHARE_MS: Goal = Goal::AtMost(0.2);

#[derive(Debug, Clone, Copy)]
enum Variant {
    Direct,
    Daemon,
}

/// Milliseconds of one repetition.
#[derive(Debug, Clone, Copy)]
struct Latency {
    median: f64,
    p99: f64,
}

/// Measures one stream and a full house of both models.
///
/// # Errors
/// Where an answer fails, or the child does not tell when it chose its tokens.
pub fn measure(arguments: &Arguments, report: &mut Report) -> anyhow::Result<()> {
    for (model, tokens) in [
        (BenchModel::HalfBillion, arguments.amount(64, 256)),
        (BenchModel::Tiny, arguments.amount(512, 1024)),
    ] {
        let daemon = Daemon::start(&DaemonOptions::new(model.path()?, 16384, 8))?;
        for streams in [1, 8] {
            one(arguments, report, &daemon, model, streams, tokens)?;
        }
        daemon.stop()?;
    }
    Ok(())
}

fn one(
    arguments: &Arguments,
    report: &mut Report,
    daemon: &Daemon,
    model: BenchModel,
    streams: usize,
    tokens: usize,
) -> anyhow::Result<()> {
    let mut case = report.case(format!("latency {}, {streams} streams", model.name()));
    let (direct, through) = (daemon.child_endpoint()?, daemon.endpoint());
    together(&through, &questions(model, streams, 0, tokens / 4))?;
    let variants = [Variant::Direct, Variant::Daemon];
    let measured = in_turn(variants, arguments.amount(2, 5), |variant, repetition| {
        let (endpoint, seed) = match variant {
            Variant::Direct => (&direct, 2 * repetition + 1),
            Variant::Daemon => (&through, 2 * repetition + 2),
        };
        let questions = questions(model, streams, seed, tokens)
            .into_iter()
            .map(Question::traced);
        latency(&together(endpoint, &questions.collect::<Vec<_>>())?)
    })?;
    let of = |select: fn(&[Latency; 2]) -> f64| measured.iter().map(select).collect::<Vec<f64>>();
    case.row("direct from the child", P50, &of(|[direct, _]| direct.median));
    case.row("direct from the child", P99, &of(|[direct, _]| direct.p99));
    case.row_with_goal(
        "through the daemon",
        P50,
        &of(|[_, through]| through.median),
        GOAL_MEDIAN_MS,
    );
    case.row_with_goal(
        "through the daemon",
        P99,
        &of(|[_, through]| through.p99),
        GOAL_P99_MS,
    );
    let share = of(|[direct, through]| through.median - direct.median);
    case.row_with_goal("the daemon's share", P50, &share, GOAL_SHARE_MS);
    Ok(())
}

fn latency(answers: &[Answered]) -> anyhow::Result<Latency> {
    let pieces = answers.iter().flat_map(|answer| &answer.pieces);
    let milliseconds: Vec<f64> = pieces
        .flat_map(|piece| {
            piece
                .chosen
                .iter()
                .map(|chosen| piece.came.since(*chosen).as_secs_f64() * 1e3)
        })
        .collect();
    ensure!(
        !milliseconds.is_empty(),
        "the child does not tell when it chose its tokens"
    );
    Ok(Latency {
        median: percentile(&milliseconds, 0.5),
        p99: percentile(&milliseconds, 0.99),
    })
}
