//! Has the machines of a group have the model's file before they are asked to compute with it.

use super::super::mesh::Directive;
use super::super::mesh::split::{Wanted, have_copies};
use super::Task;
use super::phases::Now;
use crate::engine::State;
use crate::mesh::core::View;
use crate::mesh::id::NodeId;
use crate::mesh::state::{NodeState, Stage};
use crate::mesh::wire::Fetch;
use crate::models::TINY;
use crate::models::origin::Origin;
use std::time::Duration;
use tokio::time::Instant;

/// Whether a machine has a copy is not looked at again for so long: it has one now, or cannot have one.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(10 * 60);

impl Task {
    /// Waits until those of the workers that lack the model's file have it, or cannot have it, or there is something else to do
    /// than `now`.
    pub(super) async fn until_copies(&mut self, now: &Now, workers: &[Wanted]) {
        let copies = self.have_copies(workers);
        let looked = tokio::select! {
            looked = copies => looked,
            () = self.changed(now) => Vec::new(),
        };
        let when = Instant::now();
        self.looked_for_copies
            .extend(looked.into_iter().map(|node| (node, when)));
        let message = format!("other machines to lend their memory for {}", self.model());
        self.service.state.send_if_modified(|state| {
            let is_over = matches!(state, State::Downloading { .. });
            if is_over {
                *state = State::Waiting { message };
            }
            is_over
        });
    }

    /// Waits until there is something else to do than `now`. Where that is another group, its machines fetch the model first, as
    /// long as these nodes, with which it is served, go on to compute with this one.
    pub(super) async fn gives_way(&mut self, now: &Now, nodes: &[NodeId]) {
        loop {
            self.changed(now).await;
            let next = self.now();
            let Now::Plan(Directive::Host { workers, .. }) = &next else {
                return;
            };
            if !matches!(*self.service.state.borrow(), State::Ready(_)) {
                return;
            }
            let left = self.left_by_one_of(nodes);
            tokio::select! {
                () = self.until_copies(&next, workers) => {}
                () = left => return,
            }
            if self.now().is_as(&next) {
                return;
            }
        }
    }

    /// Waits until one of these nodes does not compute with this one any more, or should not.
    fn left_by_one_of(&self, nodes: &[NodeId]) -> impl Future<Output = ()> + use<> {
        let view = self.service.in_mesh.as_ref().map(|in_mesh| in_mesh.mesh.view());
        let nodes = nodes.to_vec();
        async move {
            let Some(mut view) = view else {
                return std::future::pending().await;
            };
            let stays = |view: &View, node: &NodeId| {
                let mut seen = view.nodes.iter();
                seen.any(|seen| seen.state.node == *node && lends_on(&seen.state))
            };
            // Where nobody says anything any more, the daemon ends.
            let _ = view
                .wait_for(|view| !nodes.iter().all(|node| stays(view, node)))
                .await;
        }
    }

    /// Has those of the workers that lack the file download it; those that were looked at.
    fn have_copies(&self, workers: &[Wanted]) -> impl Future<Output = Vec<NodeId>> + use<> {
        let options = &self.service.launch.options;
        let (model, path) = (options.model_name.clone(), options.model.clone());
        let state = self.service.state.clone();
        let in_mesh = self.service.in_mesh.as_ref();
        let in_mesh = in_mesh.map(|in_mesh| (in_mesh.mesh.clone(), in_mesh.library.clone()));
        let mut workers = workers.to_vec();
        workers.retain(|worker| {
            let looked = self.looked_for_copies.get(&worker.node);
            looked.is_none_or(|looked| looked.elapsed() >= LOOK_AGAIN_AFTER)
        });
        async move {
            let Some((mesh, library)) = in_mesh.filter(|_| model != TINY && !workers.is_empty()) else {
                return Vec::new();
            };
            let looked = workers.iter().map(|worker| worker.node).collect();
            let origin = tokio::task::spawn_blocking(move || library.origin(&path)).await;
            // What came from nowhere that is known is sent.
            let Some(origin) = origin.ok().flatten() else {
                return looked;
            };
            workers.retain(|worker| !says_it_has(&mesh.view().borrow(), worker, &model, &origin));
            let fetch = Fetch {
                model: model.clone(),
                source: origin.repository.to_string(),
                bytes: origin.bytes,
            };
            let tell = |by, percent| {
                // Where another arrangement serves it meanwhile, nobody waits.
                if !matches!(*state.borrow(), State::Ready(_)) {
                    let model = model.clone();
                    state.send_replace(State::Downloading { model, percent, by });
                }
            };
            have_copies(&mesh, fetch, &workers, tell).await;
            looked
        }
    }
}

/// Whether a machine says that it has the file. It says so of the first ones only.
fn says_it_has(view: &View, worker: &Wanted, model: &str, origin: &Origin) -> bool {
    let seen = view.nodes.iter().find(|seen| seen.state.node == worker.node);
    let mut on_disk = seen.iter().flat_map(|seen| &seen.state.on_disk);
    on_disk.any(|known| known.name == model && known.bytes == origin.bytes)
}

/// Whether a machine goes on to lend its memory: it neither ends, nor does a model wait for it that its own user wants.
fn lends_on(state: &NodeState) -> bool {
    let waits = |name: &str| {
        let mut models = state.models.iter();
        models.any(|model| model.name == name && model.stage == Stage::Waiting)
    };
    let mut asked = state.wants.iter().filter(|want| !want.is_adopted);
    state.split.is_some() && !asked.any(|want| waits(&want.model))
}
