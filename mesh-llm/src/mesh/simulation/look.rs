//! A world as seen from above.

use super::{Entry, Noticed, World, id};
use crate::mesh::id::{Boot, NodeId};
use crate::mesh::membership::Member;
use crate::mesh::state::NodeState;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

impl World {
    /// Whether no other node holds `gone` for alive, or knows what it said.
    pub fn is_absent(&self, gone: usize) -> bool {
        let others = self.running().into_iter().filter(|&node| node != gone);
        others
            .map(|node| self.run(node))
            .all(|run| !run.sees(id(gone)) && run.gossip.state(id(gone)).is_none())
    }

    /// Whether all that run hold each other for alive, in the runs that they are in, and know the newest states.
    pub fn agrees(&self) -> bool {
        let running = self.running();
        let truth = |me: usize| {
            let others = running.iter().filter(move |&&node| node != me);
            others.map(|&node| Member {
                node: id(node),
                boot: self.run(node).state.boot,
            })
        };
        running.iter().all(|&node| {
            let run = self.run(node);
            let alive: BTreeSet<Member> = run.membership.alive().collect();
            let states: Vec<&NodeState> = run.gossip.states().collect();
            let speakers = running.iter().filter(|&&speaker| speaker < self.speakers);
            let mut newest: Vec<&NodeState> = speakers.map(|&speaker| &self.run(speaker).state).collect();
            newest.sort_by_key(|state| state.node);
            alive == truth(node).collect() && states == newest
        })
    }

    /// What was noticed of a node since some time.
    pub fn noticed(&self, of: usize, what: Noticed, since: Duration) -> Vec<Entry> {
        let entries = self
            .log
            .iter()
            .filter(|entry| entry.of == of && entry.what == what && entry.at > since);
        entries.copied().collect()
    }

    /// Deaths that were noticed.
    pub fn deaths(&self) -> Vec<Entry> {
        self.log
            .iter()
            .filter(|entry| entry.what == Noticed::Down)
            .copied()
            .collect()
    }

    /// By how many each node is wrongly taken for alive or dead, or for another run.
    pub fn describe_errors(&self) -> String {
        let mut wrong: BTreeMap<usize, usize> = BTreeMap::new();
        for node in self.running() {
            let alive: BTreeMap<NodeId, Boot> = self
                .run(node)
                .membership
                .alive()
                .map(|member| (member.node, member.boot))
                .collect();
            for other in (0..self.nodes.len()).filter(|&other| other != node) {
                let truth = self.nodes[other].as_ref().map(|run| run.state.boot);
                *wrong.entry(other).or_default() += usize::from(alive.get(&id(other)) != truth.as_ref());
            }
        }
        wrong.retain(|_, by| *by > 0);
        format!("{wrong:?}")
    }

    pub fn describe(&self) -> String {
        let who = |node: NodeId| self.numbers[&node];
        let lines = self.running().into_iter().map(|node| {
            let run = self.run(node);
            let alive: Vec<_> = run
                .membership
                .alive()
                .map(|member| (who(member.node), member.boot.0))
                .collect();
            let states: Vec<_> = run
                .gossip
                .states()
                .map(|state| (who(state.node), state.stamp()))
                .collect();
            format!(
                "\n{node} in {} sees {alive:?}, knows {states:?}",
                run.state.boot.0
            )
        });
        lines.collect()
    }
}
