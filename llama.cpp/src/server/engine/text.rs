//! From tokens to text: whole characters only, and nothing of a stop text. Pure.

use std::collections::VecDeque;

use super::task::{Piece, TokenLogprob};

/// Puts an answer's tokens together. Bytes are held back while they may be part of a character or
/// of a stop text.
#[derive(Debug, Default)]
pub struct Assembler {
    stops: Vec<String>,
    /// Bytes not given out yet.
    held: Vec<u8>,
    /// Bytes given out so far.
    released: usize,
    /// Tokens not given out yet, with the position of their first byte in the answer.
    tokens: VecDeque<(usize, TokenLogprob)>,
}

/// What a token brought.
#[derive(Debug, Clone, PartialEq)]
pub enum Assembled {
    /// More text, or none yet.
    More(Piece),
    /// The last text: the stop text came up.
    Stopped(Piece, String),
}

impl Assembler {
    /// An assembler for an answer that ends before any of `stops`. Empty ones are ignored.
    pub fn new(mut stops: Vec<String>) -> Self {
        stops.retain(|stop| !stop.is_empty());
        Self {
            stops,
            ..Self::default()
        }
    }

    /// Adds a token's bytes, with its log probabilities if they are wanted.
    pub fn push(&mut self, bytes: &[u8], logprob: Option<TokenLogprob>) -> Assembled {
        let position = self.released + self.held.len();
        self.tokens.extend(logprob.map(|logprob| (position, logprob)));
        let searched = self.held.len();
        self.held.extend_from_slice(bytes);
        if let Some((at, stop)) = self.find_stop(searched) {
            self.held.truncate(at);
            let end = self.released + at;
            self.tokens.retain(|(position, _)| *position < end);
            return Assembled::Stopped(self.finish(), stop);
        }
        Assembled::More(self.release(self.held.len() - self.withheld()))
    }

    /// The rest; an incomplete character becomes U+FFFD.
    pub fn finish(&mut self) -> Piece {
        let mut piece = self.release(self.held.len());
        piece.tokens.extend(self.tokens.drain(..).map(|(_, token)| token));
        piece
    }

    /// The first stop text in the held bytes, which until `searched` had none.
    fn find_stop(&self, searched: usize) -> Option<(usize, String)> {
        let found = |stop: &String| {
            let from = (searched + 1).saturating_sub(stop.len());
            let at = self.held[from..]
                .windows(stop.len())
                .position(|window| window == stop.as_bytes())?;
            Some((from + at, stop.clone()))
        };
        self.stops
            .iter()
            .filter_map(found)
            .min_by_key(|(at, stop)| (*at, std::cmp::Reverse(stop.len())))
    }

    /// Bytes at the end that may be the beginning of a character or a stop text.
    fn withheld(&self) -> usize {
        let stop = self
            .stops
            .iter()
            .map(|stop| overlap(&self.held, stop.as_bytes()))
            .max()
            .unwrap_or(0);
        stop.max(incomplete_character(&self.held))
    }

    fn release(&mut self, count: usize) -> Piece {
        // A cut inside a character can only come from a stop text that begins inside one.
        let count = count
            - incomplete_character(&self.held[..count]).min(if count < self.held.len() { 3 } else { 0 });
        let bytes: Vec<u8> = self.held.drain(..count).collect();
        self.released += count;
        let text = String::from_utf8(bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
        let mut tokens = Vec::new();
        while let Some((_, token)) = self
            .tokens
            .pop_front_if(|(position, _)| *position < self.released)
        {
            tokens.push(token);
        }
        Piece {
            text,
            tokens,
            chosen_at_ns: 0,
        }
    }
}

/// Length of the longest end of `text` that is a beginning, but not all, of `stop`.
fn overlap(text: &[u8], stop: &[u8]) -> usize {
    (1..stop.len().min(text.len() + 1))
        .rev()
        .find(|length| text.ends_with(&stop[..*length]))
        .unwrap_or(0)
}

/// Bytes at the end of `text` that begin a character and do not complete it.
fn incomplete_character(text: &[u8]) -> usize {
    for back in 1..=text.len().min(3) {
        let byte = text[text.len() - back];
        let length = match byte {
            0x80..=0xBF => continue,
            0xC2..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF4 => 4,
            _ => return 0,
        };
        return if back < length { back } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text_of(assembled: Assembled) -> String {
        match assembled {
            Assembled::More(piece) | Assembled::Stopped(piece, _) => piece.text,
        }
    }

    #[test]
    fn a_character_comes_whole() {
        let mut assembler = Assembler::new(vec![]);
        assert_eq!(text_of(assembler.push(&[b'a', 0xE2, 0x82], None)), "a");
        assert_eq!(text_of(assembler.push(&[0xAC], None)), "€");
        assert_eq!(text_of(assembler.push(&[0xF0, 0x9F], None)), "");
        assert_eq!(assembler.finish().text, "\u{FFFD}");
    }

    #[test]
    fn nothing_of_a_stop_text_is_given_out() {
        let mut assembler = Assembler::new(vec!["\n\nEND".into(), "##".into()]);
        assert_eq!(text_of(assembler.push(b"one\n", None)), "one");
        assert_eq!(text_of(assembler.push(b"\nE", None)), "");
        assert_eq!(text_of(assembler.push(b"x", None)), "\n\nEx");
        assert_eq!(text_of(assembler.push(b"a#", None)), "a");
        let Assembled::Stopped(piece, stop) = assembler.push(b"#b", None) else {
            panic!("not stopped")
        };
        assert_eq!((piece.text.as_str(), stop.as_str()), ("", "##"));
    }

    #[test]
    fn the_tokens_of_a_stop_text_are_not_reported() {
        let logprob = |token| {
            Some(TokenLogprob {
                token,
                bytes: vec![],
                logprob: 0.0,
                top: vec![],
            })
        };
        let mut assembler = Assembler::new(vec!["##".into()]);
        assembler.push(b"a", logprob(1));
        assert_eq!(
            assembler.push(b"#", logprob(2)),
            Assembled::More(Piece::default())
        );
        let Assembled::Stopped(piece, _) = assembler.push(b"#", logprob(3)) else {
            panic!("not stopped")
        };
        assert!(piece.tokens.is_empty());
    }

    proptest! {
        #[test]
        fn pieces_add_up_to_the_text_before_the_first_stop(
            text in "[ab€é#x]{0,40}",
            cuts in prop::collection::vec(1_usize..5, 0..60),
            stops in prop::collection::vec("[ab#x]{1,3}", 0..3),
        ) {
            let mut assembler = Assembler::new(stops.clone());
            let mut given = String::new();
            let mut rest = text.as_bytes();
            let mut stopped = false;
            for cut in cuts.into_iter().chain(std::iter::repeat(3)) {
                if rest.is_empty() || stopped {
                    break;
                }
                let (now, later) = rest.split_at(cut.min(rest.len()));
                rest = later;
                let assembled = assembler.push(now, None);
                stopped = matches!(assembled, Assembled::Stopped(..));
                given.push_str(&text_of(assembled));
            }
            given.push_str(&assembler.finish().text);
            let ends: Vec<usize> = stops.iter().filter_map(|stop| text.find(stop.as_str())).collect();
            if stopped {
                prop_assert!(text.starts_with(&given));
                prop_assert!(!stops.iter().any(|stop| given.contains(stop.as_str())));
                prop_assert!(ends.contains(&given.len()));
            } else {
                prop_assert!(ends.is_empty());
                prop_assert_eq!(given, text);
            }
        }

        #[test]
        fn any_bytes_make_text(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let mut assembler = Assembler::new(vec!["a".into()]);
            for byte in &bytes {
                if matches!(assembler.push(&[*byte], None), Assembled::Stopped(..)) {
                    break;
                }
            }
            assembler.finish();
        }
    }
}
