//! A slot: one sequence of the KV cache and the request that uses it. Pure.
//!
//! A request is a growing list of tokens. Those that the cache does not have yet are *pending*: the
//! whole prompt at first, one token at a time later, everything again after the slot had to give its
//! cells away. When nothing is pending, the next token is awaited from a step's logits. So prefill,
//! decoding and starting over are one state machine.

use crate::llama::Token;

/// Number of a slot; also its sequence in the KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotId(pub u32);

/// The tokens of one slot and how far the cache has them.
#[derive(Debug, Clone, Default)]
pub struct Sequence {
    tokens: Vec<Token>,
    /// Tokens whose cells are in the cache, or will be once the steps in flight are done.
    submitted: usize,
    prompt_length: usize,
}

impl Sequence {
    /// A sequence that only remembers what the cache has.
    pub fn cached(&self) -> &[Token] {
        &self.tokens[..self.submitted]
    }

    /// Begins a request whose first `reused` tokens the cache has.
    pub fn begin(&mut self, prompt: Vec<Token>, reused: usize) {
        debug_assert!(
            reused < prompt.len(),
            "the last token must be computed, for its logits"
        );
        self.prompt_length = prompt.len();
        self.submitted = reused;
        self.tokens = prompt;
    }

    /// Takes over what the cache has been given from outside.
    pub fn restore(&mut self, tokens: Vec<Token>) {
        self.prompt_length = 0;
        self.submitted = tokens.len();
        self.tokens = tokens;
    }

    /// Ends the request: tokens that the cache does not have are forgotten.
    pub fn end(&mut self) {
        self.tokens.truncate(self.submitted);
        self.prompt_length = 0;
    }

    /// Forgets what the cache had; an active request computes it again.
    pub fn lose_cache(&mut self) {
        self.submitted = 0;
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// The token that was chosen after all others.
    pub fn append(&mut self, token: Token) {
        self.tokens.push(token);
    }

    /// Takes up to `most` pending tokens into a step: their positions and values.
    pub fn submit(&mut self, most: usize) -> impl Iterator<Item = (usize, Token)> {
        let from = self.submitted;
        self.submitted = (from + most).min(self.tokens.len());
        (from..self.submitted).map(|position| (position, self.tokens[position]))
    }

    /// Takes back tokens of a step that found no room.
    pub fn take_back(&mut self, count: usize) {
        self.submitted -= count;
    }

    /// Tokens that the cache does not have.
    pub fn pending(&self) -> usize {
        self.tokens.len() - self.submitted
    }

    /// The first token that the cache does not have.
    pub fn next_pending(&self) -> Option<Token> {
        self.tokens.get(self.submitted).copied()
    }

    /// All tokens: prompt and answer.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Tokens of the answer.
    pub fn generated(&self) -> usize {
        self.tokens.len() - self.prompt_length
    }

    /// What the slot wants of the next step.
    pub fn want(&self) -> Want {
        match self.pending() {
            0 => Want::Nothing,
            1 if self.generated() > 0 => Want::Decode,
            pending => Want::Prefill(pending),
        }
    }
}

/// What a slot wants of the next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// It waits for a result.
    Nothing,
    /// One token of a running answer.
    Decode,
    /// This many tokens that no one waits for one by one.
    Prefill(usize),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_goes_from_prefill_to_decoding() {
        let mut sequence = Sequence::default();
        sequence.begin(vec![1, 2, 3, 4, 5], 2);
        assert_eq!(sequence.want(), Want::Prefill(3));
        assert_eq!(sequence.submit(2).collect::<Vec<_>>(), [(2, 3), (3, 4)]);
        assert_eq!(sequence.want(), Want::Prefill(1));
        assert_eq!(sequence.submit(9).collect::<Vec<_>>(), [(4, 5)]);
        assert_eq!(sequence.want(), Want::Nothing);
        sequence.append(6);
        assert_eq!(sequence.want(), Want::Decode);
        assert_eq!(sequence.submit(1).collect::<Vec<_>>(), [(5, 6)]);
        assert_eq!(sequence.generated(), 1);
    }

    #[test]
    fn what_was_never_submitted_is_not_taken_for_cached() {
        let mut sequence = Sequence::default();
        sequence.begin(vec![1, 2, 3], 0);
        sequence.submit(3).for_each(drop);
        sequence.append(4);
        sequence.end();
        assert_eq!(sequence.cached(), [1, 2, 3]);
    }

    #[test]
    fn a_request_that_lost_its_cells_computes_them_again_answer_and_all() {
        let mut sequence = Sequence::default();
        sequence.begin(vec![1, 2], 0);
        sequence.submit(2).for_each(drop);
        sequence.append(3);
        sequence.submit(1).for_each(drop);
        sequence.append(4);
        sequence.lose_cache();
        assert_eq!(sequence.want(), Want::Prefill(4));
        assert_eq!(sequence.submit(8).count(), 4);
        assert_eq!(sequence.generated(), 2);
    }

    #[test]
    fn a_step_without_room_leaves_its_tokens_pending() {
        let mut sequence = Sequence::default();
        sequence.begin(vec![1, 2, 3], 0);
        sequence.submit(2).for_each(drop);
        sequence.take_back(2);
        assert_eq!(sequence.want(), Want::Prefill(3));
    }
}
