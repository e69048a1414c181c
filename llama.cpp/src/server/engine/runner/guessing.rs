//! What leaves with guesses, and when.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use super::Runner;
use crate::llama::{Context, Error};
use crate::server::engine::flow::RingOf;
use crate::server::engine::pipeline::Pipeline;
use crate::server::engine::placement::CacheKind;
use crate::server::engine::policy::Share;
use crate::server::engine::slot::{SlotId, Want};
use crate::server::engine::speculation::Guesses;
use crate::server::engine::speculation::acceptance::{Acceptance, SourceKind};
use crate::server::engine::speculation::drafter::{Draft, Drafter, DrafterParams};
use crate::server::engine::speculation::governor::Governor;
use crate::server::engine::speculation::heads::Heads;
use crate::server::engine::speculation::policy::{
    Claims, Decision, Division, Fixed, Offer, Policy, Ring, Stream,
};
use crate::server::engine::task::Speculated;
use crate::server::engine::{Command, SpeculationParams};
use crate::server::options::SpeculationMode;

/// Steps in flight at most, those of guesses alone included: each holds its rows of logits.
pub(super) const MOST_STEPS: usize = 48;
/// A draft that is awaited may take so many times as long as expected,
const PATIENCE: f64 = 4.0;
/// on one node as long as so much of a step,
const PATIENCE_OF_STEP: f64 = 0.5;
/// and so long at any rate.
const LEAST_PATIENCE: Duration = Duration::from_millis(2);

/// What guessing needs besides the slots.
#[derive(Debug)]
pub struct Speculating {
    /// What leaves when.
    pub policy: Policy,
    /// The draft model, if there is one.
    pub drafter: Option<Drafter>,
    /// Heads inside the model, or made for it, if they guess. There is no draft model then.
    pub heads: Option<Heads>,
    /// Whether text that was there before is copied.
    pub copies: bool,
    /// Most windows of a slot in flight.
    pub most_windows: usize,
    /// Whether it all pays.
    pub governor: Governor,
    /// What all requests taught.
    pub acceptance: Acceptance,
    /// Seconds that the draft model took for a guess of late, whoever it was for.
    pub draft_seconds: Option<f64>,
    /// Until when a draft is waited for before something leaves.
    pub waits_until: Option<Instant>,
    /// How so many answers share a split, until costs are looked up anew.
    pub divided: Option<(usize, Division)>,
}

impl Speculating {
    /// As `params` say, for a cache of this kind. Heads are those of `target`'s model.
    ///
    /// # Errors
    /// Where the draft model's context cannot be made.
    pub fn start(
        params: SpeculationParams,
        cache: CacheKind,
        target: Option<&mut Context>,
        commands: Sender<Command>,
    ) -> Result<Self, Error> {
        let (copies, drafts) = match params.mode {
            SpeculationMode::Off => (false, false),
            SpeculationMode::Auto => (true, true),
            SpeculationMode::Draft => (false, true),
            SpeculationMode::NGram => (true, false),
        };
        let heads = params.heads.filter(|_| drafts).zip(target);
        let heads = heads.and_then(|(heads, target)| {
            // SAFETY: whoever made the parameters says that llama.cpp can compute these heads with this model, whose
            // context the loop keeps as long as it runs.
            let heads = unsafe { Heads::new(target, heads, params.min_p) };
            heads
                .inspect_err(|error| tracing::warn!(%error, "the model's heads guess nothing"))
                .ok()
        });
        let drafter = params.model.filter(|_| drafts).map(|(model, context)| {
            let params = DrafterParams {
                model,
                context,
                least_probability: params.min_p,
            };
            // A loop that is gone needs no drafts.
            Drafter::start(params, move |drafts| drop(commands.send(Command::Drafts(drafts))))
        });
        let most_window = params.most_window.max(1) as usize;
        Ok(Self {
            policy: Policy {
                most_window,
                fixed: params.windows.map(|windows| Fixed {
                    window: most_window,
                    windows: windows.max(1) as usize,
                }),
            },
            drafter: drafter.transpose()?,
            heads,
            copies,
            most_windows: match cache {
                // A recurrent state can go back by one window, and only while it is the last.
                CacheKind::State => 1,
                CacheKind::Cells | CacheKind::Window(_) => MOST_STEPS,
            },
            governor: Governor::default(),
            acceptance: Acceptance::default(),
            draft_seconds: None,
            waits_until: None,
            divided: None,
        })
    }

    /// Waits for a command, and for a draft no longer than it is worth.
    pub fn wait(&self, commands: &Receiver<Command>) -> Result<Command, RecvTimeoutError> {
        match self.waits_until {
            Some(until) => commands.recv_timeout(until.saturating_duration_since(Instant::now())),
            None => commands.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    /// Whether anything guesses.
    pub fn is_on(&self) -> bool {
        self.copies || self.has_model()
    }

    /// Whether a draft model or heads guess.
    fn has_model(&self) -> bool {
        self.drafter.is_some() || self.heads.is_some()
    }

    /// What a new request's guesses begin with.
    pub fn begin(&self, prediction: Vec<crate::llama::Token>, prompt: usize) -> Option<Guesses> {
        let acceptance = self.acceptance.new_request();
        let drafts = match self.heads {
            Some(_) => SourceKind::Heads,
            None => SourceKind::Model,
        };
        self.is_on().then(|| {
            Guesses::new(
                acceptance,
                prediction,
                prompt,
                self.copies,
                drafts,
                self.draft_seconds,
            )
        })
    }
}

impl Runner {
    /// Whether answers guess now.
    fn is_guessing(&self) -> bool {
        let Speculating { policy, governor, .. } = &self.speculating;
        self.speculating.is_on() && (policy.fixed.is_some() || governor.allows(self.answering()))
    }

    /// Answers that get tokens now.
    pub(super) fn answering(&self) -> usize {
        self.slots.iter().filter(|slot| slot.is_answering()).count()
    }

    /// How so many answers share a split now.
    pub(super) fn divide(&mut self, answers: usize) -> Division {
        if !self.is_guessing() || !self.flow.is_measured() {
            return Division::plain(self.flow.groups(answers));
        }
        if let Some((_, known)) = self.speculating.divided.filter(|(of, _)| *of == answers) {
            return known;
        }
        let without = self.flow.groups(answers);
        let policy = &self.speculating.policy;
        let division = policy.divide(&self.ring(), answers, &self.mean_offer(), without);
        self.speculating.divided = Some((answers, division));
        division
    }

    /// What answers' guesses are like, on average.
    fn mean_offer(&self) -> Offer {
        let has_model = self.speculating.has_model();
        let answering = self.slots.iter().filter(|slot| slot.is_answering());
        let outlooks: Vec<Offer> = answering
            .map(|slot| match &slot.guesses {
                Some(guesses) => guesses.outlook(has_model),
                None => Offer::NOTHING,
            })
            .collect();
        let count = outlooks.len().max(1);
        Offer {
            likely: outlooks.iter().map(|outlook| outlook.likely).sum::<f32>() / count as f32,
            seconds: outlooks.iter().map(|outlook| outlook.seconds).sum::<f64>() / count as f64,
        }
    }

    /// Takes note of what a step brought: so many tokens of its answers.
    pub(super) fn note_progress(&mut self, step: &super::Step, streams: usize, tokens: usize) {
        if step.prefill > 0 || streams == 0 {
            return self.speculating.governor.interrupt();
        }
        let groups = self.flow.groups(streams);
        let plain = self.ring().cost(streams.div_ceil(groups)).around();
        let guesses = step.parts.iter().map(|part| part.guesses).sum();
        let now = self.begun.elapsed().as_secs_f64();
        let governor = &mut self.speculating.governor;
        governor.chosen(streams, tokens, guesses, now, plain);
    }

    /// Takes in what the draft model says.
    pub(super) fn accept_draft(&mut self, draft: Draft) {
        let in_turn = !self.is_split();
        match draft {
            Draft::Token(guess) => {
                let slot = self.slots.get_mut(guess.slot.0 as usize);
                if let Some(slot) = slot.filter(|slot| !slot.parked)
                    && let Some(guesses) = &mut slot.guesses
                {
                    guesses.drafted(&mut slot.sequence, &guess, Instant::now(), in_turn);
                    self.speculating.draft_seconds = guesses.draft_seconds();
                }
            }
            Draft::End { slot, revision } => {
                let slot = self.slots.get_mut(slot.0 as usize);
                if let Some(guesses) = slot.and_then(|slot| slot.guesses.as_mut()) {
                    guesses.ended(revision);
                }
            }
            Draft::Failed(cause) => {
                tracing::warn!(cause, "the draft model failed: answers go on without it");
                self.speculating.drafter = None;
                self.speculating.divided = None;
            }
        }
    }

    /// The draft model hears what it is to do.
    pub(super) fn tell_drafter(&mut self) {
        if let Some(drafter) = &mut self.speculating.drafter {
            drafter.tell();
        }
    }

    /// Has the draft model read a prompt while the nodes do. On one node they would be in each other's way.
    pub(super) fn prepare_draft(&mut self, index: usize) {
        if !self.is_split() {
            return;
        }
        let slot = &mut self.slots[index];
        if let Some(guesses) = &mut slot.guesses {
            let drafter = self.speculating.drafter.as_mut();
            guesses.extend(
                SlotId(index as u32),
                &mut slot.sequence,
                drafter,
                0,
                1,
                Instant::now(),
            );
        }
    }

    /// Ends guessing for slot `index`, whose request ends: what became of its guesses.
    pub(super) fn end_guesses(&mut self, index: usize) -> Speculated {
        let Some(mut guesses) = self.slots[index].guesses.take() else {
            return Speculated::default();
        };
        guesses.waste();
        if let Some(drafter) = &mut self.speculating.drafter {
            drafter.until(SlotId(index as u32), 0);
        }
        let speculated = guesses.counts();
        self.state.guesses_total += speculated.guesses;
        speculated
    }

    /// Takes note of how many windows of guesses are on their way, now that a step left.
    pub(super) fn note_windows(&mut self) {
        let Some(pipeline) = &self.pipeline else { return };
        let Some(last) = pipeline.in_flight().last() else {
            return;
        };
        for part in last.parts.iter().filter(|part| part.guesses > 0) {
            let steps = pipeline
                .in_flight()
                .filter(|step| step.has(part.slot, part.epoch));
            if let Some(guesses) = &mut self.slots[part.slot.0 as usize].guesses {
                guesses.left(steps.count());
            }
        }
    }

    /// Windows of guesses on their way.
    pub(super) fn windows_in_flight(&self) -> u32 {
        let steps = self.pipeline.iter().flat_map(Pipeline::in_flight);
        let parts = steps.flat_map(|step| &step.parts);
        parts.filter(|part| part.guesses > 0 && !part.void).count() as u32
    }

    /// Who else wants the devices, with answers in so many steps, and so many tokens of others in this one.
    pub(super) fn claims(&self, groups: usize, beside: usize) -> Claims {
        Claims {
            streams: self.answering(),
            groups,
            steps_in_flight: self.steps_in_flight(|_| true),
            beside,
        }
    }

    /// Whether so many steps are in flight that no stage is without work. More of them would wait each for
    /// itself, not together.
    pub(super) fn is_ring_full(&self, groups: usize) -> bool {
        let claims = self.claims(groups, 0);
        let most = || self.speculating.policy.most_steps(&self.ring(), &claims);
        self.is_guessing() && claims.streams > 1 && claims.steps_in_flight >= most()
    }

    fn ring(&self) -> RingOf<'_> {
        let takes_turns = !self.is_split();
        let most_windows = if takes_turns {
            1
        } else {
            self.speculating.most_windows
        };
        RingOf {
            flow: &self.flow,
            costs: &self.step_times,
            most_windows,
            takes_turns,
        }
    }

    /// Guesses that slot `index` may have: what the answer and the context have room for. The row of the last
    /// one gives a token, too.
    fn guess_room(&self, index: usize) -> usize {
        let slot = &self.slots[index];
        let Some(running) = &slot.running else { return 0 };
        let answer = running.max_tokens().saturating_sub(slot.sequence.generated());
        let context = self.limits.context.saturating_sub(slot.sequence.len());
        answer.min(context).saturating_sub(1)
    }

    /// Has sources guess for slot `index`.
    pub(super) fn extend(&mut self, index: usize, claims: &Claims) {
        let room = self.guess_room(index);
        // On one node model and draft share a device: they take turns.
        let idle = self.is_split() || self.pipeline.as_ref().is_none_or(Pipeline::is_empty);
        let slot = &mut self.slots[index];
        let Some(guesses) = &mut slot.guesses else { return };
        let can_copy = self.speculating.copies && guesses.can_copy(&slot.sequence);
        let (copying, (drafting, unobserved)) = (guesses.copying(), guesses.model());
        let ahead = |offer, unobserved| {
            let policy = &self.speculating.policy;
            policy.ahead(&self.ring(), claims, offer, unobserved).min(room)
        };
        let drafts = if idle && self.speculating.has_model() {
            ahead(&drafting, unobserved)
        } else {
            0
        };
        let copies = if can_copy { ahead(&copying, 0) } else { 0 };
        let slot = &mut self.slots[index];
        let Some(guesses) = &mut slot.guesses else { return };
        if let Some(heads) = &self.speculating.heads {
            return guesses.extend_by_heads(&mut slot.sequence, copies, drafts, heads.seconds());
        }
        guesses.extend(
            SlotId(index as u32),
            &mut slot.sequence,
            self.speculating.drafter.as_mut(),
            copies,
            drafts,
            Instant::now(),
        );
    }

    /// What slot `index` sends now, its next token being `certain` or not. In a hurry it does not wait.
    pub(super) fn decide(&self, index: usize, claims: &Claims, certain: bool, hurry: bool) -> Decision {
        let slot = &self.slots[index];
        let without = if certain {
            Decision::Send(0)
        } else {
            Decision::Hold
        };
        let Some(guesses) = &slot.guesses else {
            return without;
        };
        let room = self
            .guess_room(index)
            .saturating_sub(slot.sequence.guesses_sent());
        let mut unsent = guesses.unsent();
        let full = unsent.len() >= room;
        unsent.truncate(room);
        let in_flight = |pipeline: &Pipeline<super::Step>| {
            let steps = pipeline.in_flight();
            steps
                .filter(|step| step.has(SlotId(index as u32), slot.epoch))
                .count()
        };
        let next_guess = guesses.next_guess(&slot.sequence).filter(|_| !full && !hurry);
        if unsent.is_empty() && next_guess.is_none() {
            return without;
        }
        let outlook = guesses.outlook(self.speculating.has_model());
        let stream = Stream {
            certain,
            guesses: &unsent,
            reach: guesses.reach(),
            windows_in_flight: self.pipeline.as_ref().map_or(0, in_flight),
            expected: outlook.likely,
            draft_seconds: outlook.seconds,
            next_guess_seconds: next_guess,
        };
        self.speculating.policy.decide(&self.ring(), claims, &stream)
    }

    /// Adds guesses to the certain tokens of `shares`. One whose draft is worth waiting for is left out, unless
    /// others leave anyway.
    pub(super) fn add_guesses(&mut self, shares: Vec<Share>, groups: usize) -> Vec<Share> {
        if !self.is_guessing() {
            self.speculating.waits_until = None;
            return shares;
        }
        self.guess_by_heads(&shares, groups);
        // What heads could add is there now.
        let hurry = self.speculating.heads.is_some();
        let mut free = self.free_rows(&shares);
        let mut beside = shares.iter().map(|share| share.tokens).sum::<usize>();
        let mut leaving = Vec::with_capacity(shares.len());
        let mut waiting = Vec::new();
        for share in shares {
            let index = share.slot.0 as usize;
            if self.is_prefill(&share) {
                leaving.push(share);
                continue;
            }
            let claims = self.claims(groups, beside - 1);
            self.extend(index, &claims);
            let mut decision = self.decide(index, &claims, true, hurry);
            if !hurry && self.is_probing(index) {
                decision = Decision::Wait;
            }
            match decision {
                Decision::Wait if !self.waited_enough(index) => waiting.push(share),
                decision => leaving.push(with_guesses(share, &decision, &mut free, &mut beside)),
            }
        }
        if !waiting.is_empty() && !self.is_split() {
            // One node computes one step at a time: who left now would leave without the others.
            return Vec::new();
        }
        if waiting.is_empty() || !leaving.is_empty() {
            self.speculating.waits_until = None;
        }
        if !leaving.is_empty() {
            for share in waiting {
                let claims = self.claims(groups, beside - 1);
                let decision = self.decide(share.slot.0 as usize, &claims, true, true);
                leaving.push(with_guesses(share, &decision, &mut free, &mut beside));
            }
        }
        leaving
    }

    /// Whether slot `index` of one node awaits a guess that shows how good guesses are: beside the model it would
    /// cost more than before it.
    pub(super) fn is_probing(&self, index: usize) -> bool {
        let slot = &self.slots[index];
        let guesses = slot.guesses.as_ref().filter(|_| !self.is_split());
        guesses.is_some_and(|guesses| guesses.is_probing(&slot.sequence))
    }

    /// On one node the draft model rests while the model computes.
    pub(super) fn rest_drafts(&mut self) {
        if self.is_split() {
            return;
        }
        let Some(drafter) = &mut self.speculating.drafter else {
            return;
        };
        for (number, slot) in (0..).zip(&mut self.slots) {
            if let Some(guesses) = &mut slot.guesses {
                guesses.rest(SlotId(number), drafter);
            }
        }
    }

    /// Adds windows of guesses alone, behind those that are in flight, to what leaves anyway.
    pub(super) fn guess_windows(&mut self, shares: &mut Vec<Share>, groups: usize) {
        let in_flight = self.steps_in_flight(|_| true);
        let prefills = shares.iter().any(|share| self.is_prefill(share));
        if !self.is_guessing() || !self.is_split() || in_flight >= MOST_STEPS || prefills {
            return;
        }
        let answering: Vec<usize> = (0..self.slots.len())
            .filter(|index| self.slots[*index].is_answering())
            .collect();
        let together = answering.len().div_ceil(groups.max(1));
        let mut free = self.free_rows(shares);
        let mut beside = shares.iter().map(|share| share.tokens).sum::<usize>();
        for index in answering {
            if self.slots[index].sequence.want() != Want::Nothing || shares.len() >= together {
                continue;
            }
            let claims = self.claims(groups, beside);
            self.extend(index, &claims);
            if let Decision::Send(guesses) = self.decide(index, &claims, false, false) {
                let tokens = guesses.min(free);
                if tokens > 0 {
                    free -= tokens;
                    beside += tokens;
                    let slot = SlotId(index as u32);
                    shares.push(Share { slot, tokens });
                }
            }
        }
    }

    pub(super) fn is_prefill(&self, share: &Share) -> bool {
        matches!(
            self.slots[share.slot.0 as usize].sequence.want(),
            Want::Prefill(_)
        )
    }

    /// Tokens and rows that a step with these shares has left.
    fn free_rows(&self, shares: &[Share]) -> usize {
        let tokens: usize = shares.iter().map(|share| share.tokens).sum();
        let (prompts, answers): (Vec<&Share>, Vec<&Share>) =
            shares.iter().partition(|share| self.is_prefill(share));
        // Each guess wants a row, and a prompt's piece may want one for each token.
        let answers: usize = answers.iter().map(|share| share.tokens).sum();
        let rows = answers + prompts.len() * super::PROMPT_ROWS as usize;
        let rows = self.limits.rows.saturating_sub(rows);
        rows.min(self.limits.batch.saturating_sub(tokens))
    }

    /// Whether the draft for slot `index` was waited for long enough. Begins to wait if nobody did.
    fn waited_enough(&mut self, index: usize) -> bool {
        let window = self.speculating.policy.most_window as f64;
        let guesses = self.slots[index].guesses.as_ref();
        let expected = guesses.and_then(Guesses::draft_seconds).unwrap_or(0.0) * window;
        // On one node nothing else is done meanwhile, and a step without guesses costs more than some patience.
        let step = if self.is_split() {
            0.0
        } else {
            self.ring().cost(self.answering()).around()
        };
        let patience = (PATIENCE * expected).max(PATIENCE_OF_STEP * step);
        let patience = LEAST_PATIENCE.max(Duration::from_secs_f64(patience));
        let now = Instant::now();
        let until = *self.speculating.waits_until.get_or_insert(now + patience);
        let enough = now >= until;
        if let Some(guesses) = self.slots[index].guesses.as_mut().filter(|_| enough) {
            guesses.note_late();
        }
        enough
    }

    /// Steps whose parts are all worthless need not be computed.
    pub(super) fn cancel_void(&mut self) {
        if let Some(pipeline) = &mut self.pipeline {
            pipeline.cancel(super::Step::is_void);
        }
    }

    /// What slot `index` has in flight from position `cut` on is worthless.
    pub(super) fn void_from(&mut self, index: usize, cut: usize) {
        let Some(pipeline) = &mut self.pipeline else {
            return;
        };
        for step in pipeline.in_flight_mut() {
            step.void(SlotId(index as u32), cut);
        }
    }
}

/// A share with the guesses that are to go with it, as far as there is room.
fn with_guesses(mut share: Share, decision: &Decision, free: &mut usize, beside: &mut usize) -> Share {
    if let Decision::Send(guesses) = decision {
        let guesses = (*guesses).min(*free);
        *free -= guesses;
        *beside += guesses;
        share.tokens += guesses;
    }
    share
}
