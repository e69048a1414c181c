//! Whether guessing pays as a whole, by what is measured. Pure.
//!
//! The policy predicts. What it does not know of costs time as well: threads that wake each other, caches that
//! two models share. Where tokens take much less time than a plain step does, guessing pays, whatever that is.
//! Where they do not, some tokens are chosen without guesses, and whoever is slower rests, longer each time.

use std::collections::BTreeMap;

/// Tokens of each stream that a measurement is made of.
const BLOCK: usize = 12;
/// Tokens that take less than this share of a plain step's time leave no doubt.
const NO_DOUBT: f64 = 0.7;
/// Of a plain token's time, what one with guesses may take.
const BETTER: f64 = 0.98;
/// Of a block's tokens, how many must have been guesses for it to say something about guessing.
const LEAST_GUESSES: f64 = 0.2;
/// Blocks without guesses after guessing was slower for the first time.
const FIRST_REST: u32 = 16;
/// And at most.
const LONGEST_REST: u32 = 256;
/// Blocks with guesses, where there is some doubt, until plain ones are measured again.
const RENEW: u32 = 32;
/// Weight of the newest measurement.
const SMOOTHING: f64 = 0.3;

/// What answers of so many streams do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// They guess, and do not look at what it would be otherwise for so many blocks.
    Guess(u32),
    /// They do not, for so many blocks.
    Rest(u32),
}

/// What is known of so many streams.
#[derive(Debug)]
struct Trial {
    mode: Mode,
    /// Seconds a token without guesses.
    plain: Option<f64>,
    /// How long the next rest is.
    rest: u32,
}

impl Default for Trial {
    fn default() -> Self {
        Self {
            mode: Mode::Guess(0),
            plain: None,
            rest: FIRST_REST,
        }
    }
}

/// Tokens that are being measured.
#[derive(Debug, Clone, Copy)]
struct Block {
    streams: usize,
    guessing: bool,
    /// When the last tokens of it were chosen, unless something else took time since.
    last: Option<f64>,
    seconds: f64,
    tokens: usize,
    guesses: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Governor {
    trials: BTreeMap<usize, Trial>,
    block: Option<Block>,
}

impl Governor {
    /// Whether so many streams guess now.
    pub fn allows(&self, streams: usize) -> bool {
        let trial = self.trials.get(&streams);
        trial.is_none_or(|trial| matches!(trial.mode, Mode::Guess(_)))
    }

    /// Something else took time.
    pub fn interrupt(&mut self) {
        if let Some(block) = &mut self.block {
            block.last = None;
        }
    }

    /// At `now`, in seconds, so many tokens were chosen of so many streams, and so many guesses were verified
    /// for that. A plain step takes `step` seconds.
    pub fn chosen(&mut self, streams: usize, tokens: usize, guesses: usize, now: f64, step: f64) {
        let guessing = self.allows(streams);
        let same = |block: &Block| block.streams == streams && block.guessing == guessing;
        let begun = Block {
            streams,
            guessing,
            last: None,
            seconds: 0.0,
            tokens: 0,
            guesses: 0,
        };
        let block = self.block.get_or_insert(begun);
        if !same(block) {
            *block = begun;
        }
        let Some(last) = block.last.replace(now) else {
            return;
        };
        block.seconds += now - last;
        block.tokens += tokens;
        block.guesses += guesses;
        if block.tokens < BLOCK * streams {
            return;
        }
        let done = *block;
        *block = Block {
            last: Some(now),
            ..begun
        };
        let seconds = done.seconds / done.tokens as f64;
        let trial = self.trials.entry(streams).or_default();
        if guessing {
            let said = done.guesses as f64 >= LEAST_GUESSES * done.tokens as f64;
            trial.guessed(seconds, said, step / streams as f64);
        } else {
            trial.rested(seconds);
        }
    }
}

impl Trial {
    fn guessed(&mut self, seconds: f64, said: bool, step: f64) {
        let Mode::Guess(certain) = self.mode else { return };
        if !said || certain > 0 {
            self.mode = Mode::Guess(certain.saturating_sub(1));
            return;
        }
        if seconds < NO_DOUBT * step {
            self.rest = FIRST_REST;
            return;
        }
        match self.plain {
            None => self.mode = Mode::Rest(1),
            Some(plain) if seconds <= BETTER * plain => {
                self.rest = FIRST_REST;
                self.plain = None;
                self.mode = Mode::Guess(RENEW);
            }
            Some(_) => {
                self.mode = Mode::Rest(self.rest);
                self.rest = (self.rest * 2).min(LONGEST_REST);
            }
        }
    }

    fn rested(&mut self, seconds: f64) {
        let known = self.plain.get_or_insert(seconds);
        *known += SMOOTHING * (seconds - *known);
        if let Mode::Rest(blocks) = self.mode {
            self.mode = match blocks.saturating_sub(1) {
                0 => Mode::Guess(0),
                left => Mode::Rest(left),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The time of so many tokens against that without guesses, where a token takes `guessed` or `plain` seconds.
    fn run(
        governor: &mut Governor,
        streams: usize,
        tokens: usize,
        guessed: f64,
        plain: f64,
        step: f64,
    ) -> f64 {
        let mut now = 0.0;
        governor.interrupt();
        for _ in 0..tokens / streams {
            let guessing = governor.allows(streams);
            now += streams as f64 * if guessing { guessed } else { plain };
            let guesses = if guessing { streams } else { 0 };
            governor.chosen(streams, streams, guesses, now, step);
        }
        now / (plain * tokens as f64)
    }

    #[test]
    fn what_is_clearly_faster_never_rests() {
        let mut governor = Governor::default();
        assert!(run(&mut governor, 1, 5_000, 0.01, 0.1, 0.1) < 0.101);
    }

    #[test]
    fn what_is_a_little_faster_goes_on() {
        let mut governor = Governor::default();
        assert!(run(&mut governor, 1, 20_000, 0.09, 0.1, 0.1) < 0.92);
    }

    #[test]
    fn guesses_that_the_policy_does_not_send_are_no_reason_to_rest() {
        let mut governor = Governor::default();
        for token in 0..1000 {
            governor.chosen(1, 1, 0, f64::from(token), 1.0);
            assert!(governor.allows(1));
        }
    }

    proptest! {
        #[test]
        fn however_slow_guessing_is_it_costs_little_in_the_end(
            slower in 1.0..3.0_f64,
            streams in 1_usize..9,
        ) {
            let mut governor = Governor::default();
            run(&mut governor, streams, 2_000 * streams, slower * 0.01, 0.01, 0.01 * streams as f64);
            let later = run(&mut governor, streams, 20_000 * streams, slower * 0.01, 0.01, 0.01 * streams as f64);
            prop_assert!(later < 1.0 / 0.97, "{later}");
        }
    }
}
