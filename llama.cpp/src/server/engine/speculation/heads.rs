//! Heads: layers that guess the token after the next one, from what the model computed. They are inside the model, or in
//! a file that was made for it (EAGLE-3).
//!
//! A head takes a token and the hidden state that the model had before it, and says what comes after that token;
//! going on from its own hidden state it says what comes after that, and so on. EAGLE-3 first makes that state of three
//! of the model's, before as many of its layers; it knows no token without one before it, so that its cache begins with
//! the second. It sees its earlier inputs through
//! a cache of its own, which follows the model's slot by slot: each token that is certain is computed once from the
//! model's hidden state, what was only guessed is cut off again. Where the model's state before a token is not
//! known, as after what was saved to disk, the cache begins there; it only makes guesses worse.
//!
//! It computes in the loop's own thread, between two steps of the model: both want the same cores, and each needs
//! what the other computed last.

#[cfg(test)]
mod tests;

use std::time::Instant;

use crate::llama::{Batch, Context, Decoded, Error, Token};
use crate::server::engine::logprobs::likeliest;
use crate::server::engine::params::{HeadsContext, HeadsOf};
use crate::server::engine::slot::SlotId;

/// So many tokens of a slot are computed even if nobody wants guesses: hidden states are large.
const MOST_PENDING: usize = 16;
/// Guesses that are made to see what one takes.
const TRIALS: usize = 4;
/// Weight of the newest time that a guess took.
const SMOOTHING: f64 = 0.1;

/// A guess.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Guessed {
    /// The token.
    pub token: Token,
    /// How likely it is, by the head.
    pub probability: f32,
}

/// A slot whose next token is to be guessed.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The slot.
    pub slot: SlotId,
    /// What is certain, the last of it being what the model chose last, then what was guessed.
    pub stream: &'a [Token],
    /// How much of it is certain.
    pub certain: usize,
}

/// A slot's tokens as the heads have them.
#[derive(Debug, Default)]
struct Stream {
    /// The position of the first one.
    start: usize,
    /// Tokens that are certain.
    tokens: Vec<Token>,
    /// How many of them the cache has.
    computed: usize,
    /// The model's hidden states before those that it does not have, one after the other.
    pending: Vec<f32>,
    /// The model's hidden state after the last token; nothing as long as it is not known.
    last: Vec<f32>,
    /// What was guessed after them. The cache has all but the last of these.
    guessed: Vec<Token>,
    /// The head's own hidden state before the last of them.
    own: Vec<f32>,
}

/// What the heads take of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    /// Its last hidden state, as it is.
    Last,
    /// Hidden states of several layers, of which an encoder makes one.
    Several,
}

impl Stream {
    fn end(&self) -> usize {
        self.start + self.tokens.len()
    }

    fn push(&mut self, token: Token, width: usize) {
        if self.last.is_empty() {
            self.last.resize(width, 0.0);
        }
        self.pending.append(&mut self.last);
        self.tokens.push(token);
    }

    /// The states before the next so many tokens that the cache is to have.
    fn take_pending(&mut self, count: usize, width: usize) -> Vec<f32> {
        let rest = self.pending.split_off(count * width);
        std::mem::replace(&mut self.pending, rest)
    }
}

/// See the module.
#[derive(Debug)]
pub struct Heads {
    context: Context,
    batch: Batch,
    batch_size: usize,
    takes: Takes,
    /// Numbers that they take of the model for each token.
    width: usize,
    streams: Vec<Stream>,
    least_probability: f32,
    /// What a guess takes.
    seconds: f64,
}

impl Heads {
    /// Heads for the model that `target` computes, which keeps what they take from now on. Guesses less likely
    /// than `least_probability` are not made.
    ///
    /// # Safety
    /// What the constructors of [`HeadsContext`] ask for is true of the model of `target`, which lives as long as they
    /// compute.
    ///
    /// # Errors
    /// Where llama.cpp cannot make the context.
    pub unsafe fn new(
        target: &mut Context,
        heads: HeadsContext,
        least_probability: f32,
    ) -> Result<Self, Error> {
        let HeadsContext {
            heads,
            context: params,
        } = heads;
        let (slots, batch_size) = (params.sequences as usize, params.batch as usize);
        let (context, takes, layers) = match heads {
            // SAFETY: as the caller says.
            HeadsOf::Model => (unsafe { target.of_heads(params)? }, Takes::Last, Vec::new()),
            HeadsOf::Eagle { eagle, layers } => {
                // SAFETY: as the caller says.
                (unsafe { target.of_eagle(eagle, params)? }, Takes::Several, layers)
            }
        };
        let mut heads = Self {
            width: match takes {
                Takes::Last => context.model().embedding_width() as usize,
                Takes::Several => context.target_states_width(),
            },
            context,
            batch: Batch::default(),
            batch_size,
            takes,
            streams: (0..slots).map(|_| Stream::default()).collect(),
            least_probability,
            seconds: f64::MAX,
        };
        heads.warm_up()?;
        let taken = heads.context.memory_taken()?;
        tracing::debug!(bytes = taken.without_model(), "cache and buffers of heads");
        match takes {
            Takes::Last => target.keep_hidden(),
            // SAFETY: as the caller says.
            Takes::Several => unsafe { target.keep_hidden_before(&layers) },
        }
        Ok(heads)
    }

    /// What fails does so now, and what a guess takes is known before the first: one that waited for the processor
    /// would look too dear to be tried again.
    fn warm_up(&mut self) -> Result<(), Error> {
        for _ in 0..TRIALS {
            let since = Instant::now();
            let state = self.own_states(vec![0.0; self.width])?;
            self.batch.clear();
            self.batch.push_after(&state, 0, 0, 0, true);
            self.context.decode(&mut self.batch)?;
            self.context.synchronize()?;
            self.seconds = self.seconds.min(since.elapsed().as_secs_f64());
            self.context.truncate(0, 0);
        }
        Ok(())
    }

    /// Seconds that a guess takes, be it for one slot or several.
    pub fn seconds(&self) -> f64 {
        self.seconds
    }

    /// The slot keeps its first `length` tokens at most.
    pub fn truncate(&mut self, slot: SlotId, length: usize) {
        let Some(stream) = self.streams.get_mut(slot.0 as usize) else {
            return;
        };
        stream.guessed.clear();
        if length < stream.end() {
            let kept = length.saturating_sub(stream.start);
            stream.tokens.truncate(kept);
            stream.computed = stream.computed.min(kept);
            stream.pending.truncate((kept - stream.computed) * self.width);
            stream.last.clear();
        }
        let cells = match stream.computed {
            0 => 0,
            computed => stream.start + computed,
        };
        if !self.context.truncate(slot.0 as i32, cells as u32) {
            self.context.truncate(slot.0 as i32, 0);
            *stream = Stream::default();
        }
    }

    /// Slot `to` now begins with the first `length` tokens of `from`, and has nothing else.
    ///
    /// # Errors
    /// Where llama.cpp fails.
    pub fn share(&mut self, from: SlotId, to: SlotId, length: usize) -> Result<(), Error> {
        self.truncate(to, 0);
        self.compute_pending(from)?;
        let Some(donor) = self.streams.get(from.0 as usize) else {
            return Ok(());
        };
        let shared = length.saturating_sub(donor.start).min(donor.computed);
        let stream = Stream {
            start: donor.start,
            tokens: donor.tokens[..shared].to_vec(),
            computed: shared,
            ..Stream::default()
        };
        let end = stream.end();
        if let Some(to) = self.streams.get_mut(to.0 as usize) {
            *to = stream;
        }
        if shared > 0 {
            self.context.share(from.0 as i32, to.0 as i32, end as u32);
        }
        Ok(())
    }

    /// The model computed `tokens` of the slot, from this position on; they are certain, and those before them are
    /// as they were. In the last batch of `target` the first of them was the one at `row`.
    ///
    /// # Errors
    /// Where llama.cpp fails.
    pub fn feed(
        &mut self,
        slot: SlotId,
        position: usize,
        tokens: &[Token],
        target: &mut Context,
        row: usize,
    ) -> Result<(), Error> {
        self.forget_guesses(slot);
        let mut state = Vec::with_capacity(self.width);
        for (index, token) in tokens.iter().enumerate() {
            state.clear();
            if !target.add_hidden(row + index, &mut state) {
                return Ok(());
            }
            self.learn(slot, position + index, *token, &state);
        }
        let stream = self.streams.get(slot.0 as usize);
        let pending = stream.map_or(0, |stream| stream.tokens.len() - stream.computed);
        if pending >= MOST_PENDING {
            self.compute_pending(slot)?;
        }
        Ok(())
    }

    fn forget_guesses(&mut self, slot: SlotId) {
        let stream = self.streams.get(slot.0 as usize);
        if let Some(stream) = stream.filter(|stream| !stream.guessed.is_empty()) {
            self.truncate(slot, stream.end());
        }
    }

    fn learn(&mut self, slot: SlotId, position: usize, token: Token, state: &[f32]) {
        let Some(stream) = self.streams.get(slot.0 as usize) else {
            return;
        };
        if !(stream.start..=stream.end()).contains(&position) {
            self.truncate(slot, 0);
        } else if position < stream.end() && stream.tokens[position - stream.start] != token {
            self.truncate(slot, position);
        }
        let stream = &mut self.streams[slot.0 as usize];
        if stream.tokens.is_empty() && stream.last.is_empty() {
            stream.start = match self.takes {
                Takes::Last => position,
                // There is no state before it.
                Takes::Several => position + 1,
            };
        }
        if position == stream.end() {
            stream.push(token, self.width);
        }
        if position + 1 == stream.end() {
            stream.last.clear();
            stream.last.extend_from_slice(state);
        }
    }

    /// Computes what is pending of the slot, as long as there is room.
    fn compute_pending(&mut self, slot: SlotId) -> Result<(), Error> {
        let index = slot.0 as usize;
        while let Some(stream) = self.streams.get_mut(index) {
            let count = (stream.tokens.len() - stream.computed).min(self.batch_size);
            if count == 0 {
                break;
            }
            let states = stream.take_pending(count, self.width);
            let states = self.own_states(states)?;
            self.batch.clear();
            self.add_pending(index, &states, false);
            if self.context.decode(&mut self.batch)? == Decoded::NoRoom {
                self.truncate(slot, 0);
                break;
            }
            self.streams[index].computed += count;
        }
        Ok(())
    }

    /// Hidden states as the heads take them, of so many of the model's.
    fn own_states(&mut self, mut states: Vec<f32>) -> Result<Vec<f32>, Error> {
        if self.takes == Takes::Last || states.is_empty() {
            return Ok(states);
        }
        self.context.encode(&mut states)?;
        let count = states.len() / self.width;
        states.clear();
        for index in 0..count {
            if !self.context.add_hidden(index, &mut states) {
                return Err(Error::Decode("the encoder made no hidden states".into()));
            }
        }
        Ok(states)
    }

    /// Adds a slot's next pending tokens to the batch, as many as there are hidden states before them, wanting a guess
    /// after the last of them or not. Nothing that was guessed may be in the cache.
    fn add_pending(&mut self, index: usize, states: &[f32], guess: bool) {
        let stream = &self.streams[index];
        let states = states.chunks_exact(self.context.model().embedding_width() as usize);
        let first = stream.start + stream.computed;
        let end = first + states.len();
        let tokens = &stream.tokens[stream.computed..];
        for ((token, state), position) in tokens.iter().zip(states).zip(first..) {
            // An EAGLE-3 graph gives rows of logits for all tokens, of which llama.cpp takes the first.
            let wanted = guess && (position + 1 == end || self.takes == Takes::Several);
            self.batch
                .push_after(state, *token, position as u32, index as i32, wanted);
        }
    }

    /// Guesses one more token for each that is asked about. None where the heads do not know what came before, do
    /// not think anything likely enough, or have no room.
    ///
    /// # Errors
    /// Where llama.cpp fails.
    pub fn guess(&mut self, asks: &[Ask<'_>]) -> Result<Vec<Option<Guessed>>, Error> {
        let mut guesses = vec![None; asks.len()];
        let mut room = self.batch_size;
        let mut taken = Vec::with_capacity(asks.len());
        let mut states = Vec::new();
        for (number, ask) in asks.iter().enumerate() {
            if let Some(certain) = self.prepare(ask, &mut room) {
                let stream = &mut self.streams[ask.slot.0 as usize];
                states.append(&mut stream.take_pending(certain, self.width));
                taken.push((number, certain));
            }
        }
        if taken.is_empty() {
            return Ok(guesses);
        }
        let since = Instant::now();
        let states = self.own_states(states)?;
        let rows = self.fill(asks, &taken, &states);
        if self.context.decode(&mut self.batch)? == Decoded::NoRoom {
            for (number, _) in taken {
                self.truncate(asks[number].slot, 0);
            }
            return Ok(guesses);
        }
        self.context.synchronize()?;
        let seconds = since.elapsed().as_secs_f64();
        self.seconds += SMOOTHING * (seconds.min(2.0 * self.seconds) - self.seconds);
        for ((number, certain), row) in taken.into_iter().zip(rows) {
            let index = asks[number].slot.0 as usize;
            self.streams[index].computed += certain;
            guesses[number] = self.read(index, row);
        }
        Ok(guesses)
    }

    /// Sees to it that the next guess can be made, in a batch that has room for so many tokens yet: how many tokens that
    /// are certain must be computed for it, or none but what was guessed last. `None` if it cannot be made.
    fn prepare(&mut self, ask: &Ask<'_>, room: &mut usize) -> Option<usize> {
        let stream = self.streams.get_mut(ask.slot.0 as usize)?;
        let guessed = &ask.stream[ask.certain..];
        let certain = if guessed.is_empty() {
            let knows = stream.end() + 1 == ask.certain && !stream.last.is_empty();
            knows.then(|| stream.tokens.len() - stream.computed + 1)?
        } else {
            // The head goes on from its own guesses, and from nobody else's.
            let knows = stream.end() == ask.certain && stream.guessed == guessed;
            knows.then_some(0)?
        };
        *room = room.checked_sub(certain.max(1))?;
        if certain > 0 {
            stream.push(ask.stream[ask.certain - 1], self.width);
        }
        Some(certain)
    }

    /// Fills the batch for the guesses that are `taken`, each a number among `asks` and its tokens that are certain, with
    /// the hidden states before those. Each guess's row.
    fn fill(&mut self, asks: &[Ask<'_>], taken: &[(usize, usize)], states: &[f32]) -> Vec<usize> {
        let own = self.context.model().embedding_width() as usize;
        self.batch.clear();
        let mut done = 0;
        let mut rows = Vec::with_capacity(taken.len());
        for (number, certain) in taken {
            let ask = &asks[*number];
            let index = ask.slot.0 as usize;
            match ask.stream[ask.certain..].last() {
                Some(last) => {
                    let position = (ask.stream.len() - 1) as u32;
                    let state = &self.streams[index].own;
                    self.batch.push_after(state, *last, position, index as i32, true);
                }
                None => self.add_pending(index, &states[done * own..(done + certain) * own], true),
            }
            done += certain;
            rows.push(self.batch.len() - 1);
        }
        rows
    }

    fn read(&mut self, index: usize, row: usize) -> Option<Guessed> {
        let stream = &mut self.streams[index];
        stream.own.clear();
        stream.own.extend_from_slice(self.context.hidden(row)?);
        let logits = self.context.logits(row)?;
        let token = likeliest(logits);
        let highest = usize::try_from(token).map_or(0.0, |token| logits[token]);
        let sum: f32 = logits.iter().map(|logit| (logit - highest).exp()).sum();
        let probability = 1.0 / sum;
        if probability < self.least_probability {
            return None;
        }
        stream.guessed.push(token);
        Some(Guessed { token, probability })
    }
}
