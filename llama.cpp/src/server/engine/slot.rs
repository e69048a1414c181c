//! A slot: one sequence of the KV cache and the request that uses it. Pure.
//!
//! A request is a growing list of tokens. Those that the cache does not have yet are *pending*: the
//! whole prompt at first, one token at a time later, everything again after the slot had to give its
//! cells away. When nothing is pending, the next token is awaited from a step's logits. So prefill,
//! decoding and starting over are one state machine.
//!
//! After the tokens that are certain there may be *guesses*: what a draft expects the model to choose.
//! They are computed like the others, before anyone knows whether they are right, and become certain one
//! by one, or are cut off.

use crate::llama::Token;

/// Number of a slot; also its sequence in the KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotId(pub u32);

/// The tokens of one slot and how far the cache has them.
#[derive(Debug, Clone, Default)]
pub struct Sequence {
    /// Certain tokens, then guesses.
    tokens: Vec<Token>,
    /// How many are certain: prompt and answer.
    certain: usize,
    /// Tokens whose cells are in the cache, or will be once the steps in flight are done.
    submitted: usize,
    prompt_length: usize,
}

/// What the model's choice meant for the guesses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// There was no guess.
    New,
    /// The guess was right.
    Right,
    /// It was not, and all guesses are gone. With `cut` the cache had some of them: it must be cut to
    /// this many tokens.
    Wrong {
        /// Tokens that stay.
        cut: Option<usize>,
    },
}

impl Sequence {
    /// A sequence that only remembers what the cache has. Guesses are not part of it.
    pub fn cached(&self) -> &[Token] {
        &self.tokens[..self.submitted.min(self.certain)]
    }

    /// Begins a request whose first `reused` tokens the cache has.
    pub fn begin(&mut self, prompt: Vec<Token>, reused: usize) {
        debug_assert!(
            reused < prompt.len(),
            "the last token must be computed, for its logits"
        );
        self.prompt_length = prompt.len();
        self.certain = prompt.len();
        self.submitted = reused;
        self.tokens = prompt;
    }

    /// Takes over what the cache has been given from outside.
    pub fn restore(&mut self, tokens: Vec<Token>) {
        self.prompt_length = 0;
        self.certain = tokens.len();
        self.submitted = tokens.len();
        self.tokens = tokens;
    }

    /// Ends the request: tokens that the cache does not have are forgotten, and so are guesses. Where the
    /// cache has some of these, it must be cut to as many tokens as this returns.
    pub fn end(&mut self) -> Option<usize> {
        let cut = (self.submitted > self.certain).then_some(self.certain);
        self.tokens.truncate(self.submitted.min(self.certain));
        self.certain = self.tokens.len();
        self.submitted = self.tokens.len();
        self.prompt_length = 0;
        cut
    }

    /// Forgets what the cache had, and all guesses; an active request computes it again.
    pub fn lose_cache(&mut self) {
        self.tokens.truncate(self.certain);
        self.submitted = 0;
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// The model chose `token` after all that were certain.
    pub fn settle(&mut self, token: Token) -> Settled {
        let guess = self.tokens.get(self.certain).copied();
        if guess == Some(token) {
            self.certain += 1;
            return Settled::Right;
        }
        let cut = (self.submitted > self.certain).then_some(self.certain);
        self.tokens.truncate(self.certain);
        self.tokens.push(token);
        self.submitted = self.submitted.min(self.certain);
        self.certain += 1;
        match guess {
            Some(_) => Settled::Wrong { cut },
            None => Settled::New,
        }
    }

    /// Guesses what comes after everything, earlier guesses included.
    pub fn guess(&mut self, token: Token) {
        self.tokens.push(token);
    }

    /// Keeps so many guesses.
    pub fn drop_guesses_from(&mut self, count: usize) {
        self.tokens.truncate(self.certain + count);
    }

    /// Guesses, submitted or not.
    pub fn guesses(&self) -> usize {
        self.tokens.len() - self.certain
    }

    /// Guesses that were submitted.
    pub fn guesses_sent(&self) -> usize {
        self.submitted.saturating_sub(self.certain)
    }

    /// Everything: what is certain, and guesses.
    pub fn stream(&self) -> &[Token] {
        &self.tokens
    }

    /// Takes up to `most` pending tokens into a step, guesses after certain ones: their positions and
    /// values.
    pub fn submit(&mut self, most: usize) -> impl Iterator<Item = (usize, Token)> {
        let from = self.submitted;
        self.submitted = (from + most).min(self.tokens.len());
        (from..self.submitted).map(|position| (position, self.tokens[position]))
    }

    /// Takes back tokens of a step that found no room.
    pub fn take_back(&mut self, count: usize) {
        self.submitted -= count;
    }

    /// Certain tokens that the cache does not have.
    pub fn pending(&self) -> usize {
        self.certain.saturating_sub(self.submitted)
    }

    /// The first certain token that the cache does not have.
    pub fn next_pending(&self) -> Option<Token> {
        self.tokens[..self.certain].get(self.submitted).copied()
    }

    /// All certain tokens: prompt and answer.
    pub fn len(&self) -> usize {
        self.certain
    }

    /// Tokens of the answer.
    pub fn generated(&self) -> usize {
        self.certain - self.prompt_length
    }

    /// What the slot wants of the next step, guesses aside.
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
        sequence.settle(6);
        assert_eq!(sequence.want(), Want::Decode);
        assert_eq!(sequence.submit(1).collect::<Vec<_>>(), [(5, 6)]);
        assert_eq!(sequence.generated(), 1);
    }

    #[test]
    fn what_was_never_submitted_is_not_taken_for_cached() {
        let mut sequence = Sequence::default();
        sequence.begin(vec![1, 2, 3], 0);
        sequence.submit(3).for_each(drop);
        sequence.settle(4);
        sequence.end();
        assert_eq!(sequence.cached(), [1, 2, 3]);
    }

    #[test]
    fn a_request_that_lost_its_cells_computes_them_again_answer_and_all() {
        let mut sequence = Sequence::default();
        sequence.begin(vec![1, 2], 0);
        sequence.submit(2).for_each(drop);
        sequence.settle(3);
        sequence.submit(1).for_each(drop);
        sequence.settle(4);
        sequence.lose_cache();
        assert_eq!(sequence.want(), Want::Prefill(4));
        assert_eq!(sequence.submit(8).count(), 4);
        assert_eq!(sequence.generated(), 2);
    }

    #[test]
    fn guesses_become_certain_one_by_one_and_the_first_wrong_one_cuts_the_rest_off() {
        let mut sequence = Sequence::default();
        sequence.begin(vec![1, 2], 0);
        sequence.submit(2).for_each(drop);
        assert_eq!(sequence.settle(3), Settled::New);
        [4, 5, 6, 7].into_iter().for_each(|token| sequence.guess(token));
        assert_eq!(sequence.want(), Want::Decode);
        assert_eq!(sequence.submit(3).collect::<Vec<_>>(), [(2, 3), (3, 4), (4, 5)]);
        assert_eq!(sequence.want(), Want::Nothing);
        assert_eq!((sequence.guesses(), sequence.guesses_sent()), (4, 2));
        assert_eq!(sequence.cached(), [1, 2, 3]);
        assert_eq!(sequence.settle(4), Settled::Right);
        assert_eq!(sequence.cached(), [1, 2, 3, 4]);
        assert_eq!(sequence.settle(9), Settled::Wrong { cut: Some(4) });
        assert_eq!(sequence.stream(), [1, 2, 3, 4, 9]);
        assert_eq!((sequence.want(), sequence.generated()), (Want::Decode, 3));
    }

    #[test]
    fn a_wrong_guess_that_was_never_sent_leaves_the_cache_alone() {
        let mut sequence = Sequence::default();
        sequence.begin(vec![1, 2], 0);
        sequence.submit(2).for_each(drop);
        sequence.guess(3);
        assert_eq!(sequence.settle(4), Settled::Wrong { cut: None });
        assert_eq!(sequence.cached(), [1, 2]);
    }

    #[test]
    fn a_request_that_ends_with_guesses_in_flight_keeps_what_is_certain() {
        let mut sequence = Sequence::default();
        sequence.begin(vec![1, 2], 0);
        sequence.submit(2).for_each(drop);
        sequence.settle(3);
        [4, 5].into_iter().for_each(|token| sequence.guess(token));
        sequence.submit(3).for_each(drop);
        assert_eq!(sequence.end(), Some(3));
        assert_eq!(sequence.cached(), [1, 2, 3]);
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
