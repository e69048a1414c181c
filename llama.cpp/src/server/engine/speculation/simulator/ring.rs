//! A ring of nodes, event by event.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::time::Duration;

use super::super::super::flow::{self, Flow};
use super::super::acceptance::{Acceptance, RequestAcceptance, SourceKind};
use super::super::policy::{Claims, Decision, Division, Offer, Policy, Ring, Stream};
use super::text::{Guess, Random};

/// What a guess of one more stream adds to a step of the draft model.
const BESIDE: f64 = 0.1;

/// What a node takes for a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stage {
    pub fixed: f64,
    pub each: f64,
}

/// A ring and what runs on it.
#[derive(Debug, Clone)]
pub struct World {
    pub stages: Vec<Stage>,
    /// Seconds from a node to the next, for tokens up to a number.
    pub hops: Vec<(usize, f64)>,
    /// Seconds that a guess of one stream takes.
    pub draft: f64,
    pub kind: SourceKind,
    /// One for each stream.
    pub texts: Vec<Vec<Option<Guess>>>,
    /// Most windows of a stream in flight.
    pub most_windows: usize,
    /// What all times are longer by, on average, as a part of themselves: at random, and never shorter.
    pub lateness: f64,
}

impl World {
    fn hop(&self, tokens: usize) -> f64 {
        if self.stages.len() == 1 {
            return 0.0;
        }
        let hop = self.hops.iter().find(|(until, _)| tokens < *until);
        hop.or(self.hops.last()).map_or(0.0, |hop| hop.1)
    }

    /// Seconds that a step of the draft model takes for so many streams.
    fn draft_step(&self, streams: usize) -> f64 {
        self.draft * (1.0 + BESIDE * (streams.max(1) - 1) as f64)
    }

    /// Into how many steps answers are divided without guesses: as `Flow` does it.
    pub fn groups(&self, window: usize) -> usize {
        let answers = self.texts.len();
        let cycle = |groups: usize| {
            let tokens = (answers.div_ceil(groups) * window) as f64;
            let times = || self.stages.iter().map(|stage| stage.fixed + stage.each * tokens);
            let around = times().sum::<f64>() + self.hop(0) * self.stages.len() as f64;
            (times().fold(0.0, f64::max) * groups as f64).max(around)
        };
        let mut best = 1;
        for groups in 2..=answers {
            if cycle(groups) * 1.03 < cycle(best) {
                best = groups;
            }
        }
        best
    }
}

/// What the policy is told.
struct Measured<'a> {
    world: &'a World,
    between: f64,
}

impl Ring for Measured<'_> {
    fn stage_seconds(&self, tokens: usize) -> Vec<f64> {
        let seconds = |stage: &Stage| stage.fixed + stage.each * tokens as f64;
        self.world.stages.iter().map(seconds).collect()
    }

    fn between_seconds(&self) -> f64 {
        self.between
    }

    fn most_windows(&self) -> usize {
        self.world.most_windows
    }
}

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    pub seconds: f64,
    pub tokens: usize,
    pub sent: usize,
    pub accepted: usize,
    /// Steps, and how many of each stream's windows were in flight when one left, summed.
    pub steps: usize,
    pub depth: usize,
    /// Longest time that a certain token waited while the policy could have sent it.
    pub held: f64,
    /// Of the first stream.
    pub windows: Vec<Left>,
}

/// A window that left.
#[derive(Debug, Clone, Copy)]
pub struct Left {
    pub seconds: f64,
    /// Tokens of its stream that were certain then.
    pub certain: usize,
    pub tokens: usize,
    /// Windows of its stream that are on their way now.
    pub in_flight: usize,
}

impl Outcome {
    pub fn rate(&self) -> f64 {
        self.tokens as f64 / self.seconds
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrives { stage: usize, step: usize },
    Computed { stage: usize },
    Returns { step: usize },
    Drafted,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Moment(f64);
impl Eq for Moment {}
impl PartialOrd for Moment {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Moment {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// A stream's part of a step.
#[derive(Debug, Clone, Copy)]
struct Window {
    stream: usize,
    epoch: usize,
    from: usize,
    to: usize,
}

#[derive(Debug)]
struct Step {
    windows: Vec<Window>,
    tokens: usize,
    /// Whether there is more in it than guesses.
    is_certain: bool,
    cancelled: Option<f64>,
    since: f64,
}

#[derive(Debug)]
struct Live {
    /// Tokens that are certain.
    certain: usize,
    sent: usize,
    /// Tokens with guesses.
    guessed: usize,
    epoch: usize,
    likely: Vec<f32>,
    acceptance: RequestAcceptance,
    unobserved: usize,
    in_flight: usize,
    certain_since: f64,
}

struct Node {
    computes: Option<usize>,
    /// Steps, and since when.
    waits: BTreeMap<usize, f64>,
    /// When the last step that it sent on arrives.
    last_arrival: f64,
}

/// A step of the draft model: a guess for each of these streams, in these epochs, at that time.
#[derive(Debug)]
struct Drafts {
    streams: Vec<(usize, usize)>,
    at: f64,
}

pub struct Simulation<'a> {
    world: &'a World,
    policy: Policy,
    /// Into how many steps streams are divided without guesses.
    without: usize,
    /// How they share the ring now.
    division: Division,
    now: f64,
    events: BinaryHeap<Reverse<(Moment, usize, Event)>>,
    count: usize,
    nodes: Vec<Node>,
    steps: HashMap<usize, Step>,
    /// What is measured of the network.
    flow: Flow,
    next_step: usize,
    streams: Vec<Live>,
    taught: Acceptance,
    drafts: Option<Drafts>,
    random: Random,
    outcome: Outcome,
}

/// Runs `world` until its streams have so many tokens on average.
pub fn simulate(world: &World, policy: Policy, groups: usize, tokens: usize) -> Outcome {
    let taught = Acceptance::default();
    let streams = world.texts.iter().map(|_| Live {
        certain: 1,
        sent: 0,
        guessed: 1,
        epoch: 0,
        likely: Vec::new(),
        acceptance: taught.new_request(),
        unobserved: 0,
        in_flight: 0,
        certain_since: 0.0,
    });
    let mut simulation = Simulation {
        policy,
        without: groups,
        division: Division::plain(groups),
        now: 0.0,
        events: BinaryHeap::new(),
        count: 0,
        nodes: world
            .stages
            .iter()
            .map(|_| Node {
                computes: None,
                waits: BTreeMap::new(),
                last_arrival: 0.0,
            })
            .collect(),
        steps: HashMap::new(),
        flow: Flow::new(world.stages.len()),
        next_step: 0,
        streams: streams.collect(),
        taught,
        drafts: None,
        random: Random::new(7),
        outcome: Outcome::default(),
        world,
    };
    simulation.run(tokens * world.texts.len());
    simulation.outcome
}

impl Simulation<'_> {
    fn at(&mut self, time: f64, event: Event) {
        self.count += 1;
        self.events.push(Reverse((Moment(time), self.count, event)));
    }

    /// A time as it comes to be.
    fn late(&mut self, seconds: f64) -> f64 {
        let waited = -(1.0 - self.random.unit()).ln();
        seconds * (1.0 + self.world.lateness * waited)
    }

    fn measured(&self) -> Measured<'_> {
        Measured {
            world: self.world,
            between: self.flow.between_seconds(),
        }
    }

    fn claims(&self) -> Claims {
        Claims {
            streams: self.streams.len(),
            groups: self.division.groups,
            steps_in_flight: self
                .steps
                .values()
                .filter(|step| step.cancelled.is_none())
                .count(),
            beside: self.streams.len().div_ceil(self.division.groups) - 1,
        }
    }

    fn run(&mut self, tokens: usize) {
        loop {
            self.act();
            let Some(Reverse((time, _, event))) = self.events.pop() else {
                panic!("nothing happens any more at {}", self.now);
            };
            self.now = time.0;
            self.happens(event);
            // What happens at once is seen at once.
            while self
                .events
                .peek()
                .is_some_and(|next| next.0.0.0 <= self.now + 1e-9)
            {
                let Some(Reverse((_, _, event))) = self.events.pop() else {
                    break;
                };
                self.happens(event);
            }
            let certain: usize = self.streams.iter().map(|stream| stream.certain).sum();
            assert!(self.now < 1e6, "stalls");
            if certain >= tokens {
                self.outcome.tokens = certain;
                self.outcome.seconds = self.now;
                return;
            }
        }
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Arrives { stage, step } => {
                self.nodes[stage].waits.insert(step, self.now);
                self.compute(stage);
            }
            Event::Computed { stage } => {
                if let Some(step) = self.nodes[stage].computes.take()
                    && self.steps.contains_key(&step)
                {
                    let hop = self.world.hop(self.streams[0].certain);
                    // What is sent later comes later.
                    let at = (self.now + self.late(hop)).max(self.nodes[stage].last_arrival);
                    self.nodes[stage].last_arrival = at;
                    if stage + 1 == self.nodes.len() {
                        self.at(at, Event::Returns { step });
                    } else {
                        self.at(
                            at,
                            Event::Arrives {
                                stage: stage + 1,
                                step,
                            },
                        );
                    }
                }
                self.compute(stage);
            }
            Event::Returns { step } => self.returns(step),
            Event::Drafted => {
                let streams = self.drafts.take().map(|drafts| drafts.streams);
                for (stream, epoch) in streams.unwrap_or_default() {
                    self.drafted(stream, epoch);
                }
            }
        }
    }

    fn compute(&mut self, stage: usize) {
        if self.nodes[stage].computes.is_some() {
            return;
        }
        while let Some((number, since)) = self.nodes[stage].waits.pop_first() {
            let hop = self.world.hop(self.streams[0].certain);
            let Some(step) = self.steps.get(&number) else {
                continue;
            };
            let told = if stage == 0 { 0.0 } else { hop };
            if step
                .cancelled
                .is_some_and(|cancelled| cancelled + told <= self.now + 1e-9)
            {
                // Nothing of it is wanted any more.
                self.steps.remove(&number);
                continue;
            }
            let Stage { fixed, each } = self.world.stages[stage];
            let time = fixed + each * step.tokens as f64;
            let time = self.late(time);
            self.nodes[stage].computes = Some(number);
            let (node, queue) = (stage as u16, 0);
            let waited = Duration::from_secs_f64(self.now - since);
            let took = Duration::from_secs_f64(time);
            self.flow
                .computed(flow::Stage { node, queue }, number as u64, waited, took);
            self.at(self.now + time, Event::Computed { stage });
            return;
        }
    }

    fn returns(&mut self, number: usize) {
        let Some(step) = self.steps.remove(&number) else {
            return;
        };
        let took = Duration::from_secs_f64(self.now - step.since);
        self.flow.returned(number as u64, took);
        for window in step.windows {
            if self.streams[window.stream].epoch == window.epoch {
                self.streams[window.stream].in_flight -= 1;
                self.verify(window);
            }
        }
    }

    fn verify(&mut self, window: Window) {
        let kind = self.world.kind;
        let text = &self.world.texts[window.stream];
        let stream = &mut self.streams[window.stream];
        for row in window.from..window.to {
            let next = row + 1;
            stream.unobserved += 1;
            if next < stream.guessed {
                let guess = text[next % text.len()].expect("a guess was made");
                stream.acceptance.record(kind, guess.grade, guess.right);
                self.taught.record(kind, guess.grade, guess.right);
                if !guess.right {
                    stream.unobserved = 0;
                }
                stream.likely.remove(0);
                if guess.right {
                    self.outcome.accepted += usize::from(next < stream.sent);
                    stream.certain = next + 1;
                    continue;
                }
            }
            // Another token than the guess, or one without a guess.
            stream.certain = next + 1;
            stream.guessed = next + 1;
            stream.likely.clear();
            stream.certain_since = self.now;
            if next < stream.sent {
                stream.sent = next;
            }
            stream.epoch += 1;
            stream.in_flight = 0;
            let streams = &self.streams;
            for step in self.steps.values_mut().filter(|step| step.cancelled.is_none()) {
                let stale = |window: &Window| streams[window.stream].epoch != window.epoch;
                if step.windows.iter().all(stale) {
                    step.cancelled = Some(self.now);
                }
            }
            break;
        }
        let stream = &self.streams[window.stream];
        if stream.sent < stream.certain {
            self.streams[window.stream].certain_since = self.now;
        }
        self.refresh(window.stream);
    }

    /// What guesses are worth changes with each one that is seen to be right or wrong.
    fn refresh(&mut self, stream: usize) {
        let text = &self.world.texts[stream];
        let live = &mut self.streams[stream];
        for (offset, likely) in live.likely.iter_mut().enumerate() {
            let guess = text[(live.certain + offset) % text.len()].expect("a guess was made");
            *likely = live.acceptance.likely(self.world.kind, guess.grade);
        }
    }

    fn drafted(&mut self, stream: usize, epoch: usize) {
        let text = &self.world.texts[stream];
        let live = &mut self.streams[stream];
        if live.epoch != epoch {
            return;
        }
        if let Some(guess) = text[live.guessed % text.len()] {
            live.likely
                .push(live.acceptance.likely(self.world.kind, guess.grade));
            live.guessed += 1;
        }
    }

    fn offer(&self, stream: usize) -> Offer {
        Offer {
            likely: self.streams[stream].acceptance.expected(self.world.kind),
            seconds: self.world.draft_step(self.streams.len()),
        }
    }

    /// How many more guesses a stream should have.
    fn wanted(&self, stream: usize) -> usize {
        let live = &self.streams[stream];
        let text = &self.world.texts[stream];
        if text[live.guessed % text.len()].is_none() {
            return 0;
        }
        let ahead = self.policy.ahead(
            &self.measured(),
            &self.claims(),
            &self.offer(stream),
            live.unobserved,
        );
        ahead.saturating_sub(live.guessed - live.certain)
    }

    fn act(&mut self) {
        if self.drafts.is_none() {
            let wanted = (0..self.streams.len()).filter(|stream| self.wanted(*stream) > 0);
            let streams: Vec<_> = wanted
                .map(|stream| (stream, self.streams[stream].epoch))
                .collect();
            if !streams.is_empty() {
                let step = self.world.draft_step(streams.len());
                let at = self.now + self.late(step);
                self.drafts = Some(Drafts { streams, at });
                self.at(at, Event::Drafted);
            }
        }
        self.regroup();
        while self.send() {}
    }

    /// Divides the streams by what their guesses are worth on average.
    fn regroup(&mut self) {
        let count = self.streams.len();
        let kind = self.world.kind;
        let likely: f32 = self
            .streams
            .iter()
            .map(|stream| stream.acceptance.expected(kind))
            .sum();
        let offer = Offer {
            likely: likely / count as f32,
            seconds: self.world.draft_step(count),
        };
        let (ring, without) = (self.measured(), self.without);
        self.division = self.policy.divide(&ring, count, &offer, without);
    }

    /// Makes a step of what wants to leave.
    fn send(&mut self) -> bool {
        let count = self.streams.len();
        let together = count.div_ceil(self.division.groups);
        let claims = self.claims();
        if count > 1 && claims.steps_in_flight >= self.policy.most_steps(&self.measured(), &claims) {
            return false;
        }
        let mut windows: Vec<Window> = Vec::new();
        let mut waiting: Vec<(usize, usize)> = Vec::new();
        let mut order: Vec<usize> = (0..count).collect();
        order.sort_by(|a, b| {
            let key = |stream: &usize| {
                let live = &self.streams[*stream];
                (live.sent >= live.certain, Moment(live.certain_since))
            };
            key(a).cmp(&key(b))
        });
        // Without guesses that pay, answers leave together.
        let on_their_way = self
            .steps
            .values()
            .filter(|step| step.cancelled.is_none() && step.is_certain);
        let must_wait = !self.division.guesses_pay && on_their_way.count() >= self.division.groups;
        let asking = |live: &Live| live.sent < live.certain && !must_wait;
        let mut certain = self
            .streams
            .iter()
            .filter(|live| asking(live))
            .count()
            .min(together);
        let mut tokens = 0;
        for stream in order {
            if windows.len() == together {
                break;
            }
            let live = &self.streams[stream];
            let is_certain = live.sent < live.certain;
            if is_certain && must_wait {
                continue;
            }
            let step = self.world.draft_step(count);
            let seconds = match &self.drafts {
                Some(drafts) if drafts.streams.contains(&(stream, live.epoch)) => Some(drafts.at - self.now),
                _ if self.wanted(stream) == 0 => None,
                Some(drafts) => Some(drafts.at - self.now + step),
                None => Some(step),
            };
            let unsent = live.sent.max(live.certain) - live.certain;
            let guesses = &live.likely[unsent.min(live.likely.len())..];
            let reach = live.likely[..unsent.min(live.likely.len())].iter().product();
            if is_certain {
                certain = certain.saturating_sub(1);
            }
            let claims = Claims {
                beside: tokens + certain,
                ..self.claims()
            };
            let view = Stream {
                certain: is_certain,
                guesses,
                reach,
                windows_in_flight: live.in_flight,
                expected: live.acceptance.expected(self.world.kind),
                draft_seconds: step,
                next_guess_seconds: seconds,
            };
            match self.policy.decide(&self.measured(), &claims, &view) {
                Decision::Send(guesses) => {
                    let to = live.sent + usize::from(is_certain) + guesses;
                    assert!(to > live.sent, "an empty window");
                    windows.push(Window {
                        stream,
                        epoch: live.epoch,
                        from: live.sent,
                        to,
                    });
                    tokens += to - live.sent;
                }
                Decision::Wait if is_certain => {
                    // If the step leaves, it is on board.
                    let hurry = Stream {
                        next_guess_seconds: None,
                        ..view
                    };
                    if let Decision::Send(guesses) = self.policy.decide(&self.measured(), &claims, &hurry) {
                        waiting.push((stream, guesses));
                    }
                }
                Decision::Wait => {}
                Decision::Hold => assert!(!is_certain, "a certain token is held"),
            }
        }
        if windows.is_empty() {
            return false;
        }
        for (stream, guesses) in waiting {
            if windows.len() < together {
                let live = &self.streams[stream];
                let to = live.sent + 1 + guesses;
                windows.push(Window {
                    stream,
                    epoch: live.epoch,
                    from: live.sent,
                    to,
                });
                tokens += to - live.sent;
            }
        }
        let mut is_certain = false;
        for window in &windows {
            let live = &mut self.streams[window.stream];
            if live.sent < live.certain {
                is_certain = true;
                self.outcome.held = self.outcome.held.max(self.now - live.certain_since);
            }
            live.sent = window.to;
            live.in_flight += 1;
            self.outcome.steps += 1;
            self.outcome.depth += live.in_flight;
            self.outcome.sent += window.to - window.from;
            if window.stream == 0 {
                self.outcome.windows.push(Left {
                    seconds: self.now,
                    certain: live.certain,
                    tokens: window.to - window.from,
                    in_flight: live.in_flight,
                });
            }
        }
        let number = self.next_step;
        self.next_step += 1;
        self.steps.insert(
            number,
            Step {
                windows,
                tokens,
                is_certain,
                cancelled: None,
                since: self.now,
            },
        );
        self.flow.sent(number as u64, tokens);
        self.at(
            self.now,
            Event::Arrives {
                stage: 0,
                step: number,
            },
        );
        true
    }
}
