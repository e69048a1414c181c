//! How much is guessed, and when guesses leave. Pure: it has no clock, what it knows is measured.
//!
//! One stream on a ring earns a token for each of its rows that only right guesses are before. Windows
//! leave one after the other, as fast as the slowest stage or the draft allows, and each comes back
//! after a whole ring. A wrong guess costs a ring: what is behind it was for nothing. So a window is
//! worth its expected rows less the time that it takes, at the price of what the best setting would
//! have earned in that time; the best setting is found by trying all in a formula.

#[cfg(test)]
mod tests;

use std::iter;

use super::super::flow::MOST_DEPTH;
use super::convex::below;
use super::run::Run;

/// Settings whose stream is this much better are worth leaving another for.
const GAIN: f64 = 1.02;
/// Least chance that a window is reached with which it leaves.
const LEAST_REACH: f64 = 0.002;
/// Part of a ring's time from which on the slowest stage is at work always.
const NEARLY: f64 = 0.9;
/// What steps of different lengths cost more than their time.
const UNEVEN: f64 = 1.3;
/// A ring with so many steps in flight, of those that keep its slowest stage at work, has room for more,
const ROOMY: f64 = 0.9;
/// and one with so many has none.
const CROWDED: f64 = 1.4;
/// Of the time that a step takes in a ring with room, so much is nobody's.
const MOST_FREE: f64 = 0.9;
/// A ring has no more steps in flight than this, of those that keep its slowest stage at work.
const MOST_FILLED: f64 = 1.6;
/// What nothing is surer than.
const SUREST: f64 = 0.995;
/// Known guesses that are looked at when a window is cut.
const LOOKS_AHEAD: usize = 48;
/// Part of the time that may go into guesses that are made only to see how good they are; those that follow one that
/// was right are not counted.
pub(super) const PROBING: f64 = 0.015;

/// What a step costs.
pub trait Ring {
    /// Seconds that each node takes for a step of so many tokens, the host first.
    fn stage_seconds(&self, tokens: usize) -> Vec<f64>;
    /// Seconds that a step spends between the nodes, once round.
    fn between_seconds(&self) -> f64;
    /// Most windows of a stream that may be in flight.
    fn most_windows(&self) -> usize;
    /// Whether nothing is drafted while a step is computed, and all streams wait for each other's drafts.
    fn takes_turns(&self) -> bool {
        false
    }

    /// What a step of so many tokens takes.
    fn cost(&self, tokens: usize) -> Cost {
        Cost::of(&self.stage_seconds(tokens), self.between_seconds())
    }
}

/// What runs on the ring now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claims {
    /// Answers that run, this one too.
    pub streams: usize,
    /// Into how many steps they are divided.
    pub groups: usize,
    /// Steps in flight that are not stale.
    pub steps_in_flight: usize,
    /// Tokens of others in the step that is being made: one for each that was not asked yet.
    pub beside: usize,
}

/// How answers share a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Division {
    /// Into how many steps they are divided.
    pub groups: usize,
    /// Whether guesses are worth more than what they take from others. Then answers leave as soon as the ring has room:
    /// those whose guesses were wrong do not wait for the others'.
    pub guesses_pay: bool,
}

/// A stream that could send.
#[derive(Debug, Clone, Copy)]
pub struct Stream<'a> {
    /// Whether the next token that was not sent is one that the target chose: it must leave.
    pub certain: bool,
    /// How likely each guess is right that was not sent, if all before it are.
    pub guesses: &'a [f32],
    /// How likely all that is in flight is right.
    pub reach: f32,
    /// Windows in flight that are not stale.
    pub windows_in_flight: usize,
    /// How likely guesses are right that are still to be made.
    pub expected: f32,
    /// Seconds that the source takes for a guess.
    pub draft_seconds: f64,
    /// Seconds until it has one more; `None`: it makes no more, or not now.
    pub next_guess_seconds: Option<f64>,
}

/// What a source offers.
#[derive(Debug, Clone, Copy)]
pub struct Offer {
    /// How likely its guesses are right, each if all before it are.
    pub likely: f32,
    /// Seconds that a guess takes.
    pub seconds: f64,
}

/// What a stream does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Sends the certain token, if there is one, and so many guesses.
    Send(usize),
    /// Waits for the next guess.
    Wait,
    /// Sends nothing before something came back.
    Hold,
}

impl Division {
    /// Into so many steps, as where guesses do not pay.
    pub fn plain(groups: usize) -> Self {
        Self {
            groups,
            guesses_pay: false,
        }
    }
}

impl Offer {
    /// No guess is right.
    pub const NOTHING: Self = Self {
        likely: 0.0,
        seconds: 0.0,
    };
}

/// Always the same, to compare with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fixed {
    /// Tokens of a window.
    pub window: usize,
    /// Windows in flight.
    pub windows: usize,
}

/// Decides.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// Most tokens of a window.
    pub most_window: usize,
    /// Not to be decided.
    pub fixed: Option<Fixed>,
}

/// What a step of some size takes, in seconds.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// At the first node.
    pub(super) host: f64,
    /// At the slowest.
    pub(super) slowest: f64,
    /// Once round.
    pub(super) around: f64,
}

impl Cost {
    /// Seconds that it takes once round.
    pub fn around(&self) -> f64 {
        self.around
    }

    /// What it is to one of a ring's streams, where so many steps share its stages.
    fn shared(self, steps: usize) -> Self {
        Self {
            host: self.host * steps as f64,
            slowest: self.slowest * steps as f64,
            ..self
        }
    }

    /// Where stages take so long, and the network between them.
    pub fn of(stages: &[f64], between: f64) -> Self {
        Self {
            host: stages.first().copied().unwrap_or(0.0),
            slowest: stages.iter().copied().fold(1e-9, f64::max),
            around: stages.iter().sum::<f64>() + between,
        }
    }
}

/// The best setting, as far as the formula knows.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Plan {
    window: usize,
    windows: usize,
    /// Tokens a second of one stream.
    rate: f64,
    /// The same without guesses.
    rate_without: f64,
    /// Tokens that a stream is worth whose windows are on their way, more than one that begins anew.
    steady: f64,
}

impl Plan {
    /// Whether guesses earn more than they take.
    fn pays(&self) -> bool {
        self.rate > self.rate_without * GAIN
    }
}

impl Policy {
    /// What a stream does now. A certain token never waits longer than it gains by it.
    pub fn decide(&self, ring: &dyn Ring, claims: &Claims, stream: &Stream<'_>) -> Decision {
        if let Some(fixed) = self.fixed {
            return fixed.decide(stream);
        }
        if !stream.certain && (stream.guesses.is_empty() || stream.windows_in_flight >= ring.most_windows()) {
            return Decision::Hold;
        }
        let outlook = Offer {
            likely: stream.expected,
            seconds: stream.draft_seconds,
        };
        let plan = self.plan(ring, claims, &outlook);
        let chances = Chances::of(stream);
        if !stream.certain {
            return self.follow(ring, claims, stream, &plan, &chances);
        }
        let best = self.best_window(ring, claims, stream, &plan, &chances);
        match best {
            Window::Of(tokens) => Decision::Send(tokens - 1),
            Window::Longer => Decision::Wait,
        }
    }

    /// How many steps may be in flight where several streams run: as many as leave no stage without work.
    /// More would only wait, each for itself, instead of together.
    pub fn most_steps(&self, ring: &dyn Ring, claims: &Claims) -> usize {
        let cost = ring.cost(claims.together());
        claims.steps().max((cost.around / cost.slowest + 0.01) as usize)
    }

    /// How many tokens a source should be ahead of what is certain; 0 if it should rest. `unobserved` are the
    /// tokens since one of its guesses was last seen to be wrong: where one was right, the next is looked at, too.
    pub fn ahead(&self, ring: &dyn Ring, claims: &Claims, offer: &Offer, unobserved: usize) -> usize {
        if let Some(fixed) = self.fixed {
            return fixed.window * (fixed.windows + 1);
        }
        let plan = self.plan(ring, claims, offer);
        if plan.pays() {
            return plan.window * (plan.windows + 1);
        }
        let token = 1.0 / plan.rate_without;
        let waiting = if ring.takes_turns() {
            claims.streams.max(1)
        } else {
            1
        };
        let seconds = offer.seconds * waiting as f64;
        usize::from(seconds <= PROBING * token * (unobserved + 1) as f64)
    }

    /// How so many answers share a ring whose guesses are such; without any they are divided into `without` steps. Guesses
    /// fill a ring, too, and then fewer steps are better that have more streams in each.
    pub fn divide(&self, ring: &dyn Ring, streams: usize, offer: &Offer, without: usize) -> Division {
        let mut division = Division {
            groups: without,
            guesses_pay: self.fixed.is_some(),
        };
        if self.fixed.is_some() || streams < 2 {
            return division;
        }
        let mut best = 0.0;
        let others = (1..=streams.min(MOST_DEPTH))
            .rev()
            .filter(|groups| *groups != without);
        for groups in iter::once(without).chain(others) {
            let plan = self.plan(ring, &Claims::of(streams, groups), offer);
            if plan.rate > best * GAIN {
                division = Division {
                    groups,
                    guesses_pay: plan.pays(),
                };
                best = plan.rate;
            }
        }
        division
    }

    /// The best setting for a stream whose guesses are all alike, if all streams do the same.
    fn plan(&self, ring: &dyn Ring, claims: &Claims, offer: &Offer) -> Plan {
        let likely = f64::from(offer.likely).clamp(0.0, SUREST);
        let mut plan = Plan {
            window: 1,
            windows: 1,
            rate: 0.0,
            rate_without: 0.0,
            steady: 0.0,
        };
        for window in 1..=self.most_window.max(1) {
            let shared = ring.cost(claims.together() * window).shared(claims.steps());
            let pace = shared.slowest.max(window as f64 * offer.seconds);
            let full = shared.around / pace;
            let counts = [1.0, 2.0, 3.0, full / 2.0, full, full + 1.0, full + 2.0];
            let counts = counts.map(|windows| (windows as usize).clamp(1, ring.most_windows().max(1)));
            for (index, windows) in counts.into_iter().enumerate() {
                if counts[..index].contains(&windows) {
                    continue;
                }
                let setting = Setting {
                    window,
                    windows,
                    likely,
                    draft: offer.seconds,
                    takes_turns: ring.takes_turns(),
                };
                let rate = setting.rate(&shared);
                if window == 1 && windows == 1 {
                    plan.rate_without = rate;
                }
                if rate > plan.rate {
                    (plan.window, plan.windows, plan.rate) = (window, windows, rate);
                    plan.steady = setting.steady(&shared, rate);
                }
            }
        }
        plan
    }

    /// Whether a window of guesses follows those in flight.
    fn follow(
        &self,
        ring: &dyn Ring,
        claims: &Claims,
        stream: &Stream<'_>,
        plan: &Plan,
        chances: &Chances<'_>,
    ) -> Decision {
        let reach = f64::from(stream.reach * stream.guesses[0]);
        if stream.windows_in_flight >= plan.windows || reach < LEAST_REACH {
            return Decision::Hold;
        }
        let tokens = match self.best_window(ring, claims, stream, plan, chances) {
            Window::Of(tokens) => tokens,
            Window::Longer => return Decision::Wait,
        };
        let cost = ring.cost(claims.beside + tokens);
        let pays = if claims.streams > 1 {
            reach * chances.rows(tokens) > claims.price_of_following(ring, &cost) * plan.rate
        } else {
            pays_alone(stream, plan, &cost, reach)
        };
        if pays {
            Decision::Send(tokens)
        } else {
            Decision::Hold
        }
    }

    /// How many tokens the next window has, its first, which is right, included.
    fn best_window(
        &self,
        ring: &dyn Ring,
        claims: &Claims,
        stream: &Stream<'_>,
        plan: &Plan,
        chances: &Chances<'_>,
    ) -> Window {
        let known = chances.known();
        let most = self.most_window.max(1);
        let most = match stream.next_guess_seconds {
            Some(_) => most,
            None => most.min(known),
        };
        let costs = self.step_costs(ring, claims, most);
        let steps = claims.steps();
        let best = if steps > 1 && costs[0].slowest * steps as f64 >= costs[0].around * NEARLY {
            best_in_full_ring(claims.streams.max(1), stream, plan, chances, &costs)
        } else {
            // Who shares the step is late with this one.
            let late = (claims.together() - 1) as f64;
            let shared = |cost: &Cost| Cost {
                around: cost.around + late * (cost.around - costs[0].around),
                slowest: cost.slowest * steps as f64,
                ..*cost
            };
            let costs: Vec<Cost> = costs.iter().map(shared).collect();
            if plan.windows == 1 {
                best_alone(stream, plan, chances, &costs)
            } else {
                best_in_flight(stream, plan, chances, &costs)
            }
        };
        if best > known {
            Window::Longer
        } else {
            Window::Of(best)
        }
    }

    /// What the step costs with 1 to `most` tokens of one more stream. Where streams share it, each decides for itself, and
    /// one alone cannot take it past a size that is slow to one that all of them together would reach: they go by the
    /// greatest convex costs below those of the ring.
    fn step_costs(&self, ring: &dyn Ring, claims: &Claims, most: usize) -> Vec<Cost> {
        let sizes = claims.beside + 1..=claims.beside + most;
        let together = claims.together();
        let largest = together * self.most_window.max(1);
        if together == 1 || claims.beside >= largest {
            return sizes.map(|tokens| ring.cost(tokens)).collect();
        }
        let first = together.min(claims.beside + 1);
        let costs: Vec<Cost> = (first..=largest.max(*sizes.end()))
            .map(|tokens| ring.cost(tokens))
            .collect();
        let convex = |of: fn(&Cost) -> f64| below(&costs.iter().map(of).collect::<Vec<_>>());
        let (host, slowest) = (convex(|cost| cost.host), convex(|cost| cost.slowest));
        let around = convex(|cost| cost.around);
        let at = |tokens: usize| Cost {
            host: host[tokens - first],
            slowest: slowest[tokens - first],
            around: around[tokens - first],
        };
        sizes.map(at).collect()
    }
}

/// Whether a window that is reached with chance `reach` should follow those of the only stream. What is sent now begins when
/// the host is done with what is before it; what is held, when the oldest window is back. Should that one be wrong, the host
/// must still be free.
fn pays_alone(stream: &Stream<'_>, plan: &Plan, cost: &Cost, reach: f64) -> bool {
    let in_flight = stream.windows_in_flight;
    let filled = (in_flight + 1) as f64 * cost.slowest;
    let pace = cost.slowest.max(plan.window as f64 * stream.draft_seconds);
    let gain = (1.05 * cost.around - in_flight as f64 * pace).clamp(0.0, pace);
    let blocked = (filled - cost.around).clamp(0.0, cost.host);
    let oldest_wrong = 1.0
        - f64::from(stream.reach)
            .max(1e-6)
            .powf(1.0 / in_flight.max(1) as f64);
    reach * gain > oldest_wrong * blocked
}

impl Claims {
    /// So many answers in so many steps, of which none is on its way.
    fn of(streams: usize, groups: usize) -> Self {
        Self {
            streams,
            groups,
            steps_in_flight: 0,
            beside: 0,
        }
    }

    /// Steps that share the ring.
    fn steps(&self) -> usize {
        self.groups.clamp(1, self.streams.max(1))
    }

    /// Streams in each of them.
    fn together(&self) -> usize {
        self.streams.max(1).div_ceil(self.steps())
    }

    /// Seconds of all streams that a window costs which follows among others', its step then being of this cost. Where
    /// the ring is not full yet, it takes from nobody; but where streams share steps, a step that leaves later takes more
    /// of them along.
    fn price_of_following(&self, ring: &dyn Ring, cost: &Cost) -> f64 {
        let together = self.together() as f64;
        let filled = (self.steps_in_flight + 1) as f64 * cost.slowest / cost.around;
        let more = match self.beside {
            0 if filled > MOST_FILLED => return f64::INFINITY,
            // Others go with it.
            0 => {
                let least = ring.cost(1).slowest;
                cost.slowest - least + least / together
            }
            // As it is measured, a larger step need not take longer.
            beside => (cost.slowest - ring.cost(beside).slowest).max(0.0),
        };
        let free = ((CROWDED - filled) / (CROWDED - ROOMY)).clamp(0.0, MOST_FREE);
        more * self.streams as f64 * (1.0 - free / together.powi(2))
    }
}

/// What is best where others keep the slowest stage at work all the time: guesses earn more than all lose by
/// the time that they take. Steps of different lengths wait for each other, which costs as well.
fn best_in_full_ring(
    streams: usize,
    stream: &Stream<'_>,
    plan: &Plan,
    chances: &Chances<'_>,
    costs: &[Cost],
) -> usize {
    let price = UNEVEN * plan.rate * streams as f64;
    let value = |tokens: usize, rows: f64, _: f64| {
        rows - price * costs[tokens - 1].slowest - plan.rate * wait(stream, chances, tokens)
    };
    best(chances, 0, costs.len(), value).1
}

/// What is best where a window leaves when the last one is back.
fn best_alone(stream: &Stream<'_>, plan: &Plan, chances: &Chances<'_>, costs: &[Cost]) -> usize {
    let value = |tokens: usize, rows: f64, _: f64| {
        rows - plan.rate * (costs[tokens - 1].around + wait(stream, chances, tokens))
    };
    best(chances, 0, costs.len(), value).1
}

/// What is best where windows follow each other. How known guesses are best cut is found from their end.
fn best_in_flight(stream: &Stream<'_>, plan: &Plan, chances: &Chances<'_>, costs: &[Cost]) -> usize {
    let horizon = chances.known().min(LOOKS_AHEAD);
    let after = match stream.next_guess_seconds {
        Some(_) => plan.steady,
        None => 0.0,
    };
    let mut values = vec![after; horizon + costs.len()];
    let mut tokens = 1;
    for from in (0..horizon).rev() {
        let value = |tokens: usize, rows: f64, all: f64| {
            let cost = &costs[tokens - 1];
            let wait = wait_in_flight(stream, chances, from, tokens, cost);
            let next = cost.slowest.max(cost.around / plan.windows as f64);
            rows - plan.rate * ((1.0 - all) * cost.around + all * next + wait) + all * values[from + tokens]
        };
        let found = best(chances, from, costs.len(), value);
        (values[from], tokens) = found;
    }
    tokens
}

/// The best of windows of 1 to `most` tokens from a token that is right, by a value of tokens, rows before
/// which all is right, and the chance that all is right with what follows.
fn best(
    chances: &Chances<'_>,
    from: usize,
    most: usize,
    value: impl Fn(usize, f64, f64) -> f64,
) -> (f64, usize) {
    let mut best = (f64::MIN, 1);
    let (mut rows, mut all) = (0.0, 1.0);
    for tokens in 1..=most {
        rows += all;
        all *= chances.at(from + tokens - 1);
        let value = value(tokens, rows, all);
        if value > best.0 {
            best = (value, tokens);
        }
    }
    best
}

/// Seconds until there are so many tokens.
fn wait(stream: &Stream<'_>, chances: &Chances<'_>, tokens: usize) -> f64 {
    match (tokens.saturating_sub(chances.known()), stream.next_guess_seconds) {
        (0, _) | (_, None) => 0.0,
        (missing, Some(next)) => next + stream.draft_seconds * (missing - 1) as f64,
    }
}

/// The same, where windows are in flight: while the host computes the last one, waiting costs nothing.
fn wait_in_flight(
    stream: &Stream<'_>,
    chances: &Chances<'_>,
    from: usize,
    tokens: usize,
    cost: &Cost,
) -> f64 {
    let wait = wait(stream, chances, from + tokens);
    if from > 0 {
        return (wait - cost.host).max(0.0);
    }
    if stream.certain {
        return wait;
    }
    let made = stream.draft_seconds * chances.known() as f64;
    (made + wait - cost.host).max(0.0) - (made - cost.host).max(0.0)
}

#[derive(Debug)]
enum Window {
    /// Of so many tokens.
    Of(usize),
    /// Of more than there are.
    Longer,
}

/// How likely guesses are right, each if all before it are. The token before the first is right.
struct Chances<'a> {
    guesses: &'a [f32],
    /// Of those that are still to be made.
    expected: f64,
}

impl<'a> Chances<'a> {
    fn of(stream: &Stream<'a>) -> Self {
        let expected = match stream.next_guess_seconds {
            Some(_) => f64::from(stream.expected),
            None => 0.0,
        };
        Self {
            guesses: &stream.guesses[usize::from(!stream.certain)..],
            expected,
        }
    }

    fn at(&self, index: usize) -> f64 {
        self.guesses
            .get(index)
            .map_or(self.expected, |guess| f64::from(*guess))
    }

    /// Rows of a window of so many tokens before which all is right, if its first token is.
    fn rows(&self, tokens: usize) -> f64 {
        let right = (0..tokens).scan(1.0, |all, index| {
            let before = *all;
            *all *= self.at(index);
            Some(before)
        });
        right.sum()
    }

    /// Tokens that there are.
    fn known(&self) -> usize {
        self.guesses.len() + 1
    }
}

/// One of the settings that a plan chooses from.
struct Setting {
    window: usize,
    windows: usize,
    likely: f64,
    draft: f64,
    takes_turns: bool,
}

impl Setting {
    /// How likely a window is right as a whole.
    fn all(&self) -> f64 {
        self.likely.powf(self.window as f64)
    }

    /// Rows of a window before which all is right.
    fn rows(&self) -> f64 {
        (1.0 - self.all()) / (1.0 - self.likely)
    }

    /// Tokens a second of one stream.
    fn rate(&self, cost: &Cost) -> f64 {
        let window = self.window as f64;
        let all = self.all();
        if self.windows == 1 {
            let rows = self.rows();
            let around = cost.around.max(cost.slowest);
            let anew = (window - 1.0) * self.draft;
            let ready = if self.takes_turns {
                anew
            } else {
                (window * self.draft - around).max(0.0)
            };
            return rows / (around + all * ready + (1.0 - all) * anew);
        }
        let run = Run::new(self.window, self.windows, self.draft, cost);
        1.0 / (1.0 - self.likely) / run.seconds(all)
    }

    /// Tokens that windows on their way are worth, at this price of time: each brings its rows, and leaves the next one on its
    /// way, or, with a wrong guess, nothing once it is back.
    fn steady(&self, cost: &Cost, rate: f64) -> f64 {
        let all = self.all();
        let drafted = self.window as f64 * self.draft;
        let pace = cost.slowest.max(drafted).max(cost.around / self.windows as f64);
        let gain = self.rows() - rate * ((1.0 - all) * cost.around + all * pace);
        (gain / (1.0 - all)).max(0.0)
    }
}

impl Fixed {
    fn decide(self, stream: &Stream<'_>) -> Decision {
        if !stream.certain && stream.windows_in_flight >= self.windows {
            return Decision::Hold;
        }
        let wanted = self.window - usize::from(stream.certain).min(self.window);
        match stream.next_guess_seconds {
            Some(_) if stream.guesses.len() < wanted => Decision::Wait,
            _ if !stream.certain && stream.guesses.is_empty() => Decision::Hold,
            _ => Decision::Send(stream.guesses.len().min(wanted)),
        }
    }
}
