//! What other nodes serve, as whoever holds connections to them says.

use crate::engine::Upstream;
use std::sync::Arc;
use std::time::Duration;

/// The other nodes; clones share them.
#[derive(Debug, Clone, Default)]
pub struct Remotes(Arc<[Remote]>);

/// A node.
#[derive(Debug, Clone)]
pub struct Remote {
    /// Its unique id.
    pub node: String,
    /// What people call it.
    pub name: String,
    /// The time to it and back, once that was measured.
    pub rtt: Option<Duration>,
    /// The models that it is ready to answer with.
    pub models: Vec<RemoteModel>,
}

/// A model that a node serves.
#[derive(Debug, Clone)]
pub struct RemoteModel {
    /// The name that requests use.
    pub name: String,
    /// Requests that it answers at once.
    pub slots: u32,
    /// Of those, how many it answers, as the node last said.
    pub busy: u32,
    /// Requests that wait for a slot there, as the node last said.
    pub waiting: u32,
    /// Tokens that all its requests share.
    pub context: u32,
    /// Takes requests to it. Whoever says something new of the model passes the same upstream on: it counts
    /// what it carries, which is known here before the node's next word of its load.
    pub upstream: Upstream,
}

impl Remotes {
    /// These nodes.
    pub fn new(remotes: impl IntoIterator<Item = Remote>) -> Self {
        Self(remotes.into_iter().collect())
    }

    /// The nodes.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Remote> {
        self.0.iter()
    }

    /// Every model of every node: a model that several serve comes several times.
    pub(super) fn models(&self) -> impl Iterator<Item = &RemoteModel> {
        self.iter().flat_map(|remote| &remote.models)
    }

    /// Whether no node has a model that is ready.
    pub(super) fn serve_nothing(&self) -> bool {
        self.models().next().is_none()
    }
}
