//! Several answers at once.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::client::{Answered, Question};
use super::clock::Moment;
use super::http::Endpoint;
use super::models::BenchModel;
use super::prompts;

/// Words of a prompt.
const PROMPT_WORDS: usize = 12;

/// So many questions, other ones for each seed.
pub fn questions(model: BenchModel, streams: usize, seed: usize, tokens: usize) -> Vec<Question> {
    let text = |stream| prompts::text(seed * streams + stream, PROMPT_WORDS);
    (0..streams)
        .map(|stream| Question::new(model, &text(stream), tokens))
        .collect()
}

/// Has so many clients ask at once, each in a thread of its own, by its number.
fn each<T: Send>(clients: usize, ask: impl Fn(usize) -> anyhow::Result<T> + Sync) -> anyhow::Result<Vec<T>> {
    thread::scope(|scope| {
        let ask = &ask;
        let threads: Vec<_> = (0..clients)
            .map(|client| scope.spawn(move || ask(client)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("a client panicked"))
            .collect()
    })
}

/// Asks all at once, each in a thread of its own.
///
/// # Errors
/// The first that a thread met.
pub fn together(endpoint: &Endpoint, questions: &[Question]) -> anyhow::Result<Vec<Answered>> {
    each(questions.len(), |client| questions[client].answer(endpoint))
}

/// Has so many clients ask, each one question after the other, until so much time has passed: their answers, by client.
///
/// # Errors
/// The first that a client met, and where there is no question of a number.
pub fn in_turns(
    endpoint: &Endpoint,
    clients: usize,
    within: Duration,
    question: impl Fn(usize) -> anyhow::Result<Question> + Sync,
) -> anyhow::Result<Vec<Vec<Answered>>> {
    let until = Instant::now() + within;
    each(clients, |client| {
        let mut answers = Vec::new();
        for number in (client..).step_by(clients) {
            answers.push(question(number)?.answer(endpoint)?);
            if Instant::now() >= until {
                break;
            }
        }
        Ok(answers)
    })
}

/// Tokens a second between two moments.
fn rate_between<'a>(answers: impl Iterator<Item = &'a Answered>, begin: Moment, end: Moment) -> f64 {
    let tokens: f64 = answers.map(|answer| answer.tokens_between(begin, end)).sum();
    tokens / end.since(begin).as_secs_f64()
}

/// Tokens a second of all clients while each of them had a question open.
///
/// # Errors
/// Where they never had all at once.
pub fn rate_of_all(clients: &[Vec<Answered>]) -> anyhow::Result<f64> {
    let first = clients.iter().filter_map(|answers| answers.first());
    let last = clients.iter().filter_map(|answers| answers.last());
    let begin = first.map(Answered::first).max();
    let end = last.map(Answered::last).min();
    let both = begin.zip(end).filter(|(begin, end)| begin < end);
    let (begin, end) = both.context("the clients never had answers at once")?;
    Ok(rate_between(clients.iter().flatten(), begin, end))
}

/// Tokens a second of all answers while all of them ran; over the whole time, where they never did.
pub fn rate(answers: &[Answered]) -> f64 {
    let first = answers.iter().map(Answered::first);
    let last = answers.iter().map(Answered::last);
    let all = first
        .clone()
        .max()
        .zip(last.clone().min())
        .filter(|(begin, end)| begin < end);
    let Some((begin, end)) = all.or_else(|| first.min().zip(last.max())) else {
        return 0.0;
    };
    rate_between(answers.iter(), begin, end)
}
