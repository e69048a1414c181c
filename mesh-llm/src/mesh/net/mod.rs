//! The mesh's I/O: thin, without policy. One task ([`hub`]) owns what this member knows; a few for each connection
//! carry bytes.

mod door;
mod endpoint;
mod hub;
mod keeper;
mod link;
mod stream;

pub use endpoint::{EndpointError, Relays};
pub use hub::Joining;
pub use stream::PeerStream;

use super::core::{Core, MemberSeen, Part, View, Wrong};
use super::error::MeshError;
use super::id::{NodeId, Role, TokenId};
use super::state::{Device, Gpus, GroupState, Memory, ModelState, OnDisk, RoundTrip, SplitPart, WantState};
use super::store::Store;
use super::token::Token;
use super::wire::Open;
use endpoint::EndpointOptions;
use hub::{Command, Event, Hub};
use iroh::Endpoint;
use keeper::Keeper;
use std::fmt;
use std::future::Future;
use std::io;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

/// Events that may wait.
const INBOX: usize = 512;

/// How long saying goodbye may take, and closing what is open.
const GOODBYE_WITHIN: Duration = Duration::from_secs(1);

/// How long a disk may take to keep what this run knows last.
const KEPT_WITHIN: Duration = Duration::from_secs(10);

/// A request that a member has for this node.
#[derive(Debug)]
pub struct PeerRequest {
    /// Who.
    pub node: NodeId,
    /// What it wants.
    pub task: Open,
    /// What it says of it, and is told.
    pub stream: PeerStream,
}

/// Answers such requests.
pub type Serve = dyn Fn(PeerRequest) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync;

/// What this node offers.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Offer {
    /// What its machine is called.
    pub name: String,
    /// Its memory.
    pub memory: Memory,
    /// What computes.
    pub devices: Vec<Device>,
    /// What it serves, or is about to.
    pub models: Vec<ModelState>,
    /// Its part in models that are split over machines.
    pub split: Option<SplitPart>,
    /// The models that its user wants it to serve.
    pub wants: Vec<WantState>,
    /// The models that it serves with other machines.
    pub groups: Vec<GroupState>,
    /// How far others are, the nearest first.
    pub round_trips: Vec<RoundTrip>,
    /// The models that it has on disk.
    pub on_disk: Vec<OnDisk>,
    /// What of its memory is on GPUs.
    pub gpus: Gpus,
}

/// A token that is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    /// What whoever joins by it becomes.
    pub role: Role,
    /// How long it lets in; none: without an end.
    pub expires_in: Option<Duration>,
    /// How many it lets in; none: as many as come.
    pub uses: Option<NonZeroU32>,
    /// Models that may be used; none: all.
    pub models: Option<Vec<String>>,
}

/// What a member is started with.
#[derive(Debug, Clone)]
pub struct MeshOptions {
    /// Where it keeps its key and what it knows of the mesh.
    pub folder: PathBuf,
    /// The token to join by, the first time.
    pub token: Option<Token>,
    /// Whether it serves others or only uses them.
    pub part: Part,
    /// Relays.
    pub relays: Relays,
    /// The UDP port; none: any.
    pub port: Option<u16>,
}

/// A member of a mesh: a handle, whose clones are the same member.
#[derive(Clone)]
pub struct Mesh {
    events: mpsc::Sender<Event>,
    view: watch::Receiver<View>,
    joining: watch::Receiver<Joining>,
    endpoint: Endpoint,
}

impl fmt::Debug for Mesh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mesh({})", self.endpoint.id().fmt_short())
    }
}

impl Mesh {
    /// Begins: founds a mesh, goes on in the one that this machine belongs to, or joins one by a token. It does not
    /// wait for others.
    ///
    /// # Errors
    /// Where that is impossible from the start.
    pub async fn start(
        options: MeshOptions,
        offer: watch::Receiver<Offer>,
        serve: Arc<Serve>,
    ) -> Result<Mesh, MeshError> {
        let mut store = Store::open(&options.folder)?;
        let start = store.start(options.part, options.token)?;
        let endpoint = endpoint::bind(&EndpointOptions {
            key: start.key.clone(),
            relays: options.relays.clone(),
            port: options.port,
            last_port: store.last_port(),
        })
        .await?;
        let ports = endpoint.bound_sockets();
        if let Err(error) = ports
            .first()
            .map_or(Ok(()), |socket| store.save_port(socket.port()))
        {
            tracing::warn!(%error, "the UDP port cannot be kept for the next start");
        }
        let (events, inbox) = mpsc::channel(INBOX);
        let core = Core::new(start);
        let standing = if core.is_in() {
            Joining::In
        } else {
            Joining::Calling { last: None }
        };
        let (view, views) = watch::channel(core.view());
        let (joining, joinings) = watch::channel(standing);
        tokio::spawn(door::accept(endpoint.clone(), events.clone()));
        let hub = Hub::new(
            core,
            (endpoint.clone(), options.relays),
            Keeper::start(store),
            events.clone(),
            serve,
            view,
            joining,
        );
        tokio::spawn(hub.run(inbox, offer));
        Ok(Mesh {
            events,
            view: views,
            joining: joinings,
            endpoint,
        })
    }

    /// This node.
    pub fn id(&self) -> NodeId {
        self.endpoint.id()
    }

    /// The mesh as it is seen, and each change.
    pub fn view(&self) -> watch::Receiver<View> {
        self.view.clone()
    }

    /// How this node stands with the mesh, and each change.
    pub fn joining(&self) -> watch::Receiver<Joining> {
        self.joining.clone()
    }

    /// Waits until a relay can be reached, as far as that is possible within `limit`: from then on tokens lead here
    /// from other networks, too.
    pub async fn online(&self, limit: Duration) {
        // Without a relay, or without the internet, it goes on as well.
        let _ = timeout(limit, self.endpoint.online()).await;
    }

    /// Opens a stream for a task of a node. How long that may take is for the caller to say.
    ///
    /// # Errors
    /// If the node cannot be reached.
    pub async fn open(&self, node: NodeId, task: &Open) -> io::Result<PeerStream> {
        let (reply, connection) = oneshot::channel();
        self.command(Command::Connection(node, reply)).await?;
        let connection = connection
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::NotFound, "the node cannot be reached"))?;
        let opened = link::open(&connection, task).await;
        opened.map_err(|error| io::Error::new(io::ErrorKind::ConnectionReset, error.to_string()))
    }

    /// Makes a token.
    ///
    /// # Errors
    /// If this node may not.
    pub async fn invite(&self, invitation: Invitation) -> Result<Token, Wrong> {
        self.ask(|reply| Command::Invite(invitation, reply))
            .await
            .unwrap_or(Err(Wrong::NotIn))
    }

    /// Ends what a token allows.
    ///
    /// # Errors
    /// If this node may not.
    pub async fn revoke(&self, token: TokenId) -> Result<(), Wrong> {
        self.ask(|reply| Command::Revoke(token, reply))
            .await
            .unwrap_or(Err(Wrong::NotIn))
    }

    /// Removes a member.
    ///
    /// # Errors
    /// If this node may not, or it is not clear who is meant.
    pub async fn kick(&self, who: String) -> Result<NodeId, Wrong> {
        self.ask(|reply| Command::Kick(who, reply))
            .await
            .unwrap_or(Err(Wrong::NotIn))
    }

    /// Who belongs to the mesh.
    pub async fn members(&self) -> Vec<MemberSeen> {
        self.ask(Command::Members).await.unwrap_or_default()
    }

    /// Tells the others that this node goes, and goes.
    pub async fn leave(self) {
        let _ = timeout(GOODBYE_WITHIN, self.ask(Command::Leave)).await;
        let _ = timeout(GOODBYE_WITHIN, self.endpoint.close()).await;
        // The next start does without what is not written by then.
        let _ = timeout(KEPT_WITHIN, self.events.closed()).await;
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.command(command(reply)).await.ok()?;
        answer.await.ok()
    }

    async fn command(&self, command: Command) -> io::Result<()> {
        let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the mesh is being left");
        self.events.send(Event::Command(command)).await.map_err(gone)
    }
}
