//! Has a machine that was told to serve nothing serve what the mesh lacks. What that is, `plan/adopt` decides.

use super::super::serving::Taken;
use super::lending::MadeRoom;
use super::orders::{LoadedFor, ModelOrder};
use super::placing::id;
use super::split::Lent;
use crate::mesh::core::View;
use crate::mesh::state::{Gpus, MAX_ON_DISK, ModelState, NodeState, OnDisk, SplitPart, Stage, WantState};
use crate::mesh::{Mesh, Offer};
use crate::models::{Library, Missing, Resolved, TINY};
use crate::plan::adopt::{
    Candidate, Choice, Doubt, Model, Need, Remembered, Room, Served, Source, Told, Wanted, choices, doubt,
    patience, turn,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

/// How long a machine that found nothing to do looks again, though nothing changed: files may have come.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// What does not get ready for so long, though nothing is downloaded or read, will not: what it needs was reckoned wrongly.
const STUCK_AFTER: Duration = Duration::from_secs(90);

/// What could not be served is left to others for so long, and what the user ended here as well.
const LEAVE_FOR: Duration = Duration::from_secs(30 * 60);

/// A model that was taken on, or loaded, is there after this time, unless somebody ended it.
const BEGINS_WITHIN: Duration = Duration::from_secs(5);

/// What is looked at, beside the mesh.
pub(super) struct Sources {
    /// What this machine offers.
    pub(super) offered: watch::Receiver<Offer>,
    /// To whom it lends.
    pub(super) lent: watch::Receiver<Vec<Lent>>,
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
    /// Since when each need could be met here.
    since: BTreeMap<Needed, Instant>,
    adopted: Option<Adopted>,
    /// What is left to others, until then.
    left: BTreeMap<String, Instant>,
    /// Since when models for which room was made are not there.
    unused: BTreeMap<String, Instant>,
}

/// A model that was taken on.
#[derive(Debug)]
struct Adopted {
    model: String,
    since: Instant,
    /// Why it should be given up, and since when.
    doubt: Option<(Doubt, Instant)>,
    /// Since when it does not get on.
    stuck: Option<Instant>,
}

/// What becomes of a model that was taken on.
enum Fate {
    /// It stays; it is to be looked at again then.
    Stays(Option<Instant>),
    /// It is not this machine's to give up any more: its user ended it, or wants it.
    Users,
    /// It is given up, as others serve it or nobody needs it.
    Over,
    /// It is given up, as it cannot be served here.
    Failed,
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
            let look = self.give_up(&mut mind, &models).await;
            let back = self.give_back(&mut mind);
            let next = self.next(&mut mind, &models, &view.borrow());
            let due = match next {
                Some((choice, due)) if due <= Instant::now() => self.take_on(&mut mind, choice).await,
                next => next.map(|(_, due)| due),
            };
            let due = due.into_iter().chain(look).chain(back).min();
            tokio::select! {
                changed = view.changed() => if changed.is_err() { return },
                changed = self.sources.offered.changed() => if changed.is_err() { return },
                () = sleep_until(due.unwrap_or_else(|| Instant::now() + LOOK_AGAIN)) => {}
            }
        }
    }

    /// Gives up what it took on, if it is to be; else when that is to be looked at again.
    async fn give_up(&self, mind: &mut Mind, models: &[Model]) -> Option<Instant> {
        let adopted = mind.adopted.as_mut()?;
        let made_room = self.room.made_for().contains(&adopted.model);
        let fate = adopted.fate(made_room, models, &self.sources.offered.borrow());
        let model = adopted.model.clone();
        match fate {
            Fate::Stays(look) => {
                if self.has_no_room(&model) && !made_room && self.room.unasked() != Taken::Nothing {
                    tracing::debug!(model, "it needs more than was reckoned: the other makes room");
                    self.room.make_for(&model);
                }
                return look;
            }
            Fate::Users => {
                mind.leave(model);
                return None;
            }
            Fate::Failed => mind.leave(model.clone()),
            Fate::Over => mind.adopted = None,
        }
        tracing::info!(
            model,
            "this machine gives up a model that it took on for the mesh"
        );
        let (reply, _) = oneshot::channel();
        // The daemon ends: there is nothing to be dropped.
        let _ = self.orders.send(ModelOrder::Drop { model, reply }).await;
        None
    }

    /// Has the model that nobody asked for come back once those have ended that it made room for; else when that is to be
    /// looked at again.
    fn give_back(&self, mind: &mut Mind) -> Option<Instant> {
        let adopted = mind.adopted.as_ref().map(|adopted| &adopted.model);
        let mut unused = self.room.made_for();
        unused.retain(|model| adopted != Some(model) && !self.needs_room(model));
        mind.unused.retain(|model, _| unused.contains(model));
        let now = Instant::now();
        let due = unused.into_iter().filter_map(|model| {
            // One that was only just asked for is there soon.
            let due = *mind.unused.entry(model.clone()).or_insert(now) + BEGINS_WITHIN;
            if due <= now {
                self.room.take_back(&model);
            }
            (due > now).then_some(due)
        });
        due.min()
    }

    /// Whether a model is there, and not in vain.
    fn needs_room(&self, model: &str) -> bool {
        let own = self.sources.offered.borrow();
        let mut models = own.models.iter();
        let has_failed = models.any(|own| own.name == model && own.stage == Stage::Failed);
        has(&own, model) && !has_failed
    }

    /// What is to be taken on next, if there is something, and when.
    fn next<'a>(&self, mind: &mut Mind, models: &'a [Model], view: &View) -> Option<(Choice<'a>, Instant)> {
        let now = Instant::now();
        mind.left.retain(|_, until| *until > now);
        let room = self.room_left();
        let source = |model: &str| {
            let is_out = mind.left.contains_key(model) || self.has(model);
            (!is_out).then(|| self.source(model)).flatten()
        };
        let choices = choices(models, room, source);
        let needed = |choice: &Choice<'_>| (choice.model.name.clone(), choice.need);
        let needs: BTreeSet<Needed> = choices.iter().map(needed).collect();
        mind.since.retain(|needed, _| needs.contains(needed));
        for needed in needs {
            mind.since.entry(needed).or_insert(now);
        }
        if mind.adopted.is_some() || !self.room.made_for().is_empty() || self.is_told() {
            return None;
        }
        let choice = *choices.first()?;
        let Choice { model, need, source } = choice;
        let own = self.sources.offered.borrow();
        let me = Candidate {
            has_it: has_it(&own.on_disk, &model.name),
            bandwidth: bandwidth(own.split.as_ref(), own.gpus, model.bytes),
            machine: id(view.me),
        };
        drop(own);
        let turn = turn(me, others(view, model));
        let since = mind.since.get(&needed(&choice)).copied();
        let patience = patience(need, source, room.is_tight_for(model), turn);
        Some((choice, since.unwrap_or(now) + patience))
    }

    /// Begins to serve it, if that is possible; else when it is to be looked again.
    async fn take_on(&self, mind: &mut Mind, Choice { model, need, .. }: Choice<'_>) -> Option<Instant> {
        let name = &model.name;
        match self.load(model).await {
            Ok(()) => {
                tracing::info!(model = name, ?need, "this machine serves what the mesh lacks");
                mind.adopted = Some(Adopted {
                    model: name.clone(),
                    since: Instant::now(),
                    doubt: None,
                    stuck: None,
                });
                None
            }
            Err(why) => {
                tracing::debug!(
                    model = name,
                    why,
                    "the mesh lacks a model, which this machine cannot serve"
                );
                let again = Instant::now() + LOOK_AGAIN;
                mind.left.insert(name.clone(), again);
                Some(again)
            }
        }
    }

    /// Has it served: others hear of that at once, whatever has to make room first.
    async fn load(&self, model: &Model) -> Result<(), String> {
        let (library, words) = (self.library.clone(), model.name.clone());
        // The disk is looked at: what is there now counts, and words may mean something else here.
        let is_known = tokio::task::spawn_blocking(move || is_known(&library, &words));
        if !is_known.await.unwrap_or_default() {
            return Err("there is no model of this name any more".to_owned());
        }
        let makes_room = self.room_left().is_tight_for(model) && self.room.make_for(&model.name);
        let loaded = self.order(model).await;
        if loaded.is_err() && makes_room {
            self.room.take_back(&model.name);
        }
        loaded
    }

    /// Has the daemon serve it.
    async fn order(&self, model: &Model) -> Result<(), String> {
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

    /// Whether a model turned out not to fit into what it was left here.
    fn has_no_room(&self, model: &str) -> bool {
        let own = self.sources.offered.borrow();
        let mut wants = own.wants.iter();
        wants.any(|want| want.model == model && want.is_too_large)
    }

    /// Whether this machine has a model, or still ends it.
    fn has(&self, model: &str) -> bool {
        has(&self.sources.offered.borrow(), model)
    }

    /// Whether its user told it meanwhile to serve something.
    fn is_told(&self) -> bool {
        let own = self.sources.offered.borrow();
        own.wants.iter().any(|want| !want.is_adopted)
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
        Room {
            beside: most.saturating_sub(self.room.unasked().at_most()),
            most,
        }
    }

    /// How this machine comes by the model that others call so.
    fn source(&self, model: &str) -> Option<Source> {
        let own = self.sources.offered.borrow();
        if model == TINY || own.on_disk.iter().any(|known| known.name == model) {
            return Some(Source::OnDisk);
        }
        let entry = self.library.catalog.entry(model)?;
        entry.source.is_some().then_some(Source::Catalog)
    }
}

impl Mind {
    /// Leaves a model to others, for a while.
    fn leave(&mut self, model: String) {
        self.adopted = None;
        self.left.insert(model, Instant::now() + LEAVE_FOR);
    }
}

impl Adopted {
    /// What becomes of it, where `own` is what this machine offers.
    fn fate(&mut self, made_room: bool, models: &[Model], own: &Offer) -> Fate {
        let now = Instant::now();
        let mut wants = own.wants.iter();
        let is_users = wants.any(|want| want.model == self.model && !want.is_adopted);
        let has_begun = self.since + BEGINS_WITHIN <= now;
        if is_users || (has_begun && !has(own, &self.model)) {
            return Fate::Users;
        }
        let stage = |name: &str| {
            let mut all = own.models.iter();
            all.find(|model| model.name == name).map(|model| model.stage)
        };
        let its = stage(&self.model);
        let gets_on = match its {
            Some(Stage::Ready | Stage::Downloading { .. }) => true,
            Some(Stage::Loading { percent }) => percent > 0,
            _ => false,
        };
        self.stuck = (!gets_on).then(|| self.stuck.unwrap_or(now));
        let is_stuck = self.stuck.is_some_and(|since| since + STUCK_AFTER <= now);
        if is_stuck || its == Some(Stage::Failed) {
            return Fate::Failed;
        }
        // What the user of this machine asked for comes before.
        let mut asked = own.wants.iter().filter(|want| !want.is_adopted);
        if asked.any(|want| stage(&want.model) == Some(Stage::Waiting)) {
            return Fate::Over;
        }
        let doubt = doubt(&self.model, made_room, models);
        let before = self.doubt.filter(|(before, _)| Some(*before) == doubt);
        self.doubt = before.or(doubt.map(|doubt| (doubt, now)));
        let due = self.doubt.map(|(doubt, since)| since + doubt.patience());
        if due.is_some_and(|due| due <= now) {
            return Fate::Over;
        }
        let stuck = self.stuck.map(|since| since + STUCK_AFTER);
        let begun = (!has_begun).then(|| self.since + BEGINS_WITHIN);
        Fate::Stays([due, stuck, begun].into_iter().flatten().min())
    }
}

/// Whether a machine that offers this has the model, or still ends it.
fn has(own: &Offer, model: &str) -> bool {
    own.models.iter().any(|own| own.name == model) || own.wants.iter().any(|want| want.model == model)
}

/// Whether a machine that says so of its disk has the model: as others see it, for all must come to the same turns.
fn has_it(on_disk: &[OnDisk], model: &str) -> bool {
    let mut said = on_disk.iter().take(MAX_ON_DISK);
    model == TINY || said.any(|known| known.name == model)
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
        has_it: has_it(&state.on_disk, &model.name),
        bandwidth: bandwidth(state.split.as_ref(), state.gpus, model.bytes),
        machine: id(state.node),
    })
}

/// Bytes a second that a machine which says so of itself reads of a model of this size.
fn bandwidth(split: Option<&SplitPart>, gpus: Gpus, bytes: u64) -> u64 {
    if gpus.bandwidth > 0 && gpus.offered_bytes >= bytes {
        gpus.bandwidth
    } else {
        split.map_or(0, |split| split.bandwidth)
    }
}

/// All that is wanted, and how it is served.
fn models(view: &View, own: &Offer, remembered: &mut Remembered, now: Duration) -> Vec<Model> {
    let states = || view.nodes.iter().map(|seen| &seen.state);
    let mut copies: BTreeMap<&str, Vec<&ModelState>> = BTreeMap::new();
    for model in states().flat_map(|state| &state.models).chain(&own.models) {
        copies.entry(&model.name).or_default().push(model);
    }
    let copies = |name: &str| copies.get(name).map_or(&[][..], Vec::as_slice);
    let adopted: BTreeSet<&str> = states()
        .flat_map(|state| &state.wants)
        .filter(|want| want.is_adopted)
        .map(|want| want.model.as_str())
        .collect();
    let groups = states().flat_map(|state| &state.groups).chain(&own.groups);
    let groups: BTreeSet<&str> = groups.map(|group| group.model.as_str()).collect();
    let offered = states().map(|state| state.memory.offered_bytes);
    let offered = offered.fold(own.memory.offered_bytes, u64::saturating_add);
    let there = states().map(|state| (id(state.node), told(&state.wants)));
    let there = there.chain([(id(view.me), told(&own.wants))]).collect();
    let is_used = |name: &str| copies(name).iter().any(|model| requests(model) > 0);
    let wanted = remembered.wanted(now, there, is_used);
    let models = wanted.into_iter().map(|(told, wanted)| Model {
        wanted,
        is_split: told.is_split || groups.contains(told.model.as_str()),
        served: match served(copies(&told.model)) {
            // Who took it on says so before it is ready, or finds that it cannot.
            Served::No | Served::Failed if adopted.contains(told.model.as_str()) => Served::Soon,
            served => served,
        },
        is_elsewhere: states().any(|state| stays(state, &told.model, view)),
        is_hopeless: told.bytes > offered,
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
