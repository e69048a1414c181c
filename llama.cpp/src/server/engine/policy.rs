//! Which tokens go into the next step. Pure.
//!
//! Every running answer gets its token in every step. Prefill beside answers lives on credit: each
//! step with answers earns [`SHARE`] of the time that it takes without prefill, and a step with
//! prefill pays what it took longer. So answers keep at least half of their speed, whatever prefill
//! costs on this machine: steps are measured, not predicted. Prediction only sizes the pieces.

use std::time::Duration;

use super::slot::{SlotId, Want};

/// Of the time that an answer's step takes, what prefill may add on average; below 1, for what is
/// paid late.
const SHARE: f64 = 0.85;

/// Fewest prefill tokens beside answers: one at a time costs a step each.
const LEAST_PIECE: f64 = 8.0;

/// Pieces are so large that what a step with prefill costs at any rate is at most one part in this
/// many and one.
const EFFICIENCY: f64 = 3.0;

/// Debts above so many steps are forgotten: something else had the cores then.
const MOST_DEBT_STEPS: f64 = 20.0;

/// Weight of the newest measurement.
const SMOOTHING: f64 = 0.2;

/// What one slot gets in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// The slot.
    pub slot: SlotId,
    /// Tokens.
    pub tokens: usize,
}

/// Composes a step: `wants` are the slots that are not in flight, longest waiting first; `batch` is
/// the most tokens of a step, `most_answers` the most answers of it. Answers come first, prefill in the
/// order given.
pub fn compose(wants: &[(SlotId, Want)], batch: usize, most_answers: usize, costs: &StepCosts) -> Vec<Share> {
    let mut shares: Vec<Share> = wants
        .iter()
        .filter(|(_, want)| *want == Want::Decode)
        .take(batch.min(most_answers.max(1)))
        .map(|(slot, _)| Share {
            slot: *slot,
            tokens: 1,
        })
        .collect();
    let mut room = batch - shares.len();
    if !shares.is_empty() {
        room = room.min(costs.prefill_beside_answers());
    }
    for (slot, want) in wants {
        if let Want::Prefill(pending) = want
            && room > 0
        {
            let tokens = room.min(*pending);
            shares.push(Share { slot: *slot, tokens });
            room -= tokens;
        }
    }
    shares
}

/// What steps have cost lately, and what prefill may cost now.
#[derive(Debug, Clone, Default)]
pub struct StepCosts {
    /// Seconds of a step with answers only.
    decode_step: Option<f64>,
    /// What prefill adds to a step.
    added: Line,
    /// Seconds that prefill may take, or has taken too much.
    credit: f64,
    /// Steps with prefill beside answers so far.
    mixed_steps: u64,
}

impl StepCosts {
    /// Takes note of a step that took `time` with so many tokens of answers and of prompts.
    pub fn record(&mut self, answers: usize, prefill: usize, time: Duration) {
        let time = time.as_secs_f64();
        if prefill == 0 {
            blend(&mut self.decode_step, time);
        }
        let alone = if answers > 0 {
            self.decode_step.unwrap_or(time)
        } else {
            0.0
        };
        let added = (time - alone).max(0.0);
        if prefill > 0 {
            self.added.record(prefill as f64, added);
        }
        if answers > 0 {
            let paid = if prefill > 0 { added } else { 0.0 };
            self.mixed_steps += u64::from(prefill > 0);
            self.credit = (self.credit + SHARE * alone - paid).clamp(-MOST_DEBT_STEPS * alone, alone);
        }
    }

    /// Prefill tokens that may go beside running answers in the next step.
    fn prefill_beside_answers(&self) -> usize {
        if self.credit < 0.0 {
            return 0;
        }
        let affordable = self.credit / self.added.slope();
        let efficient = EFFICIENCY * self.added.intercept() / self.added.slope();
        let piece = affordable.max(efficient).max(LEAST_PIECE);
        // Pieces of one size would tell a point of the line, but not its slope.
        let piece = if self.mixed_steps.is_multiple_of(2) {
            piece
        } else {
            piece * 1.5
        };
        piece.min(1e6) as usize
    }
}

/// A value, smoothed. One slow step, when something else had the cores, must not change the picture:
/// it counts for at most twice the average.
fn blend(average: &mut Option<f64>, value: f64) {
    *average = Some(average.map_or(value, |old| old + SMOOTHING * (value.min(2.0 * old) - old)));
}

/// A straight line through recent points, by least squares.
#[derive(Debug, Clone, Default)]
pub(super) struct Line {
    weight: f64,
    x: f64,
    y: f64,
    xx: f64,
    xy: f64,
}

impl Line {
    pub(super) fn record(&mut self, x: f64, y: f64) {
        let y = if self.weight > 0.0 {
            y.min(4.0 * (self.intercept() + self.slope() * x))
        } else {
            y
        };
        let sums = [
            &mut self.weight,
            &mut self.x,
            &mut self.y,
            &mut self.xx,
            &mut self.xy,
        ];
        for (sum, new) in sums.into_iter().zip([1.0, x, y, x * x, x * y]) {
            *sum = *sum * (1.0 - SMOOTHING) + new;
        }
    }

    /// Never 0 or less, so that it can divide.
    fn slope(&self) -> f64 {
        let spread = self.weight * self.xx - self.x * self.x;
        let through_origin = self.y / self.x.max(1.0);
        let slope = if spread > 1e-6 * self.weight * self.xx {
            // An intercept below 0 means nothing here.
            ((self.weight * self.xy - self.x * self.y) / spread).min(through_origin)
        } else {
            through_origin
        };
        slope.max(1e-9)
    }

    /// The line's value.
    pub(super) fn at(&self, x: f64) -> f64 {
        self.intercept() + self.slope() * x
    }

    fn intercept(&self) -> f64 {
        if self.weight == 0.0 {
            return 0.0;
        }
        ((self.y - self.slope() * self.x) / self.weight).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn slots(wants: &[Want]) -> Vec<(SlotId, Want)> {
        wants
            .iter()
            .enumerate()
            .map(|(index, want)| (SlotId(index as u32), *want))
            .collect()
    }

    #[test]
    fn a_prompt_alone_fills_the_batch() {
        let shares = compose(&slots(&[Want::Prefill(1000)]), 512, 8, &StepCosts::default());
        assert_eq!(
            shares,
            [Share {
                slot: SlotId(0),
                tokens: 512
            }]
        );
    }

    /// A machine where a step takes `decode`, and with prefill so much more.
    struct Machine {
        decode: f64,
        fixed: f64,
        token: f64,
    }

    impl Machine {
        fn time(&self, prefill: usize) -> f64 {
            let added = if prefill > 0 {
                self.fixed + self.token * prefill as f64
            } else {
                0.0
            };
            self.decode + added
        }

        /// Steps that an answer takes while a prompt of `length` is computed beside it, and their time.
        fn prefill(&self, costs: &mut StepCosts, length: usize) -> (usize, f64) {
            let (mut left, mut steps, mut total) = (length, 0, 0.0);
            while left > 0 {
                let shares = compose(&slots(&[Want::Decode, Want::Prefill(left)]), 512, 8, costs);
                let prefill = shares.iter().skip(1).map(|share| share.tokens).sum();
                let time = self.time(prefill);
                costs.record(1, prefill, Duration::from_secs_f64(time));
                (left, steps, total) = (left - prefill, steps + 1, total + time);
                assert!(steps < 1_000_000, "the prompt starves");
            }
            (steps, total)
        }

        /// Steps without prefill until the last piece is paid for.
        fn repay(&self, costs: &mut StepCosts) -> usize {
            let mut steps = 0;
            while costs.credit < 0.0 {
                costs.record(1, 0, Duration::from_secs_f64(self.decode));
                steps += 1;
            }
            steps
        }

        fn warm(&self) -> StepCosts {
            let mut costs = StepCosts::default();
            (0..30).for_each(|_| costs.record(1, 0, Duration::from_secs_f64(self.decode)));
            costs
        }
    }

    #[test]
    fn where_a_mixed_step_costs_much_at_any_rate_pieces_are_large() {
        let machine = Machine {
            decode: 0.2e-3,
            fixed: 0.4e-3,
            token: 0.02e-3,
        };
        let (steps, _) = machine.prefill(&mut machine.warm(), 2000);
        assert!(steps < 1000, "{steps} steps for 2000 tokens");
    }

    #[test]
    fn one_slow_step_is_soon_forgotten() {
        let machine = Machine {
            decode: 10e-3,
            fixed: 1e-3,
            token: 1e-3,
        };
        let mut costs = machine.warm();
        let (before, _) = machine.prefill(&mut costs, 1000);
        costs.record(1, 8, Duration::from_secs(60));
        let (after, _) = machine.prefill(&mut costs, 1000);
        assert!(after < before + 60, "{before} steps before, {after} after");
    }

    fn any_want() -> impl Strategy<Value = Want> {
        prop_oneof![
            Just(Want::Nothing),
            Just(Want::Decode),
            (1_usize..5000).prop_map(Want::Prefill)
        ]
    }

    proptest! {
        #[test]
        fn answers_keep_half_of_their_speed_and_prompts_move_on(
            decode_us in 100.0..100_000.0_f64,
            fixed in 0.0..3.0_f64,
            token in 0.001..1.0_f64,
            length in 500_usize..4000,
        ) {
            let machine = Machine {
                decode: decode_us * 1e-6,
                fixed: decode_us * 1e-6 * fixed,
                token: decode_us * 1e-6 * token,
            };
            let mut costs = machine.warm();
            machine.prefill(&mut costs, length);
            let (steps, time) = machine.prefill(&mut costs, length);
            let repaid = machine.repay(&mut costs);
            let (answered, time) = ((steps + repaid) as f64, time + repaid as f64 * machine.decode);
            // A step's worth of credit may have been there at the start.
            let speed = (answered + 1.0) * machine.decode / time;
            prop_assert!(speed >= 0.5, "{speed} of its speed over {steps} steps and {repaid} that repay");
            let needed = length as f64 * machine.token / (SHARE * machine.decode);
            prop_assert!(steps as f64 <= 3.0 * needed + 0.5 * length as f64 + 50.0, "{steps} steps");
        }

        #[test]
        fn no_step_is_over_full_and_no_answer_is_left_out(
            wants in prop::collection::vec(any_want(), 0..64),
            batch in 64_usize..2048,
            steps in prop::collection::vec((0_usize..3, 0_usize..500, 0_u64..100_000), 0..30),
        ) {
            let mut costs = StepCosts::default();
            for (answers, prefill, time_us) in steps {
                costs.record(answers, prefill, Duration::from_micros(time_us));
            }
            let wants = slots(&wants);
            let shares = compose(&wants, batch, usize::MAX, &costs);
            prop_assert!(shares.iter().map(|share| share.tokens).sum::<usize>() <= batch);
            for (slot, want) in &wants {
                let tokens: Vec<usize> =
                    shares.iter().filter(|share| share.slot == *slot).map(|share| share.tokens).collect();
                match want {
                    Want::Nothing => prop_assert!(tokens.is_empty()),
                    Want::Decode => prop_assert_eq!(tokens, vec![1]),
                    Want::Prefill(pending) => {
                        prop_assert!(tokens.len() <= 1 && tokens.iter().all(|count| (1..=*pending).contains(count)))
                    }
                }
            }
            let wanted = wants.iter().any(|(_, want)| *want != Want::Nothing);
            prop_assert_eq!(wanted, !shares.is_empty());
        }
    }
}
