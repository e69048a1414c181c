//! Machines that hear late of each other, each of which does what its own plan says.
//!
//! Everything follows from a seed. First machines start, die, and lose sight of each other at random; then it is quiet.

mod act;
mod world;

use super::*;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeSet;
use world::World;

/// A few in the test suite; `SEEDS=10000` looks longer.
const SEEDS: u64 = 300;
/// Ticks in which anything may happen.
const UNREST: usize = 60;
/// Ticks after which nothing changes any more. A tick is the time in which half of what is told arrives.
const SETTLED: usize = 40;
/// Ticks for which that is looked at.
const QUIET: usize = 15;

/// What happens to a world in one tick.
fn disturb(world: &mut World, rng: &mut SmallRng) {
    let (one, other) = (rng.random_range(0..world.len()), rng.random_range(0..world.len()));
    match rng.random_range(0..24) {
        0 => world.start(one),
        1 => world.kill(one),
        2 => world.cut(one, other),
        3 => (0..world.len()).for_each(|other| world.cut(one, other)),
        4 => {
            let side: Vec<bool> = (0..world.len()).map(|_| rng.random()).collect();
            for a in 0..side.len() {
                (0..a)
                    .filter(|b| side[a] != side[*b])
                    .for_each(|b| world.cut(a, b));
            }
        }
        5 => world.mend_all(),
        _ => {}
    }
}

/// Everything that a seed brings, and what must hold in the end. Whatever must hold always, the world looks at itself.
fn run(seed: u64) -> Tally {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut world = World::new(seed);
    for _ in 0..UNREST {
        disturb(&mut world, &mut rng);
        world.tick();
    }
    world.mend_all();
    for _ in 0..SETTLED {
        world.tick();
    }
    let (facts, plans) = (world.facts(), world.plans());
    let first = plans.first().cloned().unwrap_or_default();
    assert!(
        plans.iter().all(|plan| *plan == first),
        "seed {seed}: they disagree: {plans:#?}"
    );
    assert_eq!(
        world.does(),
        is_done(&first),
        "seed {seed}: what is planned is not done"
    );
    for _ in 0..QUIET {
        world.tick();
        assert_eq!(
            (world.facts(), world.plans()),
            (facts.clone(), plans.clone()),
            "seed {seed}: it flaps"
        );
    }
    let mut tally = world.tally();
    for (model, placement) in &first {
        match placement {
            Placement::Alone(_) => tally.alone += 1,
            Placement::Split(_) => tally.split += 1,
            Placement::Waiting { .. } => assert!(
                !fits(&world.view(), &first, model),
                "seed {seed}: {model} would fit"
            ),
        }
    }
    tally
}

/// What came about in all worlds: a simulation in which nothing happens proves nothing.
#[derive(Debug, Default)]
struct Tally {
    alone: usize,
    split: usize,
    /// Leases that ended for one of a greater epoch.
    taken_over: usize,
    /// Hosts that were told of a greater epoch.
    stale: usize,
}

/// Who serves what by a plan: for each model its hosts and, of a group, its workers.
fn is_done(plan: &BTreeMap<String, Placement>) -> BTreeSet<(String, MachineId, Vec<MachineId>)> {
    let mut done = BTreeSet::new();
    for (model, placement) in plan {
        match placement {
            Placement::Alone(machines) => {
                done.extend(machines.iter().map(|id| (model.clone(), *id, Vec::new())));
            }
            Placement::Split(group) => {
                done.insert((model.clone(), group.host, group.workers.clone()));
            }
            Placement::Waiting { .. } => {}
        }
    }
    done
}

/// Whether a model that waits would fit on a machine that wants it, beside what is there. What groups take is not known, so
/// machines in groups do not count.
fn fits(view: &View, plan: &BTreeMap<String, Placement>, model: &str) -> bool {
    let need = |want: &Want| want.work.layers.iter().sum::<u64>() + want.work.head + want.beside;
    let wants: Vec<&Want> = view.wants.iter().filter(|want| want.model == model).collect();
    let whole = wants.iter().all(|want| want.wish == Wish::Whole);
    whole
        && wants.iter().any(|want| {
            let machine = view.machines.iter().find(|machine| machine.id == want.by);
            let in_group = plan.values().any(|placement| {
                matches!(placement, Placement::Split(group) if group.host == want.by || group.workers.contains(&want.by))
            });
            let has = |other: &&Want| {
                let placement = plan.get(&other.model);
                other.by == want.by && matches!(placement, Some(Placement::Alone(ids)) if ids.contains(&want.by))
            };
            let taken: u64 = view.wants.iter().filter(has).map(need).sum();
            !in_group && machine.is_some_and(|machine| taken + need(want) <= machine.memory)
        })
}

#[test]
fn machines_that_disagreed_come_to_one_plan_and_keep_it() {
    let seeds = std::env::var("SEEDS").map_or(SEEDS, |seeds| seeds.parse().expect("SEEDS is a number"));
    let mut all = Tally::default();
    for seed in 0..seeds {
        let tally = run(seed);
        all.alone += tally.alone;
        all.split += tally.split;
        all.taken_over += tally.taken_over;
        all.stale += tally.stale;
    }
    let counts = [all.alone, all.split, all.taken_over, all.stale];
    assert!(
        counts.iter().all(|count| *count > 0),
        "too little happened: {all:?}"
    );
    println!("{seeds} seeds: {all:?}");
}
