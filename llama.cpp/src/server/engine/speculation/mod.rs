//! Guessing what the model will choose, so that several tokens are computed at once, and windows of them
//! leave before earlier ones are verified.
//!
//! A slot's stream is one: what is certain, and guesses after it, from whichever source expects to be right
//! more often at that point. `lookup` copies from text that was there before, `drafter` is a small model on
//! a thread of its own, `heads` are layers of the model itself; `acceptance` learns how often they are right, `policy` decides what leaves when,
//! and `governor` looks whether all of that pays.
//! Verification is exact: the request's own sampler chooses from the model's row, and a guess is right if it
//! is what was chosen. So the answer is the one without guesses, token by token, sampled or not.

pub mod acceptance;
mod convex;
pub mod drafter;
pub mod governor;
pub mod heads;
mod lookup;
pub mod policy;
mod run;
#[cfg(test)]
mod simulator;

use std::collections::VecDeque;
use std::time::Instant;

use super::slot::{Sequence, Settled, SlotId};
use super::task::Speculated;
use crate::llama::Token;
use crate::server::guesses;
use acceptance::{Acceptance, Grade, RequestAcceptance, SourceKind};
use drafter::{Drafted, Drafter, Revision};
use heads::Guessed;
use lookup::{Copied, Cursor, Lookup};
use policy::Offer;

/// Of the draft model's chance to be wrong, what copied text may have: where it is copied, that one has to
/// follow.
const MUCH_SURER: f32 = 0.7;
/// Where there is a draft model, so many tokens must agree before anything is copied.
const LONG_MATCH: usize = 8;
/// Weight of the newest time that a draft took.
const SMOOTHING: f64 = 0.2;

/// A guess in a slot's stream.
#[derive(Debug, Clone, Copy)]
struct Guess {
    source: SourceKind,
    grade: Grade,
    likely: f32,
    sent: bool,
}

/// What the draft model, or the heads in its place, have of a slot's stream.
#[derive(Debug, Default)]
struct ModelDraft {
    revision: Revision,
    /// Tokens at the stream's beginning that it has as well.
    agreed: usize,
    /// Whether it goes on from the stream's end.
    following: bool,
    /// How long the stream may become by it.
    until: usize,
    /// Whether it has nothing to add for now.
    ended: bool,
    /// Whether it took much longer than expected, as with a long prompt, and is not waited for.
    late: bool,
    /// Tokens since one of its guesses was last seen to be wrong.
    unobserved: usize,
    /// Seconds that it takes for a token.
    seconds: Option<f64>,
    /// When it was asked for the next one.
    asked: Option<Instant>,
}

/// The guesses of one request.
#[derive(Debug)]
pub struct Guesses {
    acceptance: RequestAcceptance,
    /// Of the stream's guesses, in their order.
    guesses: VecDeque<Guess>,
    lookup: Lookup,
    cursor: Cursor,
    /// Follows what is certain, to see how often copying would have been right.
    shadow: Cursor,
    model: ModelDraft,
    /// What guesses beside copying: the draft model or heads.
    drafts: SourceKind,
    /// Whether copying is watched.
    copies: bool,
    counts: Speculated,
    /// Windows that left, and the sum of how many were on their way each time.
    left: u64,
    windows: u64,
}

fn copy_source(copied: Copied) -> SourceKind {
    if copied.predicted {
        SourceKind::Prediction
    } else {
        SourceKind::NGram
    }
}

impl Guesses {
    /// For a request that begins with `prompt` tokens, and may go on like `prediction`. What is not copied is
    /// guessed by `drafts`, lately in so many seconds for each guess.
    pub fn new(
        acceptance: RequestAcceptance,
        prediction: Vec<Token>,
        prompt: usize,
        copies: bool,
        drafts: SourceKind,
        seconds: Option<f64>,
    ) -> Self {
        Self {
            acceptance,
            guesses: VecDeque::new(),
            lookup: Lookup::new(prediction, prompt),
            cursor: Cursor::default(),
            shadow: Cursor::default(),
            model: ModelDraft {
                seconds,
                ..ModelDraft::default()
            },
            drafts,
            copies,
            counts: Speculated::default(),
            left: 0,
            windows: 0,
        }
    }

    /// What became of all guesses.
    pub fn counts(&self) -> Speculated {
        let mut counts = self.counts;
        counts.windows.mean = self.windows as f32 / self.left.max(1) as f32;
        counts
    }

    fn count(&mut self, source: SourceKind) -> &mut guesses::Guesses {
        &mut self.counts.guesses.0[source.index()]
    }

    /// A window with guesses left, and so many are on their way now.
    pub fn left(&mut self, in_flight: usize) {
        self.left += 1;
        self.windows += in_flight as u64;
        let most = &mut self.counts.windows.most;
        *most = (*most).max(in_flight as u32);
    }

    /// How likely each guess is that was not sent, if all before it are right.
    pub fn unsent(&self) -> Vec<f32> {
        let unsent = self.guesses.iter().filter(|guess| !guess.sent);
        unsent.map(|guess| guess.likely).collect()
    }

    /// How likely everything is right that was sent.
    pub fn reach(&self) -> f32 {
        let sent = self.guesses.iter().filter(|guess| guess.sent);
        sent.map(|guess| guess.likely).product()
    }

    /// Until the draft model has one more, if it is at work on that.
    pub fn next_guess(&self, sequence: &Sequence) -> Option<f64> {
        let at_work = self.model.following && !self.model.ended && self.model.until > sequence.stream().len();
        let at_work = at_work && !self.model.late;
        at_work.then(|| self.model.seconds.unwrap_or(0.0))
    }

    /// How often the draft model's guesses are right, of late, and what one costs; and for how many tokens
    /// none was seen to be wrong.
    pub fn model(&self) -> (Offer, usize) {
        let offer = Offer {
            likely: self.acceptance.expected(self.drafts),
            seconds: self.model.seconds.unwrap_or(0.0),
        };
        (offer, self.model.unobserved)
    }

    /// What copying offers.
    pub fn copying(&self) -> Offer {
        Offer {
            likely: self
                .acceptance
                .expected(SourceKind::NGram)
                .max(self.acceptance.expected(SourceKind::Prediction)),
            seconds: 0.0,
        }
    }

    /// Seconds that the draft model takes for a guess, once that is known.
    pub fn draft_seconds(&self) -> Option<f64> {
        self.model.seconds
    }

    /// What is to be expected of the guesses to come: more from where the last one came from, else from a draft model or
    /// heads, if there are any.
    pub fn outlook(&self, has_model: bool) -> Offer {
        let drafts = has_model.then_some(self.drafts);
        match self.guesses.back().map(|guess| guess.source).or(drafts) {
            Some(SourceKind::Model | SourceKind::Heads) => self.model().0,
            Some(copies @ (SourceKind::NGram | SourceKind::Prediction)) => Offer {
                likely: self.acceptance.expected(copies),
                seconds: 0.0,
            },
            None => Offer::NOTHING,
        }
    }

    /// Whether a guess is on its way that is only to show how good guesses are.
    pub fn is_probing(&self, sequence: &Sequence) -> bool {
        self.guesses.is_empty()
            && self.model.until == sequence.len() + 1
            && self.next_guess(sequence).is_some()
    }

    /// The draft model rests until it is asked again, unless it is not waited for: then it would never read a long
    /// prompt.
    pub fn rest(&mut self, slot: SlotId, drafter: &mut Drafter) {
        if self.model.following && self.model.until > 0 && !self.model.late {
            drafter.until(slot, 0);
            self.model.until = 0;
        }
    }

    /// The draft model is not waited for until it says something.
    pub fn note_late(&mut self) {
        self.model.late = true;
    }

    /// Adds guesses until there are `copies` of them by copying, or the draft model is at work on it where it is
    /// better; that one may go on until there are `drafts`.
    pub fn extend(
        &mut self,
        slot: SlotId,
        sequence: &mut Sequence,
        drafter: Option<&mut Drafter>,
        copies: usize,
        drafts: usize,
        now: Instant,
    ) {
        self.copy_ahead(sequence, copies, drafter.is_some() && drafts > 0);
        let Some(drafter) = drafter else { return };
        let until = sequence.len() + drafts;
        if drafts == 0 || sequence.stream().len() >= until {
            return;
        }
        let model = &mut self.model;
        if !model.following {
            model.revision.0 += 1;
            let tokens = sequence.stream()[model.agreed..].to_vec();
            drafter.follow(slot, model.revision, model.agreed, tokens, until);
            model.agreed = sequence.stream().len();
            model.following = true;
            model.ended = false;
            model.until = until;
            model.asked = Some(now);
        } else if model.until < until {
            if model.until <= sequence.stream().len() {
                model.asked = Some(now);
            }
            drafter.until(slot, until);
            model.until = until;
        }
    }

    /// The same with heads in place of a draft model. They guess when they are asked, each in so many seconds, and
    /// go on from their own guesses alone.
    pub fn extend_by_heads(&mut self, sequence: &mut Sequence, copies: usize, drafts: usize, seconds: f64) {
        self.copy_ahead(sequence, copies, drafts > 0);
        let model = &mut self.model;
        model.seconds = Some(seconds);
        if !model.following {
            model.ended = self.guesses.iter().any(|guess| guess.source != SourceKind::Heads);
            model.following = true;
        }
        model.until = sequence.len() + drafts;
    }

    /// What heads guess after the stream, if anything.
    pub fn guessed(&mut self, sequence: &mut Sequence, guessed: Option<Guessed>) {
        let Some(guessed) = guessed else {
            self.model.ended = true;
            return;
        };
        let grade = Grade::of_probability(guessed.probability);
        self.push(sequence, guessed.token, SourceKind::Heads, grade);
    }

    fn copy_ahead(&mut self, sequence: &mut Sequence, copies: usize, has_model: bool) {
        while sequence.guesses() < copies && self.copy(sequence, has_model) {}
    }

    fn push(&mut self, sequence: &mut Sequence, token: Token, source: SourceKind, grade: Grade) {
        sequence.guess(token);
        self.guesses.push_back(Guess {
            source,
            grade,
            likely: self.acceptance.likely(source, grade),
            sent: false,
        });
    }

    /// Whether there may be something to copy.
    pub fn can_copy(&mut self, sequence: &Sequence) -> bool {
        self.lookup.learn(&sequence.stream()[..sequence.len()]);
        let mut cursor = self.cursor;
        self.lookup.next(&mut cursor, sequence.stream()).is_some()
    }

    /// Copies one token, unless there is nothing to copy, or the draft model would be right more often.
    fn copy(&mut self, sequence: &mut Sequence, has_model: bool) -> bool {
        let before = self.cursor;
        let Some(copied) = self.lookup.next(&mut self.cursor, sequence.stream()) else {
            return false;
        };
        let source = copy_source(copied);
        let grade = Grade::of_match(copied.matched);
        let likely = self.acceptance.likely(source, grade);
        let model = self.acceptance.expected(self.drafts);
        let surer = 1.0 - likely < MUCH_SURER * (1.0 - model) && self.acceptance.expected(source) > model;
        if has_model && (copied.matched < LONG_MATCH || !surer) {
            self.cursor = before;
            return false;
        }
        self.push(sequence, copied.token, source, grade);
        self.model.following = false;
        true
    }

    /// The draft model's guess arrived `now`; `in_turn` with the model, if they never compute at once. One for
    /// another stream is worth nothing.
    pub fn drafted(&mut self, sequence: &mut Sequence, drafted: &Drafted, now: Instant, in_turn: bool) {
        let model = &mut self.model;
        // Where they take turns, the way there and back takes time as well.
        let asked = model.asked.replace(now).filter(|_| in_turn);
        let around = asked.map(|asked| now.saturating_duration_since(asked));
        if let Some(time) = drafted.time {
            let seconds = around.unwrap_or_default().max(time).as_secs_f64();
            let known = model.seconds.get_or_insert(seconds);
            *known += SMOOTHING * (seconds.min(2.0 * *known) - *known);
        }
        model.late = false;
        if !model.following
            || drafted.revision != model.revision
            || drafted.position != sequence.stream().len()
        {
            return;
        }
        let grade = Grade::of_probability(drafted.probability);
        self.push(sequence, drafted.token, SourceKind::Model, grade);
        self.model.agreed = sequence.stream().len();
    }

    /// The draft model has nothing to add to a stream.
    pub fn ended(&mut self, revision: Revision) {
        self.model.ended |= revision == self.model.revision;
    }

    /// So many more of the stream's guesses were sent.
    pub fn sent(&mut self, count: usize) {
        for guess in self.guesses.iter_mut().filter(|guess| !guess.sent).take(count) {
            guess.sent = true;
            self.counts.guesses.0[guess.source.index()].drafted += 1;
        }
    }

    /// The last so many that were sent were not, after all, and are dropped with all that follows.
    pub fn take_back(&mut self, count: usize) {
        let sent = self.guesses.iter().filter(|guess| guess.sent).count();
        for guess in self.guesses.drain(sent.saturating_sub(count)..) {
            if guess.sent {
                self.counts.guesses.0[guess.source.index()].drafted -= 1;
            }
        }
        self.diverge(usize::MAX);
    }

    /// The model chose `token`: what that says about the guesses, and about what copying would have said.
    pub fn settle(&mut self, sequence: &mut Sequence, token: Token, all: &mut Acceptance) -> Settled {
        let certain = sequence.len();
        let mut copied = None;
        if self.copies {
            self.lookup.learn(&sequence.stream()[..certain]);
            copied = self.lookup.next(&mut self.shadow, &sequence.stream()[..certain]);
        }
        let settled = sequence.settle(token);
        let guess = self.guesses.pop_front();
        self.model.unobserved += 1;
        let copied = copied.filter(|_| {
            guess.is_none_or(|guess| !matches!(guess.source, SourceKind::NGram | SourceKind::Prediction))
        });
        if let Some(copied) = copied {
            let grade = Grade::of_match(copied.matched);
            self.record(all, copy_source(copied), grade, copied.token == token);
        }
        if let Some(guess) = guess {
            let right = settled == Settled::Right;
            if guess.source == self.drafts && !right {
                self.model.unobserved = 0;
            }
            self.record(all, guess.source, guess.grade, right);
            if guess.sent {
                let count = self.count(guess.source);
                if right {
                    count.accepted += 1;
                } else {
                    count.wasted += 1;
                }
            }
        }
        match settled {
            Settled::Right => {
                if self.drafts == SourceKind::Heads {
                    // Now they can go on from what the model computed.
                    self.model.following = false;
                }
            }
            Settled::New => self.diverge(certain),
            Settled::Wrong { .. } => {
                self.waste();
                self.diverge(certain);
            }
        }
        settled
    }

    fn record(&mut self, all: &mut Acceptance, source: SourceKind, grade: Grade, right: bool) {
        self.acceptance.record(source, grade, right);
        all.record(source, grade, right);
    }

    /// The draft model's stream agrees with the slot's only that far.
    fn diverge(&mut self, from: usize) {
        self.model.agreed = self.model.agreed.min(from);
        self.model.following = false;
    }

    /// All guesses that are left come to nothing.
    pub fn waste(&mut self) {
        for guess in self.guesses.drain(..).filter(|guess| guess.sent) {
            self.counts.guesses.0[guess.source.index()].wasted += 1;
        }
    }

    /// The slot loses its cells: guesses are gone.
    pub fn lose_cache(&mut self) {
        self.waste();
        self.diverge(usize::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_nobody_guesses_no_guess_is_expected_to_be_right() {
        let acceptance = Acceptance::default().new_request();
        let guesses = Guesses::new(acceptance, Vec::new(), 10, true, SourceKind::Model, None);
        assert!(guesses.outlook(false).likely < 1e-6);
        assert!(guesses.outlook(true).likely > 0.5);
    }
}
