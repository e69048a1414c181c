//! 64 clients on 8 slots, each asking again as soon as it is answered.

use std::thread;
use std::time::{Duration, Instant};

use crate::support::arguments::Arguments;
use crate::support::client::{Answered, Question, is_timeout};
use crate::support::daemon::{Daemon, DaemonOptions};
use crate::support::http::Endpoint;
use crate::support::models::BenchModel;
use crate::support::prompts;
use crate::support::report::{Goal, Metric, Report};
use crate::support::statistics::median;

const MEMORY: Metric = Metric::new("memory", "MB");
const GROWTH: Metric = Metric::new("memory, last / first quarter", "ratio");

const CLIENTS: usize = 64;
const SLOTS: u32 = 8;

/// How much memory may grow from the first quarter of the time to the last: what a page here or there
/// comes to, not what a leak does.
const GOAL_GROWTH: Goal = Goal::AtMost(1.02);
const GOAL_FAIRNESS: Goal = Goal::AtMost(1.3);
const GOAL_ERRORS: Goal = Goal::AtMost(0.0);

/// How often memory is looked at.
const SAMPLE_EVERY: Duration = Duration::from_millis(250);

/// Words of a prompt.
const PROMPT_WORDS: usize = 24;

/// Measures both models.
///
/// # Errors
/// Where the daemon fails; what clients meet is a figure.
pub fn measure(arguments: &Arguments, report: &mut Report) -> anyhow::Result<()> {
    let tokens = arguments.amount(32, 64);
    one(arguments, report, BenchModel::HalfBillion, 2048, tokens)?;
    one(arguments, report, BenchModel::Tiny, 4096, 256)
}

/// With a context that is soon used everywhere: pages of it that are touched late look like a leak.
fn one(
    arguments: &Arguments,
    report: &mut Report,
    model: BenchModel,
    context: u32,
    tokens: usize,
) -> anyhow::Result<()> {
    let mut case = report.case(format!("{CLIENTS} clients on {SLOTS} slots, {}", model.name()));
    let daemon = Daemon::start(&DaemonOptions {
        model: model.path()?,
        context,
        slots: SLOTS,
        queue: CLIENTS as u32,
        more: Vec::new(),
        variables: Vec::new(),
    })?;
    let endpoint = daemon.endpoint();
    let time = Duration::from_secs(arguments.amount(10, 60));
    let mut memory = Vec::new();
    let results = run(&endpoint, model, tokens, time, || {
        memory.push(daemon.memory()?);
        Ok(())
    })?;

    let errors: Vec<&String> = results.iter().flat_map(|result| &result.errors).collect();
    let answers: Vec<&Answered> = results.iter().flat_map(|result| &result.answers).collect();
    case.row_with_goal(
        "mesh-llm",
        Metric::new("errors", "requests"),
        &[errors.len() as f64],
        GOAL_ERRORS,
    );
    case.row(
        "mesh-llm",
        Metric::new("answers", "requests"),
        &[answers.len() as f64],
    );
    let total: usize = answers
        .iter()
        .map(|answer| answer.usage().completion_tokens)
        .sum();
    case.row(
        "mesh-llm",
        Metric::new("rate of all", "tokens/s"),
        &[total as f64 / time.as_secs_f64()],
    );
    if !answers.is_empty() {
        let rates: Vec<f64> = answers.iter().map(|answer| answer.rate()).collect();
        case.row("mesh-llm", Metric::new("rate of a stream", "tokens/s"), &rates);
        let spread = Metric::new("rate", "ratio");
        case.row("fastest / slowest of the whole time", spread, &[ratio(&rates)]);
        case.row_with_goal(
            "fastest / slowest against those beside it",
            spread,
            &[ratio(&fairness(&answers))],
            GOAL_FAIRNESS,
        );
    }
    let of = |select: fn(&crate::support::daemon::Memory) -> u64| -> Vec<f64> {
        memory.iter().map(|memory| select(memory) as f64 / 1e6).collect()
    };
    let (of_daemon, of_child) = (of(|memory| memory.daemon), of(|memory| memory.child));
    for (variant, megabytes) in [("daemon", of_daemon), ("child", of_child)] {
        // What a first use allocates is no leak.
        let megabytes = &megabytes[megabytes.len() / 5..];
        let quarter = megabytes.len().div_ceil(4);
        let growth = median(&megabytes[megabytes.len() - quarter..]) / median(&megabytes[..quarter]);
        case.row(variant, MEMORY, megabytes);
        case.row_with_goal(variant, GROWTH, &[growth], GOAL_GROWTH);
    }
    if let Some(first) = errors.first() {
        report.remark(format!("the first of {} errors: {first}", errors.len()));
    }
    daemon.stop()
}

/// The rate of each answer against that of an average one while it ran: the machine's own speed changes
/// over the time, which is nobody's unfairness.
fn fairness(answers: &[&Answered]) -> Vec<f64> {
    let against_others = |answer: &&Answered| {
        let (mut tokens, mut seconds) = (0.0, 0.0);
        for other in answers {
            let (from, to) = (answer.first().max(other.first()), answer.last().min(other.last()));
            if from < to {
                tokens += other.tokens_between(from, to);
                seconds += to.since(from).as_secs_f64();
            }
        }
        answer.rate() * seconds / tokens
    };
    answers.iter().map(against_others).collect()
}

fn ratio(values: &[f64]) -> f64 {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    values.iter().copied().fold(0.0, f64::max) / least
}

/// What one client met.
#[derive(Debug, Default)]
struct Met {
    /// The answers that came whole.
    answers: Vec<Answered>,
    errors: Vec<String>,
}

/// Lets all clients ask for so long, calling `look` now and then.
fn run(
    endpoint: &Endpoint,
    model: BenchModel,
    tokens: usize,
    time: Duration,
    mut look: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<Vec<Met>> {
    let deadline = Instant::now() + time;
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| scope.spawn(move || ask_until(endpoint, model, client, tokens, deadline)))
            .collect();
        while Instant::now() < deadline {
            look()?;
            thread::sleep(SAMPLE_EVERY);
        }
        Ok(clients
            .into_iter()
            .map(|client| client.join().expect("a client panicked"))
            .collect())
    })
}

/// One client. What it waits for at the deadline it breaks off. It has had enough after an error: one
/// that asks again at once would take the cores from the others.
fn ask_until(endpoint: &Endpoint, model: BenchModel, seed: usize, tokens: usize, deadline: Instant) -> Met {
    let mut met = Met::default();
    for turn in 0.. {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        // Of different lengths, or all would end and begin together.
        let tokens = tokens * 3 / 4 + (seed * 37 + turn * 11) % (tokens / 2);
        let question = Question::new(model, &prompts::text(seed + turn * 1000, PROMPT_WORDS), tokens);
        match ask(&question, endpoint, left, deadline) {
            Ok(Some(answered)) => {
                met.answers.push(answered);
            }
            Ok(None) => break,
            Err(error) if is_timeout(&error) && Instant::now() >= deadline => break,
            Err(error) => {
                met.errors.push(format!("{error:#}"));
                break;
            }
        }
    }
    met
}

/// The answer, unless the deadline comes first.
fn ask(
    question: &Question,
    endpoint: &Endpoint,
    left: Duration,
    deadline: Instant,
) -> anyhow::Result<Option<Answered>> {
    let mut stream = question.ask(endpoint, Some(left))?;
    let mut events = Vec::with_capacity(512);
    while let Some(event) = stream.next()? {
        if Instant::now() >= deadline {
            return Ok(None);
        }
        events.push(event);
    }
    let mut answered = Answered::new(stream.sent());
    for event in &events {
        answered.add(event)?;
    }
    Ok(Some(answered))
}
