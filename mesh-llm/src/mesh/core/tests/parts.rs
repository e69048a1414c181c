//! What a lab is made of, and what is seen in it.

use super::lab::Lab;
use crate::mesh::core::{Core, LinkId};
use crate::mesh::id::{Address, Contact, NodeId, Role};
use crate::mesh::roster::SignedAct;
use crate::mesh::state::NodeState;
use crate::mesh::wire::{Frame, Refused};
use iroh_base::SecretKey;
use std::collections::BTreeMap;
use std::sync::LazyLock;

const MOST_NODES: usize = 6_000;

static KEYS: LazyLock<Vec<SecretKey>> = LazyLock::new(|| {
    let key = |number: usize| {
        let mut bytes = [(number % 250) as u8 + 1; 32];
        bytes[30] ^= (number / 250) as u8;
        SecretKey::from_bytes(&bytes)
    };
    (0..MOST_NODES).map(key).collect()
});

static NUMBERS: LazyLock<BTreeMap<NodeId, usize>> =
    LazyLock::new(|| (0..MOST_NODES).map(|number| (node_id(number), number)).collect());

pub fn key(number: usize) -> SecretKey {
    KEYS[number].clone()
}

pub fn node_id(number: usize) -> NodeId {
    static IDS: LazyLock<Vec<NodeId>> = LazyLock::new(|| KEYS.iter().map(SecretKey::public).collect());
    IDS[number]
}

pub fn number(node: NodeId) -> usize {
    NUMBERS[&node]
}

pub fn address(number: usize) -> Address {
    Address::Ip(([192, 0, 2, number as u8], 7).into())
}

pub fn pair(one: usize, other: usize) -> (usize, usize) {
    (one.min(other), one.max(other))
}

/// A program that runs.
pub struct Node {
    pub core: Core,
    pub run: u64,
    pub name: String,
    pub version: u64,
    /// Messages that came.
    pub heard: u64,
    pub refused: Option<Refused>,
    pub disk: Disk,
}

/// What a node has kept.
#[derive(Clone, Default)]
pub struct Disk {
    pub roster: Option<Vec<u8>>,
    pub certificate: Option<SignedAct>,
    pub contacts: Vec<Contact>,
}

impl Node {
    pub fn new(core: Core, number: usize, run: u64, disk: Disk) -> Self {
        Node {
            core,
            run,
            name: format!("host-{number}"),
            version: 0,
            heard: 0,
            refused: None,
            disk,
        }
    }

    pub fn save(&mut self) {
        let (roster, certificate, contacts) = self.core.kept();
        self.disk = Disk {
            roster: Some(roster.to_bytes()),
            certificate: certificate.cloned(),
            contacts,
        };
    }
}

/// A call, and the connection that comes of it.
#[derive(Clone)]
pub struct Wire {
    pub caller: usize,
    pub caller_run: u64,
    pub callee: usize,
    pub callee_run: u64,
    pub answering: Answering,
    pub open: bool,
}

/// Whether the caller has heard that it is let in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Answering {
    Not,
    Answered,
}

impl Wire {
    pub fn joins(&self, node: usize) -> bool {
        self.caller == node || self.callee == node
    }

    /// Who is at this end, in which run.
    pub fn end(&self, link: LinkId) -> (usize, u64) {
        match link.0 % 2 {
            0 => (self.caller, self.caller_run),
            _ => (self.callee, self.callee_run),
        }
    }
}

/// What will happen. The caller's end of connection n is link 2 n, the other is 2 n + 1.
pub enum Event {
    Knock(u64, Frame),
    Answer(u64, Frame),
    /// The caller, its run, whom it called.
    Failed(usize, u64, usize),
    Message(LinkId, Frame),
    Packet(LinkId, Vec<u8>),
    /// At whom, in which run.
    Closed(usize, u64, LinkId),
}

impl Event {
    /// The connection that it is lost with.
    pub fn wire(&self) -> Option<u64> {
        match self {
            Event::Knock(number, _) | Event::Answer(number, _) => Some(*number),
            Event::Message(link, _) | Event::Packet(link, _) => Some(link.0 / 2),
            Event::Failed(..) | Event::Closed(..) => None,
        }
    }
}

impl Lab {
    /// A node says something new of itself.
    pub fn publish(&mut self, number: usize) {
        let node = self.nodes.get_mut(&number).unwrap();
        node.version += 1;
        let state = NodeState {
            name: node.name.clone(),
            role: node.core.role().unwrap_or(Role::Node),
            addresses: vec![address(number)],
            ..NodeState::bare(node_id(number), node.core.boot(), node.version)
        };
        node.core.own_state(&state);
        self.drain(number);
    }

    pub fn rename(&mut self, number: usize, name: &str) {
        self.nodes.get_mut(&number).unwrap().name = name.to_owned();
        self.publish(number);
    }

    /// Whom a node sees.
    pub fn sees(&self, node: usize) -> Vec<usize> {
        let view = self.nodes[&node].core.view();
        let mut seen: Vec<usize> = view.nodes.iter().map(|seen| number(seen.state.node)).collect();
        seen.sort_unstable();
        seen
    }

    /// Which clients a node sees.
    pub fn clients(&self, node: usize) -> Vec<usize> {
        let view = self.nodes[&node].core.view();
        let mut seen: Vec<usize> = view.clients.iter().map(|seen| number(seen.node)).collect();
        seen.sort_unstable();
        seen
    }

    pub fn is_in(&self, node: usize) -> bool {
        self.nodes[&node].core.is_in()
    }

    /// Each sees all the others and nobody else, and believes the same of who belongs.
    #[track_caller]
    pub fn assert_see_each_other(&self, nodes: &[usize]) {
        for &node in nodes {
            let mut others = nodes.to_vec();
            others.retain(|other| *other != node);
            assert_eq!(self.sees(node), others, "whom {node} sees");
            assert_eq!(self.digest(node), self.digest(nodes[0]), "what {node} knows");
        }
    }

    pub fn digest(&self, node: usize) -> crate::mesh::roster::Digest {
        self.nodes[&node].core.kept().0.digest()
    }

    /// The connections between two, as the one and as the other sees it.
    pub fn links(&self, one: usize, other: usize) -> (Option<u64>, Option<u64>) {
        let link = |from: usize, to: usize| {
            let link = self.nodes[&from].core.link_to(node_id(to));
            link.map(|link| link.0 / 2)
        };
        (link(one, other), link(other, one))
    }
}
