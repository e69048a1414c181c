//! The events of several answers, taken as they come.

use std::future::poll_fn;
use std::task::{Context, Poll};

use super::super::engine::task::{Event, Events, Failure};

/// The running answers of one request, numbered from 0. Dropping it frees their slots.
#[derive(Debug)]
pub(super) struct Answers {
    // None once an answer is complete.
    running: Vec<Option<Events>>,
    // Whose turn it is, so that no answer starves another.
    turn: usize,
}

impl Answers {
    pub(super) fn new(running: Vec<Events>) -> Self {
        Answers {
            running: running.into_iter().map(Some).collect(),
            turn: 0,
        }
    }

    /// The next event of any answer; none when all are complete.
    pub(super) async fn next(&mut self) -> Option<(usize, Event)> {
        if self.running.iter().all(Option::is_none) {
            return None;
        }
        Some(poll_fn(|context| self.poll(context)).await)
    }

    /// An event that is there already.
    pub(super) fn ready(&mut self) -> Option<(usize, Event)> {
        let count = self.running.len();
        for offset in 0..count {
            let index = (self.turn + offset) % count;
            let Some(events) = &mut self.running[index] else {
                continue;
            };
            if let Ok(event) = events.try_recv() {
                return Some(self.taken(index, event));
            }
        }
        None
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<(usize, Event)> {
        let count = self.running.len();
        for offset in 0..count {
            let index = (self.turn + offset) % count;
            let Some(events) = &mut self.running[index] else {
                continue;
            };
            if let Poll::Ready(event) = events.poll_recv(context) {
                // Without its last event: the engine is gone.
                let event = event.unwrap_or_else(|| {
                    Event::Failed(Failure::Engine("it stopped in the middle of the answer".into()))
                });
                return Poll::Ready(self.taken(index, event));
            }
        }
        Poll::Pending
    }

    fn taken(&mut self, index: usize, event: Event) -> (usize, Event) {
        self.turn = (index + 1) % self.running.len();
        if matches!(event, Event::Done(_) | Event::Failed(_)) {
            self.running[index] = None;
        }
        (index, event)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::server::engine::task::{Finish, FinishReason, Piece, Speculated, Timings};

    fn text(text: &str) -> Event {
        Event::Text(Piece {
            text: text.into(),
            ..Piece::default()
        })
    }

    fn done() -> Event {
        Event::Done(Finish {
            reason: FinishReason::EndOfText,
            completion_tokens: 1,
            prompt_logprobs: Vec::new(),
            timings: Timings::default(),
            speculated: Speculated::default(),
        })
    }

    #[tokio::test]
    async fn answers_take_turns_and_end() {
        let (a, events_a) = mpsc::unbounded_channel();
        let (b, events_b) = mpsc::unbounded_channel();
        let mut answers = Answers::new(vec![events_a, events_b]);
        for event in [text("1"), text("2"), done()] {
            a.send(event).unwrap();
        }
        for event in [text("3"), done()] {
            b.send(event).unwrap();
        }
        let mut order = Vec::new();
        while let Some((index, _)) = answers.next().await {
            order.push(index);
        }
        assert_eq!(order, [0, 1, 0, 1, 0]);
        assert!(answers.ready().is_none());
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_has_failed() {
        let (sender, events) = mpsc::unbounded_channel();
        let mut answers = Answers::new(vec![events]);
        sender.send(text("1")).unwrap();
        drop(sender);
        assert!(matches!(answers.next().await, Some((0, Event::Text(_)))));
        assert!(matches!(answers.next().await, Some((0, Event::Failed(_)))));
        assert!(answers.next().await.is_none());
    }

    #[tokio::test]
    async fn dropping_the_answers_tells_the_engine() {
        let (sender, events) = mpsc::unbounded_channel::<Event>();
        drop(Answers::new(vec![events]));
        assert!(sender.is_closed());
    }
}
