//! Has a machine that was told to serve nothing serve what the mesh lacks.

use super::orders::{LoadedFor, ModelOrder};
use crate::engine::State;
use crate::mesh::core::View;
use crate::mesh::state::Stage;
use crate::mesh::{Mesh, Offer};
use crate::models::{Library, Missing, Resolved};
use crate::plan::adopt::{Source, Unserved, choose};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

/// A model counts as unserved once it has been for so long: machines that start may be about to serve it.
const SETTLE: Duration = Duration::from_millis(500);

/// How long a machine that found nothing to do looks again, though nothing changed: files may have come.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Looks for what the mesh lacks, for as long as there is a mesh.
pub(super) async fn follow(
    mesh: Mesh,
    library: Arc<Library>,
    (offer, engine): (watch::Receiver<Offer>, watch::Receiver<State>),
    orders: mpsc::Sender<ModelOrder>,
) {
    let mut view = mesh.view();
    let mut since: Option<(BTreeSet<Unserved>, Instant)> = None;
    let mut adopted: Option<String> = None;
    // What could not be served once is left to others.
    let mut failed = BTreeSet::new();
    loop {
        let (mut unserved, wanted, has_failed) = {
            let (view, own) = (view.borrow_and_update(), offer.borrow());
            let failed = own.models.iter().filter(|model| model.stage == Stage::Failed);
            let failed: BTreeSet<String> = failed.map(|model| model.name.clone()).collect();
            (unserved(&view, &own), wanted(&view), failed)
        };
        if let Some(model) = adopted.take_if(|model| !wanted.contains(model) || has_failed.contains(model)) {
            tracing::info!(
                model,
                "this machine gives up a model that it took on for the mesh"
            );
            if has_failed.contains(&model) {
                failed.insert(model.clone());
            }
            let (reply, _) = oneshot::channel();
            // The daemon ends: there is nothing to be dropped.
            let _ = orders.send(ModelOrder::Drop { model, reply }).await;
        }
        unserved.retain(|model| !failed.contains(&model.model));
        if since.as_ref().is_none_or(|(before, _)| *before != unserved) {
            since = Some((unserved.clone(), Instant::now()));
        }
        let settled = since.as_ref().map(|(_, since)| *since + SETTLE);
        let is_settled = settled.is_some_and(|settled| settled <= Instant::now());
        if is_settled && adopted.is_none() && !unserved.is_empty() {
            let memory = spare(&offer.borrow(), &engine.borrow());
            adopted = adopt(&library, unserved, memory, &orders).await;
            since = since.map(|(unserved, _)| (unserved, Instant::now() + LOOK_AGAIN));
        }
        let due = settled.filter(|settled| *settled > Instant::now());
        let due = due.unwrap_or_else(|| Instant::now() + LOOK_AGAIN);
        tokio::select! {
            changed = view.changed() => if changed.is_err() { return },
            () = sleep_until(due) => {}
        }
    }
}

/// Takes one on, if there is one that this machine can serve; which.
async fn adopt(
    library: &Arc<Library>,
    unserved: BTreeSet<Unserved>,
    memory: u64,
    orders: &mpsc::Sender<ModelOrder>,
) -> Option<String> {
    let library = library.clone();
    // The disk is looked at.
    let chosen = tokio::task::spawn_blocking(move || {
        let unserved: Vec<Unserved> = unserved.into_iter().collect();
        choose(&unserved, memory, |model| source(&library, model)).cloned()
    });
    let Unserved { model, .. } = chosen.await.ok().flatten()?;
    let (reply, answer) = oneshot::channel();
    let order = ModelOrder::Load {
        model: model.clone(),
        why: LoadedFor::Mesh,
        reply,
    };
    orders.send(order).await.ok()?;
    match answer.await.ok()? {
        Ok(_) => {
            tracing::info!(model, "this machine serves what the mesh lacks");
            Some(model)
        }
        Err(refusal) => {
            tracing::debug!(
                model,
                why = refusal.message,
                "the mesh lacks a model, which this machine cannot serve"
            );
            None
        }
    }
}

/// How this machine comes by the model that others call so.
fn source(library: &Library, model: &str) -> Option<Source> {
    match library.resolve(Some(model), u64::MAX).ok()? {
        // Others' paths mean nothing here.
        Resolved::Here(found) => (found.id == model).then_some(Source::OnDisk),
        Resolved::Missing(Missing::Known(entry)) => (entry.name == model).then_some(Source::Catalog),
        Resolved::Missing(_) => None,
    }
}

/// Models that machines were told to serve.
fn wanted(view: &View) -> BTreeSet<String> {
    let wants = view.nodes.iter().flat_map(|seen| &seen.state.wants);
    let asked = wants.filter(|want| !want.is_adopted);
    asked.map(|want| want.model.clone()).collect()
}

/// What this machine has left beside the model that it serves as long as it knows nothing better to do.
fn spare(own: &Offer, engine: &State) -> u64 {
    let taken = match engine {
        State::Ready(serving) => serving.ready.model_bytes + serving.ready.context_bytes,
        _ => 0,
    };
    own.memory.offered_bytes.saturating_sub(taken)
}

/// Those of them that nobody serves, nor is about to. What is to be split is a matter of the plan alone.
fn unserved(view: &View, own: &Offer) -> BTreeSet<Unserved> {
    let others = view.nodes.iter().flat_map(|seen| &seen.state.models);
    let models = others.chain(&own.models);
    let served: BTreeSet<&str> = models
        .filter(|model| model.stage != Stage::Waiting && model.stage != Stage::Failed)
        .map(|model| model.name.as_str())
        .collect();
    let wants = view.nodes.iter().flat_map(|seen| &seen.state.wants);
    let unserved =
        wants.filter(|want| !want.is_adopted && !want.is_split && !served.contains(want.model.as_str()));
    unserved
        .map(|want| Unserved {
            model: want.model.clone(),
            bytes: want.bytes(),
        })
        .collect()
}
