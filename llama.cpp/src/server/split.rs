//! Loading a model over several nodes: who gets which layers, and whether it fits.

use std::collections::HashSet;
use std::sync::Arc;

use super::fit::Demand;
use super::load::{Refused, refused};
use super::measure::default_threads;
use super::options::Options;
use super::placed::choose_devices;
use super::room::Room;
use crate::llama::{self, Device, DeviceKind, DeviceNeed, HOST, ModelParams};
use crate::rpc::client::{Lost, Member, Patience, Role, Split, SplitError};
use crate::rpc::dial::{Dialler, Secret};
use crate::rpc::files::{self, Identity, Memory, WeightFile};
use crate::rpc::plan::{self, Gpus, Head, Node, Shares, Work};
use crate::rpc::worker::{self, ModelSource};
use crate::size::size;
use crate::status::Refusal;

/// What a worker takes for itself beside what llama.cpp counts: buffers are rounded up one by one.
const SLACK: u64 = 32 << 20;
/// llama.cpp's scheduler takes 16, the CPU among them.
const MOST_DEVICES: usize = 15;
/// Beside the processor and the head there are so many of a host's own.
const MOST_OWN_GPUS: usize = MOST_DEVICES - 2;

/// A model's split, before it is loaded.
#[derive(Debug)]
pub(super) struct Arrangement {
    split: Arc<Split>,
    /// The host's own copy of the model.
    source: ModelSource,
    identity: Identity,
    members: Vec<Member>,
    /// This machine's memories, in the order of the first members.
    own: Vec<Own>,
    /// What there is to compute, and who could: all members but the last, which is the host's head.
    work: Work,
    nodes: Vec<Node>,
    choice: Choice,
    shares: Shares,
}

/// A device of this machine.
#[derive(Debug)]
struct Own {
    device: Arc<worker::Device>,
    /// What its memory is called: [`HOST`], or the GPU's name.
    memory: String,
    /// Bytes of it for the model.
    room: u64,
}

/// Who chose the shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    /// The user: the head is where it fits.
    Given,
    /// This program, which chooses again where they turn out not to fit.
    Planned,
}

fn split_refused(error: &SplitError) -> Refused {
    match error {
        SplitError::Own(_) => refused(Refusal::Memory, error.to_string()),
        SplitError::Worker { .. } => refused(Refusal::Worker, error.to_string()),
        SplitError::Lost(lost) => lost_refused(lost),
    }
}

/// A node that was lost before the model was loaded is waited for like one that was not there at all.
pub(super) fn lost_refused(lost: &Lost) -> Refused {
    refused(Refusal::Worker, format!("{}: {}", lost.node, lost.cause))
}

impl Arrangement {
    /// Dials the workers and shares the model's layers out: as the user said, or so that a token takes
    /// the least time.
    ///
    /// # Errors
    /// A worker that cannot be used, or shares that make no sense.
    pub(super) fn find(options: &Options, layers: u32) -> Result<Self, Refused> {
        let secret = options
            .rpc_secret
            .as_deref()
            .and_then(|secret| Secret::new(secret.as_bytes()))
            .ok_or_else(|| refused(Refusal::Arguments, "--rpc needs the secret of the workers"))?;
        let dialler = Dialler {
            secret,
            door: options.door,
        };
        let mut seen = HashSet::new();
        if let Some(twice) = options.rpc.iter().find(|address| !seen.insert(*address)) {
            let message = format!("--rpc names {twice} twice; name each worker once");
            return Err(refused(Refusal::Arguments, message));
        }
        let unreadable = |error: files::Error| refused(Refusal::File, error.to_string());
        let file = WeightFile::open(&options.model).map_err(unreadable)?;
        let memory = options
            .fingerprints
            .as_ref()
            .map_or_else(Memory::in_process, Memory::open);
        let identity = file.identify(&memory).map_err(unreadable)?;
        memory.save();
        let work = Work::of(file.model(), layers);
        let own = own_devices(options, &work)?;
        let devices = own.iter().map(|own| own.device.clone()).collect();
        let split = Split::dial(&options.rpc, &dialler, devices, Patience::default())
            .map_err(|error| split_refused(&error))?;
        let members = split.members();
        let mut nodes = nodes(&members, &own);
        let given = match options.even_split {
            true => even(&members, &work, &nodes),
            false => options.tensor_split.clone(),
        };
        let (choice, shares) = if given.is_empty() {
            let planned = few_devices(&work, &mut nodes).map_err(|shortage| nowhere(options, &shortage));
            let shares = planned.map_err(|refusal| if_busy(&refusal, &members).unwrap_or(refusal))?;
            (Choice::Planned, shares)
        } else {
            let names = || {
                let names = members[..nodes.len()]
                    .iter()
                    .map(|member| member.device.name.as_str());
                names.collect::<Vec<_>>().join(", ")
            };
            let layers = plan::whole_layers(&given, nodes.len(), layers)
                .map_err(|fault| refused(Refusal::Arguments, format!("{fault}: {}", names())))?;
            let head = Head::Host;
            (Choice::Given, Shares { layers, head })
        };
        let arrangement = Self {
            split,
            source: ModelSource::new(Some(file)),
            identity,
            members,
            own,
            work,
            nodes,
            choice,
            shares,
        };
        let used = arrangement.used().count();
        if used > MOST_DEVICES {
            let message = format!(
                "the split has {used} devices, and llama.cpp takes at most {MOST_DEVICES}; give some of them no \
                 layers with --tensor-split"
            );
            return Err(refused(Refusal::Arguments, message));
        }
        Ok(arrangement)
    }

    /// Shares the layers out again, for llama.cpp says that a node has not the memory for its share: less
    /// of them for that node, and the head for the last worker where the host has no room for it. `false`
    /// where there is no other way.
    pub(super) fn make_room(&mut self, short: &Demand) -> bool {
        let of_own = self.own.iter().position(|own| own.memory == short.device);
        let of_worker = || {
            let mut members = self.members.iter();
            members.position(|member| member.device.name == short.device)
        };
        let node = of_own.or_else(of_worker).unwrap_or(0);
        let other = match self.choice {
            Choice::Given if node == 0 && self.shares.head == Head::Host => {
                self.shares.with_head_on_last_worker()
            }
            Choice::Given => None,
            Choice::Planned => {
                let has = self.shares.weights(&self.work)[node];
                // What weights bring with them shrinks as they do, nearly.
                let fits = u128::from(has) * u128::from(short.free) / u128::from(short.needed.max(1));
                // Where nothing is left to give away, nothing helps.
                let fits = u64::try_from(fits).unwrap_or(u64::MAX).min(has.saturating_sub(1));
                self.nodes[node].bytes = fits;
                plan::best_shares(&self.work, &self.nodes)
                    .ok()
                    .filter(|_| has > 0)
            }
        };
        let Some(shares) = other.filter(|shares| self.used_by(shares).count() <= MOST_DEVICES) else {
            return false;
        };
        tracing::debug!(short = ?short, ?shares, "the layers are shared out again");
        self.shares = shares;
        true
    }

    /// Says who computes what.
    pub(super) fn report(&self) {
        let layers = self.layers();
        for ((number, member), layers) in self.members.iter().enumerate().zip(layers) {
            let has_head = self.shares.head == Head::Worker(number);
            let part = match (member.role, layers, has_head) {
                (Role::Head, 0, _) => continue,
                (Role::Head, ..) => "the output".to_owned(),
                (_, 0, _) => "nothing: it would only slow the others down".to_owned(),
                (_, layers, true) => {
                    format!(
                        "{} layers, and the output: this machine has no room for it",
                        layers - 1
                    )
                }
                (_, layers, false) => format!("{layers} layers"),
            };
            tracing::info!(
                device = member.device.name,
                round_trip_ms = member.round_trip.as_secs_f64() * 1e3,
                part,
                "split"
            );
        }
    }

    /// Layers that each node computes, the host first, then the workers as they were named; the output layer counts
    /// for none.
    pub(super) fn layers_of_nodes(&self) -> Vec<u32> {
        let mut nodes = Vec::new();
        let mut last = None;
        for (member, layers) in self.members.iter().zip(&self.shares.layers) {
            match nodes.last_mut() {
                // One that has several devices.
                Some(before) if last == Some(member.role) => *before += layers,
                _ => nodes.push(*layers),
            }
            last = Some(member.role);
        }
        nodes
    }

    /// Layers of each member; the output layer counts as one.
    fn layers(&self) -> Vec<u32> {
        layers_of(&self.shares)
    }

    fn used(&self) -> impl Iterator<Item = (&Member, u32)> {
        self.used_by(&self.shares)
    }

    fn used_by(&self, shares: &Shares) -> impl Iterator<Item = (&Member, u32)> + use<'_> {
        self.members
            .iter()
            .zip(layers_of(shares))
            .filter(|(_, layers)| *layers > 0)
    }

    /// The devices that compute, for llama.cpp.
    pub(super) fn model_params(&self) -> ModelParams {
        ModelParams {
            devices: Some(self.used().map(|(member, _)| member.device.clone()).collect()),
            gpu_layers: Some(self.layers().iter().sum()),
            tensor_split: self.used().map(|(_, layers)| layers as f32).collect(),
            ..ModelParams::default()
        }
    }

    /// What llama.cpp needs of each worker's device, and of each memory of this machine. Workers lend what is reserved at the
    /// start, and no more: so what is needed `later` counts there, too.
    pub(super) fn demands(&self, needs: &[DeviceNeed], later: &[DeviceNeed]) -> Vec<Demand> {
        let of_own = |own: &Own| Demand {
            device: own.memory.clone(),
            needed: 0,
            cache: 0,
            free: own.room,
        };
        let later = |device: &str| {
            let need = later.iter().find(|need| need.name == device);
            need.map_or(0, DeviceNeed::without_model)
        };
        let mut own: Vec<Demand> = self.own.iter().map(of_own).collect();
        let mut demands = Vec::new();
        for need in needs {
            match self.member(&need.name) {
                Some(member) if matches!(member.role, Role::Worker(_)) => demands.push(Demand {
                    device: need.name.clone(),
                    needed: need.total() + SLACK + later(&need.name),
                    cache: need.context,
                    free: member.offer.free,
                }),
                // Of weights that llama.cpp's own CPU has, rows are looked up in a mapped file: the system
                // keeps what it has room for.
                None => own[self.host()].needed += need.context + need.compute,
                Some(member) => {
                    let demand = &mut own[self.own_of(member)];
                    demand.needed += need.total();
                    demand.cache += need.context;
                }
            }
        }
        demands.extend(own);
        demands
    }

    /// Which of this machine's memories a device of its own has.
    fn own_of(&self, member: &Member) -> usize {
        let is_it = |own: &Own| own.device.name() == member.offer.name;
        self.own.iter().position(is_it).unwrap_or_else(|| self.host())
    }

    /// Which of this machine's memories is no GPU's.
    fn host(&self) -> usize {
        let host = self.own.iter().position(|own| own.memory == HOST);
        host.expect("the processor is always among them")
    }

    fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.device.name == name)
    }

    /// Begins the sessions, each with what it will need.
    ///
    /// # Errors
    /// Where a worker refuses or is lost.
    pub(super) fn open(&self, demands: &[Demand]) -> Result<(), Refused> {
        let need = |member: &Member| {
            let name = &member.device.name;
            let demand = demands.iter().find(|demand| demand.device == *name);
            demand.map_or(0, |demand| demand.needed)
        };
        let reserve: Vec<u64> = self
            .members
            .iter()
            .zip(self.layers())
            .map(|(member, layers)| if layers > 0 { need(member) } else { 0 })
            .collect();
        self.split
            .open(&reserve, &self.source, &self.identity)
            .map_err(|error| split_refused(&error))
    }

    /// Why a refusal need not last: a node was lost, or other sessions have memory of a worker that the
    /// model lacks.
    pub(super) fn passing(&self, refusal: &Refused) -> Option<Refused> {
        if let Some(lost) = self.split.shared().lost() {
            return Some(lost_refused(&lost));
        }
        if_busy(refusal, &self.members)
    }

    /// The devices' side.
    pub(super) fn split(&self) -> &Arc<Split> {
        &self.split
    }
}

/// The best shares that use no more devices than llama.cpp takes, one being the head's: of nodes that would be used, the
/// slowest are done without.
fn few_devices(work: &Work, nodes: &mut [Node]) -> Result<Shares, plan::Shortage> {
    loop {
        let shares = plan::best_shares(work, nodes)?;
        let used = |node: &usize| shares.uses(*node);
        if (0..nodes.len()).filter(used).count() < MOST_DEVICES {
            return Ok(shares);
        }
        let slowest = (1..nodes.len())
            .filter(used)
            .min_by_key(|node| nodes[*node].bandwidth);
        // There are many that are used.
        let Some(slowest) = slowest else {
            return Ok(shares);
        };
        nodes[slowest].bytes = 0;
    }
}

/// Shares of machines that get as much each, on the quickest of their devices that has room for it.
fn even(members: &[Member], work: &Work, nodes: &[Node]) -> Vec<u32> {
    let mut machines: Vec<Vec<usize>> = Vec::new();
    for node in 0..nodes.len() {
        match machines.last_mut() {
            Some(machine) if members[machine[0]].role == members[node].role => machine.push(node),
            _ => machines.push(vec![node]),
        }
    }
    let part = work.layers.iter().sum::<u64>() / machines.len().max(1) as u64;
    let mut shares = vec![0; nodes.len()];
    for machine in &machines {
        let fits = |node: &&usize| nodes[**node].bytes >= part;
        let quickest = machine
            .iter()
            .filter(fits)
            .max_by_key(|node| nodes[**node].bandwidth);
        let roomiest = machine.iter().max_by_key(|node| nodes[**node].bytes);
        if let Some(node) = quickest.or(roomiest) {
            shares[*node] = 1;
        }
    }
    shares
}

/// What a refusal for want of memory is where a worker's is in use by others: one that need not last.
fn if_busy(refusal: &Refused, members: &[Member]) -> Option<Refused> {
    let mut workers = members
        .iter()
        .filter(|member| matches!(member.role, Role::Worker(_)));
    let busy = workers.any(|member| member.offer.free < member.offer.total);
    let message = || format!("{}; a worker has memory in use by others", refusal.message);
    (refusal.reason == Refusal::Memory && busy).then(|| refused(Refusal::Worker, message()))
}

/// This machine's GPUs and its processor, driven like a worker's. The first one has the output layer, too: a GPU if it
/// has room for that and as much again.
fn own_devices(options: &Options, work: &Work) -> Result<Vec<Own>, Refused> {
    let cpu = llama::devices()
        .into_iter()
        .find(|device: &Device| device.kind == DeviceKind::Cpu);
    let cpu = cpu.ok_or_else(|| refused(Refusal::Model, "this build has no CPU device"))?;
    let mut devices = choose_devices(options)?;
    let room = Room::now(options);
    let has_head = |gpu: &Device| room.of(&gpu.name) / 2 >= work.head;
    devices.truncate(MOST_OWN_GPUS);
    // Who says what each gets must know their order.
    let gpus_first = !options.tensor_split.is_empty() || devices.first().is_some_and(has_head);
    let place = if gpus_first { devices.len() } else { 0 };
    devices.insert(place, cpu);
    let threads = options.threads.unwrap_or_else(default_threads);
    let open = |device: Device| {
        let memory = match device.kind {
            DeviceKind::Cpu => HOST.to_owned(),
            _ => device.name.clone(),
        };
        // What fits is decided before, for each memory as a whole.
        let device = worker::Device::new(device, threads, u64::MAX / 2)
            .map_err(|error| refused(Refusal::Memory, error.to_string()))?
            .delayed(options.step_delay);
        if options.tensor_split.is_empty() {
            device.measure();
        }
        Ok(Own {
            device: Arc::new(device),
            room: room.of(&memory),
            memory,
        })
    };
    devices.into_iter().map(open).collect()
}

/// Layers of each member, the host's head being the last; the output layer counts as one.
fn layers_of(shares: &Shares) -> Vec<u32> {
    let mut layers = shares.layers.clone();
    match shares.head {
        Head::Host => layers.push(1),
        Head::Worker(node) => {
            layers[node] += 1;
            layers.push(0);
        }
    }
    layers
}

fn nodes(members: &[Member], own: &[Own]) -> Vec<Node> {
    let computing = members.iter().filter(|member| member.role != Role::Head);
    let node = |(number, member): (usize, &Member)| Node {
        bytes: match (member.role, own.get(number)) {
            (Role::First, Some(own)) => own.room,
            _ => member.offer.free,
        },
        bandwidth: member.offer.bandwidth,
        gpus: Gpus::default(),
        hop: member.round_trip / 2,
    };
    computing.enumerate().map(node).collect()
}

fn nowhere(options: &Options, shortage: &plan::Shortage) -> Refused {
    refused(
        Refusal::Memory,
        format!(
            "{} needs {}, its layers being whole, and this machine and its workers together offer {}; \
             add a worker to --rpc, or take a smaller model or quantization",
            options.model_name,
            size(shortage.needed),
            size(shortage.offered)
        ),
    )
}
