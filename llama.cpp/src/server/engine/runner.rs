//! The loop that drives llama.cpp: the one owner of context, slots and queue.

mod admitting;
mod applying;
mod guessing;
mod heads;
mod keeping;
mod step;

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use tokio::sync::watch;

use super::Command;
use super::embedder::Embedder;
use super::flow::{Costs, Flow};
use super::pipeline::{Pipeline, Submitted};
use super::placement::CacheKind;
use super::policy::{Share, StepCosts, compose};
use super::request::{Request, Running};
use super::saved::SlotFiles;
use super::slot::{Sequence, SlotId, Want};
use super::speculation::Guesses;
use super::speculation::policy::Division;
use super::state::EngineState;
use super::task::{Embed, Failure};
use crate::llama::{Batch, Error, Token};
use guessing::MOST_STEPS;
pub use guessing::Speculating;
pub use step::{Part, Step};

/// Rows of logits that a step can have beyond one for each slot: prompts whose own log
/// probabilities are wanted are computed in pieces of this many tokens.
pub const PROMPT_ROWS: u32 = 32;

/// What the loop must keep within.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Requests that are served at once.
    pub slots: usize,
    /// Tokens that all slots share.
    pub context: usize,
    /// Most tokens of a step.
    pub batch: usize,
    /// Most rows of logits of a step.
    pub rows: usize,
    /// What the model's cache can do.
    pub cache: CacheKind,
}

#[derive(Debug, Default)]
struct Slot {
    sequence: Sequence,
    running: Option<Running>,
    /// What is guessed of its answer.
    guesses: Option<Guesses>,
    /// Had to give its cells to older requests and waits until there is room again.
    parked: bool,
    /// When its request began, or its last one ended, on the loop's clock.
    since: u64,
    /// Counts what makes steps on their way worthless: requests that begin, end, or lose their cells.
    epoch: u64,
}

impl Slot {
    /// Whether its answer gets a token in every step.
    fn is_answering(&self) -> bool {
        let want = self.sequence.want();
        self.running.is_some() && !self.parked && !matches!(want, Want::Prefill(_))
    }
}

/// See the module.
pub struct Runner {
    /// Dropped before the pipeline, whose context heads guess for.
    speculating: Speculating,
    pipeline: Option<Pipeline<Step>>,
    slots: Vec<Slot>,
    queue: VecDeque<Request>,
    embeds: VecDeque<Embed>,
    embedder: Box<dyn FnMut() -> Result<Embedder, Failure> + Send>,
    ready_embedder: Option<Embedder>,
    limits: Limits,
    costs: StepCosts,
    /// What steps take, by stage: one node is a stage.
    flow: Flow,
    step_times: Costs,
    /// Nothing can be done before a command comes.
    blocked: bool,
    /// Nobody can ask for more.
    ending: bool,
    begun: Instant,
    batch: Batch,
    clock: u64,
    /// Tokens of answers so far.
    chosen: u64,
    state: EngineState,
    published: watch::Sender<EngineState>,
    files: Option<SlotFiles>,
    lost: Arc<OnceLock<String>>,
}

impl Runner {
    /// A loop over `pipeline`, if the model makes text, and an embedder that is
    /// made when it is first needed. With `files`, slots begin with what was saved there.
    pub fn new(
        pipeline: Option<Pipeline<Step>>,
        limits: Limits,
        embedder: Box<dyn FnMut() -> Result<Embedder, Failure> + Send>,
        published: watch::Sender<EngineState>,
        files: Option<SlotFiles>,
        lost: Arc<OnceLock<String>>,
        speculating: Speculating,
    ) -> Self {
        let split = pipeline.as_ref().and_then(Pipeline::split);
        Self {
            flow: Flow::new(split.map_or(1, |split| split.queues())),
            step_times: Costs::default(),
            speculating,
            blocked: false,
            ending: false,
            begun: Instant::now(),
            pipeline,
            slots: (0..limits.slots).map(|_| Slot::default()).collect(),
            queue: VecDeque::new(),
            embeds: VecDeque::new(),
            embedder,
            ready_embedder: None,
            limits,
            costs: StepCosts::default(),
            batch: Batch::default(),
            clock: 0,
            chosen: 0,
            state: EngineState::default(),
            published,
            files,
            lost,
        }
    }

    /// Works until all senders of commands are gone.
    pub fn run(mut self, commands: &Receiver<Command>) {
        self.restore_slots();
        while self.receive(commands) {
            self.drop_abandoned();
            self.unpark();
            self.admit();
            self.embed_one();
            self.step();
            self.publish();
        }
        self.shut_down();
    }

    /// Takes in what came; waits for it if there is nothing else to do. `false` at the end.
    fn receive(&mut self, commands: &Receiver<Command>) -> bool {
        if self.lost.get().is_some() {
            commands.try_iter().for_each(|command| self.accept(command));
            return false;
        }
        let blocked = std::mem::take(&mut self.blocked);
        if self.is_idle() && self.ending {
            return false;
        }
        if self.is_idle() {
            self.speculating.waits_until = None;
        }
        self.tell_drafter();
        if self.is_idle() || blocked {
            match self.speculating.wait(commands) {
                Ok(command) => self.accept(command),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
        loop {
            match commands.try_recv() {
                Ok(command) => self.accept(command),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.queue.is_empty()
            && self.embeds.is_empty()
            && self.slots.iter().all(|slot| slot.running.is_none())
            && self.pipeline.as_ref().is_none_or(Pipeline::is_empty)
    }

    fn accept(&mut self, command: Command) {
        match command {
            Command::Generate(request) => {
                self.state.requests_total += 1;
                self.queue.push_back(*request);
            }
            Command::Embed(embed) => self.embeds.push_back(embed),
            Command::Save(saved) => {
                self.save_slots();
                // Whoever asked may be gone.
                let _ = saved.send(());
            }
            Command::Lost(cause) => self.lose(cause),
            Command::Drafts(drafts) => drafts.into_iter().for_each(|draft| self.accept_draft(draft)),
            // What came is seen when the loop goes on.
            Command::Answered => {}
            Command::End => self.ending = true,
        }
    }

    /// A node of the split is lost: nothing more can be computed.
    fn lose(&mut self, cause: String) {
        // The first cause is the one that counts.
        let _ = self.lost.set(cause);
    }

    fn embed_one(&mut self) {
        let Some(embed) = self.embeds.pop_front() else {
            return;
        };
        if embed.reply.is_closed() {
            return;
        }
        let made = match self.ready_embedder.take() {
            Some(embedder) => Ok(embedder),
            None => (self.embedder)(),
        };
        let result = made.and_then(|embedder| self.ready_embedder.insert(embedder).embed(&embed.tokens));
        let result = match self.pipeline.as_ref().and_then(Pipeline::lost) {
            // Reads of what is lost give zeros.
            Some(lost) => Err(Failure::Lost(lost.to_string())),
            None => result,
        };
        let _ = embed.reply.send(result);
    }

    fn is_split(&self) -> bool {
        self.pipeline
            .as_ref()
            .is_some_and(|pipeline| pipeline.split().is_some())
    }

    /// Submits a step if there is one to submit; takes the oldest one where that takes no time, or nothing
    /// else can be done meanwhile.
    fn step(&mut self) {
        let has_room = self.pipeline.as_ref().is_some_and(Pipeline::has_room);
        let submitted = has_room && self.submit();
        let Some(pipeline) = &mut self.pipeline else {
            return;
        };
        if submitted && pipeline.has_room() {
            return;
        }
        if pipeline.must_wait() {
            self.blocked = true;
        } else if let Some(finished) = pipeline.take() {
            self.apply(finished);
        } else {
            self.blocked = self.speculating.waits_until.is_some();
        }
    }

    fn wants(&self) -> Vec<(SlotId, Want)> {
        let mut order: Vec<usize> = (0..self.slots.len()).collect();
        order.sort_unstable_by_key(|index| self.slots[*index].since);
        let mut prompt_rows_free = true;
        let mut wants = Vec::with_capacity(order.len());
        for index in order {
            let slot = &self.slots[index];
            let Some(running) = slot.running.as_ref().filter(|_| !slot.parked) else {
                continue;
            };
            let mut want = slot.sequence.want();
            if let Want::Prefill(pending) = want
                && running.wants_prompt_logprobs()
            {
                let free = std::mem::take(&mut prompt_rows_free);
                want = if free {
                    Want::Prefill(pending.min(PROMPT_ROWS as usize))
                } else {
                    Want::Nothing
                };
            }
            wants.push((SlotId(index as u32), want));
        }
        wants
    }

    /// What goes into the next step.
    fn compose(&mut self, guess: bool) -> Vec<Share> {
        let wants = self.wants();
        if !self.is_split() {
            let shares = compose(&wants, self.limits.batch, wants.len(), &self.costs);
            return if guess {
                self.add_guesses(shares, 1)
            } else {
                shares
            };
        }
        let answers = self.answering();
        let division = self.divide(answers);
        let groups = division.groups;
        if self.is_ring_full(groups) {
            self.speculating.waits_until = None;
            return Vec::new();
        }
        let shares = self.compose_certain(wants, answers, division);
        if !guess {
            return shares;
        }
        let waits = !shares.is_empty();
        let mut leaving = self.add_guesses(shares, groups);
        // Where a certain token awaits its guesses, nothing leaves before it.
        if !waits || !leaving.is_empty() {
            self.guess_windows(&mut leaving, groups);
        }
        leaving
    }

    /// Steps in flight of a kind.
    fn steps_in_flight(&self, of: impl Fn(&Step) -> bool) -> usize {
        let steps = self.pipeline.iter().flat_map(Pipeline::in_flight);
        steps.filter(|step| of(step)).count()
    }

    /// What goes into the next step of a split, guesses aside.
    fn compose_certain(
        &mut self,
        mut wants: Vec<(SlotId, Want)>,
        answers: usize,
        division: Division,
    ) -> Vec<Share> {
        let answers_wait = wants.iter().any(|(_, want)| *want == Want::Decode);
        if self.steps_in_flight(|step| step.answers > 0) > 0 && !answers_wait {
            // Prefill goes beside answers, or they would wait for it.
            return Vec::new();
        }
        let pending = |want: &Want| match want {
            Want::Prefill(pending) => *pending,
            _ => 0,
        };
        let longest = wants.iter().map(|(_, want)| pending(want)).max().unwrap_or(0);
        let piece = self
            .flow
            .piece(longest)
            .min(self.limits.batch)
            .max(self.slots.len());
        let depth = if longest > 0 { self.flow.depth(piece) } else { 1 };
        let are_enough = if division.guesses_pay {
            self.steps_in_flight(|_| true) >= MOST_STEPS
        } else {
            self.steps_in_flight(Step::is_certain) >= depth.max(division.groups)
        };
        if are_enough {
            return Vec::new();
        }
        // Where answers leave whenever the ring has room, pieces of prompts go along until enough are on their way.
        if division.guesses_pay && self.steps_in_flight(|step| step.prefill > 0) >= depth {
            wants.retain(|(_, want)| !matches!(want, Want::Prefill(_)));
        }
        compose(&wants, piece, answers.div_ceil(division.groups), &self.costs)
    }

    fn submit(&mut self) -> bool {
        let mut guess = true;
        loop {
            let shares = self.compose(guess);
            if shares.is_empty() {
                return false;
            }
            let tokens = shares.iter().map(|share| share.tokens).sum();
            self.rest_drafts();
            self.tell_drafter();
            let step = self.fill(&shares);
            let Some(pipeline) = &mut self.pipeline else {
                return false;
            };
            match pipeline.submit(&mut self.batch, step) {
                Submitted::InFlight(number) => {
                    self.speculating.waits_until = None;
                    self.flow.sent(number, tokens);
                    self.note_windows();
                    return true;
                }
                Submitted::NoRoom(step) => {
                    for part in &step.parts {
                        let slot = &mut self.slots[part.slot.0 as usize];
                        slot.sequence.take_back(part.tokens);
                        if let Some(guesses) = &mut slot.guesses {
                            guesses.take_back(part.guesses);
                            slot.sequence.drop_guesses_from(slot.sequence.guesses_sent());
                        }
                    }
                    // Guesses are the first to go, then the cells of others.
                    if std::mem::take(&mut guess) && step.parts.iter().any(|part| part.guesses > 0) {
                        continue;
                    }
                    if !self.make_room() {
                        self.fail_step(
                            &step,
                            &Error::Decode("the KV cache has no room for a request alone".into()),
                        );
                        return false;
                    }
                }
                Submitted::Failed(step, error) => {
                    self.fail_step(&step, &error);
                    return false;
                }
            }
        }
    }

    /// Writes a step into the batch.
    fn fill(&mut self, shares: &[Share]) -> Step {
        self.batch.clear();
        let mut step = Step::default();
        for share in shares {
            let slot = &mut self.slots[share.slot.0 as usize];
            let answers = !matches!(slot.sequence.want(), Want::Prefill(_));
            let all_rows = slot.running.as_ref().is_some_and(Running::wants_prompt_logprobs)
                && slot.sequence.generated() == 0;
            let length = slot.sequence.len();
            let sent = slot.sequence.guesses_sent();
            let tokens: Vec<(usize, Token)> = slot.sequence.submit(share.tokens).collect();
            let mut part = Part {
                slot: share.slot,
                epoch: slot.epoch,
                position: tokens.first().map_or(length, |(position, _)| *position),
                tokens: share.tokens,
                row: self.batch.len(),
                guesses: slot.sequence.guesses_sent() - sent,
                rows: 0..0,
                prompt: Vec::new(),
                void: false,
            };
            if let Some(guesses) = &mut slot.guesses {
                guesses.sent(part.guesses);
            }
            let mut previous_row = None;
            for (position, token) in tokens {
                let row = self.batch.len();
                if let Some(previous) = previous_row.replace(row).filter(|_| all_rows) {
                    part.prompt.push((previous, token));
                }
                // From the last token that is certain on, each row says what comes next.
                let chooses = position + 1 >= length;
                self.batch
                    .push(token, position as u32, share.slot.0 as i32, chooses || all_rows);
                if chooses {
                    let first = if part.rows.is_empty() {
                        row
                    } else {
                        part.rows.start
                    };
                    part.rows = first..row + 1;
                }
            }
            if all_rows && let (Some(row), Some(next)) = (previous_row, slot.sequence.next_pending()) {
                part.prompt.push((row, next));
            }
            if answers {
                step.answers += share.tokens;
            } else {
                step.prefill += share.tokens;
            }
            step.parts.push(part);
        }
        step
    }

    fn publish(&mut self) {
        self.state.busy_slots = self.slots.iter().filter(|slot| slot.running.is_some()).count() as u32;
        self.state.waiting = self.queue.len() as u32;
        self.state.windows_in_flight = self.windows_in_flight();
        self.state.tokens_cached = self
            .slots
            .iter()
            .map(|slot| slot.sequence.cached().len() as u64)
            .sum();
        self.published.send_replace(self.state);
    }

    fn shut_down(mut self) {
        let lost = self.lost.get().cloned();
        let failure = || lost.clone().map_or(Failure::ShuttingDown, Failure::Lost);
        for embed in self.embeds.drain(..) {
            // Whoever asked may be gone.
            let _ = embed.reply.send(Err(failure()));
        }
        for request in self.queue.drain(..) {
            request.fail(failure());
        }
        for index in 0..self.slots.len() {
            if let Some(running) = self.release(index) {
                running.fail(failure());
            }
        }
    }
}
