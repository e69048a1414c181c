//! What changes under way is followed within twenty steps.

use super::super::policy::PROBING;
use super::ring::{Left, Outcome, Stage, World, simulate};
use super::text::{Agreement, Random, text};
use super::{free, world};

/// The token at which something changes.
const CHANGE: usize = 400;
/// Windows that may leave before it is followed, once it can be known.
const STEPS: usize = 20;
/// Tokens after that in which it must be followed.
const AFTER: usize = 200;
/// What one stream did.
#[derive(Debug, Clone, Copy)]
struct Seen {
    /// Tokens a second.
    rate: f64,
    /// Tokens of a window.
    window: f64,
    /// Windows in flight when one left.
    depth: f64,
}

/// What was done with tokens from `from` on.
fn seen(outcome: &Outcome, from: usize) -> Seen {
    let since = outcome.windows.iter().position(|window| window.certain >= from);
    let windows = &outcome.windows[since.unwrap()..];
    let until = windows.iter().position(|window| window.certain >= from + AFTER);
    let windows = &windows[..=until.unwrap()];
    let (first, last) = (windows[0], windows[windows.len() - 1]);
    let mean = |of: fn(&Left) -> usize| windows.iter().map(of).sum::<usize>() as f64 / windows.len() as f64;
    Seen {
        rate: (last.certain - first.certain) as f64 / (last.seconds - first.seconds),
        window: mean(|window| window.tokens),
        depth: mean(|window| window.in_flight),
    }
}

fn run(world: &World) -> Outcome {
    simulate(world, free(8), world.groups(1), CHANGE + 800)
}

/// What changes under way.
#[derive(Debug, Clone, Copy)]
enum Change {
    /// How often guesses are right.
    Acceptance(f64, f64),
    /// Seconds once round the network.
    RoundTrip(f64, f64),
}

/// A ring, where a draft model is right so often, if that does not change.
#[derive(Debug, Clone, Copy)]
struct Place {
    nodes: usize,
    stage: Stage,
    round_trip: f64,
    likely: f64,
    draft: f64,
}

impl Place {
    fn world(self, seed: u64) -> World {
        let agreement = Agreement::Even(self.likely);
        let mut world = world(self.nodes, self.round_trip, self.stage, self.draft, 1, agreement);
        world.texts = vec![text(agreement, 20_000, seed)];
        world
    }
}

/// How far from what is always so it may be.
struct Tolerance {
    /// Tokens by which windows may be longer or shorter.
    window: f64,
    /// Part by which more or fewer may be in flight.
    depth: f64,
}

/// A ring that `change` happens to does, from the twentieth window on since it could be known, what one does that
/// was always so. How quick it is depends on where windows begin in a text as well: of that, where little is allowed, the
/// mean of a few counts.
fn assert_followed(place: Place, change: Change, seed: u64) {
    let (texts, least) = match change {
        Change::Acceptance(..) => (1, 0.8),
        Change::RoundTrip(..) => (3, 0.95),
    };
    let shares = (seed..seed + texts).map(|seed| share_of_rate(place, change, seed));
    let share = shares.sum::<f64>() / texts as f64;
    assert!(share >= least, "{share} with {change:?} at {place:?}, {seed}");
}

/// The part of the tokens a second that it has with one text, of which windows and depth are looked at.
fn share_of_rate(place: Place, change: Change, seed: u64) -> f64 {
    let mut always = place;
    match change {
        Change::Acceptance(_, after) => always.likely = after,
        Change::RoundTrip(_, after) => always.round_trip = after,
    }
    let always = always.world(seed);
    let mut changing = always.clone();
    match change {
        Change::Acceptance(before, _) => {
            let earlier = text(Agreement::Even(before), CHANGE, seed + 1);
            changing.texts[0][..CHANGE].copy_from_slice(&earlier);
        }
        Change::RoundTrip(before, after) => {
            changing.hops = vec![(CHANGE, before / 2.0), (usize::MAX, after / 2.0)];
        }
    }
    let changing = run(&changing);
    let (unaware, tolerance) = match change {
        Change::Acceptance(..) => {
            // A draft that was not worth its time is looked at as often as that allows.
            let looks = place.draft / (PROBING * place.stage.fixed * place.nodes as f64);
            // Averages are still on their way, and what is never right costs nothing on a ring that is idle.
            let (window, depth) = (1.5, 0.4);
            (looks as usize, Tolerance { window, depth })
        }
        Change::RoundTrip(..) => {
            // One of those that leave after it must have come back.
            let mut since = changing
                .windows
                .iter()
                .skip_while(|window| window.certain <= CHANGE);
            let (window, depth) = (1.0, 0.15);
            (since.next().unwrap().in_flight, Tolerance { window, depth })
        }
    };
    let mut since = changing
        .windows
        .iter()
        .skip_while(|window| window.certain <= CHANGE);
    let from = since.nth(unaware + STEPS).unwrap().certain;
    let (found, right) = (seen(&changing, from), seen(&run(&always), from));
    let what = format!("{change:?} at {place:?}, {seed}: {found:?}, not {right:?}");
    assert!((found.window - right.window).abs() <= tolerance.window, "{what}");
    assert!(
        (found.depth - right.depth).abs() <= tolerance.depth * right.depth,
        "{what}"
    );
    found.rate / right.rate
}

/// Places, and a number for each.
fn places() -> impl Iterator<Item = (Place, u64)> {
    let mut random = Random::new(29);
    (0..12).map(move |seed| {
        let mut between = |low: f64, high: f64| low + (high - low) * random.unit();
        let place = Place {
            nodes: between(1.0, 4.0) as usize,
            stage: Stage {
                fixed: between(0.005, 0.03),
                each: between(0.0, 0.001),
            },
            round_trip: between(0.0, 0.1),
            likely: between(0.6, 0.98),
            draft: between(0.0005, 0.002),
        };
        (place, 10 * seed)
    })
}

#[test]
fn guesses_that_become_worse_or_better_are_followed_within_twenty_steps() {
    for (place, seed) in places() {
        for (low, high) in [(0.0, 0.9), (0.3, 0.95), (0.6, 0.97), (0.0, 0.5)] {
            assert_followed(place, Change::Acceptance(high, low), seed);
            assert_followed(place, Change::Acceptance(low, high), seed);
        }
    }
}

#[test]
fn a_network_that_becomes_slower_or_quicker_is_followed_within_twenty_steps() {
    for (place, seed) in places().filter(|(place, _)| place.nodes > 1) {
        for (short, long) in [(0.0, 0.02), (0.0, 0.08), (0.02, 0.08), (0.05, 0.15)] {
            assert_followed(place, Change::RoundTrip(short, long), seed);
            assert_followed(place, Change::RoundTrip(long, short), seed);
        }
    }
}
