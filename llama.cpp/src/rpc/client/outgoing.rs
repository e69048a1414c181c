//! What is on its way out to one queue: coded, and not yet sent. Pure.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::rpc::graph::{Graph, Place};
use crate::rpc::wire::{
    Coding, Command, LONGEST_KEPT, MOST_GRAPHS, MOST_KEPT, MOST_KEPT_BYTES, MOST_KEPT_TENSORS, Step,
    ToWorker, difference, frame,
};

/// Shorter uploads are not worth a difference.
const SHORTEST_KEPT: usize = 16;
/// Shorter uploads are not worth compressing.
const SHORTEST_COMPRESSED: usize = 256;
/// Bytes that are tried before a whole upload is compressed.
const SAMPLE: usize = 4096;

#[derive(Debug)]
struct Kept {
    place: Place,
    value: Vec<u8>,
    used: u64,
}

#[derive(Debug)]
struct Sent {
    content: Vec<u8>,
    hash: u64,
    tensors: usize,
    uid: u64,
    used: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Outgoing {
    queue: u8,
    /// To another machine: bytes cost time.
    far: bool,
    frames: Vec<u8>,
    /// How many those are.
    commands: u64,
    kept: Vec<Kept>,
    kept_bytes: usize,
    by_place: HashMap<(Place, usize), usize>,
    graphs: Vec<Sent>,
    scratch: Vec<u8>,
    clock: u64,
}

impl Outgoing {
    pub(super) fn new(queue: u8, far: bool) -> Self {
        Self {
            queue,
            far,
            frames: Vec::new(),
            commands: 0,
            kept: Vec::new(),
            kept_bytes: 0,
            by_place: HashMap::new(),
            graphs: Vec::new(),
            scratch: Vec::new(),
            clock: 0,
        }
    }

    /// Bytes that wait.
    pub(super) fn len(&self) -> usize {
        self.frames.len()
    }

    /// Commands that wait; none from now on.
    pub(super) fn take_count(&mut self) -> u64 {
        std::mem::take(&mut self.commands)
    }

    /// Takes what waits.
    pub(super) fn take(&mut self) -> Vec<u8> {
        let capacity = self.frames.capacity().min(1 << 20);
        std::mem::replace(&mut self.frames, Vec::with_capacity(capacity))
    }

    /// Appends a command.
    pub(super) fn command(&mut self, step: Step, command: Command, payload: &[u8]) {
        let message = ToWorker::Queue {
            queue: self.queue,
            step,
            command,
        };
        self.commands += 1;
        frame::append(&mut self.frames, &message, payload);
    }

    /// Appends an upload to a place that is written again and again: what changed, where that is less.
    pub(super) fn upload(&mut self, step: Step, place: Place, value: &[u8]) {
        let bytes = value.len() as u64;
        let write = |coding, keep| Command::Write {
            place,
            bytes,
            coding,
            keep,
        };
        if !self.far || value.len() < SHORTEST_KEPT || value.len() > LONGEST_KEPT {
            return self.command(step, write(Coding::Plain, None), value);
        }
        self.clock += 1;
        let known = self.by_place.get(&(place, value.len())).copied();
        if let Some(number) = known {
            let kept = &mut self.kept[number];
            kept.used = self.clock;
            self.scratch.clear();
            let shorter = difference::append(&mut self.scratch, &kept.value, value, value.len() / 2);
            kept.value.copy_from_slice(value);
            if shorter {
                let payload = std::mem::take(&mut self.scratch);
                let keep = Some(number as u8);
                self.command(step, write(Coding::Changed(number as u8), keep), &payload);
                self.scratch = payload;
                return;
            }
        }
        let keep = known
            .or_else(|| self.keep(place, value))
            .map(|number| number as u8);
        match compress(value) {
            Some(payload) => self.command(step, write(Coding::Lz4, keep), &payload),
            None => self.command(step, write(Coding::Plain, keep), value),
        }
    }

    /// Remembers an upload in place of the one that was not used for longest.
    fn keep(&mut self, place: Place, value: &[u8]) -> Option<usize> {
        let oldest = || {
            let (number, kept) = self.kept.iter().enumerate().min_by_key(|(_, kept)| kept.used)?;
            Some((number, kept.value.len()))
        };
        let full = self.kept.len() == MOST_KEPT || self.kept_bytes + value.len() > MOST_KEPT_BYTES;
        let number = if full {
            let (number, freed) = oldest()?;
            if self.kept_bytes - freed + value.len() > MOST_KEPT_BYTES {
                return None;
            }
            let old = &self.kept[number];
            self.by_place.remove(&(old.place, old.value.len()));
            self.kept_bytes -= freed;
            number
        } else {
            self.kept.len()
        };
        let kept = Kept {
            place,
            value: value.to_vec(),
            used: self.clock,
        };
        self.kept_bytes += value.len();
        self.by_place.insert((place, value.len()), number);
        if number == self.kept.len() {
            self.kept.push(kept);
        } else {
            self.kept[number] = kept;
        }
        Some(number)
    }

    /// Appends the run of a graph that was sent before under this number of ggml's. `false` where it
    /// was not.
    pub(super) fn run_again(&mut self, step: Step, uid: u64) -> bool {
        self.clock += 1;
        let found = self
            .graphs
            .iter_mut()
            .position(|sent| uid != 0 && sent.uid == uid);
        if let Some(number) = found {
            self.graphs[number].used = self.clock;
            self.command(step, Command::Run(number as u8), &[]);
        }
        found.is_some()
    }

    /// Appends the run of a graph, and the graph itself where it was not sent yet.
    pub(super) fn run(&mut self, step: Step, uid: u64, graph: Graph) {
        self.clock += 1;
        let content = postcard::to_allocvec(&graph).expect("postcard codes every graph");
        let mut hasher = DefaultHasher::new();
        content.hash(&mut hasher);
        let hash = hasher.finish();
        let known = self
            .graphs
            .iter()
            .position(|sent| sent.hash == hash && sent.content == content);
        let number = known.unwrap_or_else(|| {
            let tensors = graph.tensors.len();
            let number = self.free_number(step, tensors);
            let define = Command::Define {
                graph: number as u8,
                content: graph,
            };
            self.command(step, define, &[]);
            let sent = Sent {
                content,
                hash,
                tensors,
                uid,
                used: self.clock,
            };
            if number == self.graphs.len() {
                self.graphs.push(sent);
            } else {
                self.graphs[number] = sent;
            }
            number
        });
        let sent = &mut self.graphs[number];
        (sent.uid, sent.used) = (uid, self.clock);
        self.command(step, Command::Run(number as u8), &[]);
    }

    /// The number for a graph of so many tensors: what was not used for longest makes room, on the worker
    /// as well.
    fn free_number(&mut self, step: Step, tensors: usize) -> usize {
        while self.tensors() + tensors > MOST_KEPT_TENSORS
            && let Some(number) = self.oldest(|sent| sent.tensors > 0)
        {
            self.forget(step, number);
        }
        if self.graphs.len() < MOST_GRAPHS {
            return self.graphs.len();
        }
        self.oldest(|_| true).unwrap_or(0)
    }

    fn tensors(&self) -> usize {
        self.graphs.iter().map(|sent| sent.tensors).sum()
    }

    fn oldest(&self, wanted: impl Fn(&Sent) -> bool) -> Option<usize> {
        let graphs = self.graphs.iter().enumerate().filter(|(_, sent)| wanted(sent));
        graphs.min_by_key(|(_, sent)| sent.used).map(|(number, _)| number)
    }

    /// An empty graph takes a graph's place.
    fn forget(&mut self, step: Step, number: usize) {
        let define = Command::Define {
            graph: number as u8,
            content: Graph::default(),
        };
        self.command(step, define, &[]);
        let sent = &mut self.graphs[number];
        sent.content.clear();
        (sent.hash, sent.tensors, sent.uid, sent.used) = (0, 0, 0, 0);
    }

    /// Forgets all graphs: a buffer that they may lie in is freed.
    pub(super) fn forget_graphs(&mut self, step: Step) {
        (0..self.graphs.len()).for_each(|number| self.forget(step, number));
    }
}

/// `value` as an LZ4 block, where that is clearly shorter.
fn compress(value: &[u8]) -> Option<Vec<u8>> {
    if value.len() < SHORTEST_COMPRESSED {
        return None;
    }
    if value.len() > 2 * SAMPLE {
        let sample = lz4_flex::block::compress(&value[value.len() / 2..][..SAMPLE]);
        if sample.len() > SAMPLE * 3 / 4 {
            return None;
        }
    }
    let compressed = lz4_flex::block::compress(value);
    (compressed.len() < value.len() * 3 / 4).then_some(compressed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::graph::BufferId;

    const PLACE: Place = Place {
        buffer: BufferId(0),
        offset: 0,
    };

    #[test]
    fn what_a_step_uploads_does_not_grow_with_the_context() {
        for context in [1 << 10, 1 << 20] {
            let mut outgoing = Outgoing::new(0, true);
            let mut mask = vec![0xfc; context * 2];
            outgoing.upload(Step(0), PLACE, &mask);
            assert!(
                outgoing.take().len() < 100 + context / 64,
                "the first one is compressed"
            );
            for cell in 0..100 {
                mask[cell * 2..][..2].fill(0);
                outgoing.upload(Step(1), PLACE, &mask);
                let bytes = outgoing.take().len();
                assert!(bytes < 40, "{bytes} bytes of a mask for {context} tokens");
            }
        }
    }

    #[test]
    fn a_graph_is_sent_once_and_again_when_its_place_was_taken() {
        let graph = |flags: u32| Graph {
            nodes: vec![flags],
            ..Graph::default()
        };
        let mut outgoing = Outgoing::new(0, true);
        let mut sent = |number: u32| {
            outgoing.run(Step(0), u64::from(number) + 1, graph(number));
            outgoing.take().len()
        };
        let (first, again) = (sent(0), sent(0));
        assert!(again < first);
        (1..=MOST_GRAPHS as u32).for_each(|number| assert!(sent(number) > again));
        assert!(sent(0) > again, "another one has its place now");
    }

    #[test]
    fn many_places_take_turns_within_bounds() {
        let mut outgoing = Outgoing::new(0, true);
        for round in 0..3_u8 {
            for offset in 0..200 {
                outgoing.upload(Step(0), Place { offset, ..PLACE }, &[round; 64]);
            }
        }
        assert!(outgoing.kept.len() <= MOST_KEPT && outgoing.by_place.len() <= MOST_KEPT);
    }
}
