//! What this machine is lent: the workers of a model that it hosts.

use super::super::super::secret::hexadecimal;
use super::name;
use super::tunnel::Doorway;
use crate::mesh::id::NodeId;
use crate::mesh::wire::{GroupId, Lend, Lending, Open};
use crate::mesh::{Mesh, PeerStream, readable};
use futures_util::future::try_join_all;
use llama_engine::rpc::door::Door;
use std::io;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long a worker may take until it lends: it may have to end a model of its own first.
const LEND_WITHIN: Duration = Duration::from_secs(90);

/// A machine that is to lend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::daemon) struct Wanted {
    /// Which.
    pub(in crate::daemon) node: NodeId,
    /// What its user calls it.
    pub(in crate::daemon) label: String,
}

/// Why there is no group.
#[derive(Debug, thiserror::Error)]
pub(in crate::daemon) enum FormError {
    /// A worker knows a newer group of the same model.
    #[error("another machine serves this model since")]
    Stale {
        /// Its epoch.
        newest: u64,
    },
    /// A worker does not lend.
    #[error("{label} does not lend its memory: {cause}")]
    NotLent {
        /// Who.
        label: String,
        /// Why not.
        cause: String,
    },
    /// This machine's own part.
    #[error("the door to other machines cannot be opened: {0}")]
    Door(#[from] io::Error),
}

/// Machines that lend to this one; dropping it gives back what was lent.
#[derive(Debug)]
pub(in crate::daemon) struct Group {
    id: GroupId,
    secret: [u8; 32],
    epoch: u64,
    workers: Vec<Wanted>,
    doorway: Doorway,
    ended: mpsc::Receiver<(String, String)>,
    /// One for each worker: holds the stream that it lends by.
    _leases: JoinSet<()>,
}

impl Group {
    /// Asks all of them at once to lend as much as a model may take.
    ///
    /// # Errors
    /// If one does not; what the others lent is back then.
    pub(in crate::daemon) async fn form(
        mesh: &Mesh,
        model: &str,
        epoch: u64,
        bytes: u64,
        workers: Vec<Wanted>,
    ) -> Result<Self, FormError> {
        let (mut id, mut secret) = ([0; 16], [0; 32]);
        getrandom::fill(&mut id).map_err(io::Error::other)?;
        getrandom::fill(&mut secret).map_err(io::Error::other)?;
        let id = GroupId(id);
        let nodes: Vec<NodeId> = workers.iter().map(|worker| worker.node).collect();
        let doorway = Doorway::open(mesh.clone(), id, nodes.clone()).await?;
        let task = Open::Lend(Box::new(Lend {
            group: id,
            model: model.to_owned(),
            epoch,
            bytes,
            secret,
            workers: nodes,
        }));
        let asked = workers.iter().map(|worker| {
            let task = &task;
            async move {
                let asked = timeout(LEND_WITHIN, ask(mesh, worker, task)).await;
                asked.unwrap_or_else(|_| Err(not_lent(worker, "it does not answer".to_owned())))
            }
        });
        // Where one says no, the others need not be waited for.
        let streams: Vec<PeerStream> = try_join_all(asked).await?;
        let (tell, ended) = mpsc::channel(workers.len().max(1));
        let mut leases = JoinSet::new();
        for (worker, stream) in workers.iter().zip(streams) {
            leases.spawn(watch_over(worker.label.clone(), stream, tell.clone()));
        }
        Ok(Self {
            id,
            secret,
            epoch,
            workers,
            doorway,
            ended,
            _leases: leases,
        })
    }

    /// Which group of its model it is.
    pub(in crate::daemon) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// How the engine names the workers.
    pub(in crate::daemon) fn names(&self) -> Vec<String> {
        let names = self.workers.iter();
        names
            .map(|worker| name(worker.node, self.id, &worker.label))
            .collect()
    }

    /// What the group's processes show each other.
    pub(in crate::daemon) fn secret(&self) -> String {
        hexadecimal(&self.secret)
    }

    /// Where the engine reaches the workers.
    pub(in crate::daemon) fn door(&self) -> Door {
        self.doorway.door()
    }

    /// The workers, in the order of the layers.
    pub(in crate::daemon) fn workers(&self) -> impl Iterator<Item = NodeId> {
        self.workers.iter().map(|worker| worker.node)
    }

    /// Waits until a worker does not lend any more: which, and why.
    pub(in crate::daemon) async fn ended(&mut self) -> FormError {
        match self.ended.recv().await {
            Some((label, cause)) => FormError::NotLent { label, cause },
            // Only a group without workers has nobody who could end.
            None => std::future::pending().await,
        }
    }
}

fn not_lent(worker: &Wanted, cause: String) -> FormError {
    FormError::NotLent {
        label: worker.label.clone(),
        cause,
    }
}

async fn ask(mesh: &Mesh, worker: &Wanted, task: &Open) -> Result<PeerStream, FormError> {
    let opened = mesh.open(worker.node, task).await;
    let mut stream = opened.map_err(|error| not_lent(worker, error.to_string()))?;
    match stream.hear::<Lending>().await {
        Ok(Lending::Granted { bytes }) => {
            tracing::info!(
                worker = worker.label,
                gigabytes = bytes as f64 / 1e9,
                "memory is lent to this machine"
            );
            Ok(stream)
        }
        Ok(Lending::Stale { newest }) => Err(FormError::Stale { newest }),
        Ok(Lending::Ended { message }) => Err(not_lent(worker, readable(&message))),
        Err(error) => Err(not_lent(worker, error.to_string())),
    }
}

/// Holds the stream by which a worker lends, and tells when it does not any more.
async fn watch_over(label: String, mut stream: PeerStream, ended: mpsc::Sender<(String, String)>) {
    let cause = match stream.hear::<Lending>().await {
        Ok(Lending::Ended { message }) => readable(&message),
        Ok(_) => "it says what makes no sense".to_owned(),
        Err(error) => error.to_string(),
    };
    // The group is dropped already.
    let _ = ended.send((label, cause)).await;
}
