//! Anything in any order.

use super::lab::{Lab, QUIET};
use super::parts::{node_id, number};
use crate::mesh::core::Part;
use crate::mesh::id::Role;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use std::time::Duration;

const MOST: usize = 8;

const SEEDS: u64 = 60;

const STEPS: usize = 25;

/// Joins, kicks, deaths, restarts and broken paths, and after a while the same at all that belong.
fn run(seed: u64) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut lab = Lab::new();
    let mut joined = 1;
    for _ in 0..STEPS {
        let running: Vec<usize> = lab.nodes.keys().copied().collect();
        let any = |rng: &mut SmallRng| running[rng.random_range(0..running.len())];
        match rng.random_range(0..10) {
            0..3 if joined < MOST => {
                let by = any(&mut rng);
                let role = if rng.random_bool(0.7) {
                    Role::Node
                } else {
                    Role::Worker
                };
                if lab.core(by).role() == Some(Role::Node) {
                    let token = lab.invite(by, role);
                    lab.start(joined, Part::Server, Some(&token));
                    joined += 1;
                }
            }
            3..5 => {
                let (by, whom) = (any(&mut rng), any(&mut rng));
                let governs = lab.core(by).role() == Some(Role::Node);
                let known = lab.core(by).members().iter().any(|it| it.node == node_id(whom));
                if whom != 0 && by != whom && governs && known {
                    lab.kick(by, whom);
                }
            }
            5..7 => lab.cut(rng.random_range(0..MOST), rng.random_range(0..MOST)),
            7 => lab.mend(rng.random_range(0..MOST), rng.random_range(0..MOST)),
            8 => {
                let node = any(&mut rng);
                if lab.is_in(node) {
                    lab.restart(node, Part::Server);
                }
            }
            _ => lab.mend_all(),
        }
        lab.run_for(Duration::from_millis(rng.random_range(0..6000)));
    }
    lab.mend_all();
    lab.run_for(QUIET * 2);
    check(&mut lab, seed);
}

#[track_caller]
fn check(lab: &mut Lab, seed: u64) {
    let members: Vec<usize> = lab.core(0).members().iter().map(|it| number(it.node)).collect();
    let mut members: Vec<usize> = members
        .into_iter()
        .filter(|node| lab.nodes.contains_key(node))
        .collect();
    members.sort_unstable();
    for &node in &members {
        let mut others = members.clone();
        others.retain(|other| *other != node);
        assert_eq!(lab.digest(node), lab.digest(0), "seed {seed}: what {node} knows");
        assert_eq!(lab.sees(node), others, "seed {seed}: whom {node} sees");
        for other in others {
            let (here, there) = lab.links(node, other);
            assert!(here.is_some() && here == there, "seed {seed}: {node} and {other}");
        }
    }
}

#[test]
fn after_quiet_all_members_know_the_same_and_nobody_sees_the_removed() {
    for seed in 0..SEEDS {
        run(seed);
    }
}
