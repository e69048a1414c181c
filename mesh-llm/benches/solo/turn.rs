//! A second turn of a long chat: what is new of it should be all that is computed.

use super::bare::{Bare, BareOptions, Work};
use crate::support::arguments::Arguments;
use crate::support::client::Question;
use crate::support::daemon::{Daemon, DaemonOptions};
use crate::support::models::BenchModel;
use crate::support::prompts;
use crate::support::report::{Goal, Metric, Report};
use crate::support::variants::in_turn;

const FIRST_TOKEN: Metric = Metric::new("time to the first token", "ms");
const RATIO: Metric = Metric::new("time to the first token", "ratio");

/// The first token's time against that of the new tokens alone.
const GOAL: Goal = Goal::AtMost(1.1);

/// Holds the chat and its next turn.
const CONTEXT: u32 = 8192;

/// Words of the first turn: 4,000 tokens with what the template adds.
const FIRST_WORDS: usize = 3980;

/// Words of each second turn.
const SECOND_WORDS: usize = 64;

/// The only model with room for such a chat.
const MODEL: BenchModel = BenchModel::HalfBillion;

#[derive(Debug, Clone, Copy)]
enum Variant {
    Ours,
    Bare,
}

/// Measures several second turns after the same first one.
///
/// # Errors
/// Where an answer fails.
pub fn measure(arguments: &Arguments, report: &mut Report) -> anyhow::Result<()> {
    let mut case = report.case("second turn of a chat, 0.5B");
    let path = MODEL.path()?;
    let daemon = Daemon::start(&DaemonOptions::new(path.clone(), CONTEXT, 8))?;
    let mut bare = Bare::start(&BareOptions {
        model: path,
        context: CONTEXT,
        streams: 8,
    })?;

    let first = prompts::text(0, FIRST_WORDS);
    let answered = Question::new(MODEL, &first, 1).answer(&daemon.endpoint())?;
    let first_tokens = answered.usage().prompt_tokens;
    let reply = answered.text;
    let second_turn = |seed: usize| {
        let second = prompts::text(seed, SECOND_WORDS);
        Question::of_chat(MODEL, &[&first, &reply, &second], 2).answer(&daemon.endpoint())
    };
    // All second turns are equally long: each begins with a number of two digits. From the second on
    // they share with the one before what the template says between two messages.
    second_turn(10)?;
    let usage = second_turn(11)?.usage();
    let cached = usage.prompt_tokens_details.cached_tokens;
    let fresh = usage.prompt_tokens - cached;
    bare.run(Work::Continue { cached, fresh })?;

    let mut computed_again = Vec::new();
    let variants = [Variant::Ours, Variant::Bare];
    let times = in_turn(variants, arguments.amount(5, 15), |variant, repetition| {
        let time = match variant {
            Variant::Ours => {
                let answered = second_turn(12 + repetition)?;
                let cached = answered.usage().prompt_tokens_details.cached_tokens;
                computed_again.push(first_tokens.saturating_sub(cached) as f64);
                answered.time_to_first()
            }
            Variant::Bare => bare.run(Work::Continue { cached, fresh })?,
        };
        Ok::<f64, anyhow::Error>(time.as_secs_f64() * 1e3)
    })?;
    let of = |select: fn(&[f64; 2]) -> f64| times.iter().map(select).collect::<Vec<f64>>();
    case.row(
        "both",
        Metric::new("length of the chat", "tokens"),
        &[first_tokens as f64],
    );
    case.row(
        "both",
        Metric::new("new in the second turn", "tokens"),
        &[fresh as f64],
    );
    case.row("bare prefill of the new", FIRST_TOKEN, &of(|[_, bare]| *bare));
    case.row("mesh-llm", FIRST_TOKEN, &of(|[ours, _]| *ours));
    case.row(
        "mesh-llm",
        Metric::new("of the chat computed again", "tokens"),
        &computed_again,
    );
    case.row_with_goal("mesh-llm / bare", RATIO, &of(|[ours, bare]| ours / bare), GOAL);
    daemon.stop()
}
