//! Texts: which guesses are right, and how sure the source is of them.

use super::super::acceptance::Grade;

/// A small generator of random numbers, the same everywhere.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Begins at `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x1234_5678_9ABC_DEF1)
    }

    /// From 0 to 1.
    pub fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// How a source and the target agree.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Agreement {
    /// Always as likely; the source knows nothing of it.
    Even(f64),
    /// Runs in which nearly all is right, and runs in which half is, with this mean.
    Bursts(f64),
    /// With confidences that say how likely each guess is.
    Graded(f64),
    /// With confidences that are too high.
    Boasting(f64),
    /// Copied text, in long runs, and nothing else.
    Copied,
}

/// A guess of a source, should all before it be right.
#[derive(Debug, Clone, Copy)]
pub struct Guess {
    pub right: bool,
    pub grade: Grade,
}

/// One guess for each token; `None` where the source has none.
pub fn text(agreement: Agreement, tokens: usize, seed: u64) -> Vec<Option<Guess>> {
    let mut random = Random::new(seed);
    let mut run = 0_usize;
    let mut good = true;
    (0..tokens)
        .map(|_| match agreement {
            Agreement::Even(mean) => Some(Guess {
                right: random.unit() < mean,
                grade: Grade::of_probability(0.8),
            }),
            Agreement::Bursts(mean) => {
                // Half of what is wrong lies in the bad runs.
                if run == 0 {
                    good = !good;
                    run = 20 + (random.unit() * 60.0) as usize;
                }
                run -= 1;
                let miss = 1.0 - mean;
                let chance = if good { 1.0 - 0.4 * miss } else { 1.0 - 1.6 * miss };
                Some(Guess {
                    right: random.unit() < chance,
                    grade: Grade::of_probability(0.8),
                })
            }
            Agreement::Graded(mean) | Agreement::Boasting(mean) => {
                // Most guesses are sure, and a few are not.
                let miss = 1.0 - mean;
                let chance = if random.unit() < (2.0 * miss).min(1.0) {
                    let spread = random.unit();
                    1.0 - (0.1 + 0.8 * spread) * 0.5_f64.max(miss)
                } else {
                    1.0 - 0.25 * miss
                };
                let right = random.unit() < chance.clamp(0.0, 1.0);
                let said = if matches!(agreement, Agreement::Boasting(_)) {
                    1.0 - 0.3 * (1.0 - chance)
                } else {
                    chance
                };
                Some(Guess {
                    right,
                    grade: Grade::of_probability(said as f32),
                })
            }
            Agreement::Copied => {
                if run == 0 {
                    good = !good;
                    run = if good { 60 } else { 40 } + (random.unit() * 60.0) as usize;
                    if good {
                        run += 4;
                    }
                }
                run -= 1;
                good.then(|| Guess {
                    right: random.unit() < 0.98,
                    grade: Grade::of_match(8),
                })
            }
        })
        .collect()
}
