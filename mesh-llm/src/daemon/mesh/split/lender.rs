//! What this machine lends: a process for each group that wants its devices, under the rules of [`plan::lease`].
//!
//! [`plan::lease`]: crate::plan::lease

use super::super::super::secret::hexadecimal;
use super::super::super::serving::{ByModel, LogTo, Taken};
use super::super::placing::MOST_EPOCH;
use super::tunnel::{Doorway, deliver};
use crate::engine::{Worker, WorkerLaunch};
use crate::mesh::id::NodeId;
use crate::mesh::wire::{GroupId, Lend, Lending, Open};
use crate::mesh::{Mesh, PeerRequest, PeerStream};
use crate::plan::lease::{Asked, Epoch, LEAST_LENT, LeaseId, Ledger, Verdict};
use crate::plan::place::MachineId;
use llama_engine::rpc::door::Door;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long this machine's own model may take to make room: what it answers, it finishes.
const ROOM_WITHIN: Duration = Duration::from_secs(60);

/// To whom this machine lends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::daemon) struct Lent {
    /// The host.
    pub(in crate::daemon) host: NodeId,
    /// For this model.
    pub(in crate::daemon) model: String,
    /// So many bytes.
    pub(in crate::daemon) bytes: u64,
}

/// What happens to the lender.
#[derive(Debug)]
pub(in crate::daemon) enum Event {
    /// A member asks for something, or opens a channel.
    Asked(PeerRequest),
    /// A group's process listens.
    Listening(GroupId, SocketAddr),
    /// What was lent is back.
    Ended(GroupId),
}

/// How this machine lends.
pub(in crate::daemon) struct Lender {
    /// The mesh.
    pub(in crate::daemon) mesh: Mesh,
    /// Starts the process that lends so many bytes, with that secret, behind that door.
    pub(in crate::daemon) launch: LaunchFor,
    /// Where the processes' logs go.
    pub(in crate::daemon) log: LogTo,
    /// Bytes that may be lent, all together.
    pub(in crate::daemon) memory: u64,
    /// Bytes that each model takes which this machine was told to serve.
    pub(in crate::daemon) own: watch::Receiver<ByModel<u64>>,
    /// What a model takes that nobody asked for: it goes once something is lent.
    pub(in crate::daemon) unasked: watch::Receiver<Taken>,
    /// Told to whom this machine lends.
    pub(in crate::daemon) lent: watch::Sender<Vec<Lent>>,
}

/// How a process with this secret, behind this door and for so many bytes is started.
pub(in crate::daemon) type LaunchFor = Arc<dyn Fn(String, Door, u64) -> WorkerLaunch + Send + Sync>;

/// Something that is lent.
#[derive(Debug)]
struct Lease {
    id: LeaseId,
    lent: Lent,
    /// The host and the other workers, who may open channels.
    members: Vec<NodeId>,
    address: Option<SocketAddr>,
    /// Ends it, for this reason.
    end: oneshot::Sender<String>,
}

/// A process that is to be lent.
struct Job {
    lend: Lend,
    host: NodeId,
    bytes: u64,
    end: oneshot::Receiver<String>,
    events: mpsc::Sender<Event>,
}

impl Lender {
    /// Lends until nobody asks any more; what is lent then ends with it.
    pub(in crate::daemon) async fn run(self, events: mpsc::Sender<Event>, mut inbox: mpsc::Receiver<Event>) {
        let mut ledger = Ledger::new(self.memory);
        let mut leases = BTreeMap::new();
        let mut tasks = JoinSet::new();
        loop {
            let event = tokio::select! {
                event = inbox.recv() => event,
                Some(_) = tasks.join_next() => continue,
            };
            let Some(event) = event else { return };
            match event {
                Event::Asked(PeerRequest { node, task, stream }) => match task {
                    Open::Lend(lend) => {
                        let asked = self.ask(&mut ledger, &mut leases, node, &lend);
                        match asked {
                            Ok((bytes, end)) => {
                                let job = Job {
                                    lend: *lend,
                                    host: node,
                                    bytes,
                                    end,
                                    events: events.clone(),
                                };
                                tasks.spawn(self.lend(job, stream));
                            }
                            Err(answer) => {
                                tasks.spawn(refuse(stream, answer));
                            }
                        }
                    }
                    Open::Channel { group } => {
                        let lease: Option<&Lease> = leases.get(&group);
                        let lease = lease.filter(|lease| lease.members.contains(&node));
                        // Who has no business here sees the stream end.
                        if let Some(address) = lease.and_then(|lease| lease.address) {
                            tasks.spawn(deliver(stream, address));
                        }
                    }
                    Open::Http { .. } | Open::Fetch(_) => {}
                },
                Event::Listening(group, address) => {
                    if let Some(lease) = leases.get_mut(&group) {
                        lease.address = Some(address);
                    }
                }
                Event::Ended(group) => {
                    if let Some(lease) = leases.remove(&group) {
                        ledger.ended(lease.id);
                    }
                }
            }
            let lent: Vec<Lent> = leases.values().map(|lease| lease.lent.clone()).collect();
            self.lent
                .send_if_modified(|old| std::mem::replace(old, lent.clone()) != lent);
        }
    }

    /// Decides, and notes what is lent.
    fn ask(
        &self,
        ledger: &mut Ledger,
        leases: &mut BTreeMap<GroupId, Lease>,
        host: NodeId,
        lend: &Lend,
    ) -> Result<(u64, oneshot::Receiver<String>), Lending> {
        let ended = |message: &str| Lending::Ended {
            message: message.to_owned(),
        };
        let too_little = |left: u64| ended(&format!("it has only {:.1} GB left", left as f64 / 1e9));
        if lend.epoch > MOST_EPOCH {
            return Err(ended("its epoch makes no sense"));
        }
        if leases.contains_key(&lend.group) {
            return Err(ended("it has a part in this group already"));
        }
        // What the older groups of the same model have comes back to it.
        let back: u64 = leases
            .values()
            .filter(|lease| lease.lent.model == lend.model)
            .map(|lease| lease.lent.bytes)
            .sum();
        let own: u64 = self.own.borrow().values().sum();
        let left = (ledger.left() + back).saturating_sub(own);
        let wanted = if lend.bytes == 0 {
            left
        } else {
            lend.bytes.min(left)
        };
        let asked = Asked {
            host: MachineId(*host.as_bytes()),
            model: lend.model.clone(),
            epoch: Epoch(lend.epoch),
            bytes: wanted,
        };
        if wanted < LEAST_LENT {
            return Err(too_little(left));
        }
        let (id, bytes, ends) = match ledger.ask(&asked) {
            Verdict::Granted { lease, bytes, ends } => (lease, bytes, ends),
            Verdict::Stale { newest } => return Err(Lending::Stale { newest: newest.0 }),
            Verdict::NoRoom { left } => return Err(too_little(left)),
        };
        for older in leases.extract_if(.., |_, lease| ends.contains(&lease.id)) {
            // Where its task has ended meanwhile, all is well.
            let _ = older.1.end.send("a newer group has taken its place".to_owned());
        }
        let (end, ending) = oneshot::channel();
        let members = std::iter::once(host).chain(lend.workers.iter().copied());
        let lease = Lease {
            id,
            lent: Lent {
                host,
                model: lend.model.clone(),
                bytes,
            },
            members: members.collect(),
            address: None,
            end,
        };
        leases.insert(lend.group, lease);
        Ok((bytes, ending))
    }

    /// Lends a process for as long as its host wants it.
    fn lend(&self, job: Job, stream: PeerStream) -> impl Future<Output = ()> + Send + 'static {
        let doorway = Doorway::open(self.mesh.clone(), job.lend.group, job.lend.workers.clone());
        let secret = hexadecimal(&job.lend.secret);
        let (mut unasked, launch, log) = (self.unasked.clone(), self.launch.clone(), self.log.clone());
        let bytes = job.bytes;
        async move {
            let group = job.lend.group;
            let events = job.events.clone();
            let prepared = async {
                let doorway = doorway.await.map_err(|error| error.to_string())?;
                let room = timeout(ROOM_WITHIN, unasked.wait_for(|taken| *taken == Taken::Nothing)).await;
                room.map_err(|_| "its own model takes too long to make room".to_owned())
                    .and_then(|room| room.map(drop).map_err(|_| "it is ending".to_owned()))?;
                let launch = launch(secret, doorway.door(), bytes);
                let worker = Worker::start(&launch, move |line| log(line)).await;
                let worker =
                    worker.map_err(|error| format!("its worker process cannot be started: {error}"))?;
                Ok::<_, String>((worker, doorway))
            };
            serve(prepared, job, stream).await;
            // The daemon ends.
            let _ = events.send(Event::Ended(group)).await;
        }
    }
}

/// Serves the host that stream is of, once all is prepared, until one side has enough.
async fn serve(
    prepared: impl Future<Output = Result<(Worker, Doorway), String>>,
    job: Job,
    mut stream: PeerStream,
) {
    let Job {
        lend,
        host,
        bytes,
        mut end,
        events,
    } = job;
    let (host, model) = (host.fmt_short(), &lend.model);
    let why = 'ended: {
        let (mut worker, _doorway) = tokio::select! {
            prepared = prepared => match prepared {
                Ok(prepared) => prepared,
                Err(message) => break 'ended message,
            },
            ended = &mut end => break 'ended ended.unwrap_or_default(),
            // A host says nothing more until it goes.
            _ = stream.hear::<Lending>() => return,
        };
        if events
            .send(Event::Listening(lend.group, worker.address()))
            .await
            .is_err()
        {
            return;
        }
        if stream.tell(&Lending::Granted { bytes }).await.is_err() {
            return;
        }
        tracing::info!(%host, model, gigabytes = bytes as f64 / 1e9, "memory is lent");
        tokio::select! {
            cause = worker.ended() => format!("its worker process {cause}"),
            ended = &mut end => ended.unwrap_or_default(),
            _ = stream.hear::<Lending>() => {
                tracing::info!(%host, model, "what was lent is back");
                return;
            }
        }
    };
    tracing::info!(%host, model, why, "memory is not lent any more");
    refuse(stream, Lending::Ended { message: why }).await;
}

/// Says no, and waits until that has arrived.
async fn refuse(mut stream: PeerStream, answer: Lending) {
    if stream.tell(&answer).await.is_ok() {
        // It goes once it has heard it, and so ends the stream.
        let _ = timeout(Duration::from_secs(5), stream.hear::<Lending>()).await;
    }
}
