//! What other nodes serve, as the API wants to know it.

use crate::api::{Remote, RemoteModel, Remotes};
use crate::engine::{Open, Opening, Upstream, Wire};
use crate::mesh::Mesh;
use crate::mesh::core::{Seen, View};
use crate::mesh::id::NodeId;
use crate::mesh::state::Stage;
use crate::mesh::wire::Open as Task;
use std::collections::BTreeMap;
use std::sync::Arc;
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
pub(super) async fn follow(mesh: Mesh, remotes: watch::Sender<Remotes>) {
    let mut view = mesh.view();
    let mut upstreams = Upstreams::new();
    loop {
        let now = view.borrow_and_update().clone();
        let (served, kept) = served(&mesh, &now, upstreams);
        upstreams = kept;
        remotes.send_replace(served);
        if view.changed().await.is_err() {
            return;
        }
    }
}

/// What is served by whom, and the ways there.
fn served(mesh: &Mesh, view: &View, mut known: Upstreams) -> (Remotes, Upstreams) {
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
    let remotes = Remotes::new(view.nodes.iter().map(&mut remote).collect::<Vec<_>>());
    (remotes, kept)
}
