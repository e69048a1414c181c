//! How many steps are on their way through a split at once. Pure.
//!
//! A step passes the nodes one after the other, and the network between them. While it is at one node
//! the others have nothing to do, unless other steps, of other slots or of the rest of a long prompt,
//! are on their way as well. More steps at once are smaller ones, and each reads all weights again: what
//! pays follows from measured times.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::between::Between;
use super::policy::Line;
use super::speculation::policy::{Cost as StepCost, Ring};

/// Steps whose parts are remembered until all have come in.
const MOST_STEPS: usize = 512;
/// More steps at once are worth it only if they are faster by this.
const GAIN: f64 = 1.03;
/// Most steps at once.
pub const MOST_DEPTH: usize = 24;
/// Sizes of the pieces that prompts are cut into: few, for each has graphs of its own.
const PIECES: [usize; 3] = [512, 256, 128];
/// Pieces of a prompt for each stage: with fewer, the first and the last leave the stages idle for too
/// long.
const PIECES_EACH: usize = 4;

/// Sizes of steps whose times are remembered one by one: small ones take odd times, for kernels are made
/// for some sizes and not for others.
const MOST_EXACT: usize = 64;
/// Steps after which a size's time is forgotten where none of it came.
const STALE: u64 = 2048;
/// Steps after which the time of a size that none had is not believed where guesses want to know it: it may have been
/// slow by chance, and who avoids it never learns better.
const FRESH: u64 = 100;
/// Weight of a measurement that is less than was known.
const QUICKER: f64 = 0.5;
/// Weight of one that is more.
const SLOWER: f64 = 0.1;

/// How long a stage takes, by the tokens of a step.
#[derive(Debug, Default)]
struct Cost {
    /// Seconds by tokens, and the record that it was last measured in.
    exact: BTreeMap<usize, (f64, u64)>,
    /// Least seconds of larger ones, by the next power of two.
    large: BTreeMap<usize, f64>,
    line: Line,
    records: u64,
}

impl Cost {
    fn record(&mut self, tokens: usize, seconds: f64) {
        self.records += 1;
        self.line.record(tokens as f64, seconds);
        if tokens > MOST_EXACT {
            let size = tokens.next_power_of_two();
            let known = self.large.entry(size).or_insert(f64::MAX);
            *known = known.min(seconds * size as f64 / tokens as f64);
        } else {
            let (known, last) = self.exact.entry(tokens).or_insert((seconds, 0));
            // The first steps are slow, and so is one beside which something else had the cores.
            let weight = if seconds < *known { QUICKER } else { SLOWER };
            *known += weight * (seconds.min(4.0 * *known) - *known);
            *last = self.records;
        }
        let records = self.records;
        self.exact.retain(|_, (_, last)| *last + STALE > records);
    }

    /// As measured. What was not is taken for as quick as it can be by what was, and so is tried once.
    fn at(&self, tokens: usize) -> f64 {
        if let Some((exact, _)) = self.exact.get(&tokens) {
            return *exact;
        }
        let rates = self.exact.iter().map(|(size, (time, _))| time / *size as f64);
        let best = rates.fold(f64::MAX, f64::min) * tokens as f64;
        self.line.at(tokens as f64).min(best)
    }

    /// As measured, or between what smaller and larger steps took. A size above all that were seen is taken
    /// for as quick as the largest of them: whether guesses come for nothing shows only when they are tried.
    fn expect(&self, tokens: usize) -> f64 {
        let is_fresh = |(_, (_, last)): &(&usize, &(f64, u64))| *last + FRESH > self.records;
        let exact = self.exact.range(..=tokens).rev().find(is_fresh);
        let below = exact.map(|(size, (time, _))| (*size, *time));
        let exact = self.exact.range(tokens..).find(is_fresh);
        let large = self.large.range(tokens..).next();
        let above = exact
            .map(|(size, (time, _))| (*size, *time))
            .or(large.map(|(size, time)| (*size, *time)));
        match (below, above) {
            (Some((size, time)), _) if size == tokens => time,
            (Some((small, quick)), Some((big, slow))) => {
                let part = (tokens - small) as f64 / (big - small) as f64;
                quick + part * (slow - quick).max(0.0)
            }
            (Some((_, time)), None) | (None, Some((_, time))) => time,
            (None, None) => 0.0,
        }
    }
}

/// The ring as one stream's windows see it.
#[derive(Debug)]
pub struct RingOf<'a> {
    /// What was measured.
    pub flow: &'a Flow,
    /// Its costs as far as they are known.
    pub costs: &'a Costs,
    /// Most windows of a stream in flight.
    pub most_windows: usize,
    /// Whether it is one node, where model and draft take turns.
    pub takes_turns: bool,
}

/// Steps after which costs are looked up anew.
const REFRESH: u64 = 8;
/// The first steps of answers, each of which tells much.
const FIRST: u64 = 32;

/// Costs of steps by tokens, which are looked up far more often than they change.
#[derive(Debug, Default)]
pub struct Costs {
    known: RefCell<Vec<Option<StepCost>>>,
    steps: u64,
}

impl Costs {
    /// One more step was measured, of answers or of prompts alone. Whether costs are looked up anew now.
    pub fn grow_older(&mut self, answers: bool) -> bool {
        self.steps += u64::from(answers);
        let anew = !answers || self.steps <= FIRST || self.steps.is_multiple_of(REFRESH);
        if anew {
            self.known.get_mut().clear();
        }
        anew
    }
}

impl Ring for RingOf<'_> {
    fn stage_seconds(&self, tokens: usize) -> Vec<f64> {
        self.flow.times(|cost| cost.expect(tokens))
    }

    fn between_seconds(&self) -> f64 {
        self.flow.between_seconds()
    }

    fn most_windows(&self) -> usize {
        self.most_windows
    }

    fn takes_turns(&self) -> bool {
        self.takes_turns
    }

    fn cost(&self, tokens: usize) -> StepCost {
        let mut known = self.costs.known.borrow_mut();
        if known.len() <= tokens {
            known.resize(tokens + 1, None);
        }
        *known[tokens]
            .get_or_insert_with(|| StepCost::of(&self.stage_seconds(tokens), self.between_seconds()))
    }
}

/// A queue of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stage {
    /// The node: its queues compute one at a time.
    pub node: u16,
    /// The queue.
    pub queue: u8,
}

#[derive(Debug)]
struct Passing {
    step: u64,
    tokens: usize,
    parts: usize,
    /// Seconds that it was computed, and that it waited for other steps.
    at_stages: f64,
    total: Option<f64>,
}

/// What has been measured of a split.
#[derive(Debug)]
pub struct Flow {
    stages: BTreeMap<Stage, Cost>,
    between: Between,
    passing: VecDeque<Passing>,
    /// How many stages there are.
    count: usize,
}

impl Flow {
    /// For a split of so many queues.
    pub fn new(count: usize) -> Self {
        Self {
            stages: BTreeMap::new(),
            between: Between::default(),
            passing: VecDeque::new(),
            count: count.max(1),
        }
    }

    /// A step with so many tokens was sent.
    pub fn sent(&mut self, step: u64, tokens: usize) {
        if self.passing.len() == MOST_STEPS {
            self.passing.pop_front();
        }
        self.passing.push_back(Passing {
            step,
            tokens,
            parts: 0,
            at_stages: 0.0,
            total: None,
        });
    }

    /// A step's results came back so long after it was sent.
    pub fn returned(&mut self, step: u64, time: Duration) {
        if let Some(index) = self.find(step) {
            self.passing[index].total = Some(time.as_secs_f64());
            self.settle(index);
        }
    }

    /// A stage computed a step, after that had waited for others.
    pub fn computed(&mut self, stage: Stage, step: u64, waited: Duration, time: Duration) {
        let seconds = time.as_secs_f64();
        let Some(index) = self.find(step) else { return };
        let passing = &mut self.passing[index];
        passing.parts += 1;
        passing.at_stages += seconds + waited.as_secs_f64();
        let tokens = passing.tokens;
        self.stages.entry(stage).or_default().record(tokens, seconds);
        self.settle(index);
    }

    fn find(&self, step: u64) -> Option<usize> {
        self.passing.iter().position(|passing| passing.step == step)
    }

    /// Once all parts of a step are known, what is left of its time was spent between them.
    fn settle(&mut self, index: usize) {
        let passing = &self.passing[index];
        let Some(total) = passing.total else { return };
        if passing.parts < self.count {
            return;
        }
        // Of a large step's time the rest is what its hidden states take.
        if passing.tokens <= MOST_EXACT || self.between.seconds().is_none() {
            self.between.record((total - passing.at_stages).max(0.0));
        }
        self.passing.remove(index);
    }

    /// Whether a step as answers have was measured at all stages.
    pub fn is_measured(&self) -> bool {
        self.between.seconds().is_some() && self.stages.values().all(|cost| !cost.exact.is_empty())
    }

    /// Seconds that a step spends between stages, once round; 0 before one is known.
    pub fn between_seconds(&self) -> f64 {
        self.between.seconds().unwrap_or(0.0)
    }

    /// Seconds that each node takes for a step of so many tokens.
    fn node_times(&self, tokens: usize) -> Vec<f64> {
        self.times(|cost| cost.at(tokens))
    }

    fn times(&self, time: impl Fn(&Cost) -> f64) -> Vec<f64> {
        let mut nodes: BTreeMap<u16, f64> = BTreeMap::new();
        for (stage, cost) in &self.stages {
            *nodes.entry(stage.node).or_default() += time(cost);
        }
        nodes.into_values().collect()
    }

    /// Into how many steps the running answers are divided where nobody guesses.
    pub fn groups(&self, answers: usize) -> usize {
        if answers < 2 {
            return 1;
        }
        if self.between.seconds().is_none() {
            return 2;
        }
        let mut best = (1, self.cycle(answers, 1));
        for groups in 2..=answers.min(MOST_DEPTH) {
            let time = self.cycle(answers, groups);
            if time * GAIN < best.1 {
                best = (groups, time);
            }
        }
        best.0
    }

    /// Seconds until every answer has its next token.
    fn cycle(&self, answers: usize, groups: usize) -> f64 {
        let times = self.node_times(answers.div_ceil(groups));
        let slowest = times.iter().copied().fold(0.0, f64::max);
        let around = times.iter().sum::<f64>() + self.between_seconds();
        (slowest * groups as f64).max(around)
    }

    /// Tokens of a prompt that go into one step, of so many that wait.
    pub fn piece(&self, pending: usize) -> usize {
        let wanted = pending / (PIECES_EACH * self.count);
        let fits = PIECES.into_iter().find(|piece| *piece <= wanted);
        fits.unwrap_or(PIECES[PIECES.len() - 1])
    }

    /// Pieces of a prompt that are on their way at once: as many as keep the slowest node at work, and
    /// one that waits for it.
    pub fn depth(&self, piece: usize) -> usize {
        let times = self.node_times(piece);
        let slowest = times.iter().copied().fold(0.0, f64::max);
        if slowest <= 0.0 {
            return self.count + 1;
        }
        let around = times.iter().sum::<f64>() + self.between_seconds();
        ((around / slowest).ceil() as usize + 1).clamp(2, MOST_DEPTH)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A split whose stages take `fixed` and so much for each token, with a network.
    fn measured(stages: &[(f64, f64)], between: f64) -> Flow {
        let mut flow = Flow::new(stages.len());
        for step in 0..200_u64 {
            let tokens = 1 + (step % 8) as usize;
            flow.sent(step, tokens);
            let mut total = between;
            for (node, (fixed, each)) in (0..).zip(stages) {
                let time = fixed + each * tokens as f64;
                let stage = Stage { node, queue: 0 };
                flow.computed(stage, step, Duration::ZERO, Duration::from_secs_f64(time));
                total += time;
            }
            flow.returned(step, Duration::from_secs_f64(total));
        }
        flow
    }

    #[test]
    fn one_stream_is_one_step() {
        assert_eq!(measured(&[(0.01, 0.0), (0.01, 0.0)], 0.02).groups(1), 1);
    }

    #[test]
    fn two_equal_nodes_without_a_network_take_two_groups() {
        assert_eq!(measured(&[(0.0, 0.01), (0.0, 0.01)], 0.0).groups(8), 2);
    }

    #[test]
    fn a_slow_network_is_filled_with_more_groups() {
        let groups = measured(&[(0.0, 0.01), (0.0, 0.01)], 0.08).groups(8);
        assert_eq!(groups, 8);
    }

    #[test]
    fn where_a_step_costs_the_same_whatever_is_in_it_it_takes_all() {
        assert_eq!(measured(&[(0.01, 0.0), (0.01, 0.0)], 0.02).groups(8), 1);
    }

    #[test]
    fn one_node_takes_one_step_at_a_time() {
        assert_eq!(measured(&[(0.01, 0.001)], 0.0).groups(8), 1);
    }

    #[test]
    fn sizes_that_kernels_are_slow_at_are_avoided() {
        let time = |tokens: usize| [0.0, 0.009, 0.018, 0.04, 0.05, 0.05, 0.05, 0.055, 0.058][tokens];
        let mut flow = Flow::new(2);
        for step in 0..400_u64 {
            let tokens = 8_usize.div_ceil(flow.groups(8));
            flow.sent(step, tokens);
            for node in 0..2 {
                let time = Duration::from_secs_f64(time(tokens));
                flow.computed(Stage { node, queue: 0 }, step, Duration::ZERO, time);
            }
            flow.returned(step, Duration::from_secs_f64(2.0 * time(tokens) + 0.02));
        }
        let cycle = |groups: usize| {
            let time = time(8_usize.div_ceil(groups));
            (groups as f64 * time).max(2.0 * time + 0.02)
        };
        let best = (1..=8).map(cycle).fold(f64::MAX, f64::min);
        assert!(cycle(flow.groups(8)) <= best * 1.04, "{} groups", flow.groups(8));
    }

    #[test]
    fn long_prompts_are_cut_and_short_ones_pass_whole() {
        let flow = measured(&[(0.001, 0.01), (0.001, 0.01)], 0.0);
        assert_eq!(flow.piece(64), 128);
        assert_eq!(flow.piece(2000), 128);
        assert_eq!(flow.piece(100_000), 512);
        assert_eq!(flow.depth(128), 3);
    }

    /// Steps that all wait for 30 ms: what is between the two stages, which take 10 ms. The second is of so many queues.
    fn between(networks: impl IntoIterator<Item = f64>, queues: u8) -> f64 {
        let mut flow = Flow::new(1 + usize::from(queues));
        for (step, network) in (0..).zip(networks) {
            flow.sent(step, 1);
            let first = Stage { node: 0, queue: 0 };
            flow.computed(first, step, Duration::from_millis(30), Duration::from_millis(10));
            for queue in 0..queues {
                let time = Duration::from_millis(10) / u32::from(queues);
                flow.computed(Stage { node: 1, queue }, step, Duration::ZERO, time);
            }
            flow.returned(step, Duration::from_secs_f64(0.05 + network));
        }
        flow.between_seconds()
    }

    #[test]
    fn a_network_that_becomes_slower_or_quicker_is_followed() {
        for (before, after) in [(0.02, 0.08), (0.08, 0.02), (0.0, 0.03)] {
            let networks = [before; 50].into_iter().chain([after; 8]);
            for queues in [1, 3] {
                let found = between(networks.clone(), queues);
                assert!((found - after).abs() < 1e-3, "{found} after {before} and {after}");
            }
        }
    }

    #[test]
    fn what_was_asked_before_anything_was_measured_is_soon_known_better() {
        let (mut flow, mut costs) = (Flow::new(1), Costs::default());
        let around = |flow: &Flow, costs: &Costs| {
            let most_windows = 1;
            let ring = RingOf {
                flow,
                costs,
                most_windows,
                takes_turns: false,
            };
            ring.cost(1).around()
        };
        assert!(around(&flow, &costs) < 1e-6);
        flow.sent(0, 1);
        let stage = Stage { node: 0, queue: 0 };
        flow.computed(stage, 0, Duration::ZERO, Duration::from_millis(10));
        flow.returned(0, Duration::from_millis(30));
        assert!(costs.grow_older(true));
        assert!((around(&flow, &costs) - 0.03).abs() < 1e-6);
    }

    #[test]
    fn a_size_that_was_slow_by_chance_is_tried_again() {
        let mut cost = Cost::default();
        cost.record(32, 0.08);
        cost.record(24, 0.02);
        assert!(cost.expect(32) > 0.07);
        (0..2 * FRESH).for_each(|_| cost.record(24, 0.02));
        assert!(cost.expect(32) < 0.03);
    }

    #[test]
    fn what_never_comes_back_is_forgotten() {
        let mut flow = Flow::new(2);
        (0..10_000).for_each(|step| flow.sent(step, 1));
        assert!(flow.passing.len() <= MOST_STEPS);
    }

    proptest! {
        /// By the model that it decides by, no other number is faster by more than the gain that it asks for.
        #[test]
        fn no_other_number_of_groups_is_much_faster(
            stages in prop::collection::vec((0.0001..0.05_f64, 0.0..0.01_f64), 1..5),
            between in 0.0..0.2_f64,
            answers in 1_usize..20,
        ) {
            let flow = measured(&stages, between);
            let chosen = flow.cycle(answers, flow.groups(answers));
            for groups in 1..=answers {
                prop_assert!(chosen <= flow.cycle(answers, groups) * GAIN.powi(4));
            }
        }
    }
}
