//! What other nodes serve, as the API wants to know it.

use super::super::serving::ByModel;
use crate::api::{Remote, RemoteModel, Remotes};
use crate::engine::{Open, Opening, State, Upstream, Wire};
use crate::mesh::Mesh;
use crate::mesh::core::{Seen, View};
use crate::mesh::id::NodeId;
use crate::mesh::state::Stage;
use crate::mesh::wire::Open as Task;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// The ways to models of nodes: each is kept for as long as the node serves the model, as it counts what it carries.
type Upstreams = BTreeMap<(NodeId, String), Upstream>;

/// Opens streams for one model of one node.
#[derive(Debug)]
struct Opener {
    mesh: Mesh,
    node: NodeId,
    model: String,
}

impl Open for Opener {
    fn open(&self) -> Opening {
        let (mesh, node) = (self.mesh.clone(), self.node);
        let model = self.model.clone();
        let task = Task::Http { model };
        Box::pin(async move {
            let stream = mesh.open(node, &task).await?;
            Ok(Box::new(stream) as Box<dyn Wire>)
        })
    }
}

/// Says what changes.
pub(super) async fn follow(
    mesh: Option<Mesh>,
    mut others: watch::Receiver<ByModel<State>>,
    remotes: watch::Sender<Remotes>,
) {
    let mut view = mesh.as_ref().map(Mesh::view);
    let mut upstreams = Upstreams::new();
    loop {
        let here = beside(&others.borrow_and_update());
        let there = match (&mesh, &mut view) {
            (Some(mesh), Some(view)) => {
                let (there, kept) = served(mesh, &view.borrow_and_update(), upstreams);
                upstreams = kept;
                there
            }
            _ => Vec::new(),
        };
        remotes.send_replace(Remotes::new(here.into_iter().chain(there)));
        let seen = async {
            match &mut view {
                Some(view) => view.changed().await,
                None => std::future::pending().await,
            }
        };
        let changed = tokio::select! {
            changed = seen => changed,
            changed = others.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

/// The models that this machine serves beside its first: to the API they are as those of a node that is very near.
fn beside(others: &ByModel<State>) -> Option<Remote> {
    let ready = others.values().filter_map(|state| match state {
        State::Ready(serving) => Some(RemoteModel {
            name: serving.model.clone(),
            slots: serving.ready.slots,
            busy: 0,
            waiting: 0,
            context: serving.ready.context,
            upstream: serving.upstream.clone(),
        }),
        _ => None,
    });
    let models: Vec<_> = ready.collect();
    (!models.is_empty()).then(|| Remote {
        node: "this machine".to_owned(),
        name: String::new(),
        rtt: Some(Duration::ZERO),
        models,
    })
}

/// What is served by whom, and the ways there.
fn served(mesh: &Mesh, view: &View, mut known: Upstreams) -> (Vec<Remote>, Upstreams) {
    let mut kept = Upstreams::new();
    let mut remote = |seen: &Seen| {
        let state = &seen.state;
        let ready = state.models.iter().filter(|model| model.stage == Stage::Ready);
        let models = ready.map(|model| {
            let key = (state.node, model.name.clone());
            let upstream = known.remove(&key).unwrap_or_else(|| {
                Upstream::through(Arc::new(Opener {
                    mesh: mesh.clone(),
                    node: key.0,
                    model: key.1.clone(),
                }))
            });
            kept.insert(key, upstream.clone());
            RemoteModel {
                name: model.name.clone(),
                slots: model.slots,
                busy: model.busy,
                waiting: model.waiting,
                context: model.context,
                upstream,
            }
        });
        Remote {
            node: state.node.to_string(),
            name: state.name.clone(),
            rtt: seen.path.map(|path| path.rtt),
            models: models.collect(),
        }
    };
    let there = view.nodes.iter().map(&mut remote).collect();
    (there, kept)
}
