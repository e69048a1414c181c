//! A mesh in virtual time: the very code that runs at each node, over a network that is made up.
//!
//! Everything follows from a seed. Nodes are named by their number. All are connected to all, as in a real mesh, and a
//! connection outlives a partition: nobody is told when it heals.

mod look;
mod network;
mod tests;

use crate::mesh::gossip::{Gossip, Message};
use crate::mesh::id::{Boot, MeshId, NodeId};
use crate::mesh::membership::{Member, Membership, Output};
use crate::mesh::state::NodeState;
use iroh_base::SecretKey;
use network::Network;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use std::time::Duration;

/// The most nodes of a world.
const MAX_NODES: usize = 500;

/// The first boot of each node.
const FIRST_BOOT: Boot = Boot(1_790_000_000_000);

/// How finely [`World::within`] looks; at large worlds, which are a lot to look at, ten times as coarsely.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A world of more nodes is large.
const LARGE: usize = 100;

/// Keys cost more than all else that a small world does.
static KEYS: LazyLock<Vec<(SecretKey, NodeId)>> = LazyLock::new(|| {
    let key = |number: u16| {
        let mut bytes = [1; 32];
        bytes[..2].copy_from_slice(&number.to_le_bytes());
        SecretKey::from_bytes(&bytes)
    };
    let keys = (1..=MAX_NODES as u16).map(key);
    keys.map(|key| (key.clone(), key.public())).collect()
});

fn id(node: usize) -> NodeId {
    KEYS[node].1
}

/// The mesh, its network and its time.
struct World {
    now: Duration,
    seed: u64,
    network: Network,
    nodes: Vec<Option<Run>>,
    /// When each running node is to be looked at next.
    due: BTreeSet<(Duration, usize)>,
    numbers: BTreeMap<NodeId, usize>,
    /// Nodes that have a state to tell: the first ones. Signatures are slow.
    speakers: usize,
    members: BTreeSet<NodeId>,
    flying: BTreeMap<(Duration, u64), Flight>,
    sent: u64,
    /// Bytes that each node has sent, with what QUIC, UDP and IP add to them.
    bytes: Vec<u64>,
    /// All that was sent, while it is kept.
    tape: Option<Vec<Flight>>,
    log: Vec<Entry>,
}

/// A node while it runs.
struct Run {
    membership: Membership,
    gossip: Gossip,
    state: NodeState,
    connected: BTreeSet<NodeId>,
    /// When it is to be looked at next, as the world has noted.
    due: Option<Duration>,
}

/// What one node sent to another.
#[derive(Debug, Clone)]
struct Flight {
    from: usize,
    to: usize,
    parcel: Parcel,
}

#[derive(Debug, Clone)]
enum Parcel {
    Membership(Vec<u8>),
    Gossip(Message),
}

/// What a QUIC packet adds to what is in it, with its tag, UDP's head and IP's.
const PACKET_HEAD: u64 = 70;

/// Bytes of a stream in a packet.
const PACKET_BYTES: u64 = 1_200;

impl Parcel {
    /// Bytes on the wire.
    fn bytes(&self) -> u64 {
        let length = match self {
            Self::Membership(packet) => packet.len(),
            Self::Gossip(message) => message.encode().len(),
        } as u64;
        length + PACKET_HEAD * length.div_ceil(PACKET_BYTES).max(1)
    }
}

/// What a node noticed of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    at: Duration,
    by: usize,
    of: usize,
    what: Noticed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Noticed {
    Up,
    Down,
}

impl World {
    /// `count` nodes that have just met each other, of which the first `speakers` have a state.
    fn new(seed: u64, count: usize, speakers: usize, network: Network) -> Self {
        let mut world = World {
            now: Duration::ZERO,
            seed,
            network,
            nodes: (0..count).map(|_| None).collect(),
            due: BTreeSet::new(),
            numbers: (0..count).map(|node| (id(node), node)).collect(),
            speakers,
            members: (0..count).map(id).collect(),
            flying: BTreeMap::new(),
            sent: 0,
            bytes: vec![0; count],
            tape: None,
            log: Vec::new(),
        };
        for node in 0..count {
            world.start(node, FIRST_BOOT);
        }
        world
    }

    fn mesh() -> MeshId {
        MeshId(id(0))
    }

    /// A node starts, and connects to all that run.
    fn start(&mut self, node: usize, boot: Boot) {
        let me = id(node);
        let seed = self.seed.wrapping_mul(1_000) + (node as u64) + self.sent;
        self.nodes[node] = Some(Run {
            membership: Membership::new(Member { node: me, boot }, seed),
            gossip: Gossip::new(World::mesh(), me, seed),
            state: state(node, boot),
            connected: BTreeSet::new(),
            due: None,
        });
        self.say(node);
        for other in self.running() {
            if other != node && self.network.connects(node, other) {
                self.meet(node, other);
                self.meet(other, node);
            }
        }
    }

    /// `node` gets a connection to `peer`.
    fn meet(&mut self, node: usize, peer: usize) {
        let boot = self.run(peer).state.boot;
        let now = self.now;
        self.run_mut(node)
            .membership
            .met(now, Member { node: id(peer), boot });
        self.drain(node);
    }

    /// It is gone, without a word.
    fn kill(&mut self, node: usize) {
        if let Some(due) = self.nodes[node].take().and_then(|run| run.due) {
            self.due.remove(&(due, node));
        }
    }

    /// A speaker's state changes.
    fn say(&mut self, node: usize) {
        let speaks = node < self.speakers;
        let run = self.run_mut(node);
        run.state.version += 1;
        if speaks {
            let signed = run.state.sign(World::mesh(), &KEYS[node].0);
            run.gossip.set_own(signed).unwrap();
        }
        self.drain(node);
    }

    /// Time passes.
    fn run_until(&mut self, end: Duration) {
        loop {
            let timer = self.due.first().map(|(at, _)| *at);
            let arrival = self.flying.first_key_value().map(|((at, _), _)| *at);
            let Some(next) = timer.into_iter().chain(arrival).min().filter(|&next| next <= end) else {
                break;
            };
            self.now = self.now.max(next);
            match arrival == Some(next) {
                true => self.arrive(),
                false => self.tick(),
            }
        }
        self.now = end;
    }

    fn run_for(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }

    /// Time passes until something is true.
    fn within(&mut self, limit: Duration, what: &str, is_true: impl Fn(&World) -> bool) {
        let begin = self.now;
        let is_large = self.nodes.len() > LARGE;
        let pause = LOOK_EVERY * if is_large { 10 } else { 1 };
        while !is_true(self) {
            let seen = || match is_large {
                true => self.describe_errors(),
                false => self.describe(),
            };
            assert!(
                self.now - begin < limit,
                "seed {}: {what} within {limit:?}: {}",
                self.seed,
                seen()
            );
            self.run_for(pause);
        }
    }

    /// Sends again what was once sent.
    fn replay(&mut self, flight: &Flight) {
        self.fly(flight.from, flight.to, flight.parcel.clone());
    }

    fn running(&self) -> Vec<usize> {
        (0..self.nodes.len())
            .filter(|&node| self.nodes[node].is_some())
            .collect()
    }

    fn run(&self, node: usize) -> &Run {
        self.nodes[node].as_ref().expect("it runs")
    }

    fn run_mut(&mut self, node: usize) -> &mut Run {
        self.nodes[node].as_mut().expect("it runs")
    }

    fn arrive(&mut self) {
        let Some((_, Flight { from, to, parcel })) = self.flying.pop_first() else {
            return;
        };
        let Some(run) = &mut self.nodes[to] else { return };
        let is_member = |node: NodeId| self.members.contains(&node);
        match parcel {
            Parcel::Membership(packet) => run.membership.receive(self.now, id(from), &packet, &is_member),
            Parcel::Gossip(message) => run.gossip.receive(id(from), message, &is_member),
        }
        self.drain(to);
    }

    fn tick(&mut self) {
        let now = self.now;
        while let Some(&(_, node)) = self.due.first().filter(|(at, _)| *at <= now) {
            let run = self.run_mut(node);
            run.membership.tick(now);
            run.gossip.tick(now);
            self.drain(node);
        }
    }

    /// Does what a node wants to be done, as its daemon would.
    fn drain(&mut self, node: usize) {
        let now = self.now;
        loop {
            let run = self.run_mut(node);
            if let Some(output) = run.membership.poll() {
                self.obey(node, output);
            } else if let Some(output) = run.gossip.poll() {
                self.fly(node, self.numbers[&output.to], Parcel::Gossip(output.message));
            } else if let Some(ahead) = run.gossip.own_is_outdated() {
                run.membership.reboot(now, Boot(ahead.boot.0 + 1));
            } else {
                break;
            }
        }
        let run = self.run_mut(node);
        let next = Some(run.next_timer());
        let before = std::mem::replace(&mut run.due, next);
        if before != next {
            self.due.extend(next.map(|next| (next, node)));
            if let Some(before) = before {
                self.due.remove(&(before, node));
            }
        }
    }

    fn obey(&mut self, node: usize, output: Output) {
        let (member, what) = match output {
            Output::Send { to, packet } => {
                assert!(packet.len() <= 1_100);
                return self.fly(node, self.numbers[&to], Parcel::Membership(packet));
            }
            Output::Boot(boot) => {
                self.run_mut(node).state.boot = boot;
                return self.say(node);
            }
            Output::Up(member) => (member, Noticed::Up),
            Output::Down(member) => (member, Noticed::Down),
        };
        let run = self.run_mut(node);
        match what {
            Noticed::Up => {
                run.connected.insert(member.node);
            }
            Noticed::Down => {
                run.connected.remove(&member.node);
                run.gossip.forget(member.node, member.boot);
            }
        }
        run.gossip.peers(&run.connected);
        self.log.push(Entry {
            at: self.now,
            by: node,
            of: self.numbers[&member.node],
            what,
        });
    }

    fn fly(&mut self, from: usize, to: usize, parcel: Parcel) {
        self.bytes[from] += parcel.bytes();
        let flight = Flight { from, to, parcel };
        if let Some(tape) = &mut self.tape {
            tape.push(flight.clone());
        }
        if let Some(latency) = self.network.carry(from, to) {
            self.flying.insert((self.now + latency, self.sent), flight);
            self.sent += 1;
        }
    }
}

impl Run {
    fn next_timer(&self) -> Duration {
        let gossip = self.gossip.next_timer();
        self.membership
            .next_timer()
            .map_or(gossip, |membership| membership.min(gossip))
    }

    fn sees(&self, node: NodeId) -> bool {
        self.membership.alive().any(|member| member.node == node)
    }
}

fn state(node: usize, boot: Boot) -> NodeState {
    NodeState {
        name: format!("node-{node}"),
        ..NodeState::bare(id(node), boot, 0)
    }
}
