//! Which tokens go into the next step. Pure.
//!
//! Every running answer gets its token in every step. What prefill may add is bounded by time: while
//! answers run, a step takes at most [`MIXED_STEP_FACTOR`] times as long as without prefill, so that
//! they keep at least half of their speed. The costs come from measured steps.

use std::time::Duration;

use super::slot::{SlotId, Want};

/// How much longer than a step without prefill one with it may take; below 2, for measurements that
/// lag behind.
const MIXED_STEP_FACTOR: f64 = 1.85;

/// Prefill tokens beside running answers before anything was measured.
const FIRST_MIXED_CHUNK: usize = 8;

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
/// the most tokens of a step. Answers come first, prefill in the order given.
pub fn compose(wants: &[(SlotId, Want)], batch: usize, costs: &StepCosts) -> Vec<Share> {
    let mut shares: Vec<Share> = wants
        .iter()
        .filter(|(_, want)| *want == Want::Decode)
        .take(batch)
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

/// What steps have cost lately.
#[derive(Debug, Clone, Default)]
pub struct StepCosts {
    /// Seconds of a step with answers only.
    decode_step: Option<f64>,
    /// Seconds that a prefill token adds.
    prefill_token: Option<f64>,
}

impl StepCosts {
    /// Takes note of a step that took `time` with so many tokens of answers and of prompts.
    pub fn record(&mut self, answers: usize, prefill: usize, time: Duration) {
        let time = time.as_secs_f64();
        if prefill == 0 {
            blend(&mut self.decode_step, time);
        } else {
            let alone = if answers > 0 {
                self.decode_step.unwrap_or(0.0)
            } else {
                0.0
            };
            blend(&mut self.prefill_token, (time - alone).max(0.0) / prefill as f64);
        }
    }

    /// Prefill tokens that may go beside running answers: at least one, or prompts would starve.
    fn prefill_beside_answers(&self) -> usize {
        match (self.decode_step, self.prefill_token) {
            (Some(step), Some(token)) if token > 0.0 => {
                (step * (MIXED_STEP_FACTOR - 1.0) / token).max(1.0) as usize
            }
            _ => FIRST_MIXED_CHUNK,
        }
    }
}

/// One slow step, when something else had the cores, must not change the picture: a value counts for
/// at most twice the average.
fn blend(average: &mut Option<f64>, value: f64) {
    *average = Some(average.map_or(value, |old| old + SMOOTHING * (value.min(2.0 * old) - old)));
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
        let shares = compose(&slots(&[Want::Prefill(1000)]), 512, &StepCosts::default());
        assert_eq!(
            shares,
            [Share {
                slot: SlotId(0),
                tokens: 512
            }]
        );
    }

    #[test]
    fn beside_an_answer_a_prompt_gets_what_keeps_the_step_under_twice_its_time() {
        let mut costs = StepCosts::default();
        for _ in 0..50 {
            costs.record(1, 0, Duration::from_millis(20));
            costs.record(0, 100, Duration::from_millis(100));
        }
        let shares = compose(&slots(&[Want::Decode, Want::Prefill(1000)]), 512, &costs);
        assert_eq!(
            shares[0],
            Share {
                slot: SlotId(0),
                tokens: 1
            }
        );
        let added_ms = shares[1].tokens;
        assert!(
            (10..=20).contains(&added_ms),
            "{added_ms} ms of prefill in a step of 20 ms"
        );
    }

    #[test]
    fn a_cost_that_changes_is_followed_within_20_steps() {
        let mut costs = StepCosts::default();
        costs.record(0, 1, Duration::from_millis(1));
        (0..20).for_each(|_| costs.record(1, 0, Duration::from_millis(10)));
        assert!((7..=8).contains(&costs.prefill_beside_answers()));
        (0..20).for_each(|_| costs.record(1, 0, Duration::from_millis(40)));
        assert!(costs.prefill_beside_answers() > 30);
    }

    #[test]
    fn one_slow_step_changes_little() {
        let mut costs = StepCosts::default();
        (0..20).for_each(|_| {
            costs.record(1, 0, Duration::from_millis(20));
            costs.record(0, 100, Duration::from_millis(100));
        });
        let before = costs.prefill_beside_answers();
        costs.record(0, 100, Duration::from_secs(10));
        assert!(costs.prefill_beside_answers() * 10 >= before * 8);
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
        fn no_step_is_over_full_no_answer_is_left_out_and_there_is_always_progress(
            wants in prop::collection::vec(any_want(), 0..64),
            batch in 64_usize..2048,
            step_us in 1_u64..100_000,
            token_us in 0_u64..100_000,
        ) {
            let mut costs = StepCosts::default();
            costs.record(1, 0, Duration::from_micros(step_us));
            costs.record(0, 1, Duration::from_micros(token_us));
            let wants = slots(&wants);
            let shares = compose(&wants, batch, &costs);
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
            if let Some((slot, _)) = wants.iter().find(|(_, want)| matches!(want, Want::Prefill(_))) {
                prop_assert!(shares.iter().any(|share| share.slot == *slot), "the oldest prompt moves");
            }
        }
    }
}
