//! What the mesh promises, as seen from above.

use super::network::Network;
use super::{FIRST_BOOT, Noticed, World, id};
use crate::mesh::id::Boot;
use std::collections::BTreeSet;
use std::time::Duration;

/// The worst path of a mesh whose promises about time are kept.
const RTT: Duration = Duration::from_millis(20);

const SEEDS: u64 = 50;

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Nodes with a state each that know each other.
fn settled(seed: u64, count: usize) -> World {
    let mut world = World::new(seed, count, count, Network::new(seed, RTT));
    world.within(seconds(3), "all know each other", World::agrees);
    world
}

/// Kills node 0 at some time, for each seed.
fn kill_one_of(count: usize) {
    for seed in 0..SEEDS {
        // Signatures are slow without optimization.
        let speakers = usize::from(seed < 10);
        let mut world = World::new(seed, count, speakers, Network::new(seed, RTT));
        world.within(seconds(3), "all know each other", World::agrees);
        world.run_for(Duration::from_millis(500 + seed * 37));
        assert_eq!(world.deaths(), [], "seed {seed}");
        world.kill(0);
        world.within(seconds(3), "a killed node is absent", |world| world.is_absent(0));
        world.run_for(seconds(1));
        let others_died = world.deaths().into_iter().any(|death| death.of != 0);
        assert!(!others_died, "seed {seed}: {:?}", world.deaths());
    }
}

#[test]
fn a_killed_node_of_two_is_absent_within_three_seconds() {
    kill_one_of(2);
}

#[test]
fn a_killed_node_of_five_is_absent_within_three_seconds() {
    kill_one_of(5);
}

#[test]
fn a_killed_node_of_twenty_is_absent_within_three_seconds() {
    // To begin costs as much as 20 deaths: so these happen one after the other, to nodes that come back.
    for seed in 0..2 {
        let mut world = World::new(seed, 20, 1, Network::new(seed, RTT));
        world.within(seconds(3), "all know each other", World::agrees);
        for death in 1..=25 {
            // The last one is of the node whose state all know.
            let node = if death == 25 { 0 } else { death as usize % 19 + 1 };
            world.run_for(Duration::from_millis(500 + death * 37));
            let begin = world.now;
            world.kill(node);
            world.within(seconds(3), "a killed node is absent", |world| {
                world.is_absent(node)
            });
            let others_died = world
                .deaths()
                .into_iter()
                .any(|other| other.at > begin && other.of != node);
            assert!(!others_died, "seed {seed}: {:?}", world.deaths());
            world.start(node, Boot(FIRST_BOOT.0 + death));
            world.within(seconds(3), "it is back", World::agrees);
        }
    }
}

#[test]
fn both_sides_of_a_partition_agree_after_it_heals() {
    for (seed, count, island) in [(1, 2, 1), (2, 3, 1), (3, 5, 2)] {
        let mut world = settled(seed, count);
        world.network.cut_off(0..island);
        world.run_for(seconds(10));
        let crosses = |world: &World| world.run(0).sees(id(island)) || world.run(island).sees(id(0));
        assert!(!crosses(&world), "{}", world.describe());
        for node in 0..count {
            world.say(node);
        }
        world.run_for(seconds(60));
        world.network.heal();
        world.within(seconds(10), "both sides agree", World::agrees);
        world.run_for(seconds(30));
        assert!(world.agrees(), "{}", world.describe());
    }
}

#[test]
fn a_restarted_node_is_back_in_its_new_run() {
    for away in [Duration::from_millis(100), seconds(1), seconds(10)] {
        let mut world = settled(7, 4);
        world.kill(1);
        world.run_for(away);
        let boot = Boot(FIRST_BOOT.0 + 30_000);
        world.start(1, boot);
        world.within(seconds(2), "it is back", World::agrees);
        world.run_for(seconds(10));
        assert!(world.agrees(), "{}", world.describe());
        assert_eq!(
            world.run(1).state.boot,
            boot,
            "nothing of its last run costs it this one"
        );
    }
}

#[test]
fn a_node_whose_clock_fell_back_an_hour_is_back() {
    for away in [Duration::from_millis(100), seconds(1), seconds(10)] {
        let mut world = settled(8, 4);
        world.kill(1);
        world.run_for(away);
        world.start(1, Boot(FIRST_BOOT.0 - 3_600_000));
        world.within(seconds(3), "it is back", World::agrees);
        assert!(world.run(1).state.boot > FIRST_BOOT);
        world.run_for(seconds(10));
        assert!(world.agrees(), "{}", world.describe());
    }
}

#[test]
fn a_departed_node_does_not_come_back_by_rumours_in_an_hour() {
    let mut world = World::new(9, 3, 2, Network::new(9, RTT));
    world.tape = Some(Vec::new());
    world.within(seconds(3), "all know each other", World::agrees);
    world.say(1);
    world.run_for(seconds(2));
    // What others said of it while it was there. It itself can say nothing any more.
    let mut rumours = world.tape.take().unwrap();
    rumours.retain(|flight| flight.from != 1 && flight.to != 1);
    assert!(rumours.len() > 20);
    world.kill(1);
    world.within(seconds(3), "it is absent", |world| world.is_absent(1));
    let gone = world.now;
    for minute in 0..60 {
        for rumour in &rumours {
            world.replay(rumour);
        }
        world.run_for(seconds(60));
        assert!(world.is_absent(1), "minute {minute}: {}", world.describe());
    }
    assert_eq!(world.noticed(1, Noticed::Up, gone), []);
    assert!(world.agrees(), "{}", world.describe());
}

#[test]
fn a_removed_node_is_out_at_once_and_for_good() {
    let mut world = settled(11, 4);
    world.members.remove(&id(3));
    for node in 0..3 {
        let now = world.now;
        world.run_mut(node).membership.removed(now, id(3));
        world.drain(node);
    }
    let removed = world.now;
    assert!(world.is_absent(3));
    world.run_for(seconds(120));
    assert!(world.is_absent(3));
    assert_eq!(world.noticed(3, Noticed::Up, removed), []);
}

#[test]
fn the_loss_of_a_twentieth_of_all_packets_kills_nobody_in_ten_minutes() {
    for count in [2, 3, 5] {
        let mut world = World::new(12, count, 1, Network::new(12, RTT).with_loss(0.05));
        world.run_for(seconds(600));
        assert_eq!(world.deaths(), [], "of {count}");
        assert_eq!(
            world.run(0).state.boot,
            FIRST_BOOT,
            "of {count}: nobody is told that it is dead"
        );
        assert!(world.agrees(), "{}", world.describe());
    }
}

#[test]
fn a_slow_path_kills_nobody_once_it_is_measured() {
    let slow = Duration::from_millis(2_600);
    for loss in [0.0, 0.05] {
        let network = Network::new(13, RTT).with_slow(2, slow).with_loss(loss);
        let mut world = World::new(13, 4, 1, network);
        for node in 0..4 {
            let now = world.now;
            world.run_mut(node).membership.slowest_rtt(now, slow);
        }
        world.run_for(seconds(600));
        assert_eq!(world.deaths(), [], "loss {loss}");
        assert!(world.agrees(), "{}", world.describe());
    }
}

#[test]
fn five_hundred_nodes_agree_on_changes_within_ten_seconds_and_say_little() {
    const COUNT: usize = 500;
    const MOST_BYTES_A_SECOND: u64 = 20_000;
    let network = Network::new(14, RTT).with_loss(0.05);
    let mut world = World::new(14, COUNT, 20, network);
    world.within(seconds(10), "all know each other", World::agrees);
    // That all have met at once, which no mesh does, goes on to be told for a while.
    world.run_for(seconds(20));
    let met = world.now;
    let spend = |world: &mut World, what: &str, change: &dyn Fn(&mut World)| {
        world.bytes.fill(0);
        let begin = world.now;
        change(world);
        world.within(seconds(10), what, World::agrees);
        let agreed = world.now - begin;
        world.run_until(begin + seconds(10));
        let all = world.bytes.iter().sum::<u64>() / COUNT as u64 / 10;
        let most = world.bytes.iter().max().expect("there are nodes") / 10;
        println!("{what}: {agreed:?}, {all} bytes a second and node, {most} of one at most");
        assert!(all <= MOST_BYTES_A_SECOND, "{what}: {all}");
    };
    spend(&mut world, "nothing changes", &|_| {});
    spend(&mut world, "a state changes", &|world| world.say(3));
    spend(&mut world, "twenty states change", &|world| {
        (0..20).for_each(|node| world.say(node))
    });
    spend(&mut world, "a node dies", &|world| world.kill(7));
    spend(&mut world, "it comes back", &|world| {
        world.start(7, Boot(FIRST_BOOT.0 + 1))
    });
    spend(&mut world, "fifty die at once", &|world| {
        (100..150).for_each(|node| world.kill(node))
    });
    let deaths = world.deaths();
    let killed = |node| node == 7 || (100..150).contains(&node);
    let wrong = deaths.iter().filter(|death| death.at > met && !killed(death.of));
    let wrong: BTreeSet<usize> = wrong.map(|death| death.of).collect();
    assert_eq!(wrong, BTreeSet::new(), "nobody else is taken for dead");
}
