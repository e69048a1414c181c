//! Several [`Core`]s in virtual time. What one wants done is done: calls are answered, messages and packets arrive
//! after a while, connections end on both sides, and what is to be kept is there at the next start, and no more.

use super::net::LATENCY;
use super::parts::{Disk, Event, Node, Wire, address, key, node_id, pair};
use crate::mesh::core::{Core, Goodbye, Part, Start};
use crate::mesh::id::{Boot, Contact, MeshId, Role, UnixSeconds};
use crate::mesh::roster::Roster;
use crate::mesh::token::{Grant, Token};
use crate::mesh::wire::{Control, Hello, Refused};
use iroh_base::SecretKey;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A connection to somebody who fell silent.
const IDLE: Duration = Duration::from_secs(10);

/// Long enough for everything that is to happen.
pub const QUIET: Duration = Duration::from_secs(90);

/// The nodes, by number, and what is between them.
pub struct Lab {
    pub now: Duration,
    pub nodes: BTreeMap<usize, Node>,
    pub disks: BTreeMap<usize, Disk>,
    /// Whom each has sent out, and why.
    pub goodbyes: Vec<(usize, usize, Goodbye)>,
    /// Calls that were made.
    pub calls: u64,
    /// The most messages that one node has sent another at once.
    pub most_at_once: usize,
    /// Whose packets are lost.
    pub deaf: BTreeSet<usize>,
    pub wires: BTreeMap<u64, Wire>,
    pub flying: BTreeMap<(Duration, u64), Event>,
    pub cut: BTreeSet<(usize, usize)>,
    /// Counts events, runs and keys.
    pub count: u64,
}

impl Lab {
    /// Node 0 has founded a mesh.
    pub fn new() -> Self {
        let mut lab = Lab {
            now: Duration::ZERO,
            nodes: BTreeMap::new(),
            disks: BTreeMap::new(),
            goodbyes: Vec::new(),
            calls: 0,
            most_at_once: 0,
            deaf: BTreeSet::new(),
            wires: BTreeMap::new(),
            flying: BTreeMap::new(),
            cut: BTreeSet::new(),
            count: 0,
        };
        lab.start(0, Part::Server, None);
        lab
    }

    /// Nodes 0 to `count` have joined one after the other.
    pub fn of(count: usize) -> Self {
        let mut lab = Lab::new();
        let token = lab.invite(0, Role::Node);
        for node in 1..count {
            lab.start(node, Part::Server, Some(&token));
            lab.run_for(Duration::from_secs(2));
        }
        lab.run_for(Duration::from_secs(5));
        let all: Vec<usize> = (0..count).collect();
        lab.assert_see_each_other(&all);
        lab
    }

    /// The time of day.
    pub fn unix(&self) -> UnixSeconds {
        UnixSeconds(1_790_000_000 + self.now.as_secs())
    }

    pub fn core(&mut self, node: usize) -> &mut Core {
        &mut self.nodes.get_mut(&node).unwrap().core
    }

    /// A node's program starts, with what it kept.
    pub fn start(&mut self, node: usize, part: Part, token: Option<&Token>) {
        let disk = self.disks.remove(&node).unwrap_or_default();
        let mesh = token.map_or(MeshId(node_id(node)), |token| token.grant().mesh);
        let roster = disk
            .roster
            .as_ref()
            .map_or(Roster::new(mesh), |bytes| Roster::from_bytes(bytes).unwrap());
        let mut contacts = disk.contacts.clone();
        contacts.extend(token.iter().flat_map(|token| token.grant().contacts.clone()));
        self.count += 1;
        let core = Core::new(Start {
            key: key(node),
            boot: Boot(self.unix().0 * 1000 + self.count),
            roster,
            part,
            certificate: disk.certificate.clone(),
            token: token.cloned(),
            contacts,
            seed: self.count,
        });
        self.nodes.insert(node, Node::new(core, node, self.count, disk));
        self.publish(node);
        self.drain(node);
    }

    /// Its program is killed: nobody is told, and what it has not kept is lost.
    pub fn stop(&mut self, node: usize) {
        let stopped = self.nodes.remove(&node).unwrap();
        self.disks.insert(node, stopped.disk);
        for number in self.wires_of(|wire| wire.joins(node)) {
            self.end(number, IDLE, IDLE);
        }
    }

    /// Killed, and started again at once.
    pub fn restart(&mut self, node: usize, part: Part) {
        self.stop(node);
        self.start(node, part, None);
    }

    /// Its program is told to end.
    pub fn leave(&mut self, node: usize) {
        self.core(node).leave();
        self.drain(node);
        let stopped = self.nodes.remove(&node).unwrap();
        self.disks.insert(node, stopped.disk);
        for number in self.wires_of(|wire| wire.joins(node)) {
            self.end(number, LATENCY * 2, LATENCY * 2);
        }
    }

    /// Nothing goes between these two any more.
    pub fn cut(&mut self, one: usize, other: usize) {
        self.cut.insert(pair(one, other));
        for number in self.wires_of(|wire| pair(wire.caller, wire.callee) == pair(one, other)) {
            self.flying.retain(|_, event| event.wire() != Some(number));
            self.end(number, LATENCY, Duration::from_secs(1));
        }
    }

    /// It does again.
    pub fn mend(&mut self, one: usize, other: usize) {
        self.cut.remove(&pair(one, other));
    }

    /// Everything does.
    pub fn mend_all(&mut self) {
        self.cut.clear();
        self.deaf.clear();
    }

    pub fn invite(&mut self, by: usize, role: Role) -> Token {
        self.invite_with(by, role, |_| {})
    }

    pub fn invite_with(&mut self, by: usize, role: Role, change: impl Fn(&mut Grant)) -> Token {
        self.count += 1;
        let mut grant = Grant {
            mesh: self.core(by).mesh(),
            issuer: node_id(by),
            role,
            expires: None,
            uses: None,
            models: None,
            contacts: vec![Contact {
                node: node_id(by),
                addresses: vec![address(by)],
            }],
        };
        change(&mut grant);
        let fresh = SecretKey::from_bytes(&[200 + (self.count % 50) as u8; 32]);
        self.core(by).invite(grant, fresh).unwrap()
    }

    /// One removes another, by its id.
    pub fn kick(&mut self, by: usize, who: usize) {
        let (now, unix) = (self.now, self.unix());
        let id = node_id(who).to_string();
        assert_eq!(self.core(by).kick(now, &id, unix), Ok(node_id(who)));
        self.drain(by);
    }

    /// What a node that shows this would hear.
    pub fn knock(&mut self, at: usize, who: usize, hello: &Hello) -> Result<Role, Refused> {
        let (now, unix) = (self.now, self.unix());
        let verdict = self.core(at).admit(now, unix, node_id(who), hello);
        self.drain(at);
        verdict.map(|(admitted, _)| admitted.role)
    }

    /// A message comes, as if the other end of the connection had sent it.
    pub fn say(&mut self, from: usize, to: usize, message: Control) {
        let (now, link) = (self.now, self.core(to).link_to(node_id(from)).unwrap());
        self.core(to).control(now, link, message);
        self.drain(to);
    }

    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let ticks = self.nodes.iter().map(|(at, node)| (node.core.next_tick(), *at));
            let tick = ticks.min();
            let arrival = self.flying.first_key_value().map(|((at, _), _)| *at);
            match (arrival, tick) {
                (Some(at), _) if at <= end && tick.is_none_or(|(due, _)| at <= due) => {
                    self.now = self.now.max(at);
                    let (_, event) = self.flying.pop_first().unwrap();
                    self.arrive(event);
                }
                (_, Some((due, node))) if due <= end => {
                    self.now = self.now.max(due);
                    let now = self.now;
                    self.core(node).tick(now);
                    self.drain(node);
                }
                _ => break,
            }
        }
        self.now = end;
    }
}
