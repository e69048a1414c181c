//! The rules, applied to what runs until nothing changes.

use super::demand::{Demand, Model};
use super::group::{self, Arrangement, Left};
use super::known::Known;
use super::{Group, MachineId, Placement, Wish};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How often the rules are applied at most. One change makes room for another a few times, not more.
const MOST_ROUNDS: usize = 16;

/// What runs, model by model.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Runs {
    alone: BTreeMap<String, BTreeSet<MachineId>>,
    groups: BTreeMap<String, BTreeSet<Group>>,
}

impl Runs {
    pub(super) fn new<'a>(placements: impl Iterator<Item = (&'a str, &'a Placement)>) -> Self {
        let mut runs = Self::default();
        for (model, placement) in placements {
            match placement {
                Placement::Alone(machines) if machines.is_empty() => {}
                Placement::Alone(machines) => {
                    runs.alone.entry(model.to_owned()).or_default().extend(machines)
                }
                Placement::Split(group) => {
                    runs.groups
                        .entry(model.to_owned())
                        .or_default()
                        .insert(group.clone());
                }
                Placement::Waiting { .. } => {}
            }
        }
        runs
    }
}

/// What the rules come to. Should they go in circles, the least plan of the circle: it is the same wherever one begins.
pub(super) fn last(known: &Known, models: &[Model], mut runs: Runs) -> BTreeMap<String, Placement> {
    let circles: BTreeMap<(&str, MachineId), Vec<Vec<MachineId>>> = models
        .iter()
        .flat_map(|model| {
            model
                .demands
                .values()
                .map(|demand| ((model.name, demand.by), group::circles(known, demand)))
        })
        .collect();
    let mut seen: Vec<BTreeMap<String, Placement>> = Vec::new();
    for _ in 0..MOST_ROUNDS {
        let plan = Round::new(known, &circles).run(models, &runs);
        let next = Runs::new(plan.iter().map(|(model, placement)| (model.as_str(), placement)));
        if next == runs {
            return plan;
        }
        if let Some(first) = seen.iter().position(|earlier| *earlier == plan) {
            return seen.drain(first..).min().unwrap_or(plan);
        }
        seen.push(plan);
        runs = next;
    }
    seen.pop().unwrap_or_default()
}

/// Where a model is.
enum Placed {
    Alone(BTreeSet<MachineId>),
    Split(Arrangement),
}

/// The rules, applied once.
struct Round<'a> {
    known: &'a Known<'a>,
    circles: &'a BTreeMap<(&'a str, MachineId), Vec<Vec<MachineId>>>,
    left: Left,
    placed: BTreeMap<&'a str, Placed>,
}

impl<'a> Round<'a> {
    fn new(known: &'a Known<'a>, circles: &'a BTreeMap<(&'a str, MachineId), Vec<Vec<MachineId>>>) -> Self {
        Self {
            known,
            circles,
            left: group::everything(known),
            placed: BTreeMap::new(),
        }
    }

    fn run(mut self, models: &'a [Model<'a>], runs: &Runs) -> BTreeMap<String, Placement> {
        for model in models {
            self.keep_copies(model, runs);
        }
        for model in models {
            self.keep_group(model, runs);
        }
        let kept: Vec<&Model> = models
            .iter()
            .filter(|model| self.placed.contains_key(model.name))
            .collect();
        for model in models {
            self.place_copy(model);
        }
        for model in models {
            self.place_more_copies(model);
        }
        for model in models {
            self.place_group(model);
        }
        for model in kept {
            self.improve(model);
        }
        models
            .iter()
            .map(|model| (model.name.to_owned(), self.placement(model)))
            .collect()
    }

    /// Keeps the copies that run, unless a group does, too, and is quicker.
    fn keep_copies(&mut self, model: &Model<'a>, runs: &Runs) {
        if model.wish == Wish::Split {
            return;
        }
        let running = runs.alone.get(model.name).into_iter().flatten();
        let running = running.filter_map(|id| model.demands.get(id));
        let fitting: Vec<&Demand> = running.filter(|demand| self.fits(demand)).collect();
        let times = fitting.iter().map(|demand| demand.time_alone(self.known));
        let quickest = times.min();
        // Both run where machines could not hear of each other for a while.
        let group = self.kept_group(model, runs);
        if group.is_some_and(|group| quickest.is_some_and(|quickest| group.time < quickest)) {
            return;
        }
        for demand in fitting {
            self.copy(model, demand);
        }
    }

    /// A copy on the machine that wants it, if it has the room.
    fn copy(&mut self, model: &Model<'a>, demand: &Demand) {
        if !self.fits(demand) {
            return;
        }
        let placed = self
            .placed
            .entry(model.name)
            .or_insert(Placed::Alone(BTreeSet::new()));
        if let Placed::Alone(machines) = placed
            && machines.insert(demand.by)
        {
            self.take(demand.by, demand.need);
        }
    }

    fn fits(&self, demand: &Demand) -> bool {
        demand.alone && self.left[&demand.by] >= demand.need
    }

    fn take(&mut self, id: MachineId, bytes: u64) {
        if let Some(left) = self.left.get_mut(&id) {
            *left = left.saturating_sub(bytes);
        }
    }

    fn keep_group(&mut self, model: &Model<'a>, runs: &Runs) {
        if !self.placed.contains_key(model.name)
            && let Some(arrangement) = self.kept_group(model, runs)
        {
            self.split(model, arrangement);
        }
    }

    /// Of the groups that run a model, the quickest that is still possible.
    fn kept_group(&self, model: &Model, runs: &Runs) -> Option<Arrangement> {
        let groups = runs.groups.get(model.name)?.iter();
        let possible = groups.filter_map(|group| {
            let demand = model.demands.get(&group.host)?;
            if !group::is_possible(self.known, group) {
                return None;
            }
            group::kept(self.known, demand, &self.left, group)
        });
        possible.min_by(|a, b| (a.time, &a.group).cmp(&(b.time, &b.group)))
    }

    fn split(&mut self, model: &Model<'a>, arrangement: Arrangement) {
        for (id, bytes) in &arrangement.takes {
            self.take(*id, *bytes);
        }
        self.placed.insert(model.name, Placed::Split(arrangement));
    }

    /// The machine on which a copy is quickest; the one with more memory, or the smaller id, if several are.
    fn best_copy<'m>(&self, model: &'m Model<'a>) -> Option<(Duration, &'m Demand<'a>)> {
        if model.wish == Wish::Split {
            return None;
        }
        let fitting = model.demands.values().filter(|demand| self.fits(demand));
        fitting
            .map(|demand| (demand.time_alone(self.known), demand))
            .min_by_key(|(time, demand)| (*time, Reverse(self.known.memory(demand.by)), demand.by))
    }

    fn place_copy(&mut self, model: &Model<'a>) {
        if self.placed.contains_key(model.name) {
            return;
        }
        if let Some((_, demand)) = self.best_copy(model) {
            self.copy(model, demand);
        }
    }

    fn place_more_copies(&mut self, model: &Model<'a>) {
        if matches!(self.placed.get(model.name), Some(Placed::Alone(_))) {
            for demand in model.demands.values() {
                self.copy(model, demand);
            }
        }
    }

    fn place_group(&mut self, model: &Model<'a>) {
        if self.placed.contains_key(model.name) {
            return;
        }
        let found = self.quickest(model, |demand, circles| {
            group::best(self.known, demand, circles, model.wish, &self.left)
        });
        if let Some(arrangement) = found {
            self.split(model, arrangement);
        }
    }

    /// The quickest of the groups that are found for each host; the host with more memory, or the smaller id, if several are.
    fn quickest(
        &self,
        model: &Model,
        find: impl Fn(&Demand, &[Vec<MachineId>]) -> Option<Arrangement>,
    ) -> Option<Arrangement> {
        let found = model
            .demands
            .values()
            .filter_map(|demand| find(demand, &self.circles[&(model.name, demand.by)]));
        found.min_by_key(|found| {
            (
                found.time,
                Reverse(self.known.memory(found.group.host)),
                found.group.host,
            )
        })
    }

    /// Puts another arrangement in the place of a group if a token then takes at most four fifths of the time. How the same
    /// machines divide the layers is for their host to say.
    fn improve(&mut self, model: &Model<'a>) {
        let Some(Placed::Split(before)) = self.placed.get(model.name) else {
            return;
        };
        let before = before.clone();
        let most = before.time * 4 / 5;
        self.placed.remove(model.name);
        for (id, bytes) in &before.takes {
            if let Some(left) = self.left.get_mut(id) {
                *left += bytes;
            }
        }
        let copy = self.best_copy(model).filter(|(time, _)| *time <= most);
        let group = self.quickest(model, |demand, circles| {
            let than = (&before.group, most);
            group::better(self.known, demand, circles, model.wish, &self.left, than)
        });
        match (copy, group) {
            (Some((time, _)), Some(group)) if group.time < time => self.split(model, group),
            (Some((_, demand)), _) => {
                self.copy(model, demand);
                self.place_more_copies(model);
            }
            (None, Some(group)) => self.split(model, group),
            (None, None) => self.split(model, before),
        }
    }

    fn placement(&self, model: &Model) -> Placement {
        match self.placed.get(model.name) {
            Some(Placed::Alone(machines)) => Placement::Alone(machines.iter().copied().collect()),
            Some(Placed::Split(arrangement)) => Placement::Split(arrangement.group.clone()),
            None => self.waiting(model),
        }
    }

    fn waiting(&self, model: &Model) -> Placement {
        let offers = model.demands.values().map(|demand| {
            let circles = &self.circles[&(model.name, demand.by)];
            let lent = |id: &MachineId| self.known.for_layers(self.left[id]);
            let sum = |circle: &Vec<MachineId>| -> u64 { circle.iter().map(lent).sum() };
            let have = self.left[&demand.by] + circles.iter().map(sum).max().unwrap_or(0);
            (have, Reverse(demand.need))
        });
        let (have, Reverse(need)) = offers.max().unwrap_or((0, Reverse(0)));
        Placement::Waiting { need, have }
    }
}
