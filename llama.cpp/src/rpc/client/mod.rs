//! A host's side of a split: the devices of its workers, and its own, as devices of ggml.

mod buffer;
mod capture;
mod device;
mod inbox;
mod interface;
mod outgoing;
mod posts;
mod reach;
mod shared;
mod timeline;
mod vigil;

use std::any::Any;
use std::io;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use thiserror::Error;

use device::{DeviceParams, Way};
use inbox::LocalEnd;
pub use posts::Post;
use posts::{DeviceRef, Posts};
pub use shared::{Lost, Node, Reach, Shared};
pub use timeline::Span;
pub use vigil::Patience;

use super::dial::Dialler;
use super::door::shown;
use super::files::Identity;
use super::link::{Outlet, lock};
use super::wire::{DeviceOffer, HEAD, HOST, NodeId, Open, OpenQueue, SessionId, Step, ToHost, ToWorker};
use super::worker::{self, ModelSource, Session};
use crate::llama;

/// What a queue of the host's own reserves: whether all of it fits is decided before, for the host's memory as
/// a whole.
const OWN_BYTES: u64 = 1 << 56;

/// Why there is no split.
#[derive(Debug, Error)]
pub enum SplitError {
    /// A worker that cannot be used.
    #[error("worker {address}: {source}")]
    Worker {
        /// Its address.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// A node was lost while the split was made.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// The host's own devices.
    #[error("this machine: {0}")]
    Own(String),
}

/// Which part of the model a device computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The host's layers, the first ones.
    First,
    /// A worker's layers.
    Worker(NodeId),
    /// The output layer, on the host.
    Head,
}

/// A device of the split, in the order of the layers.
#[derive(Debug, Clone)]
pub struct Member {
    /// What it computes.
    pub role: Role,
    /// For llama.cpp.
    pub device: llama::Device,
    /// What its worker offers; the host's own devices offer what the host has.
    pub offer: DeviceOffer,
    /// The round trip to it.
    pub round_trip: Duration,
}

/// A worker that was dialled.
#[derive(Debug)]
struct Dialled {
    node: NodeId,
    address: String,
    session: SessionId,
}

/// A split of a model over this host and workers. Dropping it ends its sessions.
#[derive(Debug)]
pub struct Split {
    shared: Arc<Shared>,
    posts: Arc<Posts>,
    #[expect(clippy::vec_box, reason = "ggml points to where they lie")]
    devices: Vec<Box<device::Device>>,
    roles: Vec<(Role, DeviceOffer, Duration)>,
    own: Vec<Arc<worker::Device>>,
    dialled: Mutex<Vec<Dialled>>,
    /// The thread that pings ends with it.
    _pinging: mpsc::Sender<()>,
}

impl Drop for Split {
    fn drop(&mut self) {
        // Nothing is lost by that.
        let nodes: Vec<NodeId> = self.shared.nodes().map(|(node, _)| node).collect();
        nodes.into_iter().for_each(|node| self.shared.release(node));
    }
}

impl Split {
    /// Dials workers. `own` are the host's devices; the first one computes what follows the last layer, too. A split
    /// that stands still for longer than `patience` has lost the node that it stands still for.
    ///
    /// # Errors
    /// The first worker that cannot be used.
    pub fn dial(
        addresses: &[String],
        dialler: &Dialler,
        own: Vec<Arc<worker::Device>>,
        patience: Patience,
    ) -> Result<Arc<Self>, SplitError> {
        let mut nodes = vec![Node::new("this machine".into())];
        nodes.extend(
            addresses
                .iter()
                .map(|address| Node::new(shown(address).to_owned())),
        );
        let shared = Shared::new(nodes, patience);
        let (pinging, dropped) = mpsc::channel();
        // From here on whoever is linked hears something, however long the others take; and all links end
        // with the split, also where it does not come about.
        let mut split = Self {
            posts: Posts::new(shared.clone()),
            shared,
            devices: Vec::new(),
            roles: Vec::new(),
            own: own.clone(),
            dialled: Mutex::default(),
            _pinging: pinging,
        };
        reach::keep_alive(&split.shared, dropped).map_err(|error| SplitError::Own(error.to_string()))?;
        let reached = reach::all(&split.shared, addresses, dialler);
        for (device, queue) in own.iter().zip(own_queues()) {
            split.add(HOST, queue, Role::First, device.offer(), Duration::ZERO);
        }
        for ((number, address), reached) in (1..).zip(addresses).zip(reached) {
            let node = NodeId(number);
            let failed = |source| SplitError::Worker {
                address: shown(address).to_owned(),
                source,
            };
            let (round_trip, offers) = reached.map_err(failed)?;
            for (queue, offer) in (0..).zip(offers) {
                split.add(node, queue, Role::Worker(node), offer, round_trip);
            }
            lock(&split.dialled).push(Dialled {
                node,
                address: address.clone(),
                session: new_session().map_err(failed)?,
            });
        }
        let first = own
            .first()
            .ok_or_else(|| SplitError::Own("it has no device".to_owned()))?;
        split.add(HOST, HEAD, Role::Head, first.offer(), Duration::ZERO);
        let devices = split.devices.iter().map(|device| DeviceRef(&raw const **device));
        split.posts.set_devices(devices.collect());
        Ok(Arc::new(split))
    }

    fn add(&mut self, node: NodeId, queue: u8, role: Role, offer: DeviceOffer, round_trip: Duration) {
        let place = match role {
            Role::First => "first layers".to_owned(),
            Role::Head => "output".to_owned(),
            Role::Worker(node) => self
                .shared
                .node(node)
                .map_or_else(String::new, |node| node.name.clone()),
        };
        let device = device::Device::new(DeviceParams {
            name: self.unused_name(format!("{}@{place}", offer.name)),
            description: offer.description.clone(),
            memory: offer.free,
            node,
            queue,
            shared: self.shared.clone(),
            posts: self.posts.clone(),
        });
        self.devices.push(device);
        self.roles.push((role, offer, round_trip));
    }

    /// This name, or one like it: llama.cpp takes memories of the same name for one, and machines may have the same.
    fn unused_name(&self, name: String) -> String {
        let is_used = |name: &String| {
            let mut devices = self.devices.iter();
            devices.any(|device| device.name.to_bytes() == name.as_bytes())
        };
        let others = (2..).map(|number| format!("{name} ({number})"));
        let mut names = std::iter::once(name.clone()).chain(others);
        names.find(|name| !is_used(name)).unwrap_or(name)
    }

    /// All devices, in the order of the layers.
    pub fn members(self: &Arc<Self>) -> Vec<Member> {
        let members = self.devices.iter().zip(&self.roles);
        members
            .map(|(device, (role, offer, round_trip))| Member {
                role: *role,
                device: self.as_device(device),
                offer: offer.clone(),
                round_trip: *round_trip,
            })
            .collect()
    }

    fn as_device(self: &Arc<Self>, device: &device::Device) -> llama::Device {
        let owner: Arc<dyn Any + Send + Sync> = self.clone();
        llama::Device::of_split(
            device.name.to_string_lossy().into_owned(),
            device.memory,
            device.raw(),
            owner,
        )
    }

    /// Begins the sessions. `reserve` says for each member how many bytes it will need; workers of
    /// which nothing is needed are let go. `source` is the host's own file, `identity` what workers look
    /// for.
    ///
    /// # Errors
    /// Where a worker refuses, or is lost meanwhile.
    pub fn open(
        self: &Arc<Self>,
        reserve: &[u64],
        source: &ModelSource,
        identity: &Identity,
    ) -> Result<(), SplitError> {
        self.open_own(source)?;
        let mut used = Vec::new();
        for dialled in lock(&self.dialled).drain(..) {
            let queues: Vec<OpenQueue> = (0..)
                .zip(
                    self.devices
                        .iter()
                        .zip(reserve)
                        .filter(|(device, _)| device.node == dialled.node),
                )
                .map(|(device, (_, reserve))| OpenQueue {
                    device,
                    reserve: *reserve,
                })
                .collect();
            if queues.iter().all(|queue| queue.reserve == 0) {
                self.shared.release(dialled.node);
                continue;
            }
            let open = Open {
                session: dialled.session,
                node: dialled.node,
                queues,
                model: Some(*identity),
            };
            self.shared.expect_opened(dialled.node);
            if let Some(outlet) = self.shared.outlet(dialled.node) {
                outlet.send(ToWorker::Open(open), Bytes::new());
            }
            used.push((dialled.node, dialled.address, dialled.session));
        }
        for (node, address, _) in &used {
            let has_file = self.shared.opened(*node)?;
            if !has_file {
                tracing::warn!(
                    worker = address,
                    "has no copy of the model's file: its weights are sent over the network; put the file \
                     into one of its --model-dir to load faster"
                );
            }
            let devices = self.devices.iter().filter(|device| device.node == *node);
            devices.for_each(|device| device.opened(has_file));
        }
        self.connect(&used)
    }

    /// The host's own devices work like a worker's, in this process.
    fn open_own(&self, source: &ModelSource) -> Result<(), SplitError> {
        let own = |error: &dyn std::fmt::Display| SplitError::Own(error.to_string());
        let open = Open {
            session: new_session().map_err(|error| own(&error))?,
            node: HOST,
            queues: of_own_queues(self.own.len()),
            model: None,
        };
        let end = LocalEnd {
            shared: Arc::downgrade(&self.shared),
            node: HOST,
        };
        let host: Outlet<ToHost> = Outlet::Local(Arc::new(end));
        let session = Session::start(&open, &self.own, source, host, None, Instant::now())
            .map_err(|error| own(&error))?;
        self.shared.link(HOST, Outlet::Local(session));
        let devices = self.devices.iter().filter(|device| device.node == HOST);
        devices.for_each(|device| device.opened(true));
        Ok(())
    }

    /// Has workers dial each other, so that hidden states need not pass the host.
    fn connect(&self, used: &[(NodeId, String, SessionId)]) -> Result<(), SplitError> {
        let pairs = || {
            used.iter()
                .enumerate()
                .flat_map(|(index, from)| used[index + 1..].iter().map(move |to| (from, to)))
        };
        for ((from, ..), (node, address, session)) in pairs() {
            if let Some(outlet) = self.shared.outlet(*from) {
                let connect = ToWorker::Connect {
                    node: *node,
                    address: address.clone(),
                    session: *session,
                };
                self.shared.expect_reach(*from, *node);
                outlet.send(connect, Bytes::new());
            }
        }
        for ((from, from_address, _), (to, to_address, _)) in pairs() {
            let way = match self.shared.reach(*from, *to)? {
                Reach::Direct(round_trip) => {
                    let round_trip_ms = round_trip.as_secs_f64() * 1e3;
                    tracing::debug!(
                        from = from_address,
                        to = to_address,
                        round_trip_ms,
                        "workers reach each other"
                    );
                    Way::Direct
                }
                Reach::ThroughHost(cause) => {
                    tracing::warn!(
                        from = from_address,
                        to = to_address,
                        cause,
                        "workers do not reach each other: what they exchange passes this machine, which is slower"
                    );
                    Way::ThroughHost
                }
            };
            let devices = self.devices.iter().filter(|device| device.node == *to);
            devices.for_each(|device| device.set_way(*from, way));
        }
        Ok(())
    }

    /// Has every node load the weights that llama.cpp gave it by name; tells `progress` the bytes loaded
    /// so far.
    ///
    /// # Errors
    /// Where a node is lost, or cannot load.
    pub fn load(&self, progress: impl FnMut(u64)) -> Result<(), Lost> {
        for device in &self.devices {
            if self.shared.outlet(device.node).is_some() {
                device.send_loads();
                device.barrier(self.shared.expect_barrier(device.node));
            }
        }
        self.shared.barrier(progress)
    }

    /// Queues that compute.
    pub fn queues(&self) -> usize {
        let devices = self.devices.iter().filter(|device| device.computes());
        devices.count()
    }

    /// Calls `tell` when a node is lost.
    pub fn when_lost(&self, tell: impl FnOnce(&Lost) + Send + 'static) {
        self.shared.when_lost(tell);
    }

    /// Calls `tell` whenever something that was posted may be there. The first one who asks is told.
    pub fn when_answered(&self, tell: impl Fn() + Send + Sync + 'static) {
        self.shared.when_answered(tell);
    }

    /// What all its devices share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Asks all nodes what they computed when. They are asked again and again anyway, but not at once.
    pub fn ask_for_times(&self) {
        self.shared.ping();
    }

    /// A step begins: what llama.cpp reads in it is posted.
    pub fn begin_step(&self) -> Step {
        self.posts.begin();
        self.shared.begin_step()
    }

    /// The step is queued: sends the rest of it. What it reads, in the order of its rows.
    pub fn end_step(&self) -> Vec<Post> {
        self.posts.flush_all();
        self.shared.end_step();
        self.posts.end()
    }

    /// Steps from `first` to `last` need not be computed any more.
    pub fn cancel(&self, first: Step, last: Step) {
        self.shared.cancelled(first, last);
        for (node, _) in self.shared.nodes() {
            if let Some(outlet) = self.shared.outlet(node) {
                outlet.send(ToWorker::Cancel { first, last }, Bytes::new());
            }
        }
    }
}

/// The queues of the host's devices; [`HEAD`] is a second one of the first device.
fn own_queues() -> impl Iterator<Item = u8> {
    (0..=u8::MAX).filter(|queue| *queue != HEAD)
}

/// Queues for so many devices of the host, in the order of their numbers.
fn of_own_queues(devices: usize) -> Vec<OpenQueue> {
    let mut devices: Vec<u8> = (0..=u8::MAX).take(devices).collect();
    devices.insert(usize::from(HEAD), 0);
    let queue = |device| OpenQueue {
        device,
        reserve: OWN_BYTES,
    };
    devices.into_iter().map(queue).collect()
}

fn new_session() -> io::Result<SessionId> {
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(io::Error::other)?;
    Ok(SessionId(id))
}
