//! How likely a guess is right, learned from those that were. Pure.
//!
//! A source says how sure it is of a guess: its grade. What a grade is worth is learned over all
//! requests, slowly. A request begins there and learns faster, for one text is easy to guess and
//! another is not; what it saw lately moves all grades of a source together, for a change of text
//! changes them all.

use std::collections::VecDeque;

/// Grades of each source.
const GRADES: usize = 10;
/// Sources of guesses.
const SOURCES: usize = 4;
/// Upper ends of the grades of a model's probability.
const PROBABILITIES: [f32; GRADES - 1] = [0.2, 0.35, 0.5, 0.65, 0.78, 0.87, 0.93, 0.965, 0.985];
/// Upper ends of the grades of a match, in tokens.
const MATCHES: [usize; GRADES - 1] = [1, 2, 3, 4, 6, 9, 15, 31, 63];
/// What grades are taken for before anything was seen. A draft is as sure as this of what its target
/// says, a little less than of what it says itself.
const OF_PROBABILITY: [f32; GRADES] = [0.12, 0.27, 0.41, 0.55, 0.68, 0.78, 0.86, 0.91, 0.95, 0.97];
/// The same for copied text.
const OF_MATCH: [f32; GRADES] = [0.2, 0.35, 0.45, 0.55, 0.65, 0.75, 0.82, 0.88, 0.92, 0.95];
/// Observations that a first value counts for.
const FIRST_WEIGHT: f32 = 6.0;
/// Observations of a grade that all requests remember.
const MEMORY: f32 = 400.0;
/// Observations of a grade that a request remembers, what it began with included.
const MEMORY_OF_REQUEST: f32 = 60.0;
/// What all requests taught counts for so many observations of a request.
const TAUGHT: f32 = 10.0;
/// Observations that say how things are now.
const RECENT: usize = 40;
/// Weight of an observation against the next one.
const FADING: f32 = 0.93;
/// How sure it is, before anything was seen, that a request is like those before: in observations.
const LIKE_OTHERS: f32 = 0.35;
/// Nothing is surer than this, or less sure than what is left of it to 1.
const SUREST: f32 = 0.995;
/// Weight of the newest observation in the average.
const SMOOTHING: f32 = 0.06;
/// What is expected of a source of which nothing is known.
const UNKNOWN: f32 = 0.7;

/// Where a guess comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SourceKind {
    /// Text that was there before, found by the words before it.
    NGram,
    /// Text that the client predicted.
    Prediction,
    /// A draft model.
    Model,
    /// Heads inside the model.
    Heads,
}

impl SourceKind {
    /// All sources, in the order of their indices.
    pub const ALL: [Self; SOURCES] = [Self::NGram, Self::Prediction, Self::Model, Self::Heads];

    /// A number below the count of sources.
    pub fn index(self) -> usize {
        match self {
            Self::NGram => 0,
            Self::Prediction => 1,
            Self::Model => 2,
            Self::Heads => 3,
        }
    }
}

/// What a source says of a guess.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grade(u8);

impl Grade {
    /// Of a model's own probability of the guess.
    pub fn of_probability(probability: f32) -> Self {
        Self(PROBABILITIES.iter().filter(|end| probability > **end).count() as u8)
    }

    /// Of copied text: by so many tokens before it that match.
    pub fn of_match(tokens: usize) -> Self {
        Self(MATCHES.iter().filter(|end| tokens > **end).count() as u8)
    }
}

/// What a grade is worth.
#[derive(Debug, Clone, Copy)]
struct Cell {
    right: f32,
    seen: f32,
}

impl Cell {
    fn record(&mut self, right: bool, memory: f32) {
        let fade = 1.0 - 1.0 / memory;
        self.right = self.right * fade + f32::from(u8::from(right));
        self.seen = self.seen * fade + 1.0;
    }

    fn share(self) -> f32 {
        (self.right / self.seen).clamp(1.0 - SUREST, SUREST)
    }
}

type Table = [[Cell; GRADES]; SOURCES];

/// What all requests of an engine taught.
#[derive(Debug, Clone)]
pub struct Acceptance {
    table: Table,
    average: [f32; SOURCES],
}

impl Default for Acceptance {
    fn default() -> Self {
        let row = |shares: [f32; GRADES]| {
            shares.map(|share| Cell {
                right: share * FIRST_WEIGHT,
                seen: FIRST_WEIGHT,
            })
        };
        let table = SourceKind::ALL.map(|kind| match kind {
            SourceKind::NGram | SourceKind::Prediction => row(OF_MATCH),
            SourceKind::Model | SourceKind::Heads => row(OF_PROBABILITY),
        });
        Self {
            table,
            average: [UNKNOWN; SOURCES],
        }
    }
}

impl Acceptance {
    /// For a request that begins.
    pub fn new_request(&self) -> RequestAcceptance {
        let taught = |cell: Cell| Cell {
            right: cell.share() * TAUGHT,
            seen: TAUGHT,
        };
        RequestAcceptance {
            table: self.table.map(|row| row.map(taught)),
            lately: std::array::from_fn(|source| Lately::new(self.average[source])),
        }
    }

    /// Takes note of a guess before which all were right.
    pub fn record(&mut self, kind: SourceKind, grade: Grade, right: bool) {
        let source = kind.index();
        self.table[source][usize::from(grade.0)].record(right, MEMORY);
        let average = &mut self.average[source];
        *average += (f32::from(u8::from(right)) - *average) / MEMORY;
    }
}

/// What one request's guesses are worth.
#[derive(Debug, Clone)]
pub struct RequestAcceptance {
    table: Table,
    lately: [Lately; SOURCES],
}

impl RequestAcceptance {
    /// How likely a guess is right, if all before it are.
    pub fn likely(&self, kind: SourceKind, grade: Grade) -> f32 {
        let source = kind.index();
        let base = log_odds(self.table[source][usize::from(grade.0)].share());
        chance(base + self.lately[source].shift).clamp(1.0 - SUREST, SUREST)
    }

    /// How likely guesses of a source are right that it has yet to make.
    pub fn expected(&self, kind: SourceKind) -> f32 {
        self.lately[kind.index()].average.clamp(1.0 - SUREST, SUREST)
    }

    /// Takes note of a guess before which all were right, whether it was sent or not.
    pub fn record(&mut self, kind: SourceKind, grade: Grade, right: bool) {
        let source = kind.index();
        let cell = &mut self.table[source][usize::from(grade.0)];
        let base = log_odds(cell.share());
        cell.record(right, MEMORY_OF_REQUEST);
        self.lately[source].record(base, right);
    }
}

/// How a source did lately.
#[derive(Debug, Clone)]
struct Lately {
    /// Log-odds by grade, and whether it was right; newest first.
    seen: VecDeque<(f32, bool)>,
    /// What is added to the log-odds of all grades.
    shift: f32,
    average: f32,
}

impl Lately {
    fn new(average: f32) -> Self {
        Self {
            seen: VecDeque::with_capacity(RECENT + 1),
            shift: 0.0,
            average,
        }
    }

    fn record(&mut self, base: f32, right: bool) {
        self.average += SMOOTHING * (f32::from(u8::from(right)) - self.average);
        self.seen.push_front((base, right));
        self.seen.truncate(RECENT);
        // The likeliest shift, by Newton's method: it is a logistic regression of one weight.
        for _ in 0..3 {
            let (mut slope, mut bend, mut weight) = (-LIKE_OTHERS * self.shift, LIKE_OTHERS, 1.0);
            for (base, right) in &self.seen {
                let likely = chance(base + self.shift);
                slope += weight * (f32::from(u8::from(*right)) - likely);
                bend += weight * likely * (1.0 - likely);
                weight *= FADING;
            }
            // Where the curve is flat, a whole step would go too far.
            self.shift = (self.shift + (slope / bend).clamp(-1.5, 1.5)).clamp(-9.0, 9.0);
        }
    }
}

fn log_odds(chance: f32) -> f32 {
    (chance / (1.0 - chance)).ln()
}

fn chance(log_odds: f32) -> f32 {
    1.0 / (1.0 + (-log_odds).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(seen: usize, right: impl Fn(usize) -> bool) -> RequestAcceptance {
        let mut request = Acceptance::default().new_request();
        let grade = Grade::of_probability(0.9);
        (0..seen).for_each(|index| request.record(SourceKind::Model, grade, right(index)));
        request
    }

    #[test]
    fn twenty_observations_change_what_is_likely() {
        let sure = Grade::of_probability(0.9);
        let mut request = request(300, |index| index % 20 != 0);
        assert!(request.likely(SourceKind::Model, sure) > 0.88);
        (0..20).for_each(|_| request.record(SourceKind::Model, sure, false));
        assert!(request.likely(SourceKind::Model, sure) < 0.2);
        assert!(request.likely(SourceKind::Model, Grade::of_probability(0.99)) < 0.7);
        (0..20).for_each(|_| request.record(SourceKind::Model, sure, true));
        assert!(request.likely(SourceKind::Model, sure) > 0.8);
    }

    #[test]
    fn surer_guesses_are_likelier_and_longer_matches_too() {
        let request = Acceptance::default().new_request();
        let of = |probability| request.likely(SourceKind::Model, Grade::of_probability(probability));
        assert!(of(0.1) < of(0.4) && of(0.4) < of(0.8) && of(0.8) < of(0.999));
        let of = |tokens| request.likely(SourceKind::NGram, Grade::of_match(tokens));
        assert!(of(1) < of(3) && of(3) < of(12) && of(12) < of(100));
    }

    #[test]
    fn a_request_begins_at_what_others_taught() {
        let mut all = Acceptance::default();
        let sure = Grade::of_probability(0.99);
        (0..2000).for_each(|index| all.record(SourceKind::Model, sure, index % 2 == 0));
        let likely = all.new_request().likely(SourceKind::Model, sure);
        assert!((0.45..0.55).contains(&likely), "{likely}");
    }

    #[test]
    fn sources_do_not_teach_each_other() {
        let before = Acceptance::default().new_request();
        let after = request(100, |_| false);
        let grade = Grade::of_match(5);
        let (before, after) = (
            before.likely(SourceKind::NGram, grade),
            after.likely(SourceKind::NGram, grade),
        );
        assert!((before - after).abs() < 1e-6);
    }
}
