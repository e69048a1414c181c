//! What the policy never does, and what it does on a few rings.

use std::time::Duration;

use proptest::prelude::*;

use super::super::super::flow::{Costs, Flow, RingOf, Stage};
use super::*;

#[derive(Debug, Clone)]
struct Even {
    nodes: usize,
    fixed: f64,
    each: f64,
    between: f64,
}

impl Ring for Even {
    fn stage_seconds(&self, tokens: usize) -> Vec<f64> {
        vec![self.fixed + self.each * tokens as f64; self.nodes]
    }

    fn between_seconds(&self) -> f64 {
        self.between
    }

    fn most_windows(&self) -> usize {
        if self.nodes == 1 { 1 } else { 24 }
    }

    fn takes_turns(&self) -> bool {
        self.nodes == 1
    }
}

fn rings() -> impl Strategy<Value = Even> {
    (1_usize..5, 0.0..0.03_f64, 0.0001..0.03_f64, 0.0..0.2_f64).prop_map(|(nodes, fixed, each, between)| {
        Even {
            nodes,
            fixed,
            each,
            between: if nodes == 1 { 0.0 } else { between },
        }
    })
}

fn claims(streams: usize, groups: usize) -> Claims {
    Claims {
        streams,
        groups,
        steps_in_flight: 0,
        beside: streams.div_ceil(groups) - 1,
    }
}

const POLICY: Policy = Policy {
    most_window: 8,
    fixed: None,
};

/// A draft that takes its time and is never right.
const HOPELESS: Offer = Offer {
    likely: 0.0,
    seconds: 0.005,
};

/// One whose next token is right, and that has all of its guesses.
fn with_all(guesses: &[f32]) -> Stream<'_> {
    Stream {
        certain: true,
        guesses,
        reach: 1.0,
        windows_in_flight: 0,
        expected: guesses[0],
        draft_seconds: 0.0008,
        next_guess_seconds: None,
    }
}

proptest! {
    #[test]
    fn a_certain_token_leaves_and_nothing_empty_does(
        ring in rings(),
        (streams, groups) in (1_usize..9, 1_usize..9),
        certain: bool,
        guesses in prop::collection::vec(0.0..1.0_f32, 0..40),
        (reach, expected) in (0.0..1.0_f32, 0.0..1.0_f32),
        in_flight in 0_usize..24,
        draft_seconds in 0.0..0.01_f64,
        more: bool,
    ) {
        let stream = Stream {
            certain,
            guesses: &guesses,
            reach,
            windows_in_flight: if certain { 0 } else { in_flight },
            expected,
            draft_seconds,
            next_guess_seconds: more.then_some(draft_seconds),
        };
        match POLICY.decide(&ring, &claims(streams, groups.min(streams)), &stream) {
            Decision::Send(sent) => {
                prop_assert!(sent <= guesses.len() && sent + usize::from(certain) <= 8);
                prop_assert!(certain || sent > 0);
            }
            Decision::Wait => prop_assert!(more && guesses.len() < 8),
            Decision::Hold => prop_assert!(!certain),
        }
    }

    /// No plan is worse than none, by the formula that it is made by.
    #[test]
    fn no_plan_loses_by_its_own_model(
        ring in rings(),
        (streams, groups) in (1_usize..9, 1_usize..9),
        likely in 0.0..1.0_f32,
        seconds in 0.0..0.01_f64,
    ) {
        let plan = POLICY.plan(&ring, &claims(streams, groups.min(streams)), &Offer { likely, seconds });
        prop_assert!(plan.rate >= plan.rate_without);
        prop_assert!(plan.windows <= ring.most_windows() && plan.window <= 8);
    }
}

#[test]
fn where_all_streams_wait_for_a_look_at_a_draft_it_is_looked_at_less_often() {
    let ring = Even {
        nodes: 1,
        fixed: 0.03,
        each: 0.0,
        between: 0.0,
    };
    let looked_at = |streams, unobserved| POLICY.ahead(&ring, &claims(streams, 1), &HOPELESS, unobserved);
    assert_eq!((looked_at(1, 20), looked_at(8, 20)), (1, 0));
    assert_eq!(looked_at(8, 100), 1);
}

#[test]
fn what_is_hopeless_is_seldom_drafted_and_never_sent() {
    let ring = Even {
        nodes: 2,
        fixed: 0.015,
        each: 0.001,
        between: 0.02,
    };
    assert_eq!(POLICY.ahead(&ring, &claims(1, 1), &HOPELESS, 0), 0);
    assert_eq!(POLICY.ahead(&ring, &claims(1, 1), &HOPELESS, 50), 1);
    let stream = Stream {
        draft_seconds: 0.0,
        ..with_all(&[0.005; 8])
    };
    assert_eq!(POLICY.decide(&ring, &claims(1, 1), &stream), Decision::Send(0));
}

#[test]
fn guesses_that_pay_put_more_streams_into_fewer_steps_and_others_change_nothing() {
    let ring = Even {
        nodes: 2,
        fixed: 0.0147,
        each: 0.0003,
        between: 0.08,
    };
    let divide = |likely, seconds| POLICY.divide(&ring, 8, &Offer { likely, seconds }, 4);
    assert_eq!(divide(0.0, 0.0), Division::plain(4));
    assert_eq!(divide(0.7, 1.0), Division::plain(4));
    let good = divide(0.95, 0.001);
    assert!(good.guesses_pay && good.groups < 4, "{good:?}");
}

#[test]
fn a_longer_round_trip_takes_more_windows() {
    let windows = |between| {
        let ring = Even {
            nodes: 2,
            fixed: 0.015,
            each: 0.0,
            between,
        };
        POLICY
            .plan(
                &ring,
                &claims(1, 1),
                &Offer {
                    likely: 0.95,
                    seconds: 0.001,
                },
            )
            .windows
    };
    assert!(windows(0.0) < windows(0.02) && windows(0.02) < windows(0.08));
}

#[test]
fn streams_go_together_past_a_size_that_is_slow_by_itself() {
    let milliseconds = [
        (8, 17.3),
        (16, 18.8),
        (24, 25.8),
        (32, 31.3),
        (40, 37.1),
        (48, 35.8),
        (56, 27.8),
        (64, 31.2),
    ];
    let mut flow = Flow::new(1);
    for (step, (tokens, time)) in (0..).zip(milliseconds) {
        flow.sent(step, tokens);
        let stage = Stage { node: 0, queue: 0 };
        let time = Duration::from_secs_f64(time / 1e3);
        flow.computed(stage, step, Duration::ZERO, time);
        flow.returned(step, time);
    }
    let ring = RingOf {
        flow: &flow,
        costs: &Costs::default(),
        most_windows: 1,
        takes_turns: true,
    };
    let mut beside = 7;
    for _ in 0..8 {
        let claims = Claims {
            beside,
            ..claims(8, 1)
        };
        let stream = with_all(&[0.95; 7]);
        if let Decision::Send(guesses) = POLICY.decide(&ring, &claims, &stream) {
            beside += guesses;
        }
    }
    assert!(beside + 1 >= 56, "{} tokens", beside + 1);
}
