//! What this machine offers to the mesh.

use super::super::serving::{ByModel, Shortage};
use super::machine::Machine;
use super::round_trips::RoundTrips;
use crate::engine::State;
use crate::mesh::Offer;
use crate::mesh::core::View;
use crate::mesh::state::{GroupState, ModelState, OnDisk, RoundTrip, SplitPart, Stage, WantState};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

/// How often is looked at how busy the engine is.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is offered, from where it is known.
pub(super) struct Sources {
    /// What the engine of this machine's first model does.
    pub(super) engine: watch::Receiver<State>,
    /// What those of its other models do.
    pub(super) others: watch::Receiver<ByModel<State>>,
    /// The models that it is to serve, as far as they are known: the first one, and others.
    pub(super) models: watch::Receiver<Models>,
    /// What it has for them, once that is known.
    pub(super) machine: watch::Receiver<Option<Machine>>,
    /// Its part in splits.
    pub(super) split: watch::Receiver<Option<SplitPart>>,
    /// The groups that serve models.
    pub(super) groups: watch::Receiver<Vec<GroupState>>,
    /// Where models turned out not to fit.
    pub(super) shortages: watch::Receiver<ByModel<Shortage>>,
    /// The models on its disk.
    pub(super) on_disk: watch::Receiver<Vec<OnDisk>>,
}

/// The models that this machine is to serve.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::daemon) struct Models {
    /// The name of the first one.
    pub(in crate::daemon) first: Option<String>,
    /// What others need to know for the plan of those that somebody asked for.
    pub(in crate::daemon) wants: Vec<WantState>,
}

/// What is offered while the engine is in this state; without a model: nothing but the machine, of which little may be
/// known.
pub(super) fn of(engine: &State, model: Option<&str>, machine: Option<&Machine>) -> Offer {
    Offer {
        name: host_name(),
        memory: machine.map(Machine::memory).unwrap_or_default(),
        devices: machine.map(|machine| machine.devices.clone()).unwrap_or_default(),
        gpus: machine.map(Machine::gpus).unwrap_or_default(),
        models: model
            .map(|name| served(engine, name))
            .into_iter()
            .flatten()
            .collect(),
        ..Offer::default()
    }
}

impl Sources {
    /// What is offered now; `trips` is how far others are.
    fn offer(&mut self, trips: Vec<RoundTrip>) -> Offer {
        let engine = self.engine.borrow_and_update().clone();
        let downloaded = match &engine {
            State::Downloading { model, .. } => Some(model.clone()),
            _ => None,
        };
        let Models { first, mut wants } = self.models.borrow_and_update().clone();
        let machine = self.machine.borrow_and_update().clone();
        if machine.is_none() {
            // Nobody is to plan with a machine that has less than it will have.
            wants.clear();
        }
        let mut offer = of(&engine, downloaded.or(first).as_deref(), machine.as_ref());
        let others = self.others.borrow_and_update().clone();
        let others = others.iter().filter_map(|(name, engine)| served(engine, name));
        offer.models.extend(others);
        let shortages = self.shortages.borrow_and_update().clone();
        let wants = wants.into_iter().map(|want| {
            let shortage = shortages.get(&want.model).copied().unwrap_or_default();
            WantState {
                beside_bytes: want.beside_bytes.saturating_add(shortage.more),
                is_too_large: shortage.not_alone,
                ..want
            }
        });
        Offer {
            split: self.split.borrow_and_update().clone(),
            wants: wants.collect(),
            groups: self.groups.borrow_and_update().clone(),
            round_trips: trips,
            on_disk: self.on_disk.borrow_and_update().clone(),
            ..offer
        }
    }

    /// Waits until one of them has changed. Some never do: a machine that only uses others forms no groups.
    async fn changed(&mut self) {
        tokio::select! {
            Ok(()) = self.engine.changed() => {}
            Ok(()) = self.others.changed() => {}
            Ok(()) = self.models.changed() => {}
            Ok(()) = self.machine.changed() => {}
            Ok(()) = self.split.changed() => {}
            Ok(()) = self.groups.changed() => {}
            Ok(()) = self.shortages.changed() => {}
            Ok(()) = self.on_disk.changed() => {}
            else => std::future::pending().await,
        }
    }
}

/// What its user calls this machine.
fn host_name() -> String {
    sysinfo::System::host_name().unwrap_or_else(|_| "unnamed".to_owned())
}

fn served(engine: &State, model: &str) -> Option<ModelState> {
    let stage = match engine {
        State::Downloading { percent, .. } => Stage::Downloading { percent: *percent },
        State::Loading { percent } => Stage::Loading { percent: *percent },
        State::Starting | State::Restarting { .. } | State::Lost { .. } => Stage::Loading { percent: 0 },
        State::Waiting { .. } => Stage::Waiting,
        State::Ready(_) => Stage::Ready,
        State::Failed(_) => Stage::Failed,
        State::Stopping | State::Elsewhere { .. } => return None,
    };
    let mut state = ModelState {
        name: model.to_owned(),
        stage,
        context: 0,
        slots: 0,
        busy: 0,
        waiting: 0,
    };
    if let State::Ready(serving) = engine {
        let in_flight = u32::try_from(serving.upstream.in_flight()).unwrap_or(u32::MAX);
        state.context = serving.ready.context;
        state.slots = serving.ready.slots;
        state.busy = in_flight.min(state.slots);
        state.waiting = in_flight - state.busy;
    }
    Some(state)
}

/// Says what changes.
pub(super) async fn follow(
    mut sources: Sources,
    mut view: Option<watch::Receiver<View>>,
    offer: watch::Sender<Offer>,
) {
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut round_trips = RoundTrips::default();
    loop {
        let trips = view
            .as_mut()
            .map(|view| round_trips.say(&view.borrow_and_update()));
        let now = sources.offer(trips.unwrap_or_default());
        offer.send_if_modified(|old| std::mem::replace(old, now.clone()) != now);
        let seen = async {
            match &mut view {
                Some(view) => view.changed().await.is_ok(),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = sources.changed() => {}
            seen = seen => if !seen {
                return;
            },
            _ = look.tick() => round_trips.next(),
        }
    }
}
