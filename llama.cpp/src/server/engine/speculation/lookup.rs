//! Guesses copied from text that was there before: the prompt, the answer so far, and what the user
//! predicted (OpenAI's `prediction`). Edits and quotes repeat a lot. Pure.
//!
//! Every run of [`LEAST`] tokens is found by its hash, and its earlier places through a chain, as in LZ77.
//! Where the end of the stream was seen before, what followed there is the guess; it is followed on until it
//! is wrong.

use std::collections::HashMap;

use crate::llama::Token;

/// Tokens that must agree before something is copied.
const LEAST: usize = 3;
/// Earlier places that are compared.
const MOST_PLACES: usize = 16;
/// How far back two places are compared.
const MOST_COMPARED: usize = 32;

/// A place in the text: the prediction comes first, then the tokens of the slot.
type Place = usize;

/// A copied token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copied {
    /// The token.
    pub token: Token,
    /// How many tokens before it agree with the place that it is copied from.
    pub matched: usize,
    /// Whether that place is in the prediction.
    pub predicted: bool,
}

/// Where the next token is copied from.
#[derive(Debug, Clone, Copy)]
struct Following {
    next: Place,
    matched: usize,
    /// How long the stream is that it continues.
    length: usize,
}

/// How far one reader has come with following a place.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cursor(Option<Following>);

/// See the module.
#[derive(Debug, Default)]
pub struct Lookup {
    prediction: Vec<Token>,
    /// Where the answer begins.
    prompt: usize,
    /// Where each run of tokens ended last.
    last: HashMap<[Token; LEAST], Place>,
    /// Where the run that ends at a place ended before, by place.
    before: Vec<Option<Place>>,
}

impl Lookup {
    /// For a request whose answer, which begins after `prompt` tokens, may be `prediction`.
    pub fn new(prediction: Vec<Token>, prompt: usize) -> Self {
        let mut lookup = Self {
            prediction,
            prompt,
            ..Self::default()
        };
        lookup.learn(&[]);
        lookup
    }

    /// Notes the first `certain` tokens of the stream as text to copy from.
    pub fn learn(&mut self, certain: &[Token]) {
        let end = self.prediction.len() + certain.len();
        for place in self.before.len()..end {
            let run = self.run(certain, place);
            let before = run.and_then(|run| self.last.insert(run, place));
            self.before.push(before);
        }
    }

    /// The token at a place.
    fn token(&self, stream: &[Token], place: Place) -> Option<Token> {
        match self.prediction.get(place) {
            Some(token) => Some(*token),
            None => stream.get(place - self.prediction.len()).copied(),
        }
    }

    /// The run that ends at a place. It does not reach from the stream into the prediction.
    fn run(&self, stream: &[Token], place: Place) -> Option<[Token; LEAST]> {
        let start = (place + 1).checked_sub(LEAST)?;
        if start < self.prediction.len() && place >= self.prediction.len() {
            return None;
        }
        let mut run = [0; LEAST];
        for (offset, token) in run.iter_mut().enumerate() {
            *token = self.token(stream, start + offset)?;
        }
        Some(run)
    }

    /// What may follow `stream`: certain tokens, which were learnt, and guesses.
    pub fn next(&self, cursor: &mut Cursor, stream: &[Token]) -> Option<Copied> {
        let held = cursor.0.filter(|following| self.holds(*following, stream));
        let following = held.or_else(|| self.begin(stream)).or_else(|| self.find(stream));
        *cursor = Cursor(None);
        let following = following?;
        let token = self.token(stream, following.next)?;
        *cursor = Cursor(Some(Following {
            next: following.next + 1,
            matched: following.matched + 1,
            length: stream.len() + 1,
        }));
        Some(Copied {
            token,
            matched: following.matched,
            predicted: following.next < self.prediction.len(),
        })
    }

    /// As long as the answer is the beginning of the prediction, it goes on like it.
    fn begin(&self, stream: &[Token]) -> Option<Following> {
        let said = stream.get(self.prompt..)?;
        let begins = said.len() < self.prediction.len() && self.prediction.starts_with(said);
        begins.then_some(Following {
            next: said.len(),
            matched: said.len(),
            length: stream.len(),
        })
    }

    /// Whether the stream is what was followed. Others may have guessed the same in between.
    fn holds(&self, following: Following, stream: &[Token]) -> bool {
        let copied = following
            .next
            .checked_sub(1)
            .and_then(|place| self.token(stream, place));
        following.length == stream.len() && copied == stream.last().copied()
    }

    /// The earlier place that agrees longest with the stream's end; of equals the last.
    fn find(&self, stream: &[Token]) -> Option<Following> {
        let end = self.prediction.len() + stream.len().checked_sub(1)?;
        let run = self.run(stream, end)?;
        let mut place = self.last.get(&run).copied();
        let mut best: Option<Following> = None;
        for _ in 0..MOST_PLACES {
            let Some(here) = place else { break };
            place = self.before.get(here).copied().flatten();
            // The end itself was learnt, too; and what follows the prediction's end is no text of it.
            if here == end || here + 1 == self.prediction.len() {
                continue;
            }
            let matched = self.agreement(stream, here, end);
            if best.is_none_or(|best| matched > best.matched) {
                best = Some(Following {
                    next: here + 1,
                    matched,
                    length: stream.len(),
                });
            }
        }
        best
    }

    /// How many tokens before and at two places are the same. Neither the prediction nor the stream goes on in
    /// the other.
    fn agreement(&self, stream: &[Token], a: Place, b: Place) -> usize {
        let begins = |place: Place| {
            if place < self.prediction.len() {
                0
            } else {
                self.prediction.len()
            }
        };
        let most = (a - begins(a)).min(b - begins(b)) + 1;
        let agree = |back: &usize| self.token(stream, a - back) == self.token(stream, b - back);
        (0..most.min(MOST_COMPARED)).take_while(agree).count()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is copied after a stream, `most` tokens of it.
    fn copied(lookup: &Lookup, stream: &[Token], most: usize) -> Vec<Token> {
        let mut stream = stream.to_vec();
        let mut guesses = Vec::new();
        let mut cursor = Cursor::default();
        while guesses.len() < most
            && let Some(copied) = lookup.next(&mut cursor, &stream)
        {
            stream.push(copied.token);
            guesses.push(copied.token);
        }
        guesses
    }

    fn next(lookup: &Lookup, stream: &[Token]) -> Option<Copied> {
        lookup.next(&mut Cursor::default(), stream)
    }

    fn learnt(stream: &[Token]) -> Lookup {
        let mut lookup = Lookup::new(Vec::new(), stream.len());
        lookup.learn(stream);
        lookup
    }

    #[test]
    fn what_followed_before_is_copied() {
        let stream = [1, 2, 3, 4, 5, 6, 9, 1, 2, 3];
        assert_eq!(copied(&learnt(&stream), &stream, 4), [4, 5, 6, 9]);
    }

    #[test]
    fn novel_text_gives_nothing() {
        let stream: Vec<Token> = (0..100).collect();
        assert_eq!(next(&learnt(&stream), &stream), None);
    }

    #[test]
    fn of_several_places_the_one_that_agrees_longest_is_followed() {
        let stream = [7, 1, 2, 3, 50, 8, 1, 2, 3, 60, 7, 1, 2, 3];
        let copied = next(&learnt(&stream), &stream);
        assert_eq!(copied.map(|copied| (copied.token, copied.matched)), Some((50, 4)));
    }

    #[test]
    fn a_period_goes_on_for_ever() {
        let stream = [1, 2, 1, 2, 1, 2];
        assert_eq!(copied(&learnt(&stream), &stream, 7), [1, 2, 1, 2, 1, 2, 1]);
    }

    #[test]
    fn a_prediction_is_followed_from_its_start_and_found_again_after_an_edit() {
        let prediction: Vec<Token> = (100..130).collect();
        let mut stream = vec![1, 2];
        let mut lookup = Lookup::new(prediction, stream.len());
        lookup.learn(&stream);
        assert_eq!(copied(&lookup, &stream, 3), [100, 101, 102]);
        stream.extend([100, 101, 77]);
        lookup.learn(&stream);
        assert_eq!(next(&lookup, &stream), None);
        stream.extend([110, 111, 112]);
        lookup.learn(&stream);
        let next = next(&lookup, &stream);
        assert_eq!(next.map(|next| (next.token, next.predicted)), Some((113, true)));
    }

    #[test]
    fn the_prediction_does_not_run_into_the_prompt() {
        let stream = [1, 2, 3, 5, 6, 7];
        let mut lookup = Lookup::new(vec![5, 6, 7], 3);
        lookup.learn(&stream);
        assert_eq!(next(&lookup, &stream), None);
    }

    proptest! {
        #[test]
        fn a_copied_token_follows_an_earlier_place_that_agrees(
            stream in prop::collection::vec(0..4, 0..60),
            prediction in prop::collection::vec(0..4, 0..20),
        ) {
            // The answer is not where the prediction would begin.
            let mut lookup = Lookup::new(prediction.clone(), stream.len() + 1);
            lookup.learn(&stream);
            if let Some(copied) = next(&lookup, &stream) {
                prop_assert!(copied.matched >= LEAST);
                let end = &stream[stream.len() - copied.matched..];
                let mut pattern = end.to_vec();
                pattern.push(copied.token);
                let found = |text: &[Token]| text.windows(pattern.len()).any(|window| window == pattern);
                prop_assert!(found(&stream) || found(&prediction));
            } else if stream.len() > LEAST {
                let end = &stream[stream.len() - LEAST..];
                prop_assert!(!stream[..stream.len() - 1].windows(LEAST).any(|window| window == end));
            }
        }
    }
}
