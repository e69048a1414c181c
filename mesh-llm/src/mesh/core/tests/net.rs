//! What carries bytes in a lab, and what they do where they arrive.

use super::lab::Lab;
use super::parts::{Answering, Event, Wire, address, node_id, pair};
use crate::mesh::core::{LinkId, Output, Side};
use crate::mesh::id::Contact;
use crate::mesh::membership::Member;
use crate::mesh::wire::{Answer, Hello, Reader, encode};
use std::collections::BTreeMap;
use std::time::Duration;

/// One way.
pub const LATENCY: Duration = Duration::from_millis(5);

/// A call to where nobody is.
const CALL_FAILS: Duration = Duration::from_secs(3);

impl Lab {
    fn fly(&mut self, after: Duration, event: Event) {
        self.count += 1;
        self.flying.insert((self.now + after, self.count), event);
    }

    pub(super) fn wires_of(&self, of: impl Fn(&Wire) -> bool) -> Vec<u64> {
        let open = self.wires.iter().filter(|(_, wire)| wire.open && of(wire));
        open.map(|(number, _)| *number).collect()
    }

    /// A connection, or a call, ends: who called hears of it after this, the other after that.
    pub(super) fn end(&mut self, number: u64, caller: Duration, callee: Duration) {
        let wire = self.wires.get_mut(&number).filter(|wire| wire.open);
        let Some(wire) = wire else { return };
        wire.open = false;
        let wire = wire.clone();
        if wire.answering == Answering::Answered {
            self.fly(
                caller,
                Event::Closed(wire.caller, wire.caller_run, LinkId(number * 2)),
            );
        } else {
            self.fly(
                CALL_FAILS,
                Event::Failed(wire.caller, wire.caller_run, wire.callee),
            );
        }
        self.fly(
            callee,
            Event::Closed(wire.callee, wire.callee_run, LinkId(number * 2 + 1)),
        );
    }

    /// One end of a connection is closed.
    fn hang_up(&mut self, link: LinkId) {
        let (caller, callee) = match link.0 % 2 {
            0 => (Duration::ZERO, LATENCY),
            _ => (LATENCY, Duration::ZERO),
        };
        self.end(link.0 / 2, caller, callee);
    }

    fn is_open(&self, link: LinkId) -> bool {
        self.wires.get(&(link.0 / 2)).is_some_and(|wire| wire.open)
    }

    /// A call that a request is for.
    pub fn dial(&mut self, from: usize, contact: Contact) {
        self.call(from, &contact);
    }

    fn call(&mut self, from: usize, contact: &Contact) {
        self.calls += 1;
        let callee = super::parts::number(contact.node);
        let (node, run) = (&self.nodes[&from], self.nodes[&from].run);
        let hello = encode(&node.core.hello()).unwrap();
        let there = self.nodes.get(&callee).map(|node| node.run);
        let is_there =
            contact.addresses.contains(&address(callee)) && !self.cut.contains(&pair(from, callee));
        let Some(callee_run) = there.filter(|_| is_there) else {
            return self.fly(CALL_FAILS, Event::Failed(from, run, callee));
        };
        self.count += 1;
        let wire = Wire {
            caller: from,
            caller_run: run,
            callee,
            callee_run,
            answering: Answering::Not,
            open: true,
        };
        self.wires.insert(self.count, wire);
        self.fly(LATENCY, Event::Knock(self.count, hello));
    }

    pub(super) fn arrive(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Knock(number, hello) => self.knocked(number, &read(&hello)),
            Event::Answer(number, answer) => self.answered(number, read(&answer)),
            Event::Failed(caller, run, callee) => {
                if self.runs(caller, run) {
                    self.core(caller).not_reached(now, node_id(callee));
                    self.drain(caller);
                }
            }
            Event::Message(link, frame) => {
                if let Some(to) = self.end_of(link) {
                    self.nodes.get_mut(&to).unwrap().heard += 1;
                    self.core(to).control(now, link, read(&frame));
                    self.drain(to);
                }
            }
            Event::Packet(link, packet) => {
                if let Some(to) = self.end_of(link) {
                    self.core(to).packet(now, link, &packet);
                    self.drain(to);
                }
            }
            Event::Closed(node, run, link) => {
                if self.runs(node, run) {
                    self.core(node).unlinked(now, link);
                    self.drain(node);
                }
            }
        }
    }

    fn runs(&self, node: usize, run: u64) -> bool {
        self.nodes.get(&node).is_some_and(|node| node.run == run)
    }

    /// Whose end of a connection that is, if that one still runs.
    fn end_of(&self, link: LinkId) -> Option<usize> {
        let wire = self.wires.get(&(link.0 / 2))?;
        let (node, run) = wire.end(link);
        self.runs(node, run).then_some(node)
    }

    fn knocked(&mut self, number: u64, hello: &Hello) {
        let link = LinkId(number * 2 + 1);
        let Some(to) = self.end_of(link) else { return };
        let (now, unix) = (self.now, self.unix());
        let caller = node_id(self.wires[&number].caller);
        let verdict = self.core(to).admit(now, unix, caller, hello);
        let answer = verdict.as_ref().map_or_else(
            |refused| Answer::Refused(refused.clone()),
            |(_, answer)| answer.clone(),
        );
        self.fly(LATENCY, Event::Answer(number, encode(&answer).unwrap()));
        if let Ok((admitted, _)) = verdict {
            let peer = Member {
                node: caller,
                boot: hello.boot,
            };
            self.core(to).linked(now, link, peer, &admitted, Side::Theirs);
        }
        self.drain(to);
    }

    fn answered(&mut self, number: u64, answer: Answer) {
        let link = LinkId(number * 2);
        let Some(to) = self.end_of(link) else { return };
        let (now, node) = (self.now, node_id(self.wires[&number].callee));
        match answer {
            Answer::Refused(refused) => {
                self.wires.get_mut(&number).unwrap().open = false;
                self.core(to).refused(now, node, &refused);
                self.nodes.get_mut(&to).unwrap().refused = Some(refused);
            }
            Answer::Welcome(welcome) => {
                let wire = self.wires.get_mut(&number).unwrap();
                wire.answering = Answering::Answered;
                match self.core(to).welcomed(now, node, &welcome) {
                    Ok(admitted) => {
                        let boot = welcome.boot;
                        let peer = Member { node, boot };
                        self.core(to).linked(now, link, peer, &admitted, Side::Ours);
                    }
                    Err(_) => {
                        self.core(to).not_reached(now, node);
                        self.end(number, LATENCY, LATENCY);
                    }
                }
            }
        }
        self.drain(to);
    }

    /// Does what a node wants done.
    pub fn drain(&mut self, from: usize) {
        let mut sent: BTreeMap<LinkId, usize> = BTreeMap::new();
        while let Some(output) = self.core(from).poll() {
            if let Output::Send(link, _) = output {
                *sent.entry(link).or_default() += 1;
            }
            match output {
                Output::Dial(contact) => self.call(from, &contact),
                Output::Send(link, message) if self.is_open(link) => {
                    let frame = encode(&message).unwrap();
                    self.fly(LATENCY, Event::Message(LinkId(link.0 ^ 1), frame));
                }
                Output::Packet(link, packet) if self.is_open(link) && !self.deaf.contains(&from) => {
                    self.fly(LATENCY, Event::Packet(LinkId(link.0 ^ 1), packet));
                }
                Output::Send(..) | Output::Packet(..) => {}
                Output::Close(link, why) => {
                    if let Some(wire) = self.wires.get(&(link.0 / 2)) {
                        let other = wire.end(LinkId(link.0 ^ 1)).0;
                        self.goodbyes.push((from, other, why));
                    }
                    self.hang_up(link);
                }
                Output::Save => self.nodes.get_mut(&from).unwrap().save(),
                Output::View => {}
                Output::Boot => self.publish(from),
            }
        }
        let most = sent.into_values().max().unwrap_or(0);
        self.most_at_once = self.most_at_once.max(most);
    }
}

fn read<M: serde::de::DeserializeOwned + crate::mesh::wire::Bounded>(frame: &[u8]) -> M {
    let mut reader = Reader::default();
    reader.push(frame);
    reader.pop().unwrap().unwrap()
}
