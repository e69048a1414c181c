//! Several answers at once.

use std::thread;

use super::client::{Answered, Question};
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

/// Asks all at once, each in a thread of its own.
///
/// # Errors
/// The first that a thread met.
pub fn together(endpoint: &Endpoint, questions: &[Question]) -> anyhow::Result<Vec<Answered>> {
    thread::scope(|scope| {
        let clients: Vec<_> = questions
            .iter()
            .map(|question| scope.spawn(move || question.answer(endpoint)))
            .collect();
        clients
            .into_iter()
            .map(|client| client.join().expect("a client panicked"))
            .collect()
    })
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
    let tokens: f64 = answers
        .iter()
        .map(|answer| answer.tokens_between(begin, end))
        .sum();
    tokens / end.since(begin).as_secs_f64()
}
