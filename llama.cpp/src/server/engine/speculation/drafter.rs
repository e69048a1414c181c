//! The draft model, on a thread of its own: it never holds up the ring.
//!
//! For each slot it has the stream as it was told it, and goes on from its end by itself, token by token, as
//! far as it may. Each token is sent to the loop when it is there. One that was told of a change cuts its own
//! cache back to what still holds.

#[cfg(test)]
mod tests;

use std::mem;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::llama::{Batch, Context, ContextParams, Decoded, Error, Model, Token};
use crate::priority;
use crate::server::engine::logprobs::likeliest;
use crate::server::engine::slot::SlotId;

/// Tokens that each stream reads for a guess, at most: its last guess, and the one that was right in its place.
const MOST_TO_READ: usize = 2;

/// Counts the streams of a slot: what is drafted for an earlier one is worth nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Revision(pub u64);

/// What the drafter is told.
#[derive(Debug)]
enum Order {
    /// From position `from` the slot's stream is now `tokens`.
    Follow {
        slot: SlotId,
        revision: Revision,
        from: usize,
        tokens: Vec<Token>,
        until: usize,
    },
    /// The stream of the slot may become so long.
    Until { slot: SlotId, until: usize },
}

/// What the drafter tells.
#[derive(Debug)]
pub enum Draft {
    /// A guess.
    Token(Drafted),
    /// There is nothing to add to this stream.
    End {
        /// The slot.
        slot: SlotId,
        /// Its stream.
        revision: Revision,
    },
    /// There will be no more drafts.
    Failed(String),
}

/// A guess of the draft model.
#[derive(Debug, Clone, Copy)]
pub struct Drafted {
    /// For this slot.
    pub slot: SlotId,
    /// For this stream of it.
    pub revision: Revision,
    /// Where it belongs.
    pub position: usize,
    /// The token.
    pub token: Token,
    /// How likely it is, by the draft model.
    pub probability: f32,
    /// How long it took; `None` where a prompt was read for it, which says nothing of the next one.
    pub time: Option<Duration>,
}

/// How a drafter is made.
#[derive(Debug)]
pub struct DrafterParams {
    /// The draft model.
    pub model: Arc<Model>,
    /// Its context, with a sequence for each slot.
    pub context: ContextParams,
    /// Guesses less likely than this end a draft.
    pub least_probability: f32,
}

/// The handle of the thread, which ends with it.
#[derive(Debug)]
pub struct Drafter {
    orders: Sender<Vec<Order>>,
    /// What it is to be told: streams of which it hears at once are drafted at once.
    untold: Vec<Order>,
}

impl Drafter {
    /// Starts the thread, which tells what it drafted in one step at once.
    ///
    /// # Errors
    /// Where llama.cpp cannot make the context.
    pub fn start(params: DrafterParams, tell: impl Fn(Vec<Draft>) + Send + 'static) -> Result<Self, Error> {
        let slots = params.context.sequences as usize;
        let batch_size = params.context.batch as usize;
        let context = Context::new(params.model, params.context)?;
        let (orders, received) = channel();
        let work = Work {
            context,
            batch: Batch::default(),
            batch_size,
            streams: (0..slots).map(|_| Stream::default()).collect(),
            least_probability: params.least_probability,
            drafts: Vec::new(),
            tell: Box::new(tell),
        };
        thread::Builder::new()
            .name("drafter".into())
            .spawn(move || {
                priority::compute();
                work.run(&received);
            })
            .map_err(|error| Error::Context(format!("no thread for the draft model: {error}")))?;
        Ok(Self {
            orders,
            untold: Vec::new(),
        })
    }

    /// From position `from` the slot's stream is now `tokens`; it is to become `until` long.
    pub fn follow(
        &mut self,
        slot: SlotId,
        revision: Revision,
        from: usize,
        tokens: Vec<Token>,
        until: usize,
    ) {
        self.untold.push(Order::Follow {
            slot,
            revision,
            from,
            tokens,
            until,
        });
    }

    /// The slot's stream may become so long; 0 stops drafting for it.
    pub fn until(&mut self, slot: SlotId, until: usize) {
        self.untold.push(Order::Until { slot, until });
    }

    /// Tells the thread what the calls before said.
    pub fn tell(&mut self) {
        if !self.untold.is_empty() {
            // A thread that is gone has said so.
            let _ = self.orders.send(mem::take(&mut self.untold));
        }
    }
}

/// A slot's stream as the drafter has it.
#[derive(Debug, Default)]
struct Stream {
    tokens: Vec<Token>,
    /// How many of them its cache has.
    cached: usize,
    revision: Revision,
    until: usize,
    ended: bool,
}

impl Stream {
    fn is_wanted(&self) -> bool {
        !self.ended && !self.tokens.is_empty() && self.tokens.len() < self.until
    }
}

struct Work {
    context: Context,
    batch: Batch,
    batch_size: usize,
    streams: Vec<Stream>,
    least_probability: f32,
    /// Of the step that is being made.
    drafts: Vec<Draft>,
    tell: Box<dyn Fn(Vec<Draft>) + Send>,
}

impl Work {
    fn run(mut self, orders: &Receiver<Vec<Order>>) {
        while self.receive(orders) {
            let failed = self.step().err();
            let failed = failed.map(|error| Draft::Failed(error.to_string()));
            let ends = failed.is_some();
            self.drafts.extend(failed);
            if !self.drafts.is_empty() {
                (self.tell)(mem::take(&mut self.drafts));
            }
            if ends {
                return;
            }
        }
    }

    /// Takes in all orders; waits for one if there is nothing to draft. `false` at the end.
    fn receive(&mut self, orders: &Receiver<Vec<Order>>) -> bool {
        if !self.streams.iter().any(Stream::is_wanted) {
            match orders.recv() {
                Ok(orders) => orders.into_iter().for_each(|order| self.obey(order)),
                Err(_) => return false,
            }
        }
        loop {
            match orders.try_recv() {
                Ok(orders) => orders.into_iter().for_each(|order| self.obey(order)),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Until { slot, until } => {
                if let Some(stream) = self.streams.get_mut(slot.0 as usize) {
                    stream.until = until;
                }
            }
            Order::Follow {
                slot,
                revision,
                from,
                tokens,
                until,
            } => {
                let Some(stream) = self.streams.get_mut(slot.0 as usize) else {
                    return;
                };
                let from = from.min(stream.tokens.len());
                let known = stream.tokens[from..].iter().zip(&tokens);
                let holds = from + known.take_while(|(known, told)| known == told).count();
                stream.tokens.truncate(from);
                stream.tokens.extend(tokens);
                stream.revision = revision;
                stream.until = until;
                stream.ended = false;
                if stream.cached > holds {
                    stream.cached = holds;
                    if !self.context.truncate(slot.0 as i32, holds as u32) {
                        self.context.truncate(slot.0 as i32, 0);
                        stream.cached = 0;
                    }
                }
                // The last token is computed again where it is cached: its logits say what comes next.
                let last = stream.tokens.len().saturating_sub(1);
                if stream.cached > last {
                    stream.cached = last;
                    self.context.truncate(slot.0 as i32, last as u32);
                }
            }
        }
    }

    /// Computes what is pending of the streams that are wanted, and guesses one token for each that is then
    /// complete.
    fn step(&mut self) -> Result<(), Error> {
        self.batch.clear();
        let mut taken = Vec::new();
        let wanted = self.streams.iter().filter(|stream| stream.is_wanted()).count();
        if wanted == 0 {
            return Ok(());
        }
        // A long prompt must not keep the others waiting.
        let most = (self.batch_size / wanted).max(1);
        for (index, stream) in self
            .streams
            .iter()
            .enumerate()
            .filter(|(_, stream)| stream.is_wanted())
        {
            let end = stream.tokens.len().min(stream.cached + most);
            for position in stream.cached..end {
                let last = position + 1 == stream.tokens.len();
                self.batch
                    .push(stream.tokens[position], position as u32, index as i32, last);
            }
            let row = (end == stream.tokens.len()).then(|| self.batch.len() - 1);
            taken.push((index, end, row));
        }
        let since = Instant::now();
        if self.context.decode(&mut self.batch)? == Decoded::NoRoom {
            self.make_room();
            return Ok(());
        }
        self.context.synchronize()?;
        let since = (self.batch.len() <= MOST_TO_READ * taken.len()).then_some(since);
        for (index, end, row) in taken {
            self.streams[index].cached = end;
            if let Some(row) = row {
                self.guess(index, row, since);
            }
        }
        Ok(())
    }

    fn guess(&mut self, index: usize, row: usize, since: Option<Instant>) {
        let Some(logits) = self.context.logits(row) else {
            return;
        };
        let token = likeliest(logits);
        let highest = usize::try_from(token).map_or(0.0, |token| logits[token]);
        let sum: f32 = logits.iter().map(|logit| (logit - highest).exp()).sum();
        let probability = 1.0 / sum;
        let stream = &mut self.streams[index];
        let slot = SlotId(index as u32);
        let revision = stream.revision;
        if probability < self.least_probability {
            stream.ended = true;
            return self.drafts.push(Draft::End { slot, revision });
        }
        let position = stream.tokens.len();
        stream.tokens.push(token);
        self.drafts.push(Draft::Token(Drafted {
            slot,
            revision,
            position,
            token,
            probability,
            time: since.map(|since| since.elapsed()),
        }));
        if self.context.model().is_end(token) {
            stream.ended = true;
            self.drafts.push(Draft::End { slot, revision });
        }
    }

    /// Empties the cache of slots that want nothing; where none has any, the longest stream goes without
    /// drafts.
    fn make_room(&mut self) {
        let idle = |stream: &Stream| !stream.is_wanted() && stream.cached > 0;
        let mut freed = false;
        for (index, stream) in self.streams.iter_mut().enumerate() {
            if idle(stream) {
                self.context.truncate(index as i32, 0);
                stream.cached = 0;
                freed = true;
            }
        }
        let longest = self
            .streams
            .iter()
            .enumerate()
            .filter(|(_, stream)| stream.is_wanted());
        if let Some((index, _)) = longest
            .max_by_key(|(_, stream)| stream.tokens.len())
            .filter(|_| !freed)
        {
            let stream = &mut self.streams[index];
            stream.ended = true;
            stream.cached = 0;
            self.context.truncate(index as i32, 0);
            let revision = stream.revision;
            self.drafts.push(Draft::End {
                slot: SlotId(index as u32),
                revision,
            });
        }
    }
}
