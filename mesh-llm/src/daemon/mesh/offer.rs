//! What this machine offers to the mesh.

use crate::engine::State;
use crate::mesh::Offer;
use crate::mesh::state::{Device, Memory, ModelState, Stage};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

/// How often is looked at how busy the engine is.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// This machine's memory, of which a model may take so much.
pub(super) fn memory(most: Option<u64>) -> Memory {
    let total_bytes = sysinfo::System::new().map_or(0, |mut system| {
        system.refresh_memory();
        system.total_memory()
    });
    Memory {
        total_bytes,
        offered_bytes: most.unwrap_or(u64::MAX).min(total_bytes),
    }
}

/// What is offered while the engine is in this state; without a model: nothing but the machine.
pub(super) fn of(engine: &State, model: Option<&str>, memory: Memory) -> Offer {
    Offer {
        name: host_name(),
        memory,
        devices: vec![Device {
            name: "CPU".to_owned(),
            memory_bytes: memory.total_bytes,
        }],
        models: model
            .map(|name| served(engine, name))
            .into_iter()
            .flatten()
            .collect(),
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
        State::Starting | State::Restarting { .. } | State::Lost { .. } | State::Waiting { .. } => {
            Stage::Loading { percent: 0 }
        }
        State::Ready(_) => Stage::Ready,
        State::Failed(_) => Stage::Failed,
        State::Stopping => return None,
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
    mut engine: watch::Receiver<State>,
    mut model: watch::Receiver<Option<String>>,
    memory: Memory,
    offer: watch::Sender<Offer>,
) {
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        {
            let state = engine.borrow_and_update();
            let downloaded = match &*state {
                State::Downloading { model, .. } => Some(model.clone()),
                _ => None,
            };
            let model = downloaded.or_else(|| model.borrow_and_update().clone());
            let now = of(&state, model.as_deref(), memory);
            offer.send_if_modified(|old| std::mem::replace(old, now.clone()) != now);
        }
        tokio::select! {
            changed = engine.changed() => if changed.is_err() {
                return;
            },
            Ok(()) = model.changed() => {}
            _ = look.tick() => {}
        }
    }
}
