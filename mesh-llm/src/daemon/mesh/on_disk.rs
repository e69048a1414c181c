//! Which models this machine has on disk, for others to know.

use super::super::serving::ByModel;
use crate::engine::State;
use crate::mesh::state::OnDisk;
use crate::models::Library;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

/// How often is looked: files come and go without a word.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Says what changes. `come` is told when a model has come that is not served here.
pub(super) async fn follow(
    library: Arc<Library>,
    mut engine: watch::Receiver<State>,
    mut others: watch::Receiver<ByModel<State>>,
    come: Arc<Notify>,
    on_disk: watch::Sender<Vec<OnDisk>>,
) {
    loop {
        let library = library.clone();
        let Ok(now) = tokio::task::spawn_blocking(move || look(&library)).await else {
            // The runtime ends.
            return;
        };
        on_disk.send_if_modified(|old| std::mem::replace(old, now.clone()) != now);
        let due = Instant::now() + LOOK_EVERY;
        tokio::select! {
            () = sleep_until(due) => {}
            () = downloaded(&mut engine, &mut others) => {}
            () = come.notified() => {}
        }
    }
}

/// Waits until a download has ended: then there may be more.
async fn downloaded(engine: &mut watch::Receiver<State>, others: &mut watch::Receiver<ByModel<State>>) {
    let downloads = |engine: &State, others: &ByModel<State>| {
        let is_download = |state: &&State| matches!(state, State::Downloading { .. });
        let all = std::iter::once(engine).chain(others.values());
        all.filter(is_download).count()
    };
    let mut before = downloads(&engine.borrow_and_update(), &others.borrow_and_update());
    loop {
        tokio::select! {
            Ok(()) = engine.changed() => {}
            Ok(()) = others.changed() => {}
            else => std::future::pending().await,
        }
        let now = downloads(&engine.borrow_and_update(), &others.borrow_and_update());
        if now < before {
            return;
        }
        before = now;
    }
}

fn look(library: &Library) -> Vec<OnDisk> {
    let sound = library
        .inventory()
        .into_iter()
        .filter(|model| model.about.is_ok());
    // Of two of one name, the first is meant by it.
    let mut models = BTreeMap::new();
    for model in sound {
        let bytes = model.bytes();
        models.entry(model.found.name).or_insert(bytes);
    }
    let models = models.into_iter();
    models.map(|(name, bytes)| OnDisk { name, bytes }).collect()
}
