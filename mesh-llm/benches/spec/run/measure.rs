//! Measures a case: each variant on a server of its own, in turn.

use std::time::{Duration, Instant};

use super::case::Case;
use super::served::Place;
use super::texts::Text;
use super::variant::Variant;
use crate::support::arguments::Arguments;
use crate::support::client::Answered;
use crate::support::http::Endpoint;
use crate::support::report::Report;
use crate::support::streams::{in_turns, rate_of_all};

/// Tokens of the answer before anything is measured.
const WARM_UP: usize = 8;

/// What one run of a variant showed.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    /// Tokens a second, of all streams.
    pub rate: f64,
    /// Guesses that were right, of those that were sent; none if none was.
    pub acceptance: Option<f64>,
    /// Windows in flight.
    pub depth: f64,
}

/// What all runs of a variant showed.
#[derive(Debug, Clone)]
pub struct Measured {
    /// Which.
    pub variant: Variant,
    /// One for each round.
    pub rounds: Vec<Figures>,
}

/// Measures all in turn. One that fails is left out: why is told where its row would be.
pub fn in_turn(
    arguments: &Arguments,
    report: &mut Report,
    place: &Place<'_>,
    case: &Case,
    variants: &[Variant],
) -> Vec<Measured> {
    let rounds = arguments.amount(1, case.rounds());
    let mut runs: Vec<Result<Vec<Figures>, String>> = variants.iter().map(|_| Ok(Vec::new())).collect();
    for _ in 0..rounds {
        for (variant, run) in variants.iter().zip(&mut runs) {
            if let Ok(figures) = run {
                match one(arguments, place, case, *variant) {
                    Ok(more) => figures.push(more),
                    Err(error) => *run = Err(format!("{error:#}")),
                }
            }
        }
    }
    let mut measured = Vec::new();
    for (variant, run) in variants.iter().zip(runs) {
        match run {
            Ok(rounds) => measured.push(Measured {
                variant: *variant,
                rounds,
            }),
            Err(reason) => report.failed(&case.name(), &variant.name(), &reason),
        }
    }
    measured
}

fn one(arguments: &Arguments, place: &Place<'_>, case: &Case, variant: Variant) -> anyhow::Result<Figures> {
    let daemon = place.serve(case, variant)?;
    let endpoint = daemon.endpoint();
    let figures = place.nodes.as_client(|| {
        // A question that is not asked again.
        Text::Facts
            .question(Text::Facts.count().1, WARM_UP)?
            .answer(&endpoint)?;
        if case.text == Text::Streams {
            at_once(arguments, case, variant, &endpoint)
        } else {
            in_a_row(arguments, case, variant, &endpoint)
        }
    })?;
    daemon.stop()?;
    Ok(figures)
}

/// All streams, each with one question after the other, so that all of them run for as long whatever guesses are worth.
fn at_once(
    arguments: &Arguments,
    case: &Case,
    variant: Variant,
    endpoint: &Endpoint,
) -> anyhow::Result<Figures> {
    let within = Duration::from_secs(arguments.amount(5, 10));
    let most = match variant {
        Variant::None => case.tokens_within(within),
        _ => usize::MAX,
    };
    let (streams, _) = case.text.count();
    let clients = in_turns(endpoint, streams, within, |number| {
        case.text.question(number, most)
    })?;
    let rate = rate_of_all(&clients)?;
    let answers: Vec<Answered> = clients.into_iter().flatten().collect();
    Ok(figures(rate, &answers))
}

/// One question after the other. Whole answers, so that their ends count as well as their beginnings; but
/// without guesses each token takes as long as any other, and a few show it.
fn in_a_row(
    arguments: &Arguments,
    case: &Case,
    variant: Variant,
    endpoint: &Endpoint,
) -> anyhow::Result<Figures> {
    let few = case.tokens_within(Duration::from_secs(arguments.amount(3, 5)));
    let within = Duration::from_secs(arguments.amount(8, 15));
    let (quick, full) = case.text.count();
    let mut answers = Vec::new();
    let mut tokens = 0;
    let began = Instant::now();
    for number in 0..arguments.amount(quick, full) {
        let most = match (case.text, variant) {
            (Text::Random, _) => few,
            (_, Variant::None) => few.saturating_sub(tokens),
            _ => usize::MAX,
        };
        // An answer of one token has no rate.
        if most < 2 || began.elapsed() > within {
            break;
        }
        let answered = case.text.question(number, most)?.answer(endpoint)?;
        tokens += answered.usage().completion_tokens;
        answers.push(answered);
    }
    let after_first = (tokens - answers.len()) as f64;
    let time: Duration = answers
        .iter()
        .map(|answered| answered.ended.since(answered.first()))
        .sum();
    Ok(figures(after_first / time.as_secs_f64(), &answers))
}

fn figures(rate: f64, answers: &[Answered]) -> Figures {
    let sum = |of: fn(&Answered) -> f64| answers.iter().map(of).sum::<f64>();
    let sent = sum(|answered| answered.guesses.sent as f64);
    let right = sum(|answered| answered.guesses.right as f64);
    let tokens = sum(|answered| answered.usage().completion_tokens as f64);
    let depth = sum(|answered| answered.guesses.windows.mean * answered.usage().completion_tokens as f64);
    Figures {
        rate,
        acceptance: (sent > 0.0).then(|| right / sent),
        depth: depth / tokens,
    }
}
