//! Has a machine that was told to serve nothing serve what the mesh lacks. What that is, `plan/adopt` decides.

use super::lending::MadeRoom;
use super::orders::{LoadedFor, ModelOrder};
use super::placing::id;
use super::split::Lent;
use crate::engine::State;
use crate::mesh::core::View;
use crate::mesh::state::{ModelState, NodeState, OnDisk, Stage, WantState};
use crate::mesh::{Mesh, Offer};
use crate::models::{Library, Missing, Resolved, TINY};
use crate::plan::adopt::{
    Candidate, Choice, Model, Need, Remembered, Room, Served, Source, Told, Wanted, choose, keeps, patience,
    turn,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

/// How long a machine that found nothing to do looks again, though nothing changed: files may have come.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// What is not wanted any more is given up after this time: its user may only start anew.
const LET_GO_AFTER: Duration = Duration::from_secs(1);

/// What is looked at, beside the mesh.
pub(super) struct Sources {
    /// What this machine offers.
    pub(super) offered: watch::Receiver<Offer>,
    /// What the engine of its first model does.
    pub(super) engine: watch::Receiver<State>,
    /// To whom it lends.
    pub(super) lent: watch::Receiver<Vec<Lent>>,
    /// The models on its disk.
    pub(super) on_disk: watch::Receiver<Vec<OnDisk>>,
}

/// What a need is known by.
type Needed = (String, Need);

/// The part of this machine that takes models on.
pub(super) struct Adopting {
    pub(super) mesh: Mesh,
    pub(super) library: Arc<Library>,
    pub(super) sources: Sources,
    /// Has the model that nobody asked for make room.
    pub(super) room: MadeRoom,
    pub(super) orders: mpsc::Sender<ModelOrder>,
}

/// What it has in mind.
#[derive(Debug, Default)]
struct Mind {
    remembered: Remembered,
    /// Since when each need lasts.
    since: BTreeMap<Needed, Instant>,
    adopted: Option<String>,
    /// Since when what it took on is to be given up.
    unwanted: Option<Instant>,
    /// What could not be served once is left to others; what was refused, for a while.
    failed: BTreeSet<String>,
    refused: BTreeMap<String, Instant>,
}

impl Adopting {
    /// Looks for what the mesh lacks, for as long as there is a mesh.
    pub(super) async fn follow(mut self) {
        let mut view = self.mesh.view();
        let (mut mind, began) = (Mind::default(), Instant::now());
        loop {
            let models = models(
                &view.borrow_and_update(),
                &self.sources.offered.borrow_and_update(),
                &mut mind.remembered,
                began.elapsed(),
            );
            self.give_up(&mut mind, &models).await;
            let next = self.next(&mut mind, &models, &view.borrow());
            let due = match next {
                Some((choice, due)) if due <= Instant::now() => self.take_on(&mut mind, choice).await,
                next => next.map(|(_, due)| due),
            };
            let unwanted = mind.unwanted.map(|since| since + LET_GO_AFTER);
            let due = due.into_iter().chain(unwanted).min();
            tokio::select! {
                changed = view.changed() => if changed.is_err() { return },
                changed = self.sources.offered.changed() => if changed.is_err() { return },
                () = sleep_until(due.unwrap_or_else(|| Instant::now() + LOOK_AGAIN)) => {}
            }
        }
    }

    /// Gives up what it took on, if it is to be.
    async fn give_up(&self, mind: &mut Mind, models: &[Model]) {
        let Some(model) = &mind.adopted else {
            // The one that nobody asked for comes back once the other is gone.
            let made_for = self.room.is_made_for();
            if made_for.is_some_and(|model| !self.own_models().contains(&model)) {
                self.room.give_back();
            }
            return;
        };
        let has_failed = {
            let offered = self.sources.offered.borrow();
            let mut own = offered.models.iter().filter(|own| own.name == *model);
            own.any(|own| own.stage == Stage::Failed)
        };
        mind.unwanted = match keeps(model, models) {
            true => None,
            false => mind.unwanted.or_else(|| Some(Instant::now())),
        };
        let is_over = mind.unwanted.is_some_and(|since| since.elapsed() >= LET_GO_AFTER);
        if !has_failed && !is_over {
            return;
        }
        tracing::info!(
            model,
            has_failed,
            "this machine gives up a model that it took on for the mesh"
        );
        if has_failed {
            mind.failed.insert(model.clone());
        }
        mind.unwanted = None;
        if let Some(model) = mind.adopted.take() {
            let (reply, _) = oneshot::channel();
            // The daemon ends: there is nothing to be dropped.
            let _ = self.orders.send(ModelOrder::Drop { model, reply }).await;
        }
    }

    /// What is to be taken on next, if there is something, and when.
    fn next<'a>(&self, mind: &mut Mind, models: &'a [Model], view: &View) -> Option<(Choice<'a>, Instant)> {
        let now = Instant::now();
        let needs: BTreeSet<Needed> = models
            .iter()
            .filter_map(|model| Some((model.name.clone(), model.need()?)))
            .collect();
        mind.since.retain(|needed, _| needs.contains(needed));
        for needed in needs {
            mind.since.entry(needed).or_insert(now);
        }
        mind.refused.retain(|_, until| *until > now);
        if mind.adopted.is_some() || self.room.is_made_for().is_some() {
            return None;
        }
        let own = self.own_models();
        let source = |model: &str| {
            let is_left = mind.failed.contains(model) || mind.refused.contains_key(model);
            (!is_left && !own.contains(model))
                .then(|| self.source(model))
                .flatten()
        };
        let choice = choose(models, self.room_left(), source)?;
        let Choice { model, need, source } = choice;
        let me = Candidate {
            has_it: source == Source::OnDisk,
            machine: id(view.me),
        };
        let turn = turn(me, others(view, model));
        let since = mind.since.get(&(model.name.clone(), need)).copied();
        Some((choice, since.unwrap_or(now) + patience(need, source, turn)))
    }

    /// Begins to serve it, if that is possible; else when it is to be looked again.
    async fn take_on(&self, mind: &mut Mind, Choice { model, need, .. }: Choice<'_>) -> Option<Instant> {
        let name = &model.name;
        match self.load(model).await {
            Ok(()) => {
                tracing::info!(model = name, ?need, "this machine serves what the mesh lacks");
                mind.adopted = Some(name.clone());
                None
            }
            Err(why) => {
                tracing::debug!(
                    model = name,
                    why,
                    "the mesh lacks a model, which this machine cannot serve"
                );
                self.room.give_back();
                let again = Instant::now() + LOOK_AGAIN;
                mind.refused.insert(name.clone(), again);
                Some(again)
            }
        }
    }

    /// Has it served.
    async fn load(&self, model: &Model) -> Result<(), String> {
        let (library, words) = (self.library.clone(), model.name.clone());
        // The disk is looked at: what is there now counts, and words may mean something else here.
        let is_known = tokio::task::spawn_blocking(move || is_known(&library, &words));
        if !is_known.await.unwrap_or_default() {
            return Err("there is no model of this name any more".to_owned());
        }
        if model.bytes > self.room_left().beside && !self.room.make(&model.name).await {
            return Err("the model that nobody asked for takes too long to make room".to_owned());
        }
        let (reply, answer) = oneshot::channel();
        let order = ModelOrder::Load {
            model: model.name.clone(),
            why: LoadedFor::Mesh,
            reply,
        };
        let ends = || "mesh-llm is ending".to_owned();
        self.orders.send(order).await.map_err(|_| ends())?;
        let answer = answer.await.map_err(|_| ends())?;
        answer.map(drop).map_err(|refusal| refusal.message)
    }

    /// The models that this machine has already.
    fn own_models(&self) -> BTreeSet<String> {
        let own = self.sources.offered.borrow();
        own.models.iter().map(|model| model.name.clone()).collect()
    }

    /// What this machine has left.
    fn room_left(&self) -> Room {
        let own = self.sources.offered.borrow();
        let asked: u64 = own.wants.iter().map(WantState::bytes).sum();
        let lent: u64 = self.sources.lent.borrow().iter().map(|lent| lent.bytes).sum();
        let most = own
            .memory
            .offered_bytes
            .saturating_sub(asked.saturating_add(lent));
        let unasked = match &*self.sources.engine.borrow() {
            State::Ready(serving) if !own.wants.iter().any(|want| want.model == serving.model) => {
                serving.ready.model_bytes + serving.ready.context_bytes
            }
            _ => 0,
        };
        Room {
            beside: most.saturating_sub(unasked),
            most,
        }
    }

    /// How this machine comes by the model that others call so.
    fn source(&self, model: &str) -> Option<Source> {
        let on_disk = self.sources.on_disk.borrow();
        if model == TINY || on_disk.iter().any(|known| known.name == model) {
            return Some(Source::OnDisk);
        }
        let entry = self.library.catalog.entry(model)?;
        entry.source.is_some().then_some(Source::Catalog)
    }
}

/// Whether the word means the very model that others call so: others' paths mean nothing here.
fn is_known(library: &Library, model: &str) -> bool {
    match library.resolve(Some(model), u64::MAX) {
        Ok(Resolved::Here(found)) => found.id == model,
        Ok(Resolved::Missing(Missing::Known(entry))) => entry.name == model,
        _ => false,
    }
}

/// The other machines that were told nothing, and may take it on as well.
fn others<'a>(view: &'a View, model: &'a Model) -> impl Iterator<Item = Candidate> + 'a {
    let states = view.nodes.iter().map(|seen| &seen.state);
    let free = states.filter(|state| {
        let has_room = state.memory.offered_bytes >= model.bytes || model.wanted == Wanted::Before;
        state.wants.is_empty() && has_room
    });
    free.map(|state| Candidate {
        has_it: state.on_disk.iter().any(|known| known.name == model.name),
        machine: id(state.node),
    })
}

/// All that is wanted, and how it is served.
fn models(view: &View, own: &Offer, remembered: &mut Remembered, now: Duration) -> Vec<Model> {
    let states = || view.nodes.iter().map(|seen| &seen.state);
    let copies = |name: &str| -> Vec<&ModelState> {
        let others = states().flat_map(|state| &state.models);
        let all = others.chain(&own.models);
        all.filter(|model| model.name == name).collect()
    };
    let there = states().map(|state| (id(state.node), told(&state.wants)));
    let there = there.chain([(id(view.me), told(&own.wants))]).collect();
    let is_used = |name: &str| copies(name).iter().any(|model| requests(model) > 0);
    let wanted = remembered.wanted(now, there, is_used);
    let groups = || states().flat_map(|state| &state.groups).chain(&own.groups);
    let models = wanted.into_iter().map(|(told, wanted)| Model {
        wanted,
        is_split: told.is_split || groups().any(|group| group.model == told.model),
        served: served(&copies(&told.model)),
        is_elsewhere: states().any(|state| stays(state, &told.model, view)),
        name: told.model,
        bytes: told.bytes,
    });
    models.collect()
}

/// Whether that machine serves the model also where this one does not: of those who took it on, the first by id stays.
fn stays(state: &NodeState, model: &str, view: &View) -> bool {
    let mut models = state.models.iter();
    let is_ready = models.any(|own| own.name == model && own.stage == Stage::Ready);
    let mut wants = state.wants.iter();
    let was_asked = wants.any(|want| want.model == model && !want.is_adopted);
    is_ready && (was_asked || state.node < view.me)
}

/// What a machine was told to serve.
fn told(wants: &[WantState]) -> Vec<Told> {
    let asked = wants.iter().filter(|want| !want.is_adopted);
    let told = asked.map(|want| Told {
        model: want.model.clone(),
        bytes: want.bytes(),
        is_split: want.is_split,
    });
    told.collect()
}

/// How a model is served that has these copies.
fn served(copies: &[&ModelState]) -> Served {
    let is = |stage: Stage| copies.iter().any(|copy| copy.stage == stage);
    let is_soon = copies
        .iter()
        .any(|copy| matches!(copy.stage, Stage::Downloading { .. } | Stage::Loading { .. }));
    if is_soon {
        return Served::Soon;
    }
    if is(Stage::Ready) {
        return Served::Yes {
            slots: copies.iter().map(|copy| copy.slots).fold(0, u32::saturating_add),
            requests: copies
                .iter()
                .map(|copy| requests(copy))
                .fold(0, u32::saturating_add),
        };
    }
    match is(Stage::Failed) && !is(Stage::Waiting) {
        true => Served::Failed,
        false => Served::No,
    }
}

fn requests(model: &ModelState) -> u32 {
    model.busy.saturating_add(model.waiting)
}
